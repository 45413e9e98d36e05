"""What a training run tells while it goes, and a line of text that shows it anywhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from .schedule import Pass

BAR_WIDTH = 24


@dataclass(frozen=True)
class Progress:
    """Handed to every callback, about once a second and at the end of each pass."""

    current: Pass
    passes: int  # of the whole run
    share: float  # of the run's work that is done, in [0, 1]
    losses: dict[str, float]  # means over the pass so far
    videos_per_second: float
    seconds_left: float | None  # None until there is something to judge by
    entry: dict | None = None  # the pass's line in the history, once it is finished


class ProgressLine:
    """A callback that shows one line: share done, pass, epoch, losses, videos/s, time left.

    In a notebook the line replaces itself and only its last state stays in the saved notebook; each state still
    reaches the log of `papermill --log-output`. On a terminal it replaces itself; elsewhere lines are printed.
    """

    def __init__(self, every_seconds: float = 2.0):
        self.every_seconds = every_seconds
        self.next_time = 0.0

    def __call__(self, progress: Progress) -> None:
        last = progress.entry is not None and progress.current.number == progress.passes - 1
        if time.monotonic() < self.next_time and not last:
            return
        self.next_time = time.monotonic() + self.every_seconds
        show_line(describe(progress), last)


def describe(progress: Progress) -> str:
    """One line on the state of a run."""
    current = progress.current
    filled = round(progress.share * BAR_WIDTH)
    losses = "  ".join(f"{name} {value:.3f}" for name, value in progress.losses.items())
    parts = [
        f"{progress.share:4.0%} {'█' * filled}{'░' * (BAR_WIDTH - filled)}",
        f"pass {current.number + 1}/{progress.passes}",
        f"{'pre-training' if current.stage == 'pretraining' else 'cycle'} epoch {current.epoch + 1}: {current.title}",
        losses,
        f"{progress.videos_per_second:,.0f} videos/s",
        "" if progress.seconds_left is None else f"{format_seconds(progress.seconds_left)} left",
    ]
    return " · ".join(part for part in parts if part)


def show_line(line: str, last: bool = False) -> None:
    """Print a line in place of the one before it, where the output can do that."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None:
        from IPython.display import clear_output

        clear_output(wait=True)
        print(line, flush=True)
    elif sys.stderr.isatty():
        print(f"\r\033[K{line}", end="\n" if last else "", file=sys.stderr, flush=True)
    else:
        print(line, file=sys.stderr, flush=True)


def format_seconds(seconds: float) -> str:
    """75 -> "1:15", 3750 -> "1:02:30"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
