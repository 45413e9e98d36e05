"""What notebooks share with the program that shows them: whether someone looks on, and how a refusal reads."""

from __future__ import annotations

import dis
import sys
from pathlib import Path
from traceback import walk_tb
from types import TracebackType

from ipywidgets import Widget

PACKAGE = Path(__file__).resolve().parent.parent
FOLDED = "(%tb in a cell of its own shows where this was noticed.)"


def looked_at() -> bool:
    """Whether a front end such as JupyterLab runs the present cell, so that widgets are seen and can be clicked.

    Front ends name the cell in what they ask of the kernel; papermill and nbconvert, which only fill in outputs, do not.
    """
    shell = _shell()
    kernel = getattr(shell, "kernel", None)
    return kernel is not None and "cellId" in kernel.get_parent("shell").get("metadata", {})


def heard_while_busy(widget: Widget) -> None:
    """Have what a widget is told handled while a cell runs: beside it, in a subshell of the kernel.

    ipykernel sends a front end's answers to the shell that spoke last through the widget; since that is the busy one, it is
    made to forget it, and the front end's own choice counts. To be called once the widget has said all it has to say.
    """
    vars(widget.comm).pop("_reply_subshell_id", None)


def short_refusals() -> None:
    """From now on a refusal of this package ends a cell with one sentence; other errors keep their traceback."""
    shell = _shell()
    if shell is not None:
        shell.set_custom_exc((Exception, KeyboardInterrupt), _show_error)


def is_refusal(trace: TracebackType | None) -> bool:
    """Whether an error comes from a `raise` of this package: what it says was written to be read.

    Anything else, also an error of a library that passed through the package, is unexpected.
    """
    frames = list(walk_tb(trace))
    if not frames or not Path(frames[-1][0].f_code.co_filename).is_relative_to(PACKAGE):
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    return dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def _show_error(shell, kind: type[BaseException], error: BaseException, trace: TracebackType, tb_offset=None) -> None:
    if is_refusal(trace):
        sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace  # what %tb shows
        shell._showtraceback(kind, error, [f"{kind.__name__}: {error}", FOLDED])
    else:
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)


def _shell():
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
