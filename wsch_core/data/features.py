"""Feature files: HDF5 with one dataset (videos, frames, feature size), checked as they are read into memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..storage.hdf5 import (
    MOST_COMPRESSED,
    check_storage,
    find,
    is_plain,
    open_hdf5,
    read_attribute,
    read_slice,
    read_texts,
)
from ..storage.words import one_line, shortened
from .definition import Definition

CHUNK_BYTES = 2**26  # handled at a time where a whole split is walked through
SMALLEST_NORM = 1e-8  # floor of a norm in a cosine, so that an all-zero frame has direction 0
NAMED_VIDEOS = 8  # how many bad videos an error names


class Features:
    """All frames of a split: (videos, frames, feature size) float32, held in memory or on the GPU.

    `wsch_core.data.disk.DiskFeatures` is the same for features that stay on disk.
    """

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

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    @property
    def held(self) -> str:
        return "in memory" if self.device.type == "cpu" else "on the GPU"

    def to(self, device: torch.device | str) -> Features:
        return self if self.device == torch.device(device) else Features(self.tensor.to(device))

    def read(self, videos: Sequence[int]) -> Tensor:
        """Chosen whole videos: (n, frames, D), on the CPU."""
        return self.tensor[torch.as_tensor(videos, dtype=torch.int64)].cpu()

    def gather(self, videos: Tensor, frames: Tensor) -> Tensor:
        """Read chosen frames only: videos (n,), frames (n, visible) -> (n, visible, D)."""
        rows = videos.unsqueeze(-1) * self.frames + frames
        return self.tensor.flatten(0, 1).index_select(0, rows.flatten()).view(*rows.shape, self.size)

    def gather_sums(self, videos: Tensor) -> Tensor:
        """The direction sums of chosen videos (n,) -> (n, D)."""
        return self.direction_sums.index_select(0, videos)

    @cached_property
    def direction_sums(self) -> Tensor:
        """(videos, D): the sum of the directions of all frames of each video.

        Less the directions of the visible frames it is the sum over the hidden ones, which training then need not read.
        """
        sums = self.tensor.new_empty(len(self), self.size)  # one piece: many small ones would leave holes in memory
        step = chunk_videos(self.frames, self.size)
        for start, chunk in zip(range(0, len(self), step), self.batches(step), strict=True):
            sums[start : start + step] = direction_sums(chunk)
        return sums

    def mean_pooled(self, most: int | None = None) -> Tensor:
        """(videos, D): the mean over each video's frames, what the baselines hash; of at most so many videos, spread."""
        return self.tensor[spread(len(self), most)].mean(dim=1) if most else self.tensor.mean(dim=1)

    def batches(self, size: int) -> Iterator[Tensor]:
        """Whole videos in order, `size` at a time: (batch, frames, D)."""
        yield from self.tensor.split(size)


def directions(frames: Tensor) -> Tensor:
    """Frames (..., D) -> their directions (..., D): divided by their norm, floored at 1e-8."""
    return F.normalize(frames, dim=-1, eps=SMALLEST_NORM)


def direction_sums(videos: Tensor) -> Tensor:
    """(n, frames, D) -> (n, D)."""
    return directions(videos).sum(dim=1)


def chunk_videos(frames: int, size: int) -> int:
    """How many videos of float32 features fill a chunk."""
    return max(1, CHUNK_BYTES // (4 * frames * size))


def spread(videos: int, most: int | None) -> Tensor:
    """Rows of all videos, or of `most` evenly spread over them."""
    return torch.linspace(0, videos - 1, min(most or videos, videos)).round().long()


def check_files(definition: Definition, files: tuple[str, ...], key: str) -> list[int]:
    """The number of videos in each of a split's files.

    Raises FileNotFoundError, OSError or ValueError where one is missing, has another shape than the definition says, or
    two disagree, naming the files.
    """
    paths = [definition.folder / name for name in files]
    missing = [path.name for path in paths if not path.is_file()]
    if 0 < len(missing) < len(paths):
        raise FileNotFoundError(
            f"{definition.folder} holds {len(paths) - len(missing)} of {len(paths)} feature files; missing: "
            f"{', '.join(missing)}: put them there, or take them out of the definition."
        )
    shapes = [_shape(path, key) for path in paths]
    _check_extractor(definition, paths)
    for path, shape in zip(paths, shapes, strict=True):
        if shape[1:] != shapes[0][1:]:
            raise ValueError(
                f"{paths[0].name} and {path.name} in {definition.folder} hold videos of (frames, feature size) "
                f"{shapes[0][1:]} and {shape[1:]}: the files of a split must agree."
            )
        if shape[1:] != (definition.frames, definition.feature_size):
            raise ValueError(
                f"{path}: {key!r} has the shape {shape}, but the definition says (videos, {definition.frames}, "
                f"{definition.feature_size}): correct frames and feature_size there, or bring the files it means."
            )
    return [shape[0] for shape in shapes]


def _check_extractor(definition: Definition, paths: Sequence[Path]) -> None:
    """Refuse files that say they were made by another extractor than the definition's, or by two (ValueError)."""
    expected, whose = definition.extractor and definition.extractor.version, "the definition"
    for path in paths:
        with open_hdf5(path) as file:
            found = read_attribute(file, "extractor_version")
        if not isinstance(found, str | None):
            raise ValueError(f"{path}: the attribute extractor_version is {shortened(found)}, but it must be one text.")
        if found is not None and expected is not None and found != expected:
            raise ValueError(
                f"{path} was made by the extractor version {found!r}, but {whose} says {expected!r}: features of two "
                "extractors cannot be mixed."
            )
        if found is not None and expected is None:
            expected, whose = found, path.name


def _shape(path: Path, key: str) -> tuple[int, ...]:
    with open_hdf5(path) as file:
        data = find(file, key)
        if not isinstance(data, h5py.Dataset):
            raise ValueError(
                f"{path} has no dataset {key!r}; it holds {', '.join(islice(file, 20))[:300] or 'nothing'}: "
                "name the right one as features_key in the definition."
            )
        if data.ndim != 3:
            raise ValueError(
                f"{path}: {key!r} has the shape {data.shape}, but features are (videos, frames, feature size)."
            )
        if data.dtype.kind != "f":
            raise ValueError(f"{path}: {key!r} holds {data.dtype}, but features must be floating-point numbers.")
        if not is_plain(data):
            raise ValueError(
                f"{path}: {key!r} holds numbers in a form of its own, but features must be IEEE floating-point numbers of "
                "16, 32 or 64 bits: store them as float32."
            )
        if data.shape[0] == 0:
            raise ValueError(f"{path}: {key!r} holds no videos, but at least one is needed.")
        check_storage(file, key, data, MOST_COMPRESSED)
        return data.shape


def read_features(definition: Definition, files: tuple[str, ...], key: str) -> Features:
    """Read and check the feature files of one split, in order.

    Raises FileNotFoundError, OSError or ValueError with one sentence that names the file and what is wrong with it.
    """
    shapes = check_files(definition, files, key)
    frames = torch.empty((sum(shapes), definition.frames, definition.feature_size), dtype=torch.float32)
    start = 0
    for name, videos in zip(files, shapes, strict=True):
        faults = Faults(f"{definition.folder / name}: ")
        for first, chunk in read_chunks(definition.folder / name, key):
            faults.look(chunk, first)
            frames[start + first : start + first + len(chunk)] = chunk
        faults.refuse()
        start += videos
    return Features(frames)


def read_chunks(path: Path, key: str, most: int | None = None) -> Iterator[tuple[int, Tensor]]:
    """All videos of a file, some at a time: the number of the first, and the videos (n, frames, D) float32.

    most: stop at about so many videos, taken from chunks that are spread evenly over the file
    """
    with open_hdf5(path) as file:
        data = find(file, key)
        whole = data.chunks[0] if data.chunks else 1  # a stored chunk is not read twice
        step = max(1, chunk_videos(*data.shape[1:]) // whole) * whole
        starts = range(0, len(data), step)
        for place in spread(len(starts), math.ceil(most / step) if most else None).tolist():
            start = starts[place]
            try:
                with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
                    chunk = read_slice(data, start, start + step).astype(np.float32, copy=False)
            except OSError as error:
                raise OSError(
                    f"{path}: {key!r} cannot be read at video {start} ({one_line(error)}): copy it again."
                ) from error
            yield start, torch.from_numpy(chunk)


class Faults:
    """Videos that cannot be trained on, found while features are walked through."""

    def __init__(self, place: str):
        self.place, self.videos, self.zero, self.not_finite = place, 0, 0, []

    def look(self, chunk: Tensor, start: int) -> None:
        largest = chunk.flatten(1).abs().amax(dim=1)  # NaN if one value is, infinite if one value is
        self.not_finite += (torch.nonzero(~largest.isfinite()).flatten() + start).tolist()
        self.zero += int((largest == 0).sum())
        self.videos += len(chunk)

    def refuse(self) -> None:
        bad = self.not_finite
        if bad:
            named = ", ".join(map(str, bad[:NAMED_VIDEOS])) + (", ..." if len(bad) > NAMED_VIDEOS else "")
            raise ValueError(
                f"{self.place}{len(bad)} of {self.videos} videos hold NaN or infinite features (rows {named}, counted "
                "from 0): extract them again, or take them out."
            )
        if self.zero == self.videos:
            raise ValueError(f"{self.place}all features of all {self.videos} videos are 0: extract them again.")


def read_ids(folder: Path, split: str, files: tuple[str, ...], videos: int) -> list[str]:
    """The videos' ids: the dataset `ids` of the feature files, or "split/row" where they have none (ValueError)."""
    ids: list[str] = []
    for name in files:
        with open_hdf5(folder / name) as file:
            stored = find(file, "ids")
            if stored is None:
                return [f"{split}/{row}" for row in range(videos)]
            is_text = isinstance(stored, h5py.Dataset) and h5py.check_string_dtype(stored.dtype) is not None
            if not is_text or stored.ndim != 1 or len(stored) > videos:
                raise ValueError(f"{folder / name}: 'ids' must be one text per video: store them as strings.")
            check_storage(file, "ids", stored, MOST_COMPRESSED)
            try:
                ids += read_texts(stored)
            except (OSError, UnicodeDecodeError) as error:
                raise OSError(
                    f"{folder / name}: 'ids' cannot be read ({one_line(error)}): store them again, in UTF-8."
                ) from error
    if len(ids) != videos or len(set(ids)) != videos:
        raise ValueError(
            f"{folder}: {', '.join(files)} hold {len(ids)} ids, {len(set(ids))} of them different, for {videos} videos: "
            "every video needs one id of its own."
        )
    return ids
