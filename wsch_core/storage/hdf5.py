"""Opening HDF5 files, and finding what is in them without ever being led to another file."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from pathlib import Path

import h5py

from .files import check_file
from .words import one_line, shortened

MOST_LINKS = 16  # soft links followed on the way to one data set; more are a circle
MOST_PARTS = 64  # of a path
LARGEST_CHUNK = 2**26  # bytes; a stored chunk is read as a whole, so larger ones are refused
MOST_COMPRESSED = 100  # times smaller than what it holds; features and pictures compress a few times, bombs 1,000 times


def open_hdf5(path: Path) -> h5py.File:
    """Open a file for reading, or say in one sentence why it cannot be read (FileNotFoundError, OSError)."""
    check_file(path, f"put the file there, or set WSCH_DATA to the folder that holds {path.parent.name}/")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        reason = "it is cut off" if "truncated" in str(error) else "it is not HDF5 or is damaged"
        raise OSError(f"{path} cannot be read as HDF5 ({reason}: {one_line(error)}): copy the file again.") from error


def hdf5_image(fill: Callable[[h5py.File], None]) -> bytes:
    """An HDF5 file that `fill` has written into, made in memory: on a full disk HDF5 would end the process."""
    with h5py.File("in memory", "w", driver="core", backing_store=False) as file:
        fill(file)
        file.flush()
        return file.id.get_file_image()


def find(file: h5py.File, key: str) -> h5py.Dataset | h5py.Group | None:
    """What an open file holds under a key; None if nothing.

    Raises ValueError where that is kept in another file (external link, virtual data set, external storage): a file from
    elsewhere must not decide which files are read.
    """
    try:
        found = _follow(file, key)
        if isinstance(found, h5py.Dataset):
            _check_place(file, key, found)
    except (KeyError, RuntimeError, TypeError, OSError) as error:
        raise OSError(f"{file.filename}: {key!r} cannot be read ({one_line(error)}): copy the file again.") from error
    return found


def _follow(file: h5py.File, key: str) -> h5py.Dataset | h5py.Group | None:
    """What lies at a path, soft links followed; None for nothing, and for a path that goes on without end."""
    node, parts, links = file, deque(filter(None, key.split("/"))), MOST_LINKS
    while parts:
        part = parts.popleft()
        link = node.get(part, None, getlink=True) if isinstance(node, h5py.Group) else None
        if isinstance(link, h5py.ExternalLink):
            raise _elsewhere(file, key, "an external link", link.filename)
        if isinstance(link, h5py.SoftLink):
            links -= 1
            node = file if link.path.startswith("/") else node
            parts.extendleft(reversed([*filter(None, link.path.split("/"))]))
        elif link is not None:
            node = node[part]
        if link is None or links < 0 or len(parts) > MOST_PARTS:
            return None
    return node


def _check_place(file: h5py.File, key: str, data: h5py.Dataset) -> None:
    if data.external:
        raise _elsewhere(file, key, "external storage", str(data.external[0][0]))
    if data.is_virtual:
        for source in data.virtual_sources():
            if source.file_name != ".":
                raise _elsewhere(file, key, "a virtual data set", source.file_name)


def check_storage(file: h5py.File, key: str, data: h5py.Dataset, most_compressed: int | None = None) -> None:
    """Refuse a data set that declares more than its file holds, before any of it is read (OSError).

    What HDF5 does not find it fills with zeros, and a few bytes may unfold to any size.
    most_compressed: how many times smaller than its content it may be stored; None does not limit it
    """
    name, stored = f"{file.filename}: {key!r}", data.id.get_storage_size()
    if data.chunks is None:
        if stored < data.nbytes:
            raise OSError(
                f"{name} declares {data.nbytes:,} bytes, but the file holds {stored:,} of them: copy the file again."
            )
        return
    chunk_bytes = math.prod(data.chunks) * data.dtype.itemsize
    if chunk_bytes > LARGEST_CHUNK and chunk_bytes > stored:
        raise OSError(
            f"{name} is stored in chunks that unfold to {chunk_bytes:,} bytes: store it in chunks of at most "
            f"{LARGEST_CHUNK:,} bytes, or in one piece."
        )
    chunks = math.prod(-(-length // part) for length, part in zip(data.shape, data.chunks, strict=True))
    if data.id.get_num_chunks() < chunks:
        raise OSError(
            f"{name} declares {chunks:,} chunks, but the file holds {data.id.get_num_chunks():,} of them: "
            "copy the file again."
        )
    if most_compressed and data.nbytes > most_compressed * stored:
        raise OSError(
            f"{name} declares {data.nbytes:,} bytes, but the file holds {stored:,} compressed ones, more than "
            f"{most_compressed} times fewer: no real data compress so far, so copy the file again."
        )


def _elsewhere(file: h5py.File, key: str, kind: str, other: str) -> ValueError:
    return ValueError(
        f"{file.filename}: {key!r} is {kind} that reads from the file {shortened(other)}, which is not done: "
        "store the data in the file itself, or name the other file in the definition."
    )
