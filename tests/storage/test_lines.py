"""Progress lines on a terminal, in a log and in a notebook."""

import io
import sys
from contextlib import suppress

import nbformat
import pytest

from notebooks import outputs, run_papermill
from wsch_core.storage.lines import counted


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def work(seconds):
    """Two of four videos, the first of which took so many seconds, and then an error."""
    with suppress(OSError), counted("reading videos", 4) as bar:
        bar.start_t -= seconds
        bar.last_print_t -= seconds
        bar.update(1)
        bar.update(1)
        raise OSError("a broken file")


def test_a_log_has_a_line_for_each_state(capsys):
    work(seconds=10)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("|")[0] for line in lines] == ["reading videos:  25%", "reading videos:  50%"]
    assert all("█" in line and "\r" not in line for line in lines)


def test_a_terminal_has_one_line_that_replaces_itself(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stderr", Terminal())
    work(seconds=10)
    states = sys.stderr.getvalue().split("\r")
    assert [state.split("|")[0] for state in states] == ["", "reading videos:  25%", "reading videos:  50%"]
    assert states[-1].endswith("\n")


def test_what_is_done_in_a_moment_shows_nothing(capsys):
    work(seconds=0)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_log_of_a_notebook_has_each_state_and_the_notebook_keeps_the_last(tmp_path):
    cell = "from wsch_core.storage.lines import counted\nwith counted('reading videos', 4) as bar:\n"
    cell += "    bar.start_t, bar.last_print_t = bar.start_t - 10, bar.last_print_t - 10\n"
    cell += "    bar.update(1)\n    bar.update(3)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "work.ipynb")
    done = run_papermill(tmp_path, "work.ipynb", "out.ipynb", {})
    assert done.returncode == 0, done.stderr
    assert "reading videos:  25%|" in done.stderr
    assert "reading videos: 100%|" in done.stderr
    (kept,) = outputs(nbformat.read(tmp_path / "out.ipynb", as_version=4))
    assert kept.text.startswith("reading videos: 100%|")
