"""From a notebook's parameters to settings; a misspelt one fails at once."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from .settings import Settings, unknown_name

INJECTED = "# Parameters"  # how papermill begins the cell that carries `-p name value`


def chosen_settings(namespace: Mapping[str, Any], also: Sequence[str] = ()) -> dict[str, Any]:
    """The settings that a notebook's variables hold, by name; call it with globals().

    also: the notebook's parameters that are not settings
    Raises ValueError for a parameter handed over by papermill that is neither, naming the closest: papermill itself
    only warns of it.
    """
    settings = [field.name for field in fields(Settings)]
    known = [*settings, *also]
    for name in _injected_names(namespace.get("In", [])):
        if name not in known:
            raise ValueError(unknown_name("parameter", name, known))
    return {name: namespace[name] for name in settings if name in namespace}


def _injected_names(cells: Iterable[str]) -> list[str]:
    """The names assigned in the cells that papermill has added, from all cells run so far."""
    names = []
    for source in cells:
        if source.startswith(INJECTED):
            assigned = [node.targets for node in ast.parse(source).body if isinstance(node, ast.Assign)]
            names += [target.id for targets in assigned for target in targets if isinstance(target, ast.Name)]
    return names
