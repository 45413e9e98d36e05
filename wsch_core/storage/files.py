"""Files that may come from anywhere are read with care, and ours are written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from .words import one_line

TEMPORARY = ".writing-"
MOST_BYTES = 16 * 2**20
LOOKED_AT = 0.5  # seconds for which `is_locked` may be in the way of who wants a lock


def check_file(path: Path, remedy: str, inside: Path | None = None) -> None:
    """Refuse what is no regular file: one that is missing (FileNotFoundError), a folder, pipe or device (OSError).

    inside: a folder that the file must not leave by a symbolic link
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: {remedy}.")
    if not path.is_file():  # a pipe would be waited for without end
        raise OSError(f"{path} is not a regular file: remove it, and {remedy}.")
    if inside is not None and not path.resolve().is_relative_to(inside.resolve()):
        raise OSError(f"{path} is a link that leaves its folder, which is not followed: remove it, and {remedy}.")


def make_folder(folder: Path, name: str) -> Path:
    """A folder inside another one, made if it is not there; OSError where it is a link that leaves that one."""
    path = folder / name
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise OSError(f"{path} is a link that leaves its folder, which is not followed: remove it.")
    return made_folder(path)


def made_folder(path: Path) -> Path:
    """A folder, made if it is not there. Raises OSError with one sentence that names it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"{path} cannot be made ({error.strerror}): make {path.parent} writable, and remove what lies in its place."
        ) from error
    return path


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Keep other processes out for as long as the block lasts; the lock ends with its process, however that ends.

    Raises RuntimeError with the sentence `busy` if another one is in, OSError where there can be no lock.
    """
    lock = FileLock(path, timeout=LOOKED_AT)
    try:
        lock.acquire()
    except Timeout:
        raise RuntimeError(busy) from None
    except OSError as error:
        raise OSError(
            f"{path} cannot be locked ({error.strerror}): make {path.parent} writable, and remove what lies in its place."
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock; where this user may not ask, none is taken to."""
    try:
        with FileLock(path, timeout=0) if path.is_file() else nullcontext():
            return False
    except Timeout:
        return True
    except OSError:
        return False


def read_text(path: Path, remedy: str, inside: Path | None = None, most: int = MOST_BYTES) -> str:
    """A text in UTF-8. Raises FileNotFoundError or OSError with one sentence that names the file."""
    check_file(path, remedy, inside)
    if path.stat().st_size > most:
        raise OSError(f"{path} holds {path.stat().st_size:,} bytes where at most {most:,} belong: {remedy}.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, error, remedy) from error


def read_json(path: Path, remedy: str, inside: Path | None = None) -> Any:
    """What a JSON file holds. Raises FileNotFoundError or OSError with one sentence that names the file."""
    text = read_text(path, remedy, inside)
    try:
        return parse_json(text)
    except ValueError as error:
        raise damaged(path, error, remedy) from error


def parse_json(text: str) -> Any:
    """JSON in which no name stands twice; ValueError for anything else."""
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except RecursionError:
        raise ValueError("values are nested too deeply") from None


def damaged(path: Path, reason: object, remedy: str) -> OSError:
    return OSError(f"{path} is damaged ({one_line(reason)}): restore it, or {remedy}.")


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file so that a reader sees all of it or nothing: temporary name, flush to disk, rename.

    What killed processes have left half written beside it is removed.
    """
    temporary = None
    try:
        remove_leftovers(path.parent)
        handle, name = tempfile.mkstemp(prefix=temporary_name(), dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            f"{path} cannot be written ({error.strerror or error}): free some space, or make it writable."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def temporary_name() -> str:
    """How names of unfinished files and folders begin: they tell the process that is writing."""
    return f"{TEMPORARY}{_machine()}-{os.getpid()}-"


def remove_leftovers(folder: Path) -> None:
    """Remove what processes of this machine left unfinished in a folder when they were killed."""
    for leftover in folder.glob(f"{TEMPORARY}{_machine()}-*"):
        process = leftover.name.removeprefix(f"{TEMPORARY}{_machine()}-").partition("-")[0]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _machine() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())[:60]


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in it")
    return found
