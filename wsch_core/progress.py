"""What a training run tells while it goes, and a line of text that shows it anywhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from .schedule import Pass

BAR_WIDTH = 12


@dataclass(frozen=True)
class Progress:
    """Handed to every callback, about once a second and at the end of each pass."""

    current: Pass
    passes: int  # of the whole run
    share: float  # of the run's work that is done, in [0, 1]
    losses: dict[str, float]  # means over the pass so far
    videos_per_second: float
    seconds: float  # since training began or was resumed
    seconds_left: float
    entry: dict | None = None  # the pass's line in the history, once it is finished

    @property
    def finished(self) -> bool:
        """Whether this was the run's last pass."""
        return self.entry is not None and self.current.number == self.passes - 1


class ProgressLine:
    """A callback that shows one line: share done, pass, epoch, losses, videos/s, time left.

    In a notebook the line replaces itself and only its last state stays in the saved notebook; each state still
    reaches the log of `papermill --log-output`. On a terminal it replaces itself; elsewhere lines are printed.
    """

    def __init__(self, every_seconds: float = 4.0):
        self.every_seconds = every_seconds
        self.next_time = 0.0

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() < self.next_time and not progress.finished:
            return
        self.next_time = time.monotonic() + self.every_seconds
        show_line(describe(progress), progress.finished)


def describe(progress: Progress) -> str:
    """One line on the state of a run."""
    current = progress.current
    filled = round(progress.share * BAR_WIDTH)
    stage = "pre-training" if current.stage == "pretraining" else "cycle"
    left = f"{format_seconds(progress.seconds_left)} left"
    parts = [
        f"{progress.share:4.0%} {'█' * filled}{'░' * (BAR_WIDTH - filled)}",
        f"pass {current.number + 1}/{progress.passes}",
        f"{stage} epoch {current.epoch + 1}, {current.title}",
        "  ".join(f"{name} {value:.3f}" for name, value in progress.losses.items() if name != "total"),
        f"{progress.videos_per_second:,.0f} videos/s",
        f"took {format_seconds(progress.seconds)}" if progress.finished else left,
    ]
    return " · ".join(part for part in parts if part)


def show_line(line: str, last: bool = False) -> None:
    """Print a line in place of the one before it, where the output can do that."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None:
        from IPython.display import clear_output

        clear_output(wait=True)
        print(line, end="", flush=True)  # papermill's log ends the line
    elif sys.stderr.isatty():
        print(f"\r\033[K{line}", end="\n" if last else "", file=sys.stderr, flush=True)
    else:
        print(line, file=sys.stderr, flush=True)


def format_seconds(seconds: float) -> str:
    """75 -> "1:15", 3750 -> "1:02:30"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class StepLine:
    """One line for other long work, shown as `ProgressLine` shows its own; nothing for what is done in a moment."""

    def __init__(self, title: str, steps: int, every_seconds: float = 2.0):
        self.title, self.steps, self.every_seconds = title, steps, every_seconds
        self.done, self.started = 0, time.monotonic()
        self.next_time = self.started + every_seconds
        self.shown = False

    def advance(self, steps: int) -> None:
        self.done += steps
        now = time.monotonic()
        last = self.done >= self.steps and self.shown
        if now < self.next_time and not last:
            return
        self.next_time, self.shown = now + self.every_seconds, True
        left = (now - self.started) * (self.steps / self.done - 1)
        state = f"took {format_seconds(now - self.started)}" if last else f"{format_seconds(left)} left"
        show_line(f"{self.title}: {self.done / self.steps:.0%} · {state}", last)
