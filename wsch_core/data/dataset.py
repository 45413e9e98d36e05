"""A data set as everything else sees it: three splits with features, ids, labels and, where there are any, keyframes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse

from .definition import SPLITS, Definition, SplitFiles, load_definition
from .features import Features, fingerprint, open_hdf5, read_features, read_ids
from .labels import read_labels


@dataclass(frozen=True)
class Split:
    """One of train, database and query. Files are read when first asked for, and then kept."""

    name: str
    definition: Definition
    files: SplitFiles

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def features(self) -> Features:
        return read_features(self.definition, self.files.features, self.files.features_key)

    @cached_property
    def ids(self) -> list[str]:
        return read_ids(self.definition.folder, self.name, self.files.features, len(self))

    @cached_property
    def labels(self) -> scipy.sparse.csr_array | None:
        """(videos, classes) of 0 and 1; None for a split without label files."""
        if not self.files.labels:
            return None
        parts = []
        for feature_file, label_file in zip(self.files.features, self.files.labels, strict=True):
            with open_hdf5(self.definition.folder / feature_file) as file:
                videos = file[self.files.features_key].shape[0]
            path = self.definition.folder / label_file
            parts.append(read_labels(path, self.files.labels_key, videos, len(self.definition.classes)))
        return scipy.sparse.vstack(parts, format="csr")

    def label_names(self, video: int) -> str:
        """A video's labels in words, or an empty text."""
        if self.labels is None:
            return ""
        return ", ".join(self.definition.classes[c] for c in self.labels[[video]].indices)

    def keyframes(self, videos: Sequence[int]) -> np.ndarray | None:
        """Small pictures of chosen videos, (n, frames, height, width[, 3]) uint8; None if the set ships features only."""
        start, pictures = 0, []
        for name in self.files.features:
            with open_hdf5(self.definition.folder / name) as file:
                if "keyframes" not in file:
                    return None
                stored = file["keyframes"]
                pictures += [
                    (place, stored[v - start]) for place, v in enumerate(videos) if 0 <= v - start < len(stored)
                ]
                start += len(stored)
        if len(pictures) != len(videos):
            raise ValueError(
                f"{self.definition.folder}: the {self.name} split has keyframes of {start} videos, but features of "
                f"{len(self)}: every video needs its own, in the same order."
            )
        return np.stack([picture for _, picture in sorted(pictures, key=lambda pair: pair[0])])

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.definition.folder, self.files.features, self.files.features_key)


@dataclass(frozen=True)
class Dataset:
    """A data set's three splits; `query` is `database` where the queries are the database."""

    definition: Definition
    train: Split
    database: Split
    query: Split

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def frames(self) -> int:
        return self.definition.frames

    @property
    def feature_size(self) -> int:
        return self.definition.feature_size

    @property
    def splits(self) -> dict[str, Split]:
        return {name: getattr(self, name) for name in SPLITS}

    def label_counts(self) -> dict[str, np.ndarray]:
        """Videos per class, (classes,), of each different split that has labels."""
        different = {split.name: split for split in self.splits.values() if split.labels is not None}
        return {name: np.asarray(split.labels.sum(axis=0), dtype=int) for name, split in different.items()}

    @property
    def queries_are_database(self) -> bool:
        return self.definition.queries_are_database


def load_dataset(name: str) -> Dataset:
    """Load a data set by the name of its definition; the demo set is made on first use.

    Definitions and small checks are read at once, features when first used. Raises ValueError for an unknown name,
    FileNotFoundError, OSError or ValueError for files that are missing, damaged or not what the definition says.
    """
    definition = load_definition(name)
    if definition.builder == "demo":
        from .demo import build_demo  # only here: it needs scikit-learn

        build_demo(definition.folder)
    elif definition.builder:
        raise ValueError(f"{name}: builder is {definition.builder!r}: the only built-in builder is 'demo'.")
    splits: dict[str, Split] = {}
    for split, files in definition.splits.items():
        splits[split] = splits[files.same_as] if files.same_as else Split(split, definition, files)
    return Dataset(definition, splits["train"], splits["database"], splits["query"])
