"""What a retrieval gallery knows: codes, queries in an order, and what each method finds for them. No widgets here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from ...data import Dataset, Split
from ...experiments.evaluation import FITTED_VIDEOS, run_codes
from ...methods.baselines import BASELINES, fit_baseline
from ...retrieval.metrics import evaluate
from ...runs.folder import Run
from ...runs.outputs import load_run
from ...storage.hdf5 import MOST_COMPRESSED, check_storage, find, open_hdf5, read_slice
from ...storage.words import one_line

FEATURE_FILES = (".h5", ".hdf5")
MOST_NAMES = 100  # looked through in a file of one video
ORDERS = ("in order", "at random", "worst first", "best first")


@dataclass(frozen=True)
class Method:
    """One way of hashing a data set's videos: a run, or a baseline at as many bits."""

    name: str
    database: Tensor  # (videos, b) int8 of ±1
    query: Tensor  # (videos, b)
    encode: Callable[[Tensor], Tensor]  # features (1, frames, D) of a video from outside -> its code (1, b)

    @property
    def bits(self) -> int:
        return self.database.shape[1]


@dataclass(frozen=True)
class Place:
    """Where a video is: a split ("query", "database", or "" for one from outside) and its row there."""

    split: str
    row: int


@dataclass(frozen=True)
class Outside:
    """A video that is not of the data set."""

    name: str
    features: Tensor  # (1, frames, D)
    keyframes: np.ndarray | None  # (frames, height, width, 3) uint8, of a video file


@dataclass(frozen=True)
class Result:
    """One retrieved video of the database."""

    row: int
    rank: int  # from 1, in the whole database
    distance: int  # Hamming distance from the query
    relevant: bool | None  # shares a label with the query; None where the query's are not known


class Gallery:
    """Queries and what they retrieve, by one method or several on one data set.

    The methods show the state that a view needs: `query`, its `results`, and the `order` in which queries come.
    """

    def __init__(self, dataset: Dataset, methods: Sequence[Method], k: int = 12, seed: int = 0):
        self.dataset, self.methods, self.seed = dataset, {method.name: method for method in methods}, seed
        self.k = max(1, k)
        self.self_match, self.only_misses, self.only_class, self.of_class = False, False, "", ""
        self.trail: list[Place] = []
        self._precision: dict[tuple, np.ndarray] = {}
        self.outside: Outside | None = None
        self._rows = {split: {video: row for row, video in enumerate(self.splits[split].ids)} for split in self.splits}
        self.order("in order")

    @property
    def splits(self) -> dict[str, Split]:
        return {"query": self.dataset.query, "database": self.dataset.database}

    # Which queries, in which order

    def order(self, by: str, of_class: str = "") -> None:
        """Bring the queries, of one class or of all, into one of `ORDERS`, and go to the first of them.

        "worst first" and "best first" go by the query's own expected AP@k of the first method. Raises ValueError where
        labels are needed and not there, or no query is of the class.
        """
        rows = self._of_class(of_class)
        if by == "at random":
            rows = np.random.default_rng(self.seed).permutation(rows)
        elif by in ("worst first", "best first"):
            precision = self.precision(next(iter(self.methods)))[rows]
            rows = rows[np.argsort(precision if by == "worst first" else -precision, kind="stable")]
        elif by != "in order":
            raise ValueError(f"order is {by!r}: it must be one of {', '.join(ORDERS)}.")
        self.by, self.of_class = by, of_class
        self.list([Place("query", row) for row in rows.tolist()])

    def list(self, places: Sequence[Place]) -> None:
        """Make chosen videos the queries to step through, and go to the first of them."""
        self.queries = [*places]
        self._position = {place: position for position, place in enumerate(self.queries)}
        self.go(self.queries[0], keep=False)

    def _of_class(self, name: str) -> np.ndarray:
        if not name:
            return np.arange(len(self.dataset.query))
        rows = np.flatnonzero(self._has_class(self.dataset.query, name))
        if not len(rows):
            raise ValueError(f"no query is of the class {name!r}: choose another.")
        return rows

    def _has_class(self, split: Split, name: str) -> np.ndarray:
        column = self.dataset.definition.classes.index(name)
        if split.labels is None:
            raise ValueError(f"the {split.name} split has no labels, so there is no class to choose.")
        return split.labels[:, [column]].toarray()[:, 0] > 0

    def precision(self, method: str) -> np.ndarray:
        """(queries,) each query's expected AP@k; made when first asked for, which takes long for large sets."""
        key = (method, self.k, self.self_match)
        if key not in self._precision:
            labels = [split.labels for split in (self.dataset.query, self.dataset.database)]
            if any(part is None for part in labels):
                raise ValueError("this data set has no labels, so no query is better or worse: choose another order.")
            codes = self.methods[method]
            own = "included" if self.self_match else "excluded"
            ids = {"query_ids": self.dataset.query.ids, "database_ids": self.dataset.database.ids}
            depth = min(self.k, len(codes.database))
            found = evaluate(codes.query, codes.database, *labels, ks=(depth,), self_match=own, **ids)
            self._precision[key] = found.per_query_expected[:, 0]
        return self._precision[key]

    def step(self, by: int) -> None:
        """Go on in the list of queries, round its ends; from elsewhere, back to the last one of it that was visited."""
        if self.query in self._position:
            place = self.queries[(self._position[self.query] + by) % len(self.queries)]
        else:
            place = next((p for p in reversed(self.trail) if p in self._position), self.queries[0])
        self.go(place)

    @property
    def position(self) -> int | None:
        """The query's place in the list, from 1."""
        return self._position[self.query] + 1 if self.query in self._position else None

    # Which query

    def go(self, place: Place, keep: bool = True) -> None:
        """Make a video the query; with `keep`, the former one joins the trail."""
        if keep and place != self.query:
            self.trail.append(self.query)
        self.query = place

    def back(self) -> None:
        """To the query before this one, if there is one."""
        if self.trail:
            self.query = self.trail.pop()

    def place_of(self, video: str) -> Place:
        """Where the video of an id is, queries first. Raises ValueError for an unknown id, naming the closest."""
        for split, rows in self._rows.items():
            if video in rows:
                return Place(split, rows[video])
        close = get_close_matches(video, [*self._rows["query"]][:20_000], n=1, cutoff=0.4)
        hint = f": did you mean {close[0]!r}?" if close else ": give the id of a query or of a database video."
        raise ValueError(f"{video!r} is not a video of {self.dataset.name}{hint}")

    def bring(self, path: Path | str) -> None:
        """Make a video from outside the query: a video file, whose features are extracted as those of the data set were, or
        an HDF5 file with one data set of features, (frames, D) or (1, frames, D).

        Raises OSError, ValueError or ImportError with one sentence that names the file and what is wrong with it.
        """
        path = Path(path).expanduser()
        if path.suffix.lower() in FEATURE_FILES:
            self.outside = Outside(path.name, read_video(path, self.dataset.feature_size), None)
        else:
            from ...videos.query import query_video  # only here: it needs packages for videos

            features, keyframes = query_video(path, self.dataset.definition)
            self.outside = Outside(path.name, torch.from_numpy(features)[None], keyframes)
        self.go(Place("", 0))

    def id_of(self, place: Place) -> str:
        return self.splits[place.split].ids[place.row] if place.split else self.outside.name

    def labels_of(self, place: Place) -> str:
        return self.splits[place.split].label_names(place.row) if place.split else ""

    def code(self, method: str, place: Place) -> Tensor:
        """(b,) of ±1."""
        codes = self.methods[method]
        if not place.split:
            return codes.encode(self.outside.features)[0]
        return getattr(codes, place.split)[place.row]

    # What is found

    def results(self, method: str) -> list[Result]:
        """The k nearest videos, nearest first, equal distances by row; with filters, the k nearest that pass them."""
        codes = self.methods[method].database
        query = self.code(method, self.query)
        distances = (len(query) - codes.float() @ query.float()) / 2
        order = np.argsort(distances.numpy(), kind="stable")
        own = -1 if self.self_match or not self.query.split else self._rows["database"].get(self.id_of(self.query), -1)
        order = order[order != own]
        ranks = np.arange(1, len(order) + 1)
        relevant = self._relevant()
        passes = np.ones(len(order), dtype=bool)
        if self.only_misses and relevant is not None:
            passes &= ~relevant[order]
        if self.only_class:
            passes &= self._has_class(self.dataset.database, self.only_class)[order]
        chosen = np.flatnonzero(passes)[: self.k]
        return [
            Result(
                int(order[place]), int(ranks[place]), int(distances[order[place]]),
                None if relevant is None else bool(relevant[order[place]]),
            )
            for place in chosen
        ]  # fmt: skip

    def _relevant(self) -> np.ndarray | None:
        """(videos,) whether each database video shares a label with the query; None where nothing is known of it."""
        labels = self.splits[self.query.split].labels if self.query.split else None
        if labels is None or self.dataset.database.labels is None or not labels[[self.query.row]].nnz:
            return None
        return (self._by_class @ labels[[self.query.row]].T).toarray()[:, 0] > 0

    @cached_property
    def _by_class(self):
        return self.dataset.database.labels.tocsc()  # whose few columns are quick to add up


def read_video(path: Path, feature_size: int) -> Tensor:
    """One video's features from an HDF5 file: (1, frames, D) float32. Errors as for `Gallery.bring`."""
    with open_hdf5(path) as file:
        names = [name for name in islice(file, MOST_NAMES) if isinstance(find(file, name), h5py.Dataset)]
        if len(names) != 1 and "feats" not in names:
            raise ValueError(
                f"{path} holds {', '.join(names) or 'no data set'}: it must hold one data set, or 'feats'."
            )
        data = find(file, "feats" if "feats" in names else names[0])
        shape = data.shape[1:] if data.ndim == 3 and data.shape[0] == 1 else data.shape
        if len(shape) != 2 or shape[0] < 1 or shape[1] != feature_size or data.dtype.kind != "f":
            raise ValueError(
                f"{path} holds {data.dtype} of shape {data.shape}: a video must be floating-point numbers of shape "
                f"(frames, {feature_size})."
            )
        check_storage(file, data.name, data, MOST_COMPRESSED)
        try:
            features = torch.from_numpy(read_slice(data).reshape(1, *shape).astype(np.float32))
        except OSError as error:
            raise OSError(f"{path}: {data.name!r} cannot be read ({one_line(error)}): copy the file again.") from error
    if not features.isfinite().all():
        raise ValueError(f"{path} holds NaN or infinite features: extract them again.")
    return features


def method_of_run(run: Run, dataset: Dataset) -> Method:
    """A run's codes, put in the data set's order by id; encoded now if they are not kept (ValueError, OSError)."""
    if run.settings.dataset != dataset.name:
        raise ValueError(
            f"run {run.name} was trained on {run.settings.dataset}, but the gallery shows {dataset.name}: "
            "compare runs of one data set."
        )

    def encode_video(features: Tensor) -> Tensor:
        return run.model().encode(features)

    database = run_codes(run, dataset.database)
    query = database if dataset.queries_are_database else run_codes(run, dataset.query)
    return Method(f"{run.title} ({run.name})", database, query, encode_video)


def method_of_baseline(name: str, bits: int, seed: int, dataset: Dataset) -> Method:
    """LSH, PCAH or ITQ, fitted to the training features."""
    hasher = fit_baseline(name, dataset.train.features.mean_pooled(most=FITTED_VIDEOS), bits, seed)
    database = hasher.encode(dataset.database.features.mean_pooled())
    query = database if dataset.queries_are_database else hasher.encode(dataset.query.features.mean_pooled())
    return Method(f"{name}, {bits} bits", database, query, lambda features: hasher.encode(features.mean(dim=1)))


def methods_for(run: Run, dataset: Dataset, *compare: str) -> list[Method]:
    """A run, and beside it other runs, of any method, or baselines, by name."""
    methods = [method_of_run(run, dataset)]
    for name in compare:
        if name in BASELINES:
            methods.append(method_of_baseline(name, run.settings.bits, run.settings.seed, dataset))
        else:
            methods.append(method_of_run(load_run(name, BASELINES), dataset))
    return methods
