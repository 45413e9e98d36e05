"""Evaluated runs gathered by method and number of bits, and held against published results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np

from ..data import Dataset
from ..data.definition import METRIC_DEPTHS
from ..methods import DEFAULT, METHODS, recipe_of
from ..retrieval.metrics import audit
from ..runs.folder import Run
from .compare import mean_interval

ROUNDING = 0.0005  # of tables printed with three digits
QUERIES_AT_ONCE = 1024
PER_RUN = ("bits", "seed", "dataset", "device")  # settings in which runs of one method may differ


@dataclass(frozen=True)
class Group:
    """Runs of one method at one number of bits that differ in their seed alone, or are of one seed."""

    method: str
    bits: int
    runs: tuple[Run, ...]
    ks: tuple[int, ...]
    expected: np.ndarray  # (runs, ks) mAP@K

    @property
    def seeds(self) -> list[int]:
        return [run.settings.seed for run in self.runs]

    @property
    def by_seed(self) -> np.ndarray:
        """(seeds, ks) mAP@K of each different seed: runs of one seed repeat each other, and count once, by their mean."""
        seeds = np.array(self.seeds)
        return np.array([self.expected[seeds == seed].mean(axis=0) for seed in dict.fromkeys(self.seeds)])

    @property
    def mean(self) -> np.ndarray:
        return self.by_seed.mean(axis=0)

    @property
    def half_width(self) -> np.ndarray:
        """(ks,): half the 95 % interval over seeds; NaN for a single seed."""
        return np.array([mean_interval(column)[1] for column in self.by_seed.T])


def grouped(runs: Sequence[Run], names: Sequence[str] | None = None) -> list[Group]:
    """Evaluated runs by method and bits, in rising order of bits.

    names: of each run's method; without any, runs whose settings differ in more than bits and seed are different methods,
    named by what differs. Raises ValueError
    for runs of different data sets, or evaluated at different K or in different ways; FileNotFoundError for one that was
    not evaluated.
    """
    evaluated = [own_metrics(run) for run in runs]
    for name in ("ks", "self_match", "normalisation"):
        found = {str(metrics[name]) for metrics in evaluated}
        if len(found) > 1:
            raise ValueError(
                f"the runs were evaluated with {name} = {' and '.join(sorted(found))}: evaluate them alike."
            )
    sets = {run.settings.dataset for run in runs}
    if len(sets) > 1:
        raise ValueError(f"the runs are of different data sets ({', '.join(sorted(sets))}): give runs of one.")
    members: dict[tuple[int, str], list[int]] = {}
    for place, (run, method) in enumerate(zip(runs, names or _methods(runs), strict=True)):
        members.setdefault((run.settings.bits, method), []).append(place)
    return [
        Group(
            method, bits, tuple(runs[place] for place in places), tuple(evaluated[places[0]]["ks"]),
            np.array([evaluated[place]["expected"] for place in places]),
        )
        for (bits, method), places in sorted(members.items(), key=lambda item: item[0][0])
    ]  # fmt: skip


def own_metrics(run: Run) -> dict[str, Any]:
    """What metrics.json holds of the run's own codes."""
    return run.metrics["methods"][run.method.name]


def _methods(runs: Sequence[Run]) -> list[str]:
    """A name for each run's method: the settings that not all runs of the method share, as far as the recipe does not say
    them, which come first since names may be cut; then WSCH as "ours" with its recipe, a peer by its name; or the imported
    checkpoint."""
    names = []
    for run in runs:
        recipe = recipe_of(run.settings)
        same = [other for other in runs if other.method is run.method]
        said = {name for other in same for name in run.method.recipes[recipe_of(other.settings)]}
        alike = [other for other in same if recipe_of(other.settings) == recipe]
        differing = [name for name in _differing(same) if name not in said]
        differing += [name for name in _differing(alike) if name in said]
        imported = run.record.get("imported")
        told = ", ".join(f"{name} {_where_it_differs(name, run, same)}" for name in differing)
        ours = "ours" if run.method is METHODS[DEFAULT] else run.method.name
        ours += "" if recipe == "published" else f", {recipe}"
        names.append(f"checkpoint {imported}" if imported else f"{told} ({ours})" if told else ours)
    return names


def _where_it_differs(name: str, run: Run, runs: Sequence[Run]) -> Any:
    """A setting's value; of a cycle without the passes with which all of them begin."""
    value = getattr(run.settings, name)
    if name != "cycle":
        return value
    cycles = [one.settings.cycle.split(", ") for one in runs]
    alike = sum(1 for _ in takewhile(lambda turn: len(set(turn)) == 1, zip(*cycles, strict=False)))
    return ", ".join(value.split(", ")[alike:]) or value


def _differing(runs: Sequence[Run]) -> list[str]:
    """The settings in which runs of one method differ, but for those in which runs of one variant may."""
    settings = [run.settings.as_dict() for run in runs]
    return [name for name in settings[0] if name not in PER_RUN and len({s[name] for s in settings}) > 1]


def published_rows(dataset: Dataset, bits: int, ks: Sequence[int]) -> dict[str, np.ndarray]:
    """Published mAP@K at a number of bits by method, at our K; NaN at one that was not published."""
    rows = dataset.definition.published_at(bits)
    places = [METRIC_DEPTHS.index(k) if k in METRIC_DEPTHS else None for k in ks]
    return {
        method: np.array([np.nan if place is None else values[place] for place in places])
        for method, values in rows.items()
    }


def mean_relevant(dataset: Dataset, self_match: str = "included") -> float:
    """The mean number of database videos that share a label with a query: what K * mAP@K cannot exceed."""
    by_class, pairs = dataset.database.labels.T.tocsr(), 0
    for start in range(0, len(dataset.query), QUERIES_AT_ONCE):
        pairs += (dataset.query.labels[start : start + QUERIES_AT_ONCE] @ by_class).nnz
    if self_match == "excluded":
        ids = set(dataset.database.ids)
        pairs -= sum(id_ in ids for id_ in dataset.query.ids)
    return pairs / len(dataset.query)


def audit_rows(groups: Sequence[Group], dataset: Dataset) -> list[dict]:
    """Our rows and the published ones, each with what contradicts itself in it: who, bits, contradictions."""
    self_match = own_metrics(groups[0].runs[0])["self_match"] if groups else "included"
    limit = mean_relevant(dataset, self_match)
    rows = [
        {"method": group.method, "bits": group.bits, "found": audit(group.ks, group.mean.tolist(), limit, 1e-9)}
        for group in groups
    ]
    published = sorted(dataset.definition.published, key=lambda row: row["bits"])
    return rows + [
        {"method": row["method"], "bits": row["bits"], "found": audit(METRIC_DEPTHS, row["map"], limit, ROUNDING)}
        for row in published
    ]
