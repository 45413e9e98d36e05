"""Some runs beside each other: what differs in their settings, how they learned, what they reach, and on which queries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from html import escape

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from ...data import Dataset, load_dataset
from ...experiments.peers import duels, most_disputed
from ...experiments.results import Group, grouped
from ...runs.folder import Run
from ...runs.upkeep import how_to_go_on
from ..figures.ablation import cycle
from ..figures.curves import map_curves
from ..gallery.gallery import Gallery, method_of_run
from ..style import Picture, empty
from ..tables import plain
from .peers import disputed_table, duels_table

NOT_THERE = "–"
DISPUTED = 8  # queries that are listed


def newest_comparable(runs: Sequence[Run], frame: pd.DataFrame, most: int = 4) -> list[Run]:
    """The newest evaluated runs of the data set that the newest of them has, at most so many; of `Runs` and their frame."""
    evaluated = frame[frame["state"] == "evaluated"]
    names = evaluated[evaluated["data set"] == evaluated["data set"].iloc[-1]]["name"] if len(evaluated) else []
    by_name = {run.name: run for run in runs}
    return [by_name[name] for name in [*names][-most:]]


def named(runs: Sequence[Run], names: Sequence[str]) -> list[Run]:
    """The runs of these names, in this order; ValueError for a name that is not among them."""
    by_name = {run.name: run for run in runs}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise ValueError(f"there is no run {missing[0]!r} in the table: choose one of its names.")
    return [by_name[name] for name in dict.fromkeys(names)]


def differences(runs: Sequence[Run]) -> pd.DataFrame:
    """A row for each setting in which runs differ, a column for each run."""
    values: dict[str, dict] = {run.name: {"method": run.method.name, **run.settings.as_dict()} for run in runs}
    names = dict.fromkeys(name for found in values.values() for name in found)
    rows = {name: [str(found.get(name, NOT_THERE)) for found in values.values()] for name in names}
    different = {name: row for name, row in rows.items() if len(set(row)) > 1}
    frame = pd.DataFrame.from_dict(different, orient="index", columns=[*values])
    return frame.rename_axis("setting").reset_index()


def differences_table(runs: Sequence[Run]) -> Styler:
    frame = differences(runs)
    table = plain(frame, left=[*frame])
    return table if len(frame) else table.set_caption("Their settings are the same.")


def losses(runs: Sequence[Run]) -> Picture:
    """What each pass learned, and the losses by task, laid over each other."""
    return cycle({run.name: [run.history] for run in runs}) if runs else empty("No runs to compare yet.")


def reached(runs: Sequence[Run]) -> Picture:
    """mAP@K of the evaluated ones; of runs that differ in their seed alone the mean, with its 95 % interval."""
    evaluated = [run for run in runs if run.evaluated]
    if not evaluated:
        return empty("None of these runs is evaluated yet.")
    lines = {}
    for group in grouped(evaluated):
        half = group.half_width
        lines[_title(group)] = {"ks": group.ks, "expected": group.mean}
        if np.isfinite(half).all():
            lines[_title(group)] |= {"lower": group.mean - half, "upper": group.mean + half}
    return map_curves(lines, band="95 % interval of the mean over seeds")


def _title(group: Group) -> str:
    if len(group.runs) == 1:
        return group.runs[0].name
    return f"{group.method}, {group.bits} bits, {len(group.by_seed)} seeds"


@lru_cache(maxsize=2)
def data_of(name: str) -> Dataset:
    """A data set, which is read once for all that is asked of its runs."""
    return load_dataset(name)


def side_by_side(runs: Sequence[Run], k: int = 20) -> Gallery:
    """What two runs of one data set retrieve (ValueError for others), or what one does."""
    if not 1 <= len(runs) <= 2:
        raise ValueError(f"{len(runs)} runs are chosen: choose one, or two of one data set.")
    data = data_of(runs[0].settings.dataset)
    return Gallery(data, [method_of_run(run, data) for run in runs], k)


def wins_and_losses(runs: Sequence[Run], k: int = 20) -> list[Styler]:
    """On how many queries the first of two runs has the higher AP@k, and the queries on which they disagree most."""
    if len(runs) != 2:
        raise ValueError(f"{len(runs)} runs are chosen: choose two of one data set.")
    gallery = side_by_side(runs, k)
    found = [gallery.precision(name) for name in gallery.methods]
    precision = {run.name: values for run, values in zip(runs, found, strict=True)}
    second, depth = runs[1].name, min(k, len(gallery.dataset.database))
    disputed = disputed_table(precision, most_disputed(precision, DISPUTED), gallery.dataset, depth)
    return [duels_table(duels(precision, second), second, depth), disputed]


def lines_to_copy(runs: Sequence[Run]) -> list[str]:
    """What goes on with the interrupted ones, and what opens one in the gallery and on a map, or two beside each other."""
    lines = [how_to_go_on(run) for run in runs if _goes_on(run)]
    if not 1 <= len(runs) <= 2:
        return lines
    for notebook, second in (("gallery", "compare_run"), ("umap", "compare")):
        with_second = f" -p {second} {runs[1].name}" if len(runs) == 2 else ""
        lines.append(f"papermill notebooks/{notebook}.ipynb out.ipynb -p run {runs[0].name}{with_second}")
    return lines


def _goes_on(run: Run) -> bool:
    try:
        return not run.finished and not run.being_trained
    except (OSError, ValueError):  # damaged: the table says how
        return False


def as_code(lines: Sequence[str]) -> str:
    return "".join(f"<pre>{escape(line)}</pre>" for line in lines)
