"""What a training run tells while it goes, and a line of text that shows it anywhere.

The line is not tqdm's, which counts equal steps: here a pass takes many times what another does, the time left is judged
kind by kind, and what the line says changes with the pass.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import nn

from ..methods.method import Pass
from ..runs.folder import Run
from ..storage.lines import format_seconds, show_line

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
    entry: dict | None  # the pass's line in the history, once it is finished
    run: Run
    network: nn.Module  # as it is now; to be looked at, not to be changed

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
    stage = "pre-training" if current.stage == "pretraining" else current.stage
    left = f"{format_seconds(progress.seconds_left)} left"
    parts = [
        f"{progress.share:4.0%} {'█' * filled}{'░' * (BAR_WIDTH - filled)}",
        f"pass {current.number + 1}/{progress.passes}",
        f"{stage} epoch {current.epoch + 1}, {current.title}",
        "  ".join(f"{name} {value:.3f}" for name, value in progress.losses.items() if name != "total"),
        f"{progress.videos_per_second:,.0f} videos/s",
        f"took {format_seconds(progress.seconds)}" if progress.finished else left,
    ]
    parts.append(progress.run.name)
    return " · ".join(part for part in parts if part)
