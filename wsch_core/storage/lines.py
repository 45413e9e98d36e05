"""One line that tells how far long work is, anywhere: in a notebook, on a terminal, in a log."""

from __future__ import annotations

import sys
import time


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
