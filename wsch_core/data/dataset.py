"""A data set as everything else sees it: three splits with features, ids, labels and, where there are any, keyframes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import h5py
import numpy as np
import scipy  # whose parts are loaded when first used: they take longer than the rest of the core

from ..storage.hdf5 import check_storage, find, open_hdf5, read_slice
from ..storage.words import one_line
from .checksums import fingerprint, labels_fingerprint
from .definition import SPLITS, Definition, SplitFiles, load_definition
from .disk import DiskFeatures, open_features
from .features import Features, check_files, read_features, read_ids
from .holding import HOLDS, held_in_memory
from .labels import read_labels

KEYFRAME_BYTES = 2**24  # of one video


@dataclass(frozen=True)
class Split:
    """One of train, database and query. Files are read when first asked for, and then kept."""

    name: str
    definition: Definition
    files: SplitFiles
    hold: str = "auto"  # see `load_dataset`

    def __len__(self) -> int:
        return sum(self.videos_in_files)

    @cached_property
    def videos_in_files(self) -> list[int]:
        return check_files(self.definition, self.files.features, self.files.features_key)

    @property
    def nbytes(self) -> int:
        """Of the features, as the float32 that they are used as."""
        return 4 * len(self) * self.definition.frames * self.definition.feature_size

    @cached_property
    def features(self) -> Features | DiskFeatures:
        if held_in_memory(f"{self.definition.name}, {self.name} split", self.nbytes, self.hold):
            return read_features(self.definition, self.files.features, self.files.features_key)
        return open_features(self.definition, self.name, self.files.features, self.files.features_key)

    @cached_property
    def ids(self) -> list[str]:
        return read_ids(self.definition.folder, self.name, self.files.features, len(self))

    @cached_property
    def labels(self) -> scipy.sparse.csr_array | None:
        """(videos, classes) of 0 and 1; None for a split without label files."""
        if not self.files.labels:
            return None
        parts = []
        for videos, name in zip(self.videos_in_files, self.files.labels, strict=True):
            path, files = self.definition.folder / name, self.files
            columns = len(self.definition.classes)
            parts.append(read_labels(path, files.labels_key, videos, columns, files.labels_drop_columns))
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
                stored = find(file, "keyframes")
                if stored is None:
                    return None
                self._check_keyframes(file, stored)
                wanted = [(place, v - start) for place, v in enumerate(videos) if 0 <= v - start < len(stored)]
                try:
                    pictures += [(place, read_slice(stored, row, row + 1)[0]) for place, row in wanted]
                except OSError as error:
                    raise OSError(
                        f"{file.filename}: 'keyframes' cannot be read ({one_line(error)}): copy it again."
                    ) from error
                start += len(stored)
        if len(pictures) != len(videos):
            raise ValueError(
                f"{self.definition.folder}: {', '.join(self.files.features)} hold keyframes of {start} videos, but "
                f"features of {len(self)}: every video needs its own, in the same order."
            )
        return np.stack([picture for _, picture in sorted(pictures, key=lambda pair: pair[0])])

    def _check_keyframes(self, file: h5py.File, stored: h5py.Dataset | h5py.Group) -> None:
        """Keyframes are small pictures in grey or colour, whatever a file may claim."""
        pictures = isinstance(stored, h5py.Dataset) and stored.dtype == np.uint8 and stored.ndim in (4, 5)
        if not pictures or stored.shape[4:] not in ((), (3,)) or not 0 < math.prod(stored.shape[1:]) <= KEYFRAME_BYTES:
            raise ValueError(
                f"{file.filename}: 'keyframes' must be uint8 of the shape (videos, frames, height, width) with or without "
                f"3 colours, and at most {KEYFRAME_BYTES:,} bytes for a video: store them so, or leave them out."
            )
        check_storage(file, "keyframes", stored)

    @cached_property
    def fingerprint(self) -> str:
        """Of all features and ids."""
        len(self)  # the files are checked first
        return fingerprint(self.definition, self.files.features, self.files.features_key, self.ids)

    @cached_property
    def labels_fingerprint(self) -> str:
        return labels_fingerprint(self.labels)


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
    def labelled(self) -> bool:
        """Whether database and queries have labels, so that mAP@K can be measured."""
        return bool(self.database.files.labels and self.query.files.labels)

    @property
    def queries_are_database(self) -> bool:
        return self.definition.queries_are_database


def load_dataset(name: str, hold: str = "auto") -> Dataset:
    """Load a data set by the name of its definition; the demo set is made on first use.

    hold: where features are held while they are used: "gpu", "memory" or "disk"; "auto" chooses by size against what is
    free, split by split. It changes speed and memory, and no result.

    Definitions and small checks are read at once, features when first used. Raises ValueError for an unknown name,
    FileNotFoundError, OSError or ValueError for files that are missing, damaged or not what the definition says.
    """
    if hold not in HOLDS:
        raise ValueError(f"hold is {hold!r}: it must be one of {', '.join(HOLDS)}.")
    definition = load_definition(name)
    if definition.builder == "demo":
        from .demo.build import build_demo  # only here: it needs scikit-learn

        build_demo(definition.folder)
    splits: dict[str, Split] = {}
    for split, files in definition.splits.items():
        splits[split] = splits[files.same_as] if files.same_as else Split(split, definition, files, hold)
    return Dataset(definition, splits["train"], splits["database"], splits["query"])
