"""Imported videos in HDF5 files: one of a single video for each that is done, and one for each split of a finished set.

Both have the same layout: feats (videos, frames, D) float32, keyframes (videos, frames, height, width, 3) uint8, ids, and
of each video's file its size in bytes, when it was modified and how many frames it repeats; attributes say what made them.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..data.definition import Definition
from ..data.holding import gigabytes
from ..storage.files import write_whole
from ..storage.hdf5 import check_storage, find, hdf5_image, open_hdf5, read_attribute, read_slice, read_texts
from ..storage.words import one_line
from .decode import DECODING_VERSION
from .extractors.extract import Extractor
from .extractors.prepare import KEYFRAME
from .folder import VideoFile

PARTS = ".parts"  # the folder of single videos, below the data set's
MOST_ATTRIBUTES = 100
OPEN_FILES = 8  # at the same time, while rows are copied
MOST_OF_DISK = 0.95  # of what is free may be taken


@dataclass(frozen=True)
class Row:
    """One imported video, and where it is stored."""

    id: str
    bytes: int
    modified: int  # nanoseconds since 1970
    repeated: int  # frames
    path: Path
    row: int

    def is_of(self, video: VideoFile) -> bool:
        """Whether the file is still the one that was imported."""
        return (self.id, self.bytes, self.modified) == (video.id, video.bytes, video.modified)


def made_by(extractor: Extractor, frames: int) -> dict[str, Any]:
    """What must agree for rows to stand in one file."""
    return {"extractor_version": extractor.version, "decoding": DECODING_VERSION, "frames": frames}


def part_path(folder: Path, video: str) -> Path:
    return folder / PARTS / f"{hashlib.blake2b(video.encode(), digest_size=16).hexdigest()}.h5"


def write_part(
    path: Path, made: dict[str, Any], video: VideoFile, repeated: int, features: np.ndarray, keyframes: np.ndarray
) -> None:
    """Store one video, whole or not at all: features (frames, D), keyframes (frames, height, width, 3)."""

    def fill(file: h5py.File) -> None:
        _create(file, 1, features.shape, made)
        file["feats"][0], file["keyframes"][0] = features, keyframes
        _write_facts(file, [Row(video.id, video.bytes, video.modified, repeated, path, 0)])

    write_whole(path, lambda draft: draft.write_bytes(hdf5_image(fill)))


def write_rows(path: Path, made: dict[str, Any], rows: Sequence[Row]) -> None:
    """Store rows of other files in a new one, whole or not at all; one row at a time, so that memory does not grow.

    Raises OSError where there is no room: asked for before, because on a full disk HDF5 would end the process.
    """
    needed, free = (
        sum(source.stat().st_size for source in {row.path for row in rows}),
        shutil.disk_usage(path.parent).free,
    )
    if needed > MOST_OF_DISK * free:
        raise OSError(
            f"{path} takes up to {gigabytes(needed)}, and {gigabytes(free)} are free: free some space, or set WSCH_DATA to "
            "a folder with more room, and import again."
        )

    def write(draft: Path) -> None:
        with ExitStack() as stack:
            source = _Sources(stack)
            shape = source.open(rows[0].path)["feats"].shape[1:]
            file = stack.enter_context(h5py.File(draft, "w"))
            _create(file, len(rows), shape, made)
            for place, row in enumerate(rows):
                stored = source.open(row.path)
                file["feats"][place] = read_slice(stored["feats"], row.row, row.row + 1)[0]
                # The compressed picture is copied as it is.
                mask, chunk = stored["keyframes"].id.read_direct_chunk((row.row, 0, 0, 0, 0))
                file["keyframes"].id.write_direct_chunk((place, 0, 0, 0, 0), chunk, mask)
            _write_facts(file, rows)

    write_whole(path, write)


class _Sources:
    """Some open files, the one used longest ago closed first: parts are many, and each is read once."""

    def __init__(self, stack: ExitStack):
        self.files: dict[Path, h5py.File] = {}
        stack.callback(self._close_all)

    def open(self, path: Path) -> h5py.File:
        file = self.files.pop(path, None)
        if file is None:
            file = open_hdf5(path)
            for name in ("feats", "keyframes"):
                check_storage(file, name, find(file, name))
        self.files[path] = file
        if len(self.files) > OPEN_FILES:
            self.files.pop(next(iter(self.files))).close()
        return file

    def _close_all(self) -> None:
        for file in self.files.values():
            file.close()


def _create(file: h5py.File, videos: int, shape: Sequence[int], made: dict[str, Any]) -> None:
    file.attrs.update(made)
    file.create_dataset("feats", (videos, *shape), np.float32)
    picture = (shape[0], *KEYFRAME, 3)
    file.create_dataset(
        "keyframes", (videos, *picture), np.uint8, chunks=(1, *picture), compression="gzip", compression_opts=1
    )


def _write_facts(file: h5py.File, rows: Sequence[Row]) -> None:
    file.create_dataset("ids", data=[row.id for row in rows], dtype=h5py.string_dtype("utf-8"))
    for name in ("bytes", "modified", "repeated"):
        file[name] = np.array([getattr(row, name) for row in rows], np.int64)


def read_rows(path: Path) -> tuple[list[Row], dict[str, Any]]:
    """What a file holds, features left aside: its rows and its attributes (FileNotFoundError, OSError)."""
    with open_hdf5(path) as file:
        try:
            stored = {name: find(file, name) for name in ("ids", "bytes", "modified", "repeated")}
            for name, data in stored.items():
                check_storage(file, name, data)
            ids = read_texts(stored.pop("ids"))
            facts = zip(*(read_slice(data).tolist() for data in stored.values()), strict=True)
            rows = [Row(video, *each, path, row) for row, (video, each) in enumerate(zip(ids, facts, strict=True))]
            made = {name: read_attribute(file, name) for name in islice(file.attrs, MOST_ATTRIBUTES)}
            made = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in made.items()}
        except (KeyError, ValueError, TypeError, AttributeError, OSError) as error:
            raise OSError(f"{path} is not a file that an import has written ({one_line(error)}): remove it.") from error
    return rows, made


def read_part(folder: Path, made: dict[str, Any], video: VideoFile) -> Row | None:
    """The part of a video, if it is there, whole, of the same file and made in the same way."""
    path = part_path(folder, video.id)
    if not path.exists():
        return None
    try:
        (row,), attributes = read_rows(path)
    except (OSError, ValueError):
        return None  # it is made again, and replaced
    return row if row.is_of(video) and made.items() <= attributes.items() else None


def read_set(definition: Definition) -> tuple[dict[str, Row], dict[str, Any]]:
    """Every video of a finished set by id, and the attributes of its training file (FileNotFoundError, OSError)."""
    stored = {name: read_rows(definition.folder / file) for name, (file,) in _files(definition).items()}
    return {row.id: row for rows, _ in stored.values() for row in rows}, stored["train"][1]


def _files(definition: Definition) -> dict[str, tuple[str, ...]]:
    return {name: split.features for name, split in definition.splits.items() if split.features}
