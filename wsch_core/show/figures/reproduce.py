"""Our results beside published ones, as tables, curves and files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from ...data import Dataset
from ...data.holding import gigabytes
from ...experiments.reference import evaluate_ternary
from ...experiments.results import Group, audit_rows, published_rows
from ...storage.lines import format_seconds
from ..style import Picture
from ..tables import plain
from .curves import map_curves


def results_frame(groups: Sequence[Group], dataset: Dataset) -> pd.DataFrame:
    """A row for each of our groups and each published method: mAP@K, and half its 95 % interval over seeds where known."""
    rows = []
    for bits, ours, published in _by_bits(groups, dataset):
        for group in ours:
            rows.append({"bits": bits, "method": group.method, "runs": len(group.runs), "seeds": len(group.by_seed)})
            for k, mean, half in zip(group.ks, group.mean, group.half_width, strict=True):
                rows[-1] |= {f"mAP@{k}": mean, f"±@{k}": half}
        for method, values in published.items():
            rows.append({"bits": bits, "method": f"{method}, published", "runs": None, "seeds": None})
            rows[-1] |= {f"mAP@{k}": value for k, value in zip(ours[0].ks, values, strict=True)}
    return pd.DataFrame(rows)


def _by_bits(groups: Sequence[Group], dataset: Dataset):
    for bits in dict.fromkeys(group.bits for group in groups):
        ours = [group for group in groups if group.bits == bits]
        yield bits, ours, published_rows(dataset, bits, ours[0].ks)


def results_table(groups: Sequence[Group], dataset: Dataset) -> Styler:
    """mAP@K with its interval; beneath, published methods, each value with ours minus theirs."""
    rows = []
    for bits, ours, published in _by_bits(groups, dataset):
        for group in ours:
            cells = [
                f"{mean:.3f}" + ("" if np.isnan(half) else f" ± {half:.3f}")
                for mean, half in zip(group.mean, group.half_width, strict=True)
            ]
            rows.append([bits, group.method, _count(group), *cells])
        for method, values in published.items():
            cells = [f"{v:.3f} ({o - v:+.3f})" for v, o in zip(values, ours[0].mean, strict=True)]
            rows.append([bits, f"{method}, published", "", *("" if "nan" in cell else cell for cell in cells)])
    columns = ["bits", "method", "runs", *(f"mAP@{k}" for k in groups[0].ks)]
    ours_rows = [place for place, row in enumerate(rows) if row[2] != ""]
    table = plain(pd.DataFrame(rows, columns=columns).astype(str), left=["method"])
    table = table.set_properties(subset=pd.IndexSlice[ours_rows, :], **{"font-weight": "bold"})
    several = any(len(group.by_seed) > 1 for group in groups)
    interval = "± half the 95 % interval of the mean over seeds (Student's t). " if several else ""
    if any(len(group.by_seed) < len(group.runs) for group in groups):
        interval += "Runs of one seed count once, by their mean. "
    return table.set_caption(f"{interval}In brackets: ours minus published, of the first of our methods.")


def _count(group: Group) -> str:
    runs, seeds = len(group.runs), len(group.by_seed)
    return str(runs) if runs == seeds else f"{runs} of {seeds} seed{'s' * (seeds > 1)}"


def ternary_table(groups: Sequence[Group], dataset: Dataset, self_match: str) -> Styler:
    """A row per run: mAP@K of codes with zeros, as the reference retrieves with, beside that of its bits."""
    columns = [f"mAP@{k}" for k in groups[0].ks]
    rows = []
    for group in groups:
        for run, bits in zip(group.runs, group.expected, strict=True):
            ternary = evaluate_ternary(run.model(), dataset, ks=group.ks, self_match=self_match)
            rows.append([run.name, "bits", *bits])
            rows.append([run.name, "ternary, expected over ties", *ternary.expected])
            rows.append([run.name, "ternary, ties by index", *ternary.by_index])
    table = plain(pd.DataFrame(rows, columns=["run", "codes", *columns]), left=["run", "codes"])
    return table.format("{:.3f}", subset=columns)


def result_curves(groups: Sequence[Group], dataset: Dataset) -> dict[int, Picture]:
    """By number of bits: mAP@K of our runs and of published methods."""
    curves = {}
    for bits, ours, published in _by_bits(groups, dataset):
        lines = {}
        for group in ours:
            half = np.nan_to_num(group.half_width)
            lines[group.method] = {"ks": group.ks, "expected": group.mean}
            if len(group.by_seed) > 1:
                lines[group.method] |= {"lower": group.mean - half, "upper": group.mean + half}
        known = {method: values for method, values in published.items() if not np.isnan(values).any()}
        curves[bits] = map_curves(lines, known, title=f"{bits} bits", band="95 % interval of the mean over seeds")
    return curves


def audit_table(groups: Sequence[Group], dataset: Dataset) -> Styler:
    """Every row of mAP@K, ours and published, and whether it can be true."""
    rows = [
        {
            "bits": str(row["bits"]),
            "method": row["method"],
            "can be true": "✗ no" if row["found"] else "✓ yes",
            "contradiction": " ".join(row["found"]),
        }
        for row in audit_rows(groups, dataset)
    ]
    table = plain(pd.DataFrame(rows), left=["method", "can be true", "contradiction"])
    return table.set_caption("K · mAP@K never falls with K, and never exceeds the mean number of relevant videos")


def runs_table(groups: Sequence[Group], done: dict[str, str]) -> Styler:
    """A row per run: what was done for it, and what it took.

    done: by run name, what `complete_run` says
    """
    rows = []
    for method, run in ((group.method, run) for group in groups for run in group.runs):
        history = run.history
        memory = run.record.get("peak_memory_bytes")
        rows.append(
            {
                "run": run.name,
                "method": method,
                "bits": str(run.settings.bits),
                "seed": "" if run.record.get("imported") else str(run.settings.seed),
                "here": done.get(run.name, "given"),
                "passes": f"{len(history):,}" if history else "",
                "training took": format_seconds(sum(entry["seconds"] for entry in history)) if history else "",
                "peak memory": gigabytes(memory) if memory else "",
                "computed on": f"{run.record['device']}, {run.record['precision']}" if history else "",
                "features": run.record.get("features_held", ""),
                "train fingerprint": run.record["dataset"].get("train_fingerprint", ""),
            }
        )
    left = ["run", "method", "here", "computed on", "features", "train fingerprint"]
    return plain(pd.DataFrame(rows), left=left)
