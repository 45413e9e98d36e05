"""A form below a notebook's parameters: the same values, chosen by clicking."""

from __future__ import annotations

import ast
from collections.abc import Callable, MutableMapping, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
import traitlets

from ..data.definition import list_definitions
from ..data.holding import HOLDS
from ..experiments.variants import PUBLISHED, VARIANTS
from ..methods import METHODS
from ..methods.baselines import BASELINES
from ..retrieval.metrics import KS, SELF_MATCHES
from ..runs.outputs import list_runs
from .maps.groups import COLOUR_BY
from .notebook import looked_at

OPEN = "the data set's own, else the published value"
RECIPES = tuple(dict.fromkeys(name for method in METHODS.values() for name in method.recipes))
# What a parameter may be; the present value is added where it is missing.
CHOICES: dict[str, Callable[[], Sequence]] = {
    "dataset": lambda: [*list_definitions()],
    "method": lambda: [(METHODS[name].name, name) for name in METHODS],
    "recipe": lambda: RECIPES,
    "bits": lambda: (16, 32, 64, 128),
    "variants": lambda: [name for name in VARIANTS if name != PUBLISHED],
    "self_match": lambda: SELF_MATCHES,
    "hold": lambda: HOLDS,
    "split": lambda: ("database", "query", "train"),
    "colour_by": lambda: COLOUR_BY,
    "k": lambda: KS,
    "extractor": lambda: ("demo", "efficientnet-lite0"),
}
# What may be typed as well.
SUGGESTED: dict[str, Callable[[], Sequence[str]]] = {
    "run": lambda: _runs(),
    "runs": lambda: _runs(),
    "compare_run": lambda: [*BASELINES, *_runs()],
    "compare": lambda: [*BASELINES, *_runs()],
    "labels": lambda: ("folders", "none"),
}
HINT = "What is chosen here holds for the cells below: run them from here. Run All begins with the parameters above."


def form(namespace: MutableMapping[str, Any], names: str) -> widgets.Widget | None:
    """A field for each of some parameters; what is chosen in it becomes the notebook's variable of that name.

    namespace: the notebook's globals(); names: of parameters, "dataset bits run"
    None where nobody looks on: there, and until something is chosen, the parameters are what their cell says.
    """
    return Form(namespace, names.split()).widget if looked_at() else None


class Form:
    """`fields` by name, `widget` what a notebook shows."""

    def __init__(self, namespace: MutableMapping[str, Any], names: Sequence[str]):
        self.namespace, self.changed = namespace, {}
        self.first = {name: namespace[name] for name in names if name in namespace}
        self.fields = {name: _field(name, value) for name, value in self.first.items()}
        self.said = widgets.HTML(_words(HINT)).add_class("form-said")
        rows = []
        for name, field in self.fields.items():
            field.add_class(f"form-{name}").observe(lambda _, name=name: self._take(name), "value")
            title = widgets.Label(name, layout={"width": "110px"})
            rows.append(widgets.HBox([title, field], layout={"align_items": "flex-start"}))
        self.widget = widgets.VBox([*rows, self.said]).add_class("form")

    def _take(self, name: str) -> None:
        value = _value(self.fields[name].value, self.first[name])
        self.namespace[name] = self.changed[name] = value
        told = ", ".join(f"{name} = {value!r}" for name, value in self.changed.items())
        self.said.value = _words(f"Chosen: {told}. {HINT}")


class Boxes(widgets.HBox):
    """A box for each of some options."""

    value = traitlets.Tuple()  # of those that are ticked

    def __init__(self, options: Sequence, ticked: Sequence):
        self.options = list(dict.fromkeys([*options, *ticked]))
        boxes = [
            widgets.Checkbox(option in ticked, description=str(option), indent=False, layout={"width": "auto"})
            for option in self.options
        ]
        super().__init__(boxes, layout={"flex_flow": "row wrap", "grid_gap": "0 14px"})
        self.value = tuple(ticked)
        for box in boxes:
            box.observe(self._tick, "value")

    def _tick(self, _) -> None:
        self.value = tuple(option for option, box in zip(self.options, self.children, strict=True) if box.value)


def _field(name: str, value: Any) -> widgets.Widget:
    """The widget for a parameter, after its name and its present value, whatever that is: cells below will judge it."""
    wide = {"width": "420px"}
    if isinstance(value, bool):
        return widgets.Checkbox(value, indent=False)
    several = isinstance(value, list | tuple)
    if name in CHOICES and several:
        return Boxes(CHOICES[name](), value)
    if name in CHOICES and isinstance(value, str | int | None):
        pairs = [option if isinstance(option, tuple) else (str(option), option) for option in CHOICES[name]()]
        if value not in (option for _, option in pairs):
            pairs.insert(0, (str(value) if value is not None else OPEN, value))
        return widgets.Dropdown(options=pairs, value=value, layout=wide)
    if name in SUGGESTED and several:
        tags = widgets.TagsInput(value=list(map(str, value)), allow_duplicates=False, layout=wide)
        tags.placeholder = "type a name, Enter"
        return tags
    if name in SUGGESTED:
        return widgets.Combobox(
            value=str(value), options=tuple(map(str, SUGGESTED[name]())), continuous_update=False, layout=wide
        )
    shown = ", ".join(map(str, value)) if several else "" if value is None else str(value)
    hint = OPEN if value is None else ""
    return widgets.Text(shown, placeholder=hint, continuous_update=False, layout=wide)


def _value(shown: Any, former: Any) -> Any:
    """What a field holds, as the kind of value the parameter had first; what is no such value stays text, to be refused."""
    if isinstance(former, list | tuple):
        parts = [part.strip() for part in shown.split(",") if part.strip()] if isinstance(shown, str) else shown
        return [int(part) if isinstance(part, str) and part.isdecimal() else part for part in parts]
    if not isinstance(shown, str) or isinstance(former, str):
        return shown
    if not shown.strip():
        return None
    try:
        return ast.literal_eval(shown)
    except (SyntaxError, ValueError):
        return shown


def _runs() -> list[str]:
    """The newest first."""
    return [run.name for run in reversed(list_runs())]


def _words(text: str) -> str:
    return f'<span style="color: var(--jp-ui-font-color2, #666)">{escape(text)}</span>'
