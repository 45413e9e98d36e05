"""Checksums over all of a data set's files, computed once and kept: what was made of other features or labels shows.

They lie in `.cache/checksums.json` below the data set's folder (or WSCH_CACHE), beside what the system says of the file:
size, times and place on disk. While these stay the same, a file is not read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy

from ..storage.files import read_json, write_whole
from ..storage.hdf5 import find, open_hdf5, read_slice
from ..storage.lines import counted
from ..storage.words import one_line
from .definition import Definition

CACHE = ".cache"
KEPT = "checksums.json"
SETTLED = 2.0  # seconds after a change, within which a second one may leave a file's times as they are
CHUNK_BYTES = 2**26  # read at a time


def cache_folder(definition: Definition) -> Path:
    """Where what is made of a data set's files is kept: WSCH_CACHE/<data set>, else .cache in its own folder."""
    chosen = os.environ.get("WSCH_CACHE")
    return Path(chosen).expanduser().resolve() / definition.name if chosen else definition.folder / CACHE


def fingerprint(definition: Definition, files: tuple[str, ...], key: str, ids: Sequence[str]) -> str:
    """16 hexadecimal digits over all features and ids of a split; the same data, the same digits."""
    parts = [*(file_checksum(definition, name, key) for name in files), *ids]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def labels_fingerprint(labels: scipy.sparse.csr_array | None) -> str:
    """16 hexadecimal digits over all labels of a split; "" where there are none."""
    if labels is None:
        return ""
    sorted_labels = labels.sorted_indices()
    parts = (np.asarray(labels.shape), sorted_labels.indptr, sorted_labels.indices)
    digest = hashlib.sha256(b"".join(part.astype(np.int64).tobytes() for part in parts))
    return digest.hexdigest()[:16]


def file_checksum(definition: Definition, name: str, key: str) -> str:
    """The checksum of one file of features, kept from before if the file is still the one it was then.

    Raises OSError for a file that cannot be read to its end.
    """
    path = definition.folder / name
    place, state = f"{path.resolve()} {key}", _state(path)
    kept = _read_kept(definition).get(place)
    if isinstance(kept, list) and len(kept) == 2 and kept[0] == state and isinstance(kept[1], str):
        return kept[1]
    found = _checksum(path, key)
    if _state(path) == state and time.time() - max(state[1], state[2]) / 1e9 > SETTLED:
        _keep(definition, place, [state, found])
    return found


def _state(path: Path) -> list[int]:
    """What tells that a file is not the one it was: its size, its times, and its place on disk."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _checksum(path: Path, key: str) -> str:
    with open_hdf5(path) as file, counted(f"checking {path.name}, once", len(find(file, key))) as bar:
        data = find(file, key)
        digest = hashlib.sha256(repr((data.shape, str(data.dtype))).encode())
        for start, stop in chunk_ranges(data):
            try:
                digest.update(np.ascontiguousarray(read_slice(data, start, stop)))
            except OSError as error:
                raise OSError(f"{path}: {key!r} cannot be read ({one_line(error)}): copy it again.") from error
            bar.update(stop - start)
    return digest.hexdigest()


def chunk_ranges(data: h5py.Dataset) -> list[tuple[int, int]]:
    """Ranges of rows, each of about 64 MB and of whole stored chunks, so that none of these is read twice."""
    whole = data.chunks[0] if data.chunks else 1
    step = max(1, CHUNK_BYTES * len(data) // max(1, data.nbytes) // whole) * whole
    return [(start, min(start + step, len(data))) for start in range(0, len(data), step)]


def _read_kept(definition: Definition) -> dict[str, Any]:
    try:
        kept = read_json(cache_folder(definition) / KEPT, "remove it")
    except OSError:  # none yet, or damaged: files are read again
        return {}
    return kept if isinstance(kept, dict) else {}


def _keep(definition: Definition, place: str, entry: list) -> None:
    """Keep a checksum; where nothing can be written, it is computed again next time."""
    folder = cache_folder(definition)
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        content = _read_kept(definition) | {place: entry}
        write_whole(folder / KEPT, lambda path: path.write_text(json.dumps(content, indent=1), encoding="utf-8"))
