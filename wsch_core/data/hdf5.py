"""Opening HDF5 files, and finding what is in them without ever being led to another file."""

from __future__ import annotations

from pathlib import Path

import h5py

MOST_LINKS = 16  # soft links followed one after another; more are a circle


def open_hdf5(path: Path) -> h5py.File:
    """Open a file for reading, or say in one sentence why it cannot be read (FileNotFoundError, OSError)."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: put the file there, or set WSCH_DATA to the folder that holds {path.parent.name}/."
        )
    try:
        return h5py.File(path, "r")
    except OSError as error:
        reason = "it is cut off" if "truncated" in str(error) else "it is not HDF5 or is damaged"
        raise OSError(f"{path} cannot be read as HDF5 ({reason}: {error}): copy the file again.") from error


def find(file: h5py.File, key: str) -> h5py.Dataset | h5py.Group | None:
    """What an open file holds under a key; None if nothing.

    Raises ValueError where that is kept in another file (external link, virtual data set, external storage): a file from
    elsewhere must not decide which files are read.
    """
    try:
        found = _follow(file, file, key, MOST_LINKS)
        if isinstance(found, h5py.Dataset):
            _check_storage(file, key, found)
    except (KeyError, RuntimeError, TypeError, OSError) as error:
        raise OSError(f"{file.filename}: {key!r} cannot be read ({error}): copy the file again.") from error
    return found


def _follow(file: h5py.File, start: h5py.Group, key: str, links: int) -> h5py.Dataset | h5py.Group | None:
    node = file if key.startswith("/") else start
    for part in filter(None, key.split("/")):
        link = node.get(part, None, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None or links == 0:
            return None
        if isinstance(link, h5py.ExternalLink):
            raise _elsewhere(file, key, "an external link", link.filename)
        node = _follow(file, node, link.path, links - 1) if isinstance(link, h5py.SoftLink) else node[part]
        if node is None:
            return None
    return node


def _check_storage(file: h5py.File, key: str, data: h5py.Dataset) -> None:
    if data.external:
        raise _elsewhere(file, key, "external storage", str(data.external[0][0]))
    if data.is_virtual:
        for source in data.virtual_sources():
            if source.file_name != ".":
                raise _elsewhere(file, key, "a virtual data set", source.file_name)


def _elsewhere(file: h5py.File, key: str, kind: str, other: str) -> ValueError:
    return ValueError(
        f"{file.filename}: {key!r} is {kind} that reads from the file {other!r}, which is not done: store the data in "
        "the file itself, or name the other file in the definition."
    )
