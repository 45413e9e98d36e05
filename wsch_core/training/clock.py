"""How far a run is and how long it still takes, judged from its passes so far, kind by kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from ..methods.method import Pass

COUNTED = 5  # newest passes of a kind, whose mean the next is expected to take: a machine gets busy, and idle again


class Clock:
    """Expects of a pass what the last ones of its kind took; of a kind not met yet, what the method says of its effort.

    The share only grows: each second counts as its part of the time that was left, so that a better estimate changes how
    fast the share grows from then on, not where it stands.
    """

    def __init__(self, schedule: Sequence[Pass], history: Sequence[dict], effort: Callable[[Pass], float]):
        self.schedule = schedule
        self.effort = {_kind(current): effort(current) for current in schedule}
        self.seconds: dict[tuple, list[float]] = {}
        for current, entry in zip(schedule, history, strict=False):
            self.record(current, entry["seconds"])
        expected = self._expected(self.seconds)
        done, left = sum(expected[: len(history)]), sum(expected[len(history) :])
        self.share = done / (done + left) if done else 0.0
        self.begun = self.started = self.told = perf_counter()

    def elapsed(self) -> float:
        return perf_counter() - self.begun

    def start(self) -> None:
        """A pass begins now."""
        self.started = perf_counter()

    def record(self, current: Pass, seconds: float) -> None:
        self.seconds.setdefault(_kind(current), []).append(seconds)

    def estimate(self, current: Pass, part: float) -> tuple[float, float]:
        """The share of the run that is over and the seconds left, with a part in (0, 1] of the current pass done."""
        now = perf_counter()
        running = {_kind(current): [(now - self.started) / part]}
        expected = self._expected(running | self.seconds)
        left = sum(expected[current.number + 1 :]) + (1 - part) * expected[current.number]
        passed, self.told = now - self.told, now
        if passed + left > 0:
            self.share = 1 - (1 - self.share) * left / (passed + left)
        return self.share, left

    def _expected(self, measured: dict[tuple, list[float]]) -> list[float]:
        """Seconds of every pass of the schedule; before anything is measured, its effort."""
        known = {kind: sum(values[-COUNTED:]) / len(values[-COUNTED:]) for kind, values in measured.items()}
        pace = sum(known.values()) / sum(self.effort[kind] for kind in known) if known else 1.0
        return [known.get(_kind(p), pace * self.effort[_kind(p)]) for p in self.schedule]


def _kind(current: Pass) -> tuple:
    return current.stage, current.tasks
