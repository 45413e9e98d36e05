"""Features larger than memory: they stay in their files, and only the visible frames are read.

An uncompressed, contiguous HDF5 data set is a plain array inside its file and is read where it lies. A chunked or
compressed one is copied once, into a contiguous array below the data set's folder in `.cache/` (or WSCH_CACHE). So videos
can be read in any order, and a run ends bitwise as if all features had been in memory.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from ..storage.hdf5 import find, open_hdf5
from ..storage.lines import counted
from .checksums import cache_folder, file_checksum
from .definition import Definition
from .features import Faults, Features, check_files, chunk_videos, direction_sums, read_chunks, spread
from .holding import gigabytes

READERS = 8  # threads that wait for the disk at the same time


@dataclass(frozen=True)
class StoredArray:
    """An array of floating-point numbers that lies in one piece in a file; rows along its first axis."""

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int  # bytes

    def __len__(self) -> int:
        return self.shape[0]

    def read_range(self, first: int, last: int) -> np.ndarray:
        """Consecutive rows, as float32."""
        rows = np.empty((last - first, *self.shape[1:]), self.dtype)
        with open(self.path, "rb") as file:  # a file of its own: the system may read ahead
            file.seek(self.offset + first * self._row_bytes)
            self._check_whole(file.readinto(rows.reshape(-1).view(np.uint8)), rows.nbytes)
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
            return rows.astype(np.float32, copy=False)

    def read_into(self, out: np.ndarray, row: int, inner: Sequence[int]) -> None:
        """Chosen entries of one row's first axis -> out, float32."""
        buffer = out if self.dtype == np.float32 else np.empty(out.shape, self.dtype)
        start, step = self.offset + row * self._row_bytes, buffer[0].nbytes
        read = sum(os.preadv(self._descriptor, (buffer[place],), start + at * step) for place, at in enumerate(inner))
        self._check_whole(read, buffer.nbytes)
        if buffer is not out:
            out[:] = buffer

    @cached_property
    def _descriptor(self) -> int:
        descriptor = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # read a frame, and nothing around it
        return descriptor

    @property
    def _row_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape[1:])

    def _check_whole(self, read: int, expected: int) -> None:
        if read != expected:
            raise OSError(f"{self.path} has become shorter while it was in use: bring back the whole file, and resume.")


class DiskFeatures:
    """All frames of a split, (videos, frames, feature size), left on disk; used like `Features`.

    Files are read at explicit places, so a forked process may go on using what its parent opened.
    """

    held = "on disk"
    device = torch.device("cpu")

    def __init__(self, name: str, arrays: Sequence[StoredArray], make_sums: Callable[[DiskFeatures], StoredArray]):
        """name: for errors; arrays: one for each file, (videos, frames, D); make_sums: makes `direction_sums`."""
        self.name, self.arrays = name, list(arrays)
        self.starts = np.cumsum([0, *(len(array) for array in self.arrays)])
        self._make_sums = make_sums

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def frames(self) -> int:
        return self.arrays[0].shape[1]

    @property
    def size(self) -> int:
        return self.arrays[0].shape[2]

    @property
    def nbytes(self) -> int:
        """As float32, which they are used as."""
        return 4 * len(self) * self.frames * self.size

    def to(self, device: torch.device | str) -> Features:
        """All of them in memory or on the GPU."""
        frames = torch.empty(len(self), self.frames, self.size, device=device)
        start = 0
        for chunk in self.batches(chunk_videos(self.frames, self.size)):
            frames[start : start + len(chunk)] = chunk
            start += len(chunk)
        return Features(frames)

    def read(self, videos: Sequence[int]) -> Tensor:
        videos = torch.as_tensor(videos, dtype=torch.int64)
        return self.gather(videos, torch.arange(self.frames).expand(len(videos), -1))

    def gather(self, videos: Tensor, frames: Tensor) -> Tensor:
        """Read chosen frames only: videos (n,), frames (n, visible) -> (n, visible, D)."""
        out = np.empty((*frames.shape, self.size), dtype=np.float32)
        files = np.searchsorted(self.starts, videos.numpy(), side="right") - 1
        rows = videos.numpy() - self.starts[files]
        jobs = list(zip(out, files.tolist(), rows.tolist(), frames.tolist(), strict=True))
        self._in_parallel(lambda job: self.arrays[job[1]].read_into(job[0], job[2], job[3]), jobs)
        return torch.from_numpy(out)

    def gather_sums(self, videos: Tensor) -> Tensor:
        """The direction sums of chosen videos (n,) -> (n, D)."""
        sums = self.direction_sums
        out = np.empty((len(videos), 1, self.size), dtype=np.float32)
        jobs = list(zip(out, videos.tolist(), strict=True))
        self._in_parallel(lambda job: sums.read_into(job[0], job[1], [0]), jobs)
        return torch.from_numpy(out).squeeze(1)

    def _in_parallel(self, read: Callable, jobs: list) -> None:
        """Several threads, since each waits for the disk most of the time."""

        def read_all(part: list) -> None:
            for job in part:
                read(job)

        list(self._readers.map(read_all, (jobs[first::READERS] for first in range(READERS))))

    @cached_property
    def _readers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(READERS)

    @cached_property
    def direction_sums(self) -> StoredArray:
        """(videos, 1, D), as `Features.direction_sums`; made in one pass over all frames, and kept on disk."""
        return self._make_sums(self)

    def mean_pooled(self, most: int | None = None) -> Tensor:
        """(videos, D): the mean over each video's frames; of at most so many videos, spread evenly."""
        step, videos = chunk_videos(self.frames, self.size), spread(len(self), most)
        chunks = self.batches(step) if most is None else map(self.read, videos.split(step))
        means = torch.empty(len(videos), self.size)  # one piece: joining many would need their memory twice
        for rows, chunk in zip(means.split(step), chunks, strict=True):
            torch.mean(chunk, dim=1, out=rows)
        return means

    def batches(self, size: int) -> Iterator[Tensor]:
        """Whole videos in order, `size` at a time: (batch, frames, D). What is not finite is a ValueError."""
        faults = Faults(f"{self.name}: ")
        for start in range(0, len(self), size):
            batch = self._read_range(start, min(start + size, len(self)))
            faults.look(batch, start)
            yield batch
        faults.refuse()

    def _read_range(self, first: int, last: int) -> Tensor:
        parts = []
        for start, array in zip(self.starts.tolist(), self.arrays, strict=False):
            begin, end = max(first - start, 0), min(last - start, len(array))
            if begin < end:
                parts.append(torch.from_numpy(array.read_range(begin, end)))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def open_features(definition: Definition, split: str, files: tuple[str, ...], key: str) -> DiskFeatures:
    """A split's files, checked and ready to be read frame by frame; what cannot be is copied first, which is said.

    Raises FileNotFoundError, OSError or ValueError with one sentence that names the file and what is wrong with it.
    """
    check_files(definition, files, key)
    paths = [definition.folder / name for name in files]
    arrays = [_stored(path, key) for path in paths]
    for place, path in enumerate(paths):
        if arrays[place] is None:
            arrays[place] = _convert(definition, path, key)
    state = "-".join(_state(definition, path, key) for path in paths)
    name = f"{split}-direction-sums-{hashlib.sha256(state.encode()).hexdigest()[:16]}.npy"
    places = f"{definition.folder}: {', '.join(files)}"
    return DiskFeatures(places, arrays, lambda features: _keep_sums(definition, name, features))


def _stored(path: Path, key: str) -> StoredArray | None:
    """Where a data set lies in its file; None if it is in pieces (chunked, compressed) or in another byte order."""
    with open_hdf5(path) as file:
        data = find(file, key)
        if data.id.get_offset() is None or not data.dtype.isnative:
            return None
        return StoredArray(path, data.dtype, data.shape, data.id.get_offset())


def _convert(definition: Definition, path: Path, key: str) -> StoredArray:
    with open_hdf5(path) as file:
        data = find(file, key)
        shape, layout = data.shape, data.compression or ("chunked" if data.chunks else str(data.dtype))
    name = f"{path.stem}-{hashlib.sha256(_state(definition, path, key).encode()).hexdigest()[:16]}.npy"
    title = f"copying {path.name} ({layout}) so that single frames can be read"
    return _cached(definition, name, title, shape, _checked_chunks(path, key))


def _checked_chunks(path: Path, key: str) -> Iterator[Tensor]:
    faults = Faults(f"{path}: ")
    for start, chunk in read_chunks(path, key):
        faults.look(chunk, start)
        yield chunk
    faults.refuse()


def _keep_sums(definition: Definition, name: str, features: DiskFeatures) -> StoredArray:
    chunks = features.batches(chunk_videos(features.frames, features.size))
    title = "preparing the hidden frames' part of the loss, once for these files"
    return _cached(definition, name, title, (len(features), 1, features.size), map(direction_sums, chunks))


def _cached(
    definition: Definition, name: str, title: str, shape: tuple[int, ...], chunks: Iterator[Tensor]
) -> StoredArray:
    """The array of this name in the data set's cache; if it is not there, `chunks` are written into it, whole or not."""
    folder = cache_folder(definition)
    path, draft = folder / name, folder / f"{name}.writing"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):
            if not path.exists():
                draft.unlink(missing_ok=True)  # of a killed process
                _check_space(folder, title, 4 * math.prod(shape))
                _write_array(draft, title, shape, chunks)
                os.replace(draft, path)
    except OSError as error:
        if error.strerror is None:
            raise
        raise OSError(
            f"{path} cannot be written ({error.strerror}): set WSCH_CACHE to a folder with room for it."
        ) from error
    array = np.load(path, mmap_mode="r")  # only for its head
    return StoredArray(path, array.dtype, array.shape, array.offset)


def _write_array(path: Path, title: str, shape: tuple[int, ...], chunks: Iterator[Tensor]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
    try:
        with open(path, "wb") as file, counted(title, shape[0]) as bar:
            np.lib.format.write_array_header_1_0(file, header)
            for chunk in chunks:
                file.write(np.ascontiguousarray(chunk.numpy()).data)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    except BaseException:  # also when interrupted: what is not whole must not fill the disk
        path.unlink(missing_ok=True)
        raise


def _check_space(folder: Path, title: str, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > 0.95 * free:
        raise OSError(
            f"{title} takes {gigabytes(needed)} below {folder}, and {gigabytes(free)} are free: set WSCH_CACHE to a folder "
            "with more room."
        )


def _state(definition: Definition, path: Path, key: str) -> str:
    """What tells that a file is not the one it was, or is not another one."""
    name = path.relative_to(definition.folder).as_posix()
    return repr((name, key, file_checksum(definition, name, key)))
