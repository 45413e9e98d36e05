"""Label files: MATLAB .mat with one multi-hot row per video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import scipy  # whose parts are loaded when first used: they take longer than the rest of the core

from .hdf5 import find, open_hdf5


def read_labels(
    path: Path, key: str, videos: int, classes: int, drop_columns: Sequence[int] = ()
) -> scipy.sparse.csr_array:
    """Read labels, v5 or v7.3, dense or sparse: (videos, classes) of 0 and 1.

    drop_columns: columns of the file, counted from 0, that are no classes and left out
    Raises FileNotFoundError, OSError or ValueError with one sentence that names the file and what is wrong with it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: put the label file there, or correct the definition.")
    labels = _read_hdf5(path, key, videos) if h5py.is_hdf5(path) else _read_v5(path, key)
    stored = classes + len(set(drop_columns))
    if labels.shape != (videos, stored) and (labels.shape == (stored, videos) or labels.shape[0] != videos):
        labels = labels.T  # which way round is told by the number of videos
    if labels.shape[0] != videos:
        raise ValueError(
            f"{path}: {key!r} has the shape {labels.shape[::-1]}, but its feature file holds {videos} videos: "
            "each video needs its own row, in the same order."
        )
    labels = scipy.sparse.csr_array(labels)
    labels.eliminate_zeros()
    if labels.nnz and not np.array_equal(np.unique(labels.data), [1]):
        raise ValueError(f"{path}: {key!r} holds values other than 0 and 1, but labels must be multi-hot.")
    return _classes_only(path, key, labels, classes, drop_columns).astype(np.float32)


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


def _read_v5(path: Path, key: str):
    try:
        variables = scipy.io.loadmat(path)
    except Exception as error:  # a damaged file makes SciPy raise nearly anything
        raise OSError(f"{path} cannot be read as a MATLAB file ({error}): copy the file again.") from error
    return _check_matrix(path, key, variables.get(key), [name for name in variables if not name.startswith("__")])


def _read_hdf5(path: Path, key: str, videos: int):
    with open_hdf5(path) as file:
        stored = find(file, key)
        value = None
        if isinstance(stored, h5py.Dataset):
            if stored.ndim == 2 and videos not in stored.shape:  # before it is read: it may claim any size
                raise ValueError(
                    f"{path}: {key!r} has the shape {stored.shape[::-1]}, but its feature file holds {videos} videos: "
                    "each video needs its own row, in the same order."
                )
            value = stored[()].T  # MATLAB writes columns first
        elif isinstance(stored, h5py.Group) and {"ir", "jc"} <= set(stored) and "MATLAB_sparse" in stored.attrs:
            rows = int(stored.attrs["MATLAB_sparse"])
            parts = [stored[name][()] if name in stored else np.zeros(0) for name in ("data", "ir", "jc")]
            value = scipy.sparse.csc_array(tuple(parts), shape=(rows, len(parts[2]) - 1))
        return _check_matrix(path, key, value, [name for name in file if not name.startswith("#")])


def _check_matrix(path: Path, key: str, value, names: list[str]):
    if value is None:
        raise ValueError(
            f"{path} has no variable {key!r}; it holds {', '.join(names) or 'nothing'}: "
            "name the right one as labels_key in the definition."
        )
    if not (scipy.sparse.issparse(value) or isinstance(value, np.ndarray)) or value.ndim != 2:
        raise ValueError(f"{path}: {key!r} is not a matrix, but labels must be one multi-hot row per video.")
    if value.dtype.kind not in "buif":
        raise ValueError(f"{path}: {key!r} holds {value.dtype}, but labels must be numbers 0 and 1.")
    return value
