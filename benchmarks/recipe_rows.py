"""What the comparisons of recipes share: runs measured once, a line of JSON for each, and differences paired by seed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from wsch_core.experiments.compare import mean_interval, paired_difference
from wsch_core.methods import recipe_settings

KS = (5, 20, 100)
KNOWN = "results.jsonl"
# What lies between the published method and "plus".
RATE = {"learning_rate": 1e-3, "learning_rate_schedule": "cosine"}
SHORT, LIGHT = {"views": 4, "masking_ratio": 0.8}, {"weight_reconstruction": 0.1}
TWICE = {"cycle": "centers, cluster+contrast, cluster+contrast"}
WITHOUT_NEIGHBOURS = RATE | SHORT | LIGHT | TWICE
Row = dict[str, Any]
Variants = Mapping[str, Mapping[str, Any]]


def work_in(out: Path) -> None:
    """Data sets and runs lie below `out`, and a run has one thread."""
    os.environ |= {
        "WSCH_DATA": str(out.absolute() / "data"),
        "WSCH_OUTPUTS": str(out.absolute()),
        "OMP_NUM_THREADS": "1",
    }


def changes_of(variant: Mapping[str, Any]) -> dict[str, Any]:
    """All settings that a variant changes, those of its recipe written out."""
    changes = dict(variant)
    return recipe_settings(changes.pop("recipe", None)) | changes


def read_rows(path: Path, variants: Variants) -> list[Row]:
    """What was measured before, with what the variants change today; half a last line, after a kill, is taken away."""
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0]
    path.write_text(whole + "\n" if whole else "")
    rows = [json.loads(line) for line in whole.splitlines()]
    today = {name: changes_of(variant) for name, variant in variants.items()}
    return [row for row in rows if today.get(row["variant"]) == row["changes"]]


def missing(rows: Sequence[Row], sets, bits, seeds, variants) -> Iterator[tuple[str, int, int, str]]:
    """The runs that were not measured yet, seed by seed, so that early results already compare."""
    known = {(row["set"], row["bits"], row["seed"], row["variant"]) for row in rows}
    for seed in seeds:
        for length in bits:
            for name in sets:
                for variant in variants:
                    if (name, length, seed, variant) not in known:
                        yield name, length, seed, variant


def measure_all(
    path: Path, jobs: Iterable[tuple], measure: Callable[[tuple], list[Row]], workers: int
) -> Iterator[Row]:
    """The rows of every job, written down and printed as soon as they are there."""
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for found in pool.map(measure, jobs):
            with path.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in found)
            print(*(describe(row) for row in found), sep="\n", flush=True)
            yield from found


def describe(row: Row) -> str:
    values = "  ".join(f"{value:.3f}" for value in row["map"])
    what = f"{row['set']:<12}{row['bits']:>4} bits  seed {row['seed']}  {row['variant']:<34}"
    return f"{what}mAP@5, 20, 100: {values}  {row['seconds']:.0f} s"


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> str:
    """The paired difference of two mAP by seed, in percent of the mean of theirs, with its 95 % interval."""
    mean, half = paired_difference(ours, theirs)
    base = mean_interval([theirs[seed] for seed in ours if seed in theirs])[0]
    interval = "" if math.isnan(half) else f" ± {half / base:.1%}"  # one seed says nothing of its own spread
    return f"{mean / base:+.1%}{interval}"
