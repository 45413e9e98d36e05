"""A sweep to look at: how far its runs are while they go, and what came out of them as tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from ...experiments.compare import Comparison, compare_with
from ...experiments.sweep import Progress
from ...experiments.variants import PUBLISHED, VARIANTS
from ...storage.lines import format_seconds, show_line
from ..tables import plain

STATES = {
    "waiting": "· waiting",
    "running": "▶ running",
    "done": "✓ trained",
    "found": "✓ found",
    "failed": "✗ failed",
    "stopped": "■ stopped",
}
BAR_WIDTH = 16
HEALTH = {"distinct": "distinct codes", "constant_bits": "constant bits"} | {
    f"mean_absolute_{name}": f"mean |{name}|" for name in ("balance", "correlation")
}


class SweepTable:
    """A table of all runs that replaces itself while they go; only its last state stays in a saved notebook.

    papermill's log gets one line whenever a run begins or ends; without a notebook, that is all there is.
    """

    def __init__(self, k: int = 20):
        self.k, self.shown, self.found = k, "", {}

    def __call__(self, progress: Sequence[Progress]) -> None:
        line = sweep_line(progress)
        ipython = sys.modules.get("IPython")
        if ipython is None or getattr(ipython.get_ipython(), "kernel", None) is None:
            if line != self.shown:
                show_line(line)
            self.shown = line
            return
        from IPython.display import clear_output, display

        content = {"text/html": self.html(progress), "text/plain": line}
        if line != self.shown:  # displayed anew it reaches papermill's log, updated in place it does not
            clear_output(wait=True)
            self.handle = display(content, raw=True, display_id=True)
            self.shown = line
        else:
            self.handle.update(content, raw=True)

    def html(self, progress: Sequence[Progress]) -> str:
        frame = pd.DataFrame(map(self._row, progress))
        table = plain(frame, left=[*frame]).set_properties(subset=[*frame][:-1], **{"white-space": "nowrap"})
        return table.set_caption(escape(f"{sweep_line(progress)} · {time_left(progress)}")).to_html()

    def _row(self, one: Progress) -> dict[str, str]:
        passes = one.planned.passes
        share = 1.0 if one.state in ("done", "found") else one.passes_done / max(passes, 1)
        filled = round(min(share, 1.0) * BAR_WIDTH)
        done = passes if one.state in ("done", "found") else one.passes_done
        return {
            "variant": one.planned.variant,
            "bits": str(one.planned.settings.bits),
            "seed": str(one.planned.settings.seed),
            "state": STATES[one.state],
            "passes": f"{'█' * filled}{'░' * (BAR_WIDTH - filled)} {done}/{passes}",
            "time": format_seconds(one.seconds) if one.seconds else "",
            f"mAP@{self.k}": self._score(one),
            "error": one.error,
        }

    def _score(self, one: Progress) -> str:
        if one.state not in ("done", "found"):
            return ""
        if one.planned.run.name not in self.found:
            score = run_row(one).get(f"mAP@{self.k}")
            self.found[one.planned.run.name] = "" if score is None else f"{score:.3f}"
        return self.found[one.planned.run.name]


def sweep_line(progress: Sequence[Progress]) -> str:
    """All runs in one line: "4 of 6 runs done (1 found), 2 running, 0 failed"."""
    count = {state: sum(one.state == state for one in progress) for state in STATES}
    found = f" ({count['found']} found)" if count["found"] else ""
    parts = [f"{count['done'] + count['found']} of {len(progress)} runs done{found}"]
    parts += [f"{count[state]} {state}" for state in ("running", "waiting", "failed", "stopped") if count[state]]
    return ", ".join(parts)


def time_left(progress: Sequence[Progress]) -> str:
    """Judged from the passes done so far."""
    ours = [one for one in progress if one.begun is not None]
    open_runs = [one for one in progress if one.state in ("waiting", "running")]
    if not open_runs:
        return "stopped" if any(one.state == "stopped" for one in progress) else "finished"
    total = sum(one.planned.passes for one in progress if one.state != "found")
    left = sum(one.planned.passes - one.passes_done for one in open_runs)
    if not ours or left >= total:
        return "the time left is not known yet"
    elapsed = max(one.begun + one.seconds for one in ours) - min(one.begun for one in ours)
    return f"about {format_seconds(elapsed * left / (total - left))} left"


def variants_table(chosen: Mapping[str, Mapping[str, Any]]) -> Styler:
    """The chosen variants and what each changes; the other built-in names below, for the next time."""
    rows = [
        {
            "variant": name,
            "changes": ", ".join(f"{key} = {value}" for key, value in changes.items()) or "nothing",
            "": VARIANTS[name].meaning if name in VARIANTS else "your own",
        }
        for name, changes in chosen.items()
    ]
    others = ", ".join(name for name in VARIANTS if name not in chosen)
    table = plain(pd.DataFrame(rows), left=["variant", "changes", ""])
    return table.set_caption(f"Also built in: {escape(others)}.") if others else table


def runs_frame(progress: Sequence[Progress]) -> pd.DataFrame:
    """A row for each run, with all that was measured: mAP@K, code health, cost; and why, where there is nothing."""
    return pd.DataFrame([run_row(one) for one in progress])


def run_row(one: Progress) -> dict[str, Any]:
    run, settings = one.planned.run, one.planned.settings
    row = {
        "variant": one.planned.variant,
        "bits": settings.bits,
        "seed": settings.seed,
        "run": run.name,
        "state": one.state,
        "error": one.error,
    }
    if one.state not in ("done", "found"):
        return row
    try:
        metrics, record, history = run.metrics, run.record, run.history
    except OSError as error:
        return row | {"state": "failed", "error": str(error)}
    ours = metrics["methods"][run.method.name]
    row |= {f"mAP@{k}": value for k, value in zip(ours["ks"], ours["expected"], strict=True)}
    row |= {word: metrics["code_health"][name] for name, word in HEALTH.items()}
    row["distinct codes"] /= metrics["code_health"]["videos"]
    memory = record.get("peak_memory_bytes")
    return row | {
        "gradient passes": sum(line["tasks"] != ["centers"] for line in history),
        "training seconds": sum(line["seconds"] for line in history),
        "peak memory MB": np.nan if memory is None else memory / 1e6,
        "device": record.get("device", ""),
        "precision": record.get("precision", ""),
        "threads": record.get("threads", np.nan),
    }


def compare_runs(runs: pd.DataFrame, k: int, reference: str = PUBLISHED) -> list[Comparison]:
    """Every variant beside the reference, by mAP@k; ValueError if nothing was measured at this k."""
    column = f"mAP@{k}"
    if column not in runs:
        known = ", ".join(name.removeprefix("mAP@") for name in runs if name.startswith("mAP@"))
        raise ValueError(f"k is {k}: " + (f"it must be one of {known}." if known else "no run has a result yet."))
    measured = runs.dropna(subset=[column])
    values = {name: {} for name in runs["variant"]}
    for variant, seed, value in measured[["variant", "seed", column]].itertuples(index=False):
        values[variant][seed] = value
    return compare_with(reference, values)


def comparison_frame(comparisons: Sequence[Comparison], k: int, reference: str = PUBLISHED) -> pd.DataFrame:
    """A row for each variant, as it is written to CSV and LaTeX."""
    return pd.DataFrame(
        {
            "variant": one.name,
            "seeds": len(one.values),
            f"mAP@{k}": one.mean,
            "± (95 %)": one.half_width,
            "difference": one.difference,
            "difference ± (95 %)": one.difference_half_width,
            "p (Holm)": one.p,
            "verdict": "reference" if one.name == reference else one.verdict,
        }
        for one in comparisons
    )


def comparison_table(comparisons: Sequence[Comparison], k: int, reference: str = PUBLISHED) -> Styler:
    """Means with 95 % intervals, paired differences to the reference, and whether they are more than noise."""
    frame = comparison_frame(comparisons, k, reference)
    shown = pd.DataFrame(
        {
            "variant": frame["variant"],
            "seeds": frame["seeds"],
            f"mAP@{k}": [interval(one.mean, one.half_width) for one in comparisons],
            "difference": [interval(one.difference, one.difference_half_width, sign="+") for one in comparisons],
            "p": ["–" if np.isnan(one.p) else f"{one.p:.3f}" for one in comparisons],
            "": frame["verdict"],
        }
    )
    count = sum(not np.isnan(one.p) for one in comparisons)
    note = "Means over seeds ± half of the 95 % interval (Student's t); "
    note += f"differences to {escape(reference)}, paired by seed."
    if count > 1:
        note += f" p is corrected for the {count} comparisons made (Holm)."
    return plain(shown, left=["variant", ""]).set_caption(note)


def interval(mean: float, half_width: float, sign: str = "") -> str:
    """ "0.463 ± 0.021"; without an interval the mean alone, without a mean a dash"""
    if np.isnan(mean):
        return "–"
    number = f"{mean:{sign}.3f}".replace("-", "−")
    return number if np.isnan(half_width) else f"{number} ± {half_width:.3f}"


def cost_frame(runs: pd.DataFrame) -> pd.DataFrame:
    """Code health and cost of each variant, means over its seeds."""
    columns = [*HEALTH.values(), "gradient passes", "training seconds", "peak memory MB"]
    measured = runs.reindex(columns=["variant", *columns])
    return measured.groupby("variant", sort=False).mean().reset_index()


def cost_table(runs: pd.DataFrame) -> Styler:
    """Code health and cost as a table; below it, what the runs were computed on."""
    shown = dict.fromkeys(HEALTH.values(), "{:.2f}") | {"distinct codes": "{:.1%}", "constant bits": "{:.1f}"}
    shown |= {"gradient passes": "{:,.0f}", "peak memory MB": "{:,.0f}"}
    shown["training time"] = lambda seconds: "–" if np.isnan(seconds) else format_seconds(seconds)
    frame = cost_frame(runs).rename(columns={"training seconds": "training time"})
    used = runs.reindex(columns=["device", "precision", "threads"]).dropna(subset=["device"])
    made = [f"{device}, {precision}, threads: {threads:.0f}" for device, precision, threads in used.values]
    note = "Means over seeds. Distinct codes per video of the database; memory of the process, or on a GPU that of the GPU."
    if made:
        note += f" Computed on {escape('; '.join(dict.fromkeys(made)))}."
    table = plain(frame, left=["variant"]).set_properties(subset=["variant"], **{"white-space": "nowrap"})
    return table.format(shown, na_rep="–", escape="html").set_caption(note)
