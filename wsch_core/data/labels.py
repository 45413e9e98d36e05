"""Label files: MATLAB .mat with one multi-hot row per video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import scipy  # whose parts are loaded when first used: they take longer than the rest of the core

from ..storage.hdf5 import check_storage, find, open_hdf5, read_attribute, read_slice
from ..storage.matlab import Damaged, read_matrix, sparse_matrix
from ..storage.words import one_line

MOST_SURPLUS = 1000  # columns beside the classes; with more, the file is of another set, or no label file


def read_labels(
    path: Path, key: str, videos: int, classes: int, drop_columns: Sequence[int] = ()
) -> scipy.sparse.csr_array:
    """Read labels, v5 or v7.3, dense or sparse: (videos, classes) of 0 and 1.

    drop_columns: columns of the file, counted from 0, that are no classes and left out
    Raises FileNotFoundError, OSError or ValueError with one sentence that names the file and what is wrong with it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: put the label file there, or correct the definition.")
    stored = classes + len(set(drop_columns))

    def check_shape(shape: tuple[int, ...]) -> None:
        _check_shape(path, key, shape, videos, stored)

    labels = (_read_hdf5 if h5py.is_hdf5(path) else read_matrix)(path, key, check_shape)
    if labels.shape != (videos, stored) and (labels.shape == (stored, videos) or labels.shape[0] != videos):
        labels = labels.T  # which way round is told by the number of videos
    labels = scipy.sparse.csr_array(labels)
    labels.eliminate_zeros()
    if labels.nnz and not np.array_equal(np.unique(labels.data), [1]):
        raise ValueError(f"{path}: {key!r} holds values other than 0 and 1, but labels must be multi-hot.")
    return _classes_only(path, key, labels, classes, drop_columns).astype(np.float32)


def _check_shape(path: Path, key: str, shape: tuple[int, ...], videos: int, stored: int) -> None:
    """Judge a shape before anything of it is read: it may claim any size."""
    if len(shape) != 2:
        raise ValueError(f"{path}: {key!r} has the shape {shape}, but labels must be one multi-hot row per video.")
    if videos not in shape:
        raise ValueError(
            f"{path}: {key!r} has the shape {shape}, but its feature file holds {videos} videos: "
            "each video needs its own row, in the same order."
        )
    columns = shape[1] if shape[0] == videos else shape[0]
    if columns > MOST_SURPLUS + stored:
        raise ValueError(
            f"{path}: {key!r} has {columns} columns, but the definition says {stored} with those that are dropped: "
            "use the files that belong together, or correct `classes`."
        )


def _classes_only(path: Path, key: str, labels: scipy.sparse.csr_array, classes: int, drop_columns: Sequence[int]):
    columns = labels.shape[1]
    kept = [column for column in range(columns) if column not in drop_columns]
    if len(kept) == classes and max(drop_columns, default=0) < columns:
        return labels[:, kept]
    without = np.flatnonzero(labels.sum(axis=0) == 0).tolist()
    empty = f"columns without any label: {', '.join(map(str, without[:12])) or 'none'}, counted from 0"
    dropped = f", of which labels_drop_columns names {list(drop_columns)}" if drop_columns else ""
    remedy = (
        "name the surplus ones in labels_drop_columns" if columns > classes else "use the files that belong together"
    )
    raise ValueError(
        f"{path}: {key!r} has {columns} columns{dropped}, but the definition says {classes} classes ({empty}): "
        f"{remedy}, or correct `classes`."
    )


def _read_hdf5(path: Path, key: str, check_shape: Callable[[tuple[int, ...]], None]):
    with open_hdf5(path) as file:
        stored = find(file, key)
        try:
            if isinstance(stored, h5py.Dataset):
                check_shape(stored.shape[::-1])  # MATLAB writes columns first
                return _read_whole(file, key, stored).T
            if isinstance(stored, h5py.Group) and {"ir", "jc"} <= set(stored) and "MATLAB_sparse" in stored.attrs:
                return _read_sparse(file, key, read_attribute(stored, "MATLAB_sparse"), check_shape)
        except (Damaged, KeyError, RuntimeError, TypeError, OverflowError) as error:
            raise OSError(f"{path}: {key!r} cannot be read ({one_line(error)}): copy the file again.") from error
        if stored is not None:
            raise ValueError(f"{path}: {key!r} is not a matrix, but labels must be one multi-hot row per video.")
        names = ", ".join(name for name in file if not name.startswith("#"))[:300]
        raise ValueError(
            f"{path} has no variable {key!r}; it holds {names or 'nothing'}: "
            "name the right one as labels_key in the definition."
        )


def _read_sparse(file: h5py.File, key: str, rows: np.integer, check_shape: Callable[[tuple[int, ...]], None]):
    if not isinstance(rows, np.integer) or rows < 0:
        raise Damaged("its sparse matrix does not say how many rows it has")
    starts, *others = (find(file, f"{key}/{name}") for name in ("jc", "ir", "data"))
    others = [part for part in others if part is not None]  # an empty matrix has neither rows nor values
    if not all(isinstance(part, h5py.Dataset) and part.ndim == 1 for part in (starts, *others)):
        raise Damaged("it is neither a matrix nor a sparse matrix")
    shape = (int(rows), len(starts) - 1)
    check_shape(shape)
    if any(len(part) > max(1, shape[0] * shape[1]) for part in others):
        raise Damaged("its sparse matrix holds more values than it has places")
    parts = [_read_whole(file, f"{key}/{part.name}", part) for part in (starts, *others)]
    starts, indices, values = parts if len(others) == 2 else (parts[0], np.zeros(0, np.int64), np.zeros(0))
    if any(part.dtype.kind not in "iu" for part in (starts, indices)):
        raise Damaged("its sparse matrix is not numbered")
    return sparse_matrix(values, indices.astype(np.int64), starts.astype(np.int64), shape)


def _read_whole(file: h5py.File, key: str, data: h5py.Dataset) -> np.ndarray:
    check_storage(file, key, data)
    if data.dtype.kind not in "buif":
        raise ValueError(f"{file.filename}: {key!r} holds {data.dtype}, but labels must be numbers 0 and 1.")
    try:
        return read_slice(data) if data.ndim else data[()]
    except OSError as error:
        raise Damaged(one_line(error)) from error
