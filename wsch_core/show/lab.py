"""JupyterLab at the project's root, with working copies of the notebooks: python -m wsch_core.show.lab [its options]

The notebooks of the checkout stay as they are committed: run in place, they would keep outputs, and every later run would
be recorded as one of changed code. From the project's root, outputs/, figures and galleries can be opened beside them.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from itertools import count
from pathlib import Path

import nbformat

from ..storage.files import write_whole
from ..storage.paths import PROJECT, outputs_folder

MADE_FROM = "wsch_made_from"  # in a copy's metadata: what the committed notebook was


def working_copies(notebooks: Path, folder: Path) -> list[Path]:
    """Copies of all notebooks in a folder. One that is there stays as it was left; where the committed notebook has changed
    since, the old copy is kept under a number, and a new one takes its name."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_working_copy(notebook, folder) for notebook in sorted(notebooks.glob("*.ipynb"))]


def _working_copy(notebook: Path, folder: Path) -> Path:
    content, copy = notebook.read_bytes(), folder / notebook.name
    made_from = hashlib.sha256(content).hexdigest()[:16]
    if copy.exists():
        if _made_from(copy) == made_from:
            return copy
        former = (folder / f"{notebook.stem}-{number}.ipynb" for number in count(1))
        copy.rename(next(path for path in former if not path.exists()))
    fresh = nbformat.reads(content.decode(), as_version=4)
    fresh.metadata[MADE_FROM] = made_from
    write_whole(copy, lambda path: nbformat.write(fresh, path))
    return copy


def _made_from(copy: Path) -> str:
    try:
        return nbformat.read(copy, as_version=4).metadata.get(MADE_FROM, "")
    except (OSError, ValueError, AttributeError, nbformat.ValidationError):
        return ""  # no notebook any more: it is put aside as it is


def main(options: list[str]) -> int:
    copies = working_copies(PROJECT / "notebooks", outputs_folder() / "notebooks")
    first = next(copy for copy in copies if copy.stem == "train")
    if not first.is_relative_to(PROJECT):
        raise ValueError(f"WSCH_OUTPUTS is {outputs_folder()}: for the lab it must lie inside {PROJECT}.")
    lab = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={PROJECT}"]
    return subprocess.run([*lab, *options, str(first)], cwd=PROJECT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
