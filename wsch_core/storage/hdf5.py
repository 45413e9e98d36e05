"""Opening HDF5 files, and finding what is in them without ever being led to another file."""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .files import check_file
from .words import one_line, shortened

MOST_LINKS = 16  # soft links followed on the way to one data set; more are a circle
MOST_PARTS = 64  # of a path
LARGEST_CHUNK = 2**26  # bytes; a stored chunk is read as a whole, so larger ones are refused
MOST_COMPRESSED = 100  # times smaller than what it holds; features and pictures compress a few times, bombs 1,000 times
GZIP, SHUFFLE, FLETCHER, LZF = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, 32_000
LARGEST_LZF = 2**20  # bytes of a chunk; lzf unfolds at most 88 times, and HDF5 does not stop it
MOST_TEXT = 4096  # bytes of one text, such as an id


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
    filters = _filters(data)
    if len(set(filters)) < len(filters) or not {GZIP, SHUFFLE, FLETCHER, LZF}.issuperset(filters):
        raise OSError(
            f"{name} is stored with filters that are not read (numbers {filters[:8]}): store it with gzip, or as it is."
        )
    chunk_bytes = math.prod(data.chunks) * data.dtype.itemsize
    if LZF in filters and chunk_bytes > LARGEST_LZF:
        raise OSError(
            f"{name} is stored with lzf in chunks of {chunk_bytes:,} bytes: store it with gzip, or in chunks of at most "
            f"{LARGEST_LZF:,} bytes."
        )
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


def _filters(data: h5py.Dataset) -> list[int]:
    """What chunks went through when they were stored, in order."""
    plist = data.id.get_create_plist()
    return [plist.get_filter(place)[0] for place in range(plist.get_nfilters())]


def is_plain(data: h5py.Dataset) -> bool:
    """Whether numbers lie in the file as NumPy has them in memory; HDF5 knows other forms, which it converts."""
    try:
        return data.dtype.kind in "buif" and h5py.h5t.py_create(data.dtype) == data.id.get_type()
    except TypeError:
        return False


def read_slice(data: h5py.Dataset, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows of a data set that `check_storage` has let pass, read so that no chunk unfolds to more than it may hold.

    HDF5 itself lets a chunk of a few bytes unfold to gigabytes. Raises OSError with the reason, which does not name the
    file, where a chunk does not hold what it must.
    """
    stop = len(data) if stop is None else min(stop, len(data))
    if data.chunks is None or 0 in data.shape or stop <= start:
        return data[start:stop]
    filters, plain = _filters(data), is_plain(data)
    decode = GZIP in filters and plain and FLETCHER not in filters  # HDF5 knows the checksum and the other forms
    rows = np.empty((stop - start, *data.shape[1:]), data.dtype) if decode else None
    for place in _chunk_places(data, start, stop):
        content = _chunk(data, place, data.id.get_type().get_size(), filters)
        if decode:
            first, last = max(place[0], start), min(place[0] + data.chunks[0], stop)
            inner = tuple(slice(at, at + size) for at, size in zip(place[1:], data.chunks[1:], strict=True))
            whole = np.frombuffer(content, data.dtype).reshape(data.chunks)[first - place[0] : last - place[0]]
            target = rows[(slice(first - start, last - start), *inner)]
            target[...] = whole[tuple(map(slice, target.shape))]
    return rows if decode else data[start:stop]


def _chunk_places(data: h5py.Dataset, start: int, stop: int) -> Iterator[tuple[int, ...]]:
    """Where the chunks begin that hold some rows."""
    size = data.chunks[0]
    inner = (range(0, length, part) for length, part in zip(data.shape[1:], data.chunks[1:], strict=True))
    return product(range(start // size * size, stop, size), *inner)


def _chunk(data: h5py.Dataset, place: tuple[int, ...], item: int, filters: list[int]) -> bytes:
    """A chunk's content if it is compressed by gzip; any chunk is judged by its size. item: bytes of an entry."""
    size = item * math.prod(data.chunks)
    stored = data.id.get_chunk_info_by_coord(place)
    skipped = [bool(stored.filter_mask >> at & 1) for at in range(len(filters))]
    used = [kind for kind, skip in zip(filters, skipped, strict=True) if not skip]
    most = size + 4 * (FLETCHER in used)
    packed = GZIP in used or LZF in used
    if stored.size > most + (most // 64 + 1024) * packed or (stored.size < most and not packed):
        raise OSError(f"it holds a chunk of {stored.size:,} bytes where {most:,} belong")
    if GZIP not in filters:
        return b""
    _, content = data.id.read_direct_chunk(place)
    for kind in reversed(used):
        if kind == GZIP:
            content = _inflated(content, most)
        content = content[:-4] if kind == FLETCHER else content
        if kind == SHUFFLE and len(content) == size:
            content = np.frombuffer(content, np.uint8).reshape(item, -1).T.tobytes()
    if len(content) != size:
        raise OSError(f"it holds a chunk that unfolds to another size than {size:,} bytes")
    return content


def _inflated(content: bytes, most: int) -> bytes:
    try:
        inflate = zlib.decompressobj()
        content = inflate.decompress(content, most + 1)
    except zlib.error as error:
        raise OSError(f"it holds a chunk that is damaged: {one_line(error)}") from error
    if not inflate.eof:
        raise OSError(f"it holds a chunk that is cut off, or unfolds to more than {most:,} bytes")
    return content


def read_texts(data: h5py.Dataset) -> list[str]:
    """All of a data set of texts that `check_storage` has let pass.

    Texts of any length are references into the file, of which many may lead to one long text: their lengths are judged
    before they are read. Raises OSError as `read_slice` does, also for a text of more than MOST_TEXT bytes, and
    UnicodeDecodeError.
    """
    if h5py.check_string_dtype(data.dtype).length is not None:
        longest, rows = data.dtype.itemsize, read_slice
    else:
        longest, rows = _longest_text(data), lambda data: data[:]
    if longest > MOST_TEXT:
        raise OSError(f"it holds a text of {longest:,} bytes, but at most {MOST_TEXT:,} are read")
    return [bytes(text).decode() for text in rows(data)]


def _longest_text(data: h5py.Dataset) -> int:
    """A text of any length is stored as its length (4 bytes), the address of a collection, and a place in it (4 bytes)."""
    item, filters = 8 + data.file.id.get_create_plist().get_sizes()[0], None
    if data.chunks is not None:
        filters = _filters(data)
        parts = [_entries(data, place, item, filters) for place in _chunk_places(data, 0, len(data))]
    elif data.id.get_offset() is not None:
        with open(data.file.filename, "rb") as file:
            file.seek(data.id.get_offset())
            parts = [file.read(item * len(data))]
    else:  # in the head of the data set, so there are few
        return max((len(data[row]) for row in range(len(data))), default=0)
    lengths = np.frombuffer(b"".join(parts), np.dtype([("length", "<u4"), ("place", f"V{item - 4}")]))["length"]
    return int(lengths.max(initial=0))


def _entries(data: h5py.Dataset, place: tuple[int, ...], item: int, filters: list[int]) -> bytes:
    if LZF in filters:
        raise OSError("it holds texts stored with lzf, which are not read: store them with gzip, or as they are")
    content = _chunk(data, place, item, filters) or data.id.read_direct_chunk(place)[1]
    return content[: item * math.prod(data.chunks)]


def read_attribute(node: h5py.File | h5py.Group, name: str) -> Any:
    """One value or some numbers, None if there is none; ValueError for a list of texts, which may lead to one long text."""
    if name not in node.attrs:
        return None
    found = node.attrs.get_id(name)
    if found.dtype.kind == "O" and found.shape != ():
        raise ValueError(
            f"{node.file.filename}: the attribute {name} is a list of {found.dtype}, but one value belongs there."
        )
    return node.attrs[name]


def _elsewhere(file: h5py.File, key: str, kind: str, other: str) -> ValueError:
    return ValueError(
        f"{file.filename}: {key!r} is {kind} that reads from the file {shortened(other)}, which is not done: "
        "store the data in the file itself, or name the other file in the definition."
    )
