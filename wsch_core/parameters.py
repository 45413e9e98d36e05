"""From a notebook's parameters to settings; a misspelt one fails at once."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from .settings import Settings, unknown_name

WORDS = {str: "text", bool: "True or False"}
INJECTED = "# Parameters"  # how papermill begins the cell that carries `-p name value`


def chosen_settings(
    namespace: Mapping[str, Any], also: Mapping[str, type | Sequence[str]] | None = None
) -> dict[str, Any]:
    """The settings that a notebook's variables hold, by name; call it with globals().

    also: the notebook's parameters that are not settings, with their type or their allowed values
    Raises ValueError for a parameter handed over by papermill that is neither, naming the closest (papermill itself only
    warns of it), and for a value that is not allowed.
    """
    also = also or {}
    settings = [field.name for field in fields(Settings)]
    known = [*settings, *also]
    for name in _injected_names(namespace.get("In", [])):
        if name not in known:
            raise ValueError(unknown_name("parameter", name, known))
    for name, allowed in also.items():
        value = namespace[name]
        if isinstance(allowed, type):
            if not isinstance(value, allowed):
                hint = f" (papermill reads -p {name} {value} as a number; -r keeps it text)" if allowed is str else ""
                raise ValueError(f"{name} is {value!r}: it must be {WORDS[allowed]}{hint}.")
        elif value not in allowed:
            raise ValueError(f"{name} is {value!r}: it must be one of {', '.join(allowed)}.")
    return {name: namespace[name] for name in settings if name in namespace}


def _injected_names(cells: Iterable[str]) -> list[str]:
    """The names assigned in the cells that papermill has added, from all cells run so far."""
    names = []
    for source in cells:
        if source.startswith(INJECTED):
            assigned = [node.targets for node in ast.parse(source).body if isinstance(node, ast.Assign)]
            names += [target.id for targets in assigned for target in targets if isinstance(target, ast.Name)]
    return names
