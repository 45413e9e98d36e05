"""One line that tells how far long work is, anywhere: in a notebook, on a terminal, in a log.

Counted work has tqdm's bar, but not where `tqdm.auto` or tqdm alone would put it in a notebook: the widget of the one
stays at 0 % in papermill's log and is empty in an HTML export, the text of the other leaves every state behind when
papermill saves the notebook. `show_line` leaves the last, and the log has all.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm


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


def counted(title: str, videos: int) -> tqdm:
    """tqdm's bar for long work on so many videos, a line at a time; nothing for what is done in a moment.

    Use it in `with`, and call `update(n)` for every n videos that are done.
    """
    from tqdm import tqdm  # only here: `import wsch_core` is to stay light

    shown = sys.stderr if sys.stderr.isatty() else _Lines()
    return tqdm(desc=title, total=videos, unit="video", file=shown, ascii=False, delay=2.0, mininterval=2.0, miniters=1)


class _Lines:
    """A file for tqdm, which writes each state of its bar after a return character: each becomes one line."""

    def write(self, text: str) -> None:
        if text.strip():
            show_line(text.strip())

    def flush(self) -> None:
        """Lines are flushed as they are shown."""
