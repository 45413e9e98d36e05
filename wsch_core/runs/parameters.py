"""From a notebook's parameters to settings and values; a misspelt one fails at once."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from types import UnionType
from typing import Any

from ..methods import METHODS, method_named
from ..storage.words import shortened, unknown_name

WORDS = {str: "text", bool: "True or False", int: "a whole number", float: "a number", dict: "a dictionary"}
CLOSE = 0.8  # from which likeness a name is one with a slip
INJECTED = "# Parameters"  # how papermill begins the cell that carries `-p name value`
Kinds = Mapping[
    str, "type | UnionType | Sequence"
]  # by name: a type, or one `| None`; allowed values, also a range; [int] or [str], a list of these


def chosen_settings(
    namespace: Mapping[str, Any], also: Kinds | None = None, method: str | None = None
) -> dict[str, Any]:
    """The settings of a method that a notebook's variables hold, by name; call it with globals().

    also: the notebook's parameters that are not settings, as for `chosen_values`
    Raises ValueError for a parameter that is neither, naming the closest, whether it was typed in the parameters cell or
    handed over by papermill (which itself only warns of it); for a value that an earlier cell has left; and for one that is
    not allowed.
    """
    settings = [field.name for field in fields(method_named(method).Settings)]
    others = {field.name for other in METHODS.values() for field in fields(other.Settings)}.difference(settings)
    left_open = [name for name in others if namespace.get(name, "") is None]  # what one method alone has may be listed
    _check_names(namespace, [*settings, *(also or {}), *left_open], list(also or {}))
    _values(namespace, also or {})
    return {name: namespace[name] for name in settings if name in namespace}


def chosen_values(namespace: Mapping[str, Any], kinds: Kinds) -> dict[str, Any]:
    """The values of a notebook's parameters that are no settings of a run, by name, checked; call it with globals().

    kinds: by name a type, `int | None`, the allowed values (of whole numbers also a range), or [int] or [str]: a list,
    also given as one value or as "16, 32, 64", because `papermill -p` hands over single values only
    Raises ValueError as `chosen_settings` does.
    """
    _check_names(namespace, list(kinds), list(kinds))
    return _values(namespace, kinds)


def _values(namespace: Mapping[str, Any], kinds: Kinds) -> dict[str, Any]:
    missing = [name for name in kinds if name not in namespace]
    if missing:
        raise ValueError(f"{missing[0]} has no value: assign it in the parameters cell, and run that cell.")
    return {name: _value(name, namespace[name], kind) for name, kind in kinds.items()}


def _value(name: str, value: Any, kind: type | Sequence) -> Any:
    if isinstance(kind, UnionType):
        return None if value is None else _value(name, value, kind.__args__[0])
    if kind in ([int], [str]):
        return _list(name, value, kind[0])
    if isinstance(kind, range):
        if type(value) is not int or value not in kind:
            raise ValueError(f"{name} is {value!r}: it must be a whole number from {kind[0]:,} to {kind[-1]:,}.")
        return value
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


def _check_names(namespace: Mapping[str, Any], known: Sequence[str], others: Sequence[str]) -> None:
    """Refuse a parameter that is not known, and a known one whose value is left over from before (ValueError).

    Looked at are the parameters cell, wherever it stands and however it was typed, and all cells run since; others: the
    parameters that are no settings, which a parameters cell assigns.
    """
    cells = [(source, _tree(source)) for source in _run_cells(namespace)]
    places = [
        place
        for place, (source, tree) in enumerate(cells)
        if not source.startswith(INJECTED) and _is_parameters(tree, known, others)
    ]
    since = cells[places[-1] :] if places else cells
    for place, (source, tree) in enumerate(since):
        names = [name for name in _assigned(tree) if name not in known]
        if (places and place == 0) or source.startswith(INJECTED):
            wrong = [name for name in names if not name.startswith("_")]
        else:  # a cell of one's own may hold anything; but not a parameter with a slip in its name
            wrong = [name for name in names if places and _is_plain(tree) and get_close_matches(name, known, 1, CLOSE)]
        if wrong:
            raise ValueError(unknown_name("parameter", wrong[0], list(known)))
    now = {name for _, tree in since for name in _assigned(tree)}
    for name in (name for name in known if places and name in namespace and name not in now):
        raise ValueError(
            f"{name} is {shortened(namespace[name])}, left over from a cell that was run before the parameters: assign it "
            "in the parameters cell, or restart the kernel."
        )


def _run_cells(namespace: Mapping[str, Any]) -> list[str]:
    """The sources of all cells that were run, the present one last; IPython's own record, which no cell can replace."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    own = shell is not None and shell.user_ns is namespace
    cells = shell.history_manager.input_hist_parsed if own else namespace.get("In", [])
    return [source for source in cells if isinstance(source, str)]


def _tree(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):  # a cell that could not be run either
        return ast.Module([], [])


def _assigned(tree: ast.Module) -> list[str]:
    """The names that a cell assigns, in order."""
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def _is_plain(tree: ast.Module) -> bool:
    """Whether a cell does nothing but give names to values that stand in it."""
    given = [node for node in tree.body if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant)]
    computed = (ast.Call, ast.Attribute, ast.Lambda, ast.Await)
    return all(isinstance(node, ast.Assign | ast.AnnAssign) for node in given) and not any(
        isinstance(part, computed) for part in ast.walk(tree)
    )


def _is_parameters(tree: ast.Module, known: Sequence[str], others: Sequence[str]) -> bool:
    """Whether a cell is the one with the parameters: plain, most of its names known, and half of the others among them."""
    names = set(_assigned(tree))
    found = names.intersection(known)
    return _is_plain(tree) and 2 * len(found) > len(names) and 2 * len(names.intersection(others)) >= len(others)
