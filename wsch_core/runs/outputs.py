"""All run folders below outputs/ (or WSCH_OUTPUTS): made, named, found and listed."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..methods import method_of
from ..storage.files import remove_leftovers, temporary_name
from ..storage.paths import outputs_folder
from ..storage.words import shortened, unknown_name
from .folder import Run
from .listing import Runs

ARCHIVE = "archive"
LONGEST_NAME = 250  # bytes of a run's name, which file systems allow


@contextmanager
def making_run(name: str, record: dict[str, Any]) -> Iterator[Run]:
    """A new run, whose folder has its name once the block ends well: a killed process leaves none behind.

    Raises FileExistsError for a name in use, ValueError for one that is no folder name, OSError where nothing can be
    written.
    """
    folder = run_folder(name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder.parent)
        with tempfile.TemporaryDirectory(prefix=temporary_name(), dir=folder.parent) as place:
            draft = Path(place) / folder.name
            draft.mkdir()
            Run(draft).save_json("settings.json", record)
            yield Run(draft)
            draft.rename(folder)  # which replaces an empty folder, and no other
    except OSError as error:
        if folder.exists() and error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise FileExistsError(
                f"{folder} exists: choose another run name, resume this run, or remove the folder."
            ) from None
        if error.strerror is None:
            raise
        raise OSError(
            f"{folder} cannot be written ({error.strerror}): set WSCH_OUTPUTS to a writable folder."
        ) from error


def create_run(name: str, record: dict[str, Any]) -> Run:
    """A new run with its settings.json; errors as of `making_run`."""
    with making_run(name, record):
        pass
    return Run(run_folder(name))


def load_run(name: str = "", also: Sequence[str] = ()) -> Run:
    """A run by its name; without one, the newest that is finished.

    also: what else could have been given in the name's place, for the complaint about an unknown one
    Raises ValueError for an unknown name, naming the closest, and where no run is finished.
    """
    if name and (run_folder(name) / "settings.json").exists():
        return Run(run_folder(name))
    runs = list_runs()
    if not runs:
        raise ValueError(f"{outputs_folder()} holds no runs: train one first.")
    if name:
        raise ValueError(unknown_name("run", name, [*also, *(run.name for run in runs)]))
    for run in reversed(runs):
        try:
            if run.finished:
                return run
        except (OSError, ValueError) as error:
            print(f"{run.name} is not taken for the newest run: {error}")
    raise ValueError(
        f"no run in {outputs_folder()} is finished: resume {runs[-1].name}, or name the one to be looked at as it is."
    )


def list_runs(archived: bool = False) -> Runs:
    """All runs below outputs/ (or WSCH_OUTPUTS), the oldest first by when their settings were last written; one dated in
    the future is the oldest. With `archived`, those that were put away instead.

    `list_runs().as_frame()` is a table with a row for each: state, settings, mAP@K, time, size, tags and note.
    """
    found, soon = [], time.time() + 60
    for path in (archive_folder() if archived else outputs_folder()).glob("*/settings.json"):
        try:
            written = path.stat().st_mtime
        except OSError:  # it has gone meanwhile
            continue
        found.append((0.0 if written > soon else written, path.parent))
    return Runs(Run(folder) for _, folder in sorted(found))


def archive_folder() -> Path:
    """outputs/archive/: a folder and no mark in the runs, so that whatever looks for runs passes these by without having to
    ask, and people who open outputs/ see it as well. ValueError where a run has that name."""
    folder = outputs_folder() / ARCHIVE
    if (folder / "settings.json").exists():
        raise ValueError(f"{folder} is a run, and the place of archived ones: rename its folder by hand.")
    return folder


def find_run(settings: Any, fingerprint: str) -> Run | None:
    """The run that was made with these settings, on whatever device, from training features of this fingerprint; None if
    there is none.

    Of several an evaluated one is preferred, then a finished one, then the newest.
    """
    wanted = _identity(settings, fingerprint)
    same = [run for run in list_runs() if _identity_of(run) == wanted]
    return max(reversed(same), key=lambda run: (run.evaluated, run.finished), default=None)


def run_name(prefix: str, settings: Any, fingerprint: str) -> str:
    """A run's name that tells what is in it, the same for the same settings and features:
    "ablation-joint-64bits-seed1-3fa2c1"."""
    digest = hashlib.sha256(json.dumps(_identity(settings, fingerprint), sort_keys=True).encode()).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9.+]+", "-", prefix).lstrip("-.+")[:60] or "run"
    return f"{readable}-{settings.bits}bits-seed{settings.seed}-{digest[:6]}"


def _identity(settings: Any, fingerprint: str) -> dict[str, Any]:
    """All that decides what a run becomes."""
    return settings.as_dict() | {"method": method_of(settings), "device": "", "train_fingerprint": fingerprint}


def _identity_of(run: Run) -> dict[str, Any] | None:
    try:
        return _identity(run.settings, run.record["dataset"]["train_fingerprint"])
    except (OSError, ValueError, LookupError):
        return None  # damaged, imported, or of settings this version does not know: not the run that is looked for


def run_folder(name: str) -> Path:
    fits = isinstance(name, str) and re.fullmatch(r"[\w][\w.+-]{0,99}", name)
    if not fits or len(name.encode()) > LONGEST_NAME:
        raise ValueError(
            f"the run name {shortened(name)} cannot be a folder name: use up to 100 letters, digits, '.', '_', '-' "
            "and '+'."
        )
    return outputs_folder() / name
