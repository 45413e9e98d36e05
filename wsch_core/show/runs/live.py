"""A run to look at while it is trained: how far it is, what each pass learns, its losses, and a button that stops it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
from IPython.display import display

from ...data import Dataset
from ...experiments.watch import Watch, watched
from ...methods import METHODS, method_of
from ...methods.method import Pass
from ...storage.lines import format_seconds
from ...training.device import peak_memory
from ...training.progress import Progress, ProgressLine
from ..notebook import heard_while_busy, looked_at
from .drawn import curves, strip

SECONDS_BETWEEN_LOOKS = 1.0


def progress_of(settings: Any, dataset: Dataset, watch: int = 0) -> list[Callable[[Progress], bool | None]]:
    """Callbacks for `fit`: a live view where someone looks on, else a line of text.

    watch: mAP@20 is measured after every so many epochs, if the data set has labels; 0 for never
    """
    if watch < 0:
        raise ValueError(f"watch is {watch}: it must be a whole number of at least 0.")
    size = len(dataset.train), dataset.frames, dataset.feature_size
    schedule = METHODS[method_of(settings)](settings, *size).passes()
    watching = [Watch(dataset, schedule, watch)] if watch and dataset.labelled else []
    return [*watching, LiveView(schedule) if looked_at() else ProgressLine()]


class LiveView:
    """A callback of `fit` that draws itself in the notebook, about once a second."""

    def __init__(self, schedule: Sequence[Pass]):
        self.schedule, self.history = schedule, None
        self.stop_asked, self.next_time = False, 0.0
        self.bar = widgets.FloatProgress(value=0.0, min=0.0, max=1.0, layout={"flex": "1 1 auto", "width": "auto"})
        self.stop = widgets.Button(
            description="stop after this pass", tooltip="the run can be resumed", layout={"width": "auto"}
        ).add_class("live-stop")
        self.stop.on_click(self._ask_to_stop)
        self.numbers, self.passes, self.losses, self.said = (
            widgets.HTML().add_class(f"live-{name}") for name in ("numbers", "passes", "losses", "said")
        )
        head = widgets.HBox([self.bar, self.stop])
        self.widget = widgets.VBox([head, self.numbers, self.passes, self.losses, self.said]).add_class("live")

    def __call__(self, progress: Progress) -> bool:
        if self.history is None:
            self.history = progress.run.history
            display(self.widget)
            heard_while_busy(self.stop)
        if progress.entry is not None:
            self.history.append(progress.entry)
        ends = progress.entry is not None and (self.stop_asked or progress.finished)
        if ends or time.monotonic() >= self.next_time:
            self.next_time = time.monotonic() + SECONDS_BETWEEN_LOOKS
            self._draw(progress, ends)
        return self.stop_asked

    def _ask_to_stop(self, _) -> None:
        self.stop_asked, self.stop.disabled = True, True
        self.stop.description = "stops after this pass"

    def _draw(self, progress: Progress, ends: bool) -> None:
        self.bar.value = progress.share
        self.numbers.value = _line(_numbers(progress))
        self.passes.value = strip(self.schedule, len(self.history))
        self.losses.value = curves(self.history, len(self.schedule), watched(progress.run))
        if ends:
            self.stop.layout.display = "none"
            self.said.value = _line(_end(progress))


def _line(text: str) -> str:
    return f'<span style="color: var(--jp-ui-font-color1, #222)">{escape(text)}</span>'


def _numbers(progress: Progress) -> str:
    current = progress.current
    stage = "pre-training" if current.stage == "pretraining" else current.stage
    memory = peak_memory(next(progress.network.parameters()).device)
    parts = [
        f"{progress.share:.0%}",
        f"pass {current.number + 1} of {progress.passes}",
        f"{stage} epoch {current.epoch + 1}, {current.title}",
        f"{progress.videos_per_second:,.0f} videos/s",
        f"at most {memory / 1e9:.2f} GB" if memory else "",
        f"{format_seconds(progress.seconds)} so far",
        "" if progress.finished else f"about {format_seconds(progress.seconds_left)} left",
    ]
    return " · ".join(filter(None, parts))


def _end(progress: Progress) -> str:
    name, done = progress.run.name, progress.current.number + 1
    if progress.finished:
        return f"✓ run {name}: {done} passes"
    return (
        f"■ run {name} was stopped after pass {done} of {progress.passes}. To go on, set run = {name!r} and resume = True "
        f"in the parameters; papermill takes -p run {name} -p resume True."
    )
