"""Maps: videos in the plane, laid out by UMAP from their codes or features, so that near ones stay near.

Every map is kept in the run folder, as maps/<split>-<what>-<hash>.h5, and read from there while nothing has changed.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import scipy.sparse
import torch
from scipy.linalg import orthogonal_procrustes
from torch import Tensor

from ...data import Dataset, Split
from ...experiments.evaluation import run_codes
from ...methods.baselines import BASELINES, fit_baseline
from ...retrieval.codes import pack
from ...retrieval.search import positions_by_id
from ...runs.folder import Run
from ...runs.outputs import load_run
from ...storage.files import check_file, make_folder, write_whole
from ...storage.hdf5 import check_storage, find, hdf5_image, read_attribute, read_slice
from ...storage.words import one_line
from ...training.device import resolve_device
from .layout import exact_neighbours, lay_out
from .nearness import scored_videos, trustworthiness

FEATURES = "mean features"
CHUNK_VIDEOS = 1024  # videos read at a time
MADE = 1  # to be raised with every change of this file that moves points


@dataclass(frozen=True, eq=False)
class Map:
    """Where videos lie on a map, and whose neighbours they are in what was mapped."""

    title: str
    ids: list[str]
    coordinates: np.ndarray  # (videos, 2) float32, without a unit
    neighbours: np.ndarray  # (videos, k) int32: the nearest others in code or feature space, nearest first
    trustworthiness: float  # in [0, 1]; see `nearness.trustworthiness`
    file: Path  # where it is kept
    reused: bool  # read from there, not made anew


@dataclass(frozen=True, eq=False)
class Setup:
    """What all maps that are shown together share: the videos, how they are laid out, and where the points start.

    Raises ValueError for values that no map can be made with, and for fewer than three videos.
    """

    dataset: Dataset
    split: Split
    sample: int = 0  # so many videos, drawn at random; 0 for all
    neighbours: int = 15  # of each video, not counting itself: UMAP's n_neighbors is one more
    min_dist: float = 0.1  # how tightly points may be packed, in units of the map
    seed: int = 3346

    def __post_init__(self):
        for name, value, least in (
            ("sample", self.sample, 0),
            ("neighbours", self.neighbours, 2),
            ("seed", self.seed, 0),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}: it must be a whole number of at least {least}.")
        if not 0 <= self.min_dist <= 1:
            raise ValueError(f"min_dist is {self.min_dist}: it must be between 0 and 1.")
        if len(self.videos) < 3:
            raise ValueError(f"a map of {len(self.videos)} videos shows nothing: it needs at least 3.")

    @cached_property
    def videos(self) -> np.ndarray:
        """Rows of the split that are mapped, (n,) in order."""
        total = len(self.split)
        if self.sample == 0 or self.sample >= total:
            return np.arange(total)
        return np.sort(np.random.default_rng(self.seed).choice(total, self.sample, replace=False))

    @cached_property
    def ids(self) -> list[str]:
        return [self.split.ids[video] for video in self.videos]

    @property
    def labels(self) -> scipy.sparse.csr_array | None:
        """(n, classes) of the mapped videos."""
        return None if self.split.labels is None else self.split.labels[self.videos]

    @property
    def k(self) -> int:
        """Neighbours that there are: as many as asked for, or all others."""
        return min(self.neighbours, len(self.videos) - 1)

    @property
    def everything(self) -> bool:
        return len(self.videos) == len(self.split)

    def sentence(self) -> str:
        """How many of how many videos are mapped."""
        if self.everything:
            return f"All {len(self.split):,} videos of the {self.split.name} split are mapped."
        return (
            f"{len(self.videos):,} of the {len(self.split):,} videos of the {self.split.name} split are mapped, "
            "drawn at random."
        )

    @cached_property
    def pooled(self) -> Tensor:
        """Features averaged over each video's frames: (n, feature size) float32."""
        if self.everything:
            return self.split.features.mean_pooled().cpu()
        return torch.cat([self.split.features.read(part).mean(dim=1) for part in self.parts()])

    def parts(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self.videos), CHUNK_VIDEOS):
            yield self.videos[start : start + CHUNK_VIDEOS]


def mapped_codes(run: Run, setup: Setup, device: str = "auto") -> Tensor:
    """The run's codes of the mapped videos, (n, bits) int8 of ±1; what is not kept is encoded now."""
    stored = run.stored_codes(setup.split)
    if stored is None and not setup.everything:
        print(f"{run.name}: encoding {len(setup.videos):,} videos of the {setup.split.name} split")
        device = resolve_device(device)
        features, model = setup.split.features, run.model().to(device)
        return torch.cat([model.encode(features.read(part).to(device)).cpu() for part in setup.parts()])
    return (run_codes(run, setup.split, device) if stored is None else stored)[setup.videos]


def code_map(run: Run, setup: Setup, codes: Tensor | None = None) -> Map:
    """The map of a run's codes, by Hamming distance; kept in its folder.

    codes: what `mapped_codes` gives, where it has been asked already
    """
    codes = mapped_codes(run, setup) if codes is None else codes
    title = run.title
    return _kept(run.folder, "codes", title, setup, _hash(pack(codes).numpy()), lambda: codes)


def feature_map(run: Run, setup: Setup) -> Map:
    """The map of mean-pooled features, by cosine distance; kept in the folder of the run that it is shown beside."""
    return _kept(run.folder, "features", FEATURES, setup, "", lambda: setup.pooled)


def baseline_map(method: str, run: Run, setup: Setup) -> Map:
    """The map of a baseline's codes, with as many bits as the run and fitted with its seed."""
    bits, seed = run.settings.bits, run.settings.seed
    hasher = fit_baseline(method, setup.dataset.train.features.mean_pooled().cpu(), bits, seed)
    codes = hasher.encode(setup.pooled).cpu()
    return _kept(run.folder, method, f"{method}, {bits} bits", setup, _hash(pack(codes).numpy()), lambda: codes)


def compared_maps(compare: list[str], run: Run, setup: Setup) -> list[Map]:
    """Maps of other codes of the same videos: of runs, by name, and of baselines ("LSH", "PCAH", "ITQ").

    Without any, of ITQ, as far as that can be made. Raises ValueError for a run of another
    data set, and for a name that is neither a run nor a baseline.
    """
    maps = []
    for name in compare or ["ITQ"]:
        if name in BASELINES:
            maps.append(baseline_map(name, run, setup) if compare else _any_baseline(name, run, setup))
            continue
        other = load_run(name, BASELINES)
        if other.settings.dataset != run.settings.dataset:
            raise ValueError(
                f"run {name} was trained on {other.settings.dataset}, run {run.name} on {run.settings.dataset}: "
                "compare runs of one data set."
            )
        found = code_map(other, setup)
        same = other.settings.bits == run.settings.bits  # then the number of bits does not tell them apart
        maps.append(replace(found, title=f"{found.title}, {name}") if same else found)
    return maps


def _any_baseline(name: str, run: Run, setup: Setup) -> Map:
    """The map of a baseline that nobody asked for by name: of LSH, which can make any number of bits, if it must be."""
    try:
        return baseline_map(name, run, setup)
    except ValueError as error:
        print(f"{name} is left out: {error} Shown is LSH.")
        return baseline_map("LSH", run, setup)


def aligned(maps: list[Map]) -> list[Map]:
    """The maps turned, mirrored and scaled (never bent) to lie on the first as well as they can: Procrustes.

    UMAP's directions and sizes mean nothing, so nothing is lost. Points are matched by id; those the first map lacks
    move along.
    """
    first, *others = maps
    return [first, *(_onto(first, other) for other in others)]


def _onto(first: Map, other: Map) -> Map:
    places = positions_by_id(other.ids, first.ids)
    common = places >= 0
    if common.sum() < 2:
        raise ValueError(f"the maps '{first.title}' and '{other.title}' share no videos: map the same ones.")
    target, source = first.coordinates[places[common]], other.coordinates[common]
    centre, middle = target.mean(axis=0), source.mean(axis=0)
    turn, _ = orthogonal_procrustes(source - middle, target - centre)
    scale = np.linalg.norm(target - centre) / max(np.linalg.norm(source - middle), 1e-12)
    moved = (other.coordinates - middle) @ turn * scale + centre
    return replace(other, coordinates=moved.astype(np.float32))


def _kept(folder: Path, what: str, title: str, setup: Setup, codes: str, make: Callable[[], Tensor]) -> Map:
    """The map that is kept for this input, these parameters and versions; without one, it is made of `make()`.

    codes: what tells other codes apart, if it is codes that are mapped. Features are known by the fingerprint of their
    files, which can be larger than memory and are not read for this; every map depends on them, by where points start.
    """
    versions = {name: version(name) for name in ("umap-learn", "numba", "numpy", "torch")}
    key = {
        "codes": codes, "features": setup.split.fingerprint, "ids": _hash("\n".join(setup.ids).encode()), "k": setup.k,
        "min_dist": setup.min_dist, "seed": setup.seed, "made": MADE, "versions": versions,
    }  # fmt: skip
    file = make_folder(folder, "maps") / f"{setup.split.name}-{what}-{_hash(json.dumps(key).encode())[:8]}.h5"
    if file.is_file():
        print(f"{title}: read from {folder.name}/maps/{file.name}; nothing has changed since it was made")
        return Map(title, setup.ids, *_read(file, len(setup.ids)), file, True)
    first = ", the first of this kernel: UMAP compiles, for up to a minute" if "umap" not in sys.modules else ""
    print(f"{title}: mapping {len(setup.ids):,} videos{first}", end=" ... ", flush=True)
    start = time.perf_counter()
    values = make()
    neighbours, distances = exact_neighbours(values, setup.k, setup.seed)
    coordinates = lay_out(values, neighbours, distances, setup.pooled, setup.min_dist, setup.seed)
    trust = trustworthiness(values, coordinates, setup.k, scored_videos(len(values), setup.seed))
    made = Map(title, setup.ids, coordinates, neighbours[:, 1:], trust, file, False)
    _write(made, key)
    print(f"{time.perf_counter() - start:.0f} s, kept in {folder.name}/maps/{file.name}")
    return made


def _write(made: Map, key: dict) -> None:
    def fill(file: h5py.File) -> None:
        file.attrs["made_from"] = json.dumps(key)
        file.attrs["trustworthiness"] = made.trustworthiness
        file["coordinates"], file["neighbours"] = made.coordinates, made.neighbours
        file.create_dataset("ids", data=made.ids, dtype=h5py.string_dtype())

    write_whole(made.file, lambda path: path.write_bytes(hdf5_image(fill)))


def _read(path: Path, videos: int) -> tuple[np.ndarray, np.ndarray, float]:
    check_file(path, "make it again", path.parents[1])
    try:
        with h5py.File(path, "r") as file:
            coordinates, neighbours = (find(file, name) for name in ("coordinates", "neighbours"))
            if coordinates.shape != (videos, 2) or neighbours.shape[:1] != (videos,) or neighbours.ndim != 2:
                raise ValueError(f"maps of {videos} videos have other shapes")
            for data, kind in ((coordinates, "f"), (neighbours, "i")):
                check_storage(file, data.name, data)
                if data.dtype.kind != kind:
                    raise ValueError(f"{data.name} holds {data.dtype}")
            found = read_slice(coordinates), read_slice(neighbours), float(read_attribute(file, "trustworthiness"))
        if not np.isfinite(found[0]).all() or found[1].min() < 0 or found[1].max() >= videos:
            raise ValueError("points or neighbours lie outside the map")
    except (OSError, LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise OSError(f"{path} is damaged ({one_line(error)}): remove it, and it is made again.") from error
    return found


def _hash(*parts: bytes | np.ndarray) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part.shape).encode() if isinstance(part, np.ndarray) else b"")
        digest.update(np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else part)
    return digest.hexdigest()[:16]
