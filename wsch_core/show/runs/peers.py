"""A comparison of methods to look at: what was trained of each, what it costs, which queries it wins and loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from ...data import Dataset
from ...experiments.compare import Comparison
from ...experiments.peers import Compared, Cost, Duel, cost_of
from ...experiments.results import Group
from ...experiments.sweep import Progress
from ...storage.lines import format_seconds
from ..gallery.gallery import Gallery, Place, method_of_run
from ..tables import plain
from .sweeps import HEALTH, compare_runs, runs_frame


def methods_table(compared: Sequence[Compared]) -> Styler:
    """What is trained of each method: passes, gradient steps, and what was chosen beside the data set's own settings."""
    rows = []
    for one in compared:
        settings = one.settings.as_dict()
        told = {
            name: value for name, value in one.changes.items() if value is not None and name not in ("method", "bits")
        }
        rows.append(
            {
                "method": one.name,
                "bits": settings["bits"],
                "epochs": " + ".join(str(settings[n]) for n in ("pretrain_epochs", "epochs") if settings.get(n)),
                "gradient steps": f"{one.steps:,}",
                "batch": settings["batch_size"],
                "learning rate": f"{settings['learning_rate']:g}",
                "chosen": ", ".join(f"{name} = {value}" for name, value in told.items()),
            }
        )
    note = (
        "Epochs: of pre-training + of training, of WSCH turns of its cycle. All else: the data set's own, or published."
    )
    return plain(pd.DataFrame(rows), left=["method", "epochs", "chosen"]).set_caption(note)


def done(progress: Sequence[Progress]) -> list[Progress]:
    """The runs that there are."""
    return [one for one in progress if one.state in ("done", "found")]


def compared_frame(progress: Sequence[Progress], dataset: Dataset) -> pd.DataFrame:
    """A row for each run, with all that was measured: mAP@K, code health, cost; and why, where there is nothing."""
    costs: dict[str, Cost] = {one.planned.run.name: cost_of(one.planned.run, dataset) for one in done(progress)}
    frame = runs_frame(progress).rename(columns={"variant": "method"})
    for name, value in (("parameters", "parameters"), ("encoding 1,000 videos, seconds", "encode_seconds")):
        frame[name] = [getattr(costs.get(run), value, np.nan) for run in frame["run"]]
    return frame


def cost_frame(runs: pd.DataFrame) -> pd.DataFrame:
    """Code health and cost of each method at each number of bits, means over its seeds."""
    columns = [*HEALTH.values(), "training seconds", "encoding 1,000 videos, seconds", "parameters", "peak memory MB"]
    measured = runs.reindex(columns=["method", "bits", *columns])
    return measured.groupby(["bits", "method"], sort=False).mean().reset_index()


def cost_table(runs: pd.DataFrame) -> Styler:
    frame = cost_frame(runs).rename(columns={"training seconds": "training time"})
    shown = dict.fromkeys(HEALTH.values(), "{:.2f}") | {"distinct codes": "{:.1%}", "constant bits": "{:.1f}"}
    shown |= {"parameters": "{:,.0f}", "peak memory MB": "{:,.0f}", "encoding 1,000 videos, seconds": "{:.3f}"}
    shown["training time"] = lambda seconds: "–" if np.isnan(seconds) else format_seconds(seconds)
    used = runs.reindex(columns=["device", "precision", "threads"]).dropna(subset=["device"])
    made = [f"{device}, {precision}, threads: {threads:.0f}" for device, precision, threads in used.values]
    note = "Means over seeds. Distinct codes per video of the database; training by the clock, encoding by one thread; "
    note += "memory of the whole process, or on a GPU that of the GPU."
    if made:
        note += f" Trained on {escape('; '.join(dict.fromkeys(made)))}."
    return plain(frame, left=["method"]).format(shown, na_rep="–", escape="html").set_caption(note)


def duels_frame(found: Sequence[Duel]) -> pd.DataFrame:
    """A row for each method: queries won, lost and level."""
    return pd.DataFrame([vars(duel) for duel in found], columns=["name", "won", "lost", "level"])


def duels_table(found: Sequence[Duel], reference: str, k: int) -> Styler:
    frame = duels_frame(found).rename(columns={"name": "method"})
    shares = frame["won"] / (frame["won"] + frame["lost"]).clip(lower=1)
    frame["of the decided ones won"] = [f"{share:.0%}" for share in shares]
    note = f"Queries whose AP@{k} is higher (won) or lower (lost) than that of {reference}, means over seeds."
    return plain(frame, left=["method"]).set_caption(escape(note))


def disputed_table(precision: Mapping[str, np.ndarray], rows: Sequence[int], dataset: Dataset, k: int) -> Styler:
    """The queries on which methods disagree most, with every method's AP@k."""
    frame = pd.DataFrame(
        {
            "query": [dataset.query.ids[row] for row in rows],
            "labels": [dataset.query.label_names(row) for row in rows],
            **{name: [values[row] for row in rows] for name, values in precision.items()},
        }
    )
    table = plain(frame, left=["query", "labels"])
    return table.format("{:.2f}", subset=[*precision]).set_caption(f"AP@{k}, means over seeds")


def compare(runs: pd.DataFrame, bits: int, k: int, reference: str) -> list[Comparison]:
    """Every method beside the reference, at one number of bits."""
    here = runs[runs["bits"] == bits].rename(columns={"method": "variant"})
    return compare_runs(here, k, reference)


def quality_and_costs(
    runs: pd.DataFrame, groups: Sequence[Group], bits: int, k: int
) -> tuple[dict[str, tuple[float, float]], dict[str, dict[str, float]]]:
    """By method, at one number of bits: mAP@k and half its 95 % interval; and what it costs."""
    quality = {g.method: (g.mean[g.ks.index(k)], g.half_width[g.ks.index(k)]) for g in groups if g.bits == bits}
    frame = cost_frame(runs)
    return quality, frame[frame["bits"] == bits].set_index("method").to_dict("index")


def gallery_of(groups: Sequence[Group], bits: int, dataset: Dataset, rows: Sequence[int]) -> Gallery:
    """What the first run of every method retrieves for some queries, the first of which is shown."""
    methods = [replace(method_of_run(g.runs[0], dataset), name=g.method) for g in groups if g.bits == bits]
    gallery = Gallery(dataset, methods)
    gallery.list([Place("query", row) for row in rows])
    return gallery
