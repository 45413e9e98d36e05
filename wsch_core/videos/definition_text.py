"""The text of an imported set's definition: written anew, or brought up to date with what its owner has added.

An import owns the files of the splits, the classes, the settings it has chosen and its own words about the set. Everything
else (title, other words, published rows, comments) is left as it stands.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..data.definition import SPLITS, mask_texts

OWN_WORDS = re.compile(r"[\d,]+ videos? of the folder .*; features: .*\.", re.DOTALL)
FILES = ("features", "labels", "same_as")


@dataclass(frozen=True)
class Statement:
    """A table's head, a key with its value, or what stands between them, with its end of line."""

    text: str
    table: str
    key: str = ""  # empty for a head and for what stands between
    is_head: bool = False

    @property
    def comment(self) -> str:
        """What stands behind the value."""
        plain = self.text.rstrip()
        return "  " + plain[len(mask_texts(plain).rstrip()) :].strip()


def write_definition(head: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> str:
    """TOML, a line for each key."""
    lines = [_line(*pair) for pair in head.items()]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(_line(*pair) for pair in table.items())]
    return "\n".join(lines) + "\n"


def update_definition(former: str, head: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> str:
    """The former text with the values of `head` and `tables`; keys of the splits that are not among them are taken out.

    Where the former text is written in a way that cannot be followed line by line, it is written anew, and the published
    rows are kept.
    """
    table = tomllib.loads(former)
    if "about" in table and not OWN_WORDS.fullmatch(table["about"]):
        head = head | {"about": table["about"]}
    wanted = {"": dict(head)} | {name: dict(values) for name, values in tables.items()}
    text = "".join(_updated(list(_statements(former)), wanted))
    expected = table | dict(head) | {name: table.get(name, {}) | dict(values) for name, values in tables.items()}
    expected["settings"] = dict(tables.get("settings", {}))
    for name in SPLITS:
        expected[name] = {key: v for key, v in expected[name].items() if key not in FILES or key in tables[name]}
    try:
        if {"settings": {}} | tomllib.loads(text) == expected:
            return text
    except tomllib.TOMLDecodeError:
        pass  # a table or a key is written in a way of its own, and was written a second time
    rows = "".join(f"\n[[published]]\n{_lines(row)}" for row in table.get("published", []))
    title = {"title": table["title"]} if "title" in table else {}
    return write_definition(title | dict(head), tables) + rows


def _updated(statements: list[Statement], wanted: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    there = {(one.table, one.key) for one in statements}
    for place, one in enumerate(statements):
        if one.key and one.key in wanted.get(one.table, {}):
            yield f"{_line(one.key, wanted[one.table][one.key])}{one.comment}".rstrip() + "\n"
        elif not (one.key and (one.table == "settings" or (one.table in SPLITS and one.key in FILES))):
            yield one.text if one.text.endswith("\n") else f"{one.text}\n"
        if one.is_head or place == 0:
            yield from _missing(one.table, wanted, there)
    heads = {"", *(one.table for one in statements if one.is_head)}
    yield from (f"\n[{name}]\n{_lines(table)}" for name, table in wanted.items() if name not in heads)


def _missing(table: str, wanted: Mapping[str, Mapping[str, Any]], there: set[tuple[str, str]]) -> Iterator[str]:
    yield from (f"{_line(*pair)}\n" for pair in wanted.get(table, {}).items() if (table, pair[0]) not in there)


def _statements(text: str) -> Iterator[Statement]:
    masked, table, start, depth = mask_texts(text), "", 0, 0
    for place, letter in enumerate(masked):
        depth += (letter in "[{") - (letter in "]}")
        if (letter == "\n" and depth <= 0) or place == len(masked) - 1:
            part, plain = text[start : place + 1], masked[start : place + 1].strip()
            start, depth = place + 1, 0
            if plain.startswith("["):
                table = part[: len(masked[start - len(part) : start].rstrip())].strip().strip("[]").strip()
                yield Statement(part, table, is_head=True)
            elif "=" in plain:
                yield Statement(part, table, part.split("=", 1)[0].strip())
            else:
                yield Statement(part, table)


def _lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{_line(*pair)}\n" for pair in table.items())


def _line(name: str, value: Any) -> str:
    return f"{name} = {_toml(value)}"


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON's texts, numbers and words are TOML's, but for one control character that JSON leaves as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
