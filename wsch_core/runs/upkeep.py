"""What is done to a run as a whole: it gets another name, is put away and brought back, is deleted. Never while it is
being trained.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ..storage.files import temporary_name
from ..storage.paths import outputs_folder
from .folder import Run
from .outputs import archive_folder, run_folder


def how_to_go_on(run: Run) -> str:
    """The line of Python that goes on with an interrupted run, with the settings it was begun with."""
    name = run.name
    return f'fit(load_run("{name}").settings, load_dataset("{run.settings.dataset}"), "{name}", resume=True)'


def rename_run(run: Run, name: str) -> Run:
    """Give a run another name; ValueError for one that no folder can have, FileExistsError for one in use."""
    return _moved(run, run_folder(name).name, run.folder.parent)


def archive_run(run: Run) -> Run:
    """Put a run away, into outputs/archive/: no list of runs, no notebook and no sweep finds it there."""
    return _moved(run, run.name, archive_folder())


def restore_run(run: Run) -> Run:
    """Bring a run of the archive back."""
    return _moved(run, run.name, outputs_folder())


def delete_run(run: Run) -> None:
    """Remove a run with all its files, for good; see `listing.size_of` for how many bytes that frees.

    It vanishes from every list at once: its folder is renamed before its files go.
    """
    try:
        with TemporaryDirectory(prefix=temporary_name(), dir=run.folder.parent) as place, _alone(run):
            os.rename(run.folder, Path(place) / run.name)
    except OSError as error:
        if error.strerror is None:
            raise
        raise OSError(f"{run.folder} cannot be removed ({error.strerror}): remove what is left by hand.") from error


def _moved(run: Run, name: str, parent: Path) -> Run:
    target = parent / name
    if os.path.lexists(target):
        raise FileExistsError(f"{target} exists: choose another name, or rename or delete what is there.")
    try:
        with _alone(run):
            parent.mkdir(exist_ok=True)
            os.rename(run.folder, target)
    except OSError as error:
        if error.strerror is None:
            raise
        raise OSError(f"{target} cannot be made ({error.strerror}): make {parent} writable.") from error
    return Run(target)


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Nobody trains in the folder meanwhile (RuntimeError), which is one and no link (OSError)."""
    if run.folder.is_symlink() or not run.folder.is_dir():
        raise OSError(f"{run.folder} is no folder of its own (a link, or gone): change it by hand.")
    with run.lock():
        yield
