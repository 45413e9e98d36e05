"""Feature files: HDF5 with one dataset (videos, frames, feature size), checked as they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from ..losses import directions
from .definition import Definition

CHUNK_VIDEOS = 1024  # videos handled at a time where a whole split is walked through
NAMED_VIDEOS = 8  # how many bad videos an error names


class Features:
    """All frames of a split: (videos, frames, feature size) float32, held in memory on one device."""

    def __init__(self, frames: Tensor):
        self.tensor = frames

    def __len__(self) -> int:
        return self.tensor.shape[0]

    @property
    def frames(self) -> int:
        return self.tensor.shape[1]

    @property
    def size(self) -> int:
        return self.tensor.shape[2]

    @property
    def nbytes(self) -> int:
        return self.tensor.nbytes

    def read(self, videos: Sequence[int]) -> Tensor:
        """Chosen whole videos: (n, frames, D), on the CPU."""
        return self.tensor[torch.as_tensor(videos, dtype=torch.int64)].cpu()

    def to(self, device: torch.device | str) -> Features:
        return self if self.tensor.device == torch.device(device) else Features(self.tensor.to(device))

    def gather(self, videos: Tensor, frames: Tensor) -> Tensor:
        """Read chosen frames only: videos (n,), frames (n, visible) -> (n, visible, D)."""
        rows = videos.unsqueeze(-1) * self.frames + frames
        return self.tensor.flatten(0, 1).index_select(0, rows.flatten()).view(*rows.shape, self.size)

    @cached_property
    def direction_sums(self) -> Tensor:
        """(videos, D): the sum of the directions of all frames of each video.

        Less the directions of the visible frames it is the sum over the hidden ones, which training then need not read.
        """
        return torch.cat([directions(chunk).sum(dim=1) for chunk in self.tensor.split(CHUNK_VIDEOS)])

    def mean_pooled(self) -> Tensor:
        """(videos, D): the mean over each video's frames, what the baselines hash."""
        return self.tensor.mean(dim=1)

    def batches(self, size: int) -> Iterator[Tensor]:
        """Whole videos in order, `size` at a time: (batch, frames, D)."""
        yield from self.tensor.split(size)


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


def read_features(definition: Definition, files: tuple[str, ...], key: str) -> Features:
    """Read and check the feature files of one split, in order.

    Raises FileNotFoundError, OSError or ValueError with one sentence that names the file and what is wrong with it.
    """
    shapes = [_check_file(definition, definition.folder / name, key) for name in files]
    frames = torch.empty((sum(shapes), definition.frames, definition.feature_size), dtype=torch.float32)
    start = 0
    for name, videos in zip(files, shapes, strict=True):
        _read_file(definition.folder / name, key, frames[start : start + videos])
        start += videos
    return Features(frames)


def _check_file(definition: Definition, path: Path, key: str) -> int:
    """The number of videos in a file whose shape is what the definition says."""
    with open_hdf5(path) as file:
        if not isinstance(file.get(key), h5py.Dataset):
            raise ValueError(
                f"{path} has no dataset {key!r}; it holds {', '.join(file) or 'nothing'}: "
                "name the right one as features_key in the definition."
            )
        data = file[key]
        expected = f"(videos, {definition.frames}, {definition.feature_size})"
        if data.ndim != 3 or data.shape[1:] != (definition.frames, definition.feature_size):
            raise ValueError(f"{path}: {key!r} has the shape {data.shape}, but the definition says {expected}.")
        if data.dtype.kind != "f":
            raise ValueError(f"{path}: {key!r} holds {data.dtype}, but features must be floating-point numbers.")
        if data.shape[0] == 0:
            raise ValueError(f"{path}: {key!r} holds no videos, but at least one is needed.")
        return data.shape[0]


def _read_file(path: Path, key: str, target: Tensor) -> None:
    bad: list[int] = []
    with open_hdf5(path) as file:
        for start in range(0, len(target), CHUNK_VIDEOS):
            chunk = target[start : start + CHUNK_VIDEOS]
            try:
                file[key].read_direct(chunk.numpy(), np.s_[start : start + len(chunk)])
            except OSError as error:
                raise OSError(f"{path}: {key!r} cannot be read at video {start} ({error}): copy it again.") from error
            finite = torch.isfinite(chunk).flatten(1).all(dim=1)
            bad += (torch.nonzero(~finite).flatten() + start).tolist()
    if bad:
        named = ", ".join(map(str, bad[:NAMED_VIDEOS])) + (", ..." if len(bad) > NAMED_VIDEOS else "")
        raise ValueError(
            f"{path}: {len(bad)} of {len(target)} videos hold NaN or infinite features (rows {named}, counted from 0): "
            "extract them again, or take them out."
        )


def read_ids(folder: Path, split: str, files: tuple[str, ...], videos: int) -> list[str]:
    """The videos' ids: the dataset `ids` of the feature files, or "split/row" where they have none (ValueError)."""
    ids: list[str] = []
    for name in files:
        with open_hdf5(folder / name) as file:
            if "ids" not in file:
                return [f"{split}/{row}" for row in range(videos)]
            if not isinstance(file["ids"], h5py.Dataset) or h5py.check_string_dtype(file["ids"].dtype) is None:
                raise ValueError(f"{folder / name}: 'ids' must be one text per video: store them as strings.")
            ids += file["ids"].asstr()[:].tolist()
    if len(ids) != videos or len(set(ids)) != videos:
        raise ValueError(
            f"{folder}: {', '.join(files)} hold {len(ids)} ids, {len(set(ids))} of them different, for {videos} videos: "
            "every video needs one id of its own."
        )
    return ids


def fingerprint(folder: Path, files: tuple[str, ...], key: str) -> str:
    """A short hash of a split's files: their shapes, and 64 videos spread over each; the same data, the same hash."""
    digest = hashlib.sha256()
    for name in files:
        with open_hdf5(folder / name) as file:
            data = file[key]
            digest.update(repr((data.shape, str(data.dtype))).encode())
            for row in np.linspace(0, len(data) - 1, min(64, len(data))).astype(int):
                digest.update(np.ascontiguousarray(data[row]).tobytes())
    return digest.hexdigest()[:16]
