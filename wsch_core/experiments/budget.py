"""How long each method trains when several are compared: the passes that its settings ask for, as many gradient steps as
the others, or as many seconds of one thread.

A run is made longer or shorter as a whole: all that counts its epochs grows by one factor, so that the shares of stages,
warm-ups and schedules stay as they are.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..data import Dataset
from ..data.holding import held_on_gpu
from ..data.loader import visible_batches
from ..methods import METHODS, Method, method_of
from ..methods.method import Context, Pass, State
from ..methods.settings import MOST_PASSES
from ..training.device import autocast, resolve_device, resolve_precision
from ..training.loop import gradient_step, new_state

BUDGETS = ("published", "steps", "seconds")
COUNTS_EPOCHS = ("pretrain_epochs", "epochs", "warm_up_epochs", "labels_move_from")
HALVINGS = 40
TIMED = 1  # passes of each kind, after its first, which may prepare what the others use


def method_for(settings: Any, dataset: Dataset) -> Method:
    return METHODS[method_of(settings)](settings, len(dataset.train), dataset.frames, dataset.feature_size)


def scaled(settings: Any, factor: float) -> Any:
    """Settings of a run `factor` times as long. What there is at all of a stage stays, with one epoch at least."""
    counts = {name: getattr(settings, name, 0) for name in COUNTS_EPOCHS}
    return replace(settings, **{name: max(1, round(factor * count)) for name, count in counts.items() if count})


def gradient_steps(settings: Any, dataset: Dataset) -> int:
    """Of a whole run."""
    method = method_for(settings, dataset)
    return method.steps_in_pass() * sum(current.learns for current in method.passes())


def fitted(settings: Any, cost: Callable[[Any], float], budget: float) -> Any:
    """The longest run of these proportions that costs at most `budget`; the shortest there is, if that costs more.

    cost: of a run of given settings, which grows with their epochs
    """
    longest = MOST_PASSES / (10 * sum(getattr(settings, name, 0) for name in COUNTS_EPOCHS))
    low, high = 0.0, min(1.0, longest)
    while high < longest and cost(scaled(settings, high)) <= budget:
        low, high = high, min(2 * high, longest)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(scaled(settings, middle)) <= budget else (low, middle)
    return scaled(settings, low)


@dataclass(frozen=True)
class Pace:
    """Seconds that a run needs: of one thread, or of a GPU."""

    prepare: float  # before the first pass
    first: Mapping[str, float]  # of the first pass of each kind, which may prepare what the others use
    other: Mapping[str, float]  # of every other one

    def seconds(self, settings: Any, dataset: Dataset) -> float:
        kinds = [kind(current) for current in method_for(settings, dataset).passes()]
        return (
            self.prepare
            + sum(self.first[name] for name in {*kinds})
            + sum(self.other[name] * (kinds.count(name) - 1) for name in {*kinds})
        )


def kind(current: Pass) -> str:
    return f"{current.stage}: {current.title}"


def measure_pace(settings: Any, dataset: Dataset) -> Pace:
    """Take a few passes of each kind, as the loop would, and throw the result away."""
    short = {name: 1 + TIMED for name in COUNTS_EPOCHS if getattr(settings, name, 0)}
    short["epochs"] += short.get("warm_up_epochs", 0)
    short |= {"labels_move_from": 0} if "labels_move_from" in short else {}
    method = method_for(replace(settings, **short), dataset)
    device = resolve_device(settings.device)
    train = dataset.train
    on_gpu = held_on_gpu(dataset.name, train.nbytes, train.hold, device)
    features = train.features.to(device) if on_gpu else train.features
    context = Context(features, device, autocast(device, resolve_precision(settings.precision, device)))
    state, taken = new_state(method, device), {}
    with one_thread():
        clock = time.process_time if device.type == "cpu" else time.perf_counter
        start = clock()
        made = method.prepare(context, state.generator)
        state.kept = {name: t.to(device) if name in method.kept_on_device else t for name, t in made.items()}
        prepare = clock() - start
        for current in method.passes():
            start = clock()
            carry_out(current, method, state, context)
            taken.setdefault(kind(current), []).append(clock() - start)
    other = {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}
    return Pace(prepare, {name: max(seconds[0], other[name]) for name, seconds in taken.items()}, other)


def carry_out(current: Pass, method: Method, state: State, context: Context) -> None:
    """A pass without records."""
    method.begin(current, state, context)
    if current.learns:
        weights, drawn = method.weights(current, state), method.draw(current, state)
        for batch in visible_batches(context.features, drawn, method.settings.batch_size, context.device):
            total = gradient_step(method, state, batch, weights, context.cast)[1]
        total.item()  # what a GPU was given, it has done


@contextmanager
def one_thread() -> Iterator[None]:
    former = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(former)
