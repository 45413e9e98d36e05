"""From a notebook's parameters to settings and values; a misspelt one fails at once."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from types import UnionType
from typing import Any

from ..methods import method_named
from ..storage.words import unknown_name

WORDS = {str: "text", bool: "True or False", int: "a whole number", float: "a number", dict: "a dictionary"}
INJECTED = "# Parameters"  # how papermill begins the cell that carries `-p name value`
Kinds = Mapping[
    str, "type | UnionType | Sequence"
]  # by name: a type, or one `| None`; allowed values; [int] or [str], a list of these


def chosen_settings(
    namespace: Mapping[str, Any], also: Kinds | None = None, method: str | None = None
) -> dict[str, Any]:
    """The settings of a method that a notebook's variables hold, by name; call it with globals().

    also: the notebook's parameters that are not settings, as for `chosen_values`
    Raises ValueError for a parameter handed over by papermill that is neither, naming the closest (papermill itself only
    warns of it), and for a value that is not allowed.
    """
    settings = [field.name for field in fields(method_named(method).Settings)]
    _check_names(namespace, [*settings, *(also or {})])
    _values(namespace, also or {})
    return {name: namespace[name] for name in settings if name in namespace}


def chosen_values(namespace: Mapping[str, Any], kinds: Kinds) -> dict[str, Any]:
    """The values of a notebook's parameters that are no settings of a run, by name, checked; call it with globals().

    kinds: by name a type, `int | None`, the allowed values, or [int] or [str]: a list, also given as one value or as
    "16, 32, 64", because `papermill -p` hands over single values only
    Raises ValueError as `chosen_settings` does.
    """
    _check_names(namespace, list(kinds))
    return _values(namespace, kinds)


def _values(namespace: Mapping[str, Any], kinds: Kinds) -> dict[str, Any]:
    return {name: _value(name, namespace[name], kind) for name, kind in kinds.items()}


def _value(name: str, value: Any, kind: type | Sequence) -> Any:
    if isinstance(kind, UnionType):
        return None if value is None else _value(name, value, kind.__args__[0])
    if kind in ([int], [str]):
        return _list(name, value, kind[0])
    if not isinstance(kind, type):
        if value not in kind:
            raise ValueError(f"{name} is {value!r}: it must be one of {', '.join(map(str, kind))}.")
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        hint = f" (papermill reads -p {name} {value} as a number; -r keeps it text)" if kind is str else ""
        hint = f' (papermill takes one as -y "{name}: {{...}}")' if kind is dict else hint
        raise ValueError(f"{name} is {value!r}: it must be {WORDS[kind]}{hint}.")
    return value


def _list(name: str, value: Any, kind: type) -> list:
    values = list(value) if isinstance(value, list | tuple) else [value]
    if isinstance(value, str):
        values = [part.strip() for part in value.split(",") if part.strip()]
    if kind is int:
        values = [int(v) if isinstance(v, str) and v.lstrip("-").isdecimal() else v for v in values]
    if any(type(v) is not kind for v in values):
        raise ValueError(f'{name} is {value!r}: it must be {WORDS[kind]}, or several: [a, b], or "a, b".')
    return values


def _check_names(namespace: Mapping[str, Any], known: list[str]) -> None:
    for name in _injected_names(namespace.get("In", [])):
        if name not in known:
            raise ValueError(unknown_name("parameter", name, known))


def _injected_names(cells: Iterable[str]) -> list[str]:
    """The names assigned in the cells that papermill has added, from all cells run so far."""
    names = []
    for source in cells:
        if source.startswith(INJECTED):
            assigned = [node.targets for node in ast.parse(source).body if isinstance(node, ast.Assign)]
            names += [target.id for targets in assigned for target in targets if isinstance(target, ast.Name)]
    return names
