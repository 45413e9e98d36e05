"""A data set looked at before it is trusted: what is in its files, and whether one can train on them.

The checks that training itself makes (files, shapes, finite features, labels) are the same functions, so a set that is
called ready here is not refused there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from torch import Tensor

from ..storage.lines import counted
from .dataset import Dataset, Split
from .features import Faults, read_chunks
from .holding import held_in_memory

MANY = 0.5  # a share of all-zero videos from which a split is called broken


@dataclass
class SplitCheck:
    """What one split's files hold. Counts are of the videos that were looked at."""

    name: str
    videos: int
    nbytes: int  # as float32
    hold: str  # "in memory" or "on disk", as training would hold it now
    looked_at: int = 0
    not_finite: int = 0  # videos with a NaN or an infinity
    zero: int = 0  # videos of which every feature is 0
    with_zero_frames: int = 0  # videos with a frame of zeros
    with_repeated_frames: int = 0  # videos in which a frame equals the one before it
    minimum: float = np.inf
    maximum: float = -np.inf
    mean: float = 0.0
    deviation: float = 0.0
    zero_share: float = 0.0  # of all numbers
    labels_per_video: np.ndarray | None = None  # (videos,); None without labels
    per_class: np.ndarray | None = None  # (classes,) videos
    digests: dict[bytes, int] = field(default_factory=dict)  # of each different video: how often it is there

    @property
    def duplicates(self) -> int:
        """Videos that are there before, exactly."""
        return self.looked_at - len(self.digests)

    @property
    def unlabelled(self) -> int | None:
        return None if self.labels_per_video is None else int((self.labels_per_video == 0).sum())


@dataclass
class DatasetCheck:
    """`problems` keep one from training or evaluating; `notes` are worth knowing."""

    splits: dict[str, SplitCheck] = field(default_factory=dict)  # those that could be read
    shared: dict[tuple[str, str], int] = field(default_factory=dict)  # different videos that two splits have in common
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        return not self.problems

    def verdict(self) -> str:
        """One line first; then what is wrong, and what is worth knowing."""
        first = "Ready: one can train and evaluate on this data set."
        if self.problems:
            first = f"Not ready: {len(self.problems)} problem{'s' * (len(self.problems) > 1)}."
        return "\n".join([first, *(f"✗ {text}" for text in self.problems), *(f"• {text}" for text in self.notes)])


def check_dataset(dataset: Dataset, most: int | None = None) -> DatasetCheck:
    """Look at every split of a data set.

    most: look at about so many videos of each file, spread evenly; None looks at all
    What is wrong does not raise: it is a sentence among the problems.
    """
    check = DatasetCheck()
    for split in {split.name: split for split in dataset.splits.values()}.values():
        try:
            check.splits[split.name] = _check_split(split, most)
        except (OSError, ValueError) as error:
            check.problems.append(str(error))
    for name, found in check.splits.items():
        _judge_features(check, name, found)
    for one, other in combinations(check.splits, 2):
        common = check.splits[one].digests.keys() & check.splits[other].digests.keys()
        if common:
            check.shared[one, other] = len(common)
            check.notes.append(f"{len(common):,} different videos are in both {one} and {other}, exactly.")
    _judge_labels(check, dataset)
    if any(found.looked_at < found.videos for found in check.splits.values()):
        check.notes.append(
            "Only a part of the videos was looked at, so rare faults and duplicates may be missing here."
        )
    return check


def _check_split(split: Split, most: int | None) -> SplitCheck:
    in_memory = held_in_memory(split.name, split.nbytes, split.hold)
    found = SplitCheck(split.name, len(split), split.nbytes, "in memory" if in_memory else "on disk")
    if split.labels is not None:
        found.labels_per_video = np.asarray(split.labels.sum(axis=1), dtype=int)
        found.per_class = np.asarray(split.labels.sum(axis=0), dtype=int)
    if len(split.ids) != len(split):
        raise ValueError(f"{split.name}: found {len(split.ids)} ids for {len(split)} videos.")
    faults, sums = Faults(""), np.zeros(4)
    with counted(f"looking at {split.name}", len(split)) as bar:
        for name in split.files.features:
            for _, chunk in read_chunks(split.definition.folder / name, split.files.features_key, most):
                faults.look(chunk, 0)
                sums += _look(found, chunk)
                bar.update(len(chunk))
    found.not_finite, found.zero = len(faults.not_finite), faults.zero
    _, found.mean, squares, found.zero_share = (sums / max(sums[0], 1)).tolist()
    found.deviation = max(0.0, squares - found.mean**2) ** 0.5
    return found


def _look(found: SplitCheck, chunk: Tensor) -> np.ndarray:
    """Add a chunk (n, frames, D) to what is counted; returns of its finite numbers: how many, sum, squares, zeros."""
    zero_frames = (chunk == 0).all(dim=2)
    found.with_zero_frames += int(zero_frames.any(dim=1).sum())
    repeated = (chunk[:, 1:] == chunk[:, :-1]).all(dim=2) & ~zero_frames[:, 1:]
    found.with_repeated_frames += int(repeated.any(dim=1).sum())
    found.looked_at += len(chunk)
    for video in chunk.numpy():
        digest = hashlib.blake2b(video.data, digest_size=16).digest()
        found.digests[digest] = found.digests.get(digest, 0) + 1
    finite = chunk.isfinite()
    numbers = (chunk if finite.all() else chunk[finite]).double()
    if not numbers.numel():
        return np.zeros(4)
    found.minimum = min(found.minimum, numbers.min().item())
    found.maximum = max(found.maximum, numbers.max().item())
    sums = numbers.sum(), numbers.square().sum(), (numbers == 0).sum()
    return np.array([numbers.numel(), *map(float, sums)])


def _judge_features(check: DatasetCheck, name: str, found: SplitCheck) -> None:
    if found.not_finite:
        check.problems.append(
            f"{name}: {found.not_finite:,} videos hold NaN or infinite features: extract them again, or take them out."
        )
    zero = f"{name}: {found.zero:,} of {found.looked_at:,} videos are all zero"
    if found.zero > MANY * found.looked_at:
        check.problems.append(f"{zero}: extract them again.")
    elif found.zero:
        check.notes.append(f"{zero}: they get one and the same code.")
    for count, what in (
        (found.with_zero_frames - found.zero, "have some frames of zeros"),
        (found.with_repeated_frames, "repeat a frame"),
        (found.duplicates, "are exact copies of another"),
    ):
        if count > 0:
            check.notes.append(f"{name}: {count:,} of {found.looked_at:,} videos {what}.")


def _judge_labels(check: DatasetCheck, dataset: Dataset) -> None:
    for name in ("database",) if dataset.queries_are_database else ("database", "query"):
        found = check.splits.get(dataset.splits[name].name)
        if found is None:
            continue
        if found.labels_per_video is None:
            check.notes.append(f"{name}: no labels, so one can train and search, but not measure mAP@K.")
        elif found.unlabelled:
            check.notes.append(
                f"{name}: {found.unlabelled:,} of {found.videos:,} videos have no label, so nothing is relevant to them."
            )
    classes = [found.per_class for found in check.splits.values() if found.per_class is not None]
    unused = int((sum(classes) == 0).sum()) if classes else 0
    if unused:
        check.notes.append(f"{unused:,} of {len(dataset.definition.classes):,} classes have no video in any split.")
