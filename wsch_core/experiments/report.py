"""A run in words and plain tables: what `make demo` prints.

python -m wsch_core.experiments.report [run] [--notebook path]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from ..runs.folder import Run
from ..runs.outputs import load_run
from .evaluation import NOT_HASHED

TO_TRY = (
    'These codes lose. Try WSCH with recipe = "plus", which learns from neighbours as far as the features can be trusted; '
    "more bits; more epochs, if the losses still fall; and see in data.ipynb whether the features tell the classes apart."
)


def text_table(ks: Sequence[int], rows: Mapping[str, Sequence[float]]) -> str:
    """mAP@K by method as aligned text."""
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"{f'mAP@{k}':>9}" for k in ks)]
    lines += [name.ljust(width) + "".join(f"{value:9.3f}" for value in values) for name, values in rows.items()]
    return "\n".join(lines)


def verdict(ks: Sequence[int], rows: Mapping[str, Sequence[float]], k: int = 20) -> str:
    """How the run, whose row is the first, stands at one K against the best baseline and the features themselves; where
    it loses, what to try."""
    own = next(iter(rows))
    place = list(ks).index(k) if k in ks else len(ks) - 1
    ours, sentence, loses = rows[own][place], f"{own} reaches mAP@{ks[place]} {rows[own][place]:.3f}", False
    baseline = _best(rows, place, rows.keys() - NOT_HASHED.keys() - {own})
    features = _best(rows, place, rows.keys() & NOT_HASHED.keys())
    for name, who in ((baseline, f"the best baseline, {baseline}, reaches"), (features, f"{features} reach")):
        if name:
            value = rows[name][place]
            sentence += f"; {who} {value:.3f}" + (f": {ours / value - 1:+.0%} relative" if value else "")
            loses = loses or value > ours
    return f"{sentence}. {TO_TRY}" if loses else f"{sentence}."


def _best(rows: Mapping[str, Sequence[float]], place: int, among: Set[str]) -> str:
    """The name of the best row at one K; "" if there is none."""
    return max((name for name in rows if name in among), key=lambda name: rows[name][place], default="")


def metric_rows(run: Run) -> tuple[list[int], dict[str, list[float]]]:
    """The depths K within the database and the expected mAP@K by method, from a run's metrics.json."""
    methods = run.metrics["methods"]
    own = run.method.name
    rows = {name: methods[name]["expected"] for name in [own, *(name for name in methods if name != own)]}
    metrics = run.metrics
    rows |= {name: metrics[key] for name, key in NOT_HASHED.items() if key in metrics}
    known = max(1, sum(k <= methods[own]["database_size"] for k in methods[own]["ks"]))
    return methods[own]["ks"][:known], {name: values[:known] for name, values in rows.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m wsch_core.experiments.report", description="Print a run's results."
    )
    parser.add_argument("run", nargs="?", default="", help="name of the run; the newest without one")
    parser.add_argument("--notebook", type=Path, help="executed notebook whose path is to be printed with the others")
    given = parser.parse_args(arguments)
    run = load_run(given.run)
    if not run.evaluated:
        to_do = "train it to its end, and evaluate it" if run.unfinished else "evaluate it"
        raise SystemExit(
            f"run {run.name} has no metrics of its network ({run.unfinished or 'not evaluated'}): {to_do}."
        )
    ks, rows = metric_rows(run)
    settings = run.settings
    print(f"\n{settings.dataset}, {settings.bits} bits, run {run.name}: expected mAP@K over all orders of ties\n")
    print(text_table(ks, rows), verdict(ks, rows), sep="\n\n", end="\n\n")
    figure = run.folder / "figures" / "retrieved.png"
    for name, path in (("executed notebook", given.notebook), ("retrieved videos", figure), ("run folder", run.folder)):
        if path is not None and path.exists():
            print(f"{name + ':':<19}{path.resolve()}")


if __name__ == "__main__":
    main()
