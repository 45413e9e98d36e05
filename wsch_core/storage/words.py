"""Values, reasons and names as one sentence can bear them: what errors are made of."""

from __future__ import annotations

import reprlib
from difflib import get_close_matches
from typing import Any

LONGEST_REASON = 300  # letters
MOST_SHOWN = 120  # characters of a value in an error
COMPUTED = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "＝",
    "＋",
    "－",
    "＠",
)  # what a spreadsheet takes for a formula's beginning
MOST_NAMED, MOST_COMPARED = 60, 200  # names in a complaint, and letters of one that is looked for among them


def shortened(value: Any) -> str:
    """A value as Python writes it, but no longer than a sentence can bear."""
    try:
        text = repr(value) if isinstance(value, str | int | float | bool | None) else reprlib.repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes; lists in lists without end
        text = f"a value of the type {type(value).__name__}"
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def one_line(error: object) -> str:
    """Why a library could not read a file, in one line of bearable length."""
    text = " ".join(str(error).split())
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 3]}..."


def as_cell(value: Any) -> Any:
    """A value for a CSV file: a text that a spreadsheet would compute, as "=1+1", gets a "'" before it and stays text."""
    return f"'{value}" if isinstance(value, str) and value.lstrip(" ").startswith(COMPUTED) else value


def unknown_name(kind: str, name: Any, known: list[str]) -> str:
    """One sentence that refuses a name and points to the closest known one."""
    by_letters = {one.casefold(): one for one in reversed(known)}
    close = get_close_matches(str(name)[:MOST_COMPARED].casefold(), by_letters, n=1, cutoff=0.5)
    hint = f"did you mean {by_letters[close[0]]!r}? " if close else ""
    listed = ", ".join(map(str, known[:MOST_NAMED])) + (", ..." if len(known) > MOST_NAMED else "")
    return f"{shortened(name)} is not a known {kind}: {hint}Known are {listed}."
