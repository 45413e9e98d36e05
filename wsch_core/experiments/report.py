"""A run in words and plain tables: what `make demo` prints.

python -m wsch_core.experiments.report [run] [--notebook path]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..runs.folder import Run, load_run
from .evaluation import REAL_VALUED


def text_table(ks: Sequence[int], rows: Mapping[str, Sequence[float]]) -> str:
    """mAP@K by method as aligned text."""
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"{f'mAP@{k}':>9}" for k in ks)]
    lines += [name.ljust(width) + "".join(f"{value:9.3f}" for value in values) for name, values in rows.items()]
    return "\n".join(lines)


def verdict(ks: Sequence[int], rows: Mapping[str, Sequence[float]], k: int = 20) -> str:
    """One sentence: how the run, whose row is the first, stands against the best baseline at one K."""
    own = next(iter(rows))
    place = list(ks).index(k) if k in ks else len(ks) - 1
    baselines = {name: values[place] for name, values in rows.items() if name not in (own, REAL_VALUED)}
    ours = rows[own][place]
    if not baselines:
        return f"{own} reaches mAP@{ks[place]} {ours:.3f}."
    best = max(baselines, key=lambda name: baselines[name])
    against = f"the best baseline, {best}, reaches {baselines[best]:.3f}"
    if not baselines[best]:
        return f"{own} reaches mAP@{ks[place]} {ours:.3f}; {against}."
    return f"{own} reaches mAP@{ks[place]} {ours:.3f}; {against}: {ours / baselines[best] - 1:+.0%} relative."


def metric_rows(run: Run) -> tuple[list[int], dict[str, list[float]]]:
    """The depths K and the expected mAP@K by method, from a run's metrics.json."""
    methods = run.metrics["methods"]
    own = run.method.name
    rows = {name: methods[name]["expected"] for name in [own, *(name for name in methods if name != own)]}
    return methods[own]["ks"], rows | {REAL_VALUED: run.metrics["real_valued"]}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m wsch_core.experiments.report", description="Print a run's results."
    )
    parser.add_argument("run", nargs="?", default="", help="name of the run; the newest without one")
    parser.add_argument("--notebook", type=Path, help="executed notebook whose path is to be printed with the others")
    given = parser.parse_args(arguments)
    run = load_run(given.run)
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
