"""Maps as static figures, and the numbers beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from pandas.io.formats.style import Styler

from ..style import FAINT, INK, SMALL, SOFT, WIDTH, Picture, heading, label, picture, style
from ..tables import plain
from .groups import Groups
from .maps import Map
from .nearness import label_share, nearest_on_map, share_by_chance

SLICES = 6  # groups are drawn in turns, so that none covers the others
LARGER = {"*": 2.0, "X": 1.3, "P": 1.3, "<": 1.2, ">": 1.2, "^": 1.2, "v": 1.2, ".": 1.6}  # looks as large as a circle


@dataclass(frozen=True)
class Nearness:
    """What a map can be believed; shares are means over all mapped videos that have labels, None without labels."""

    title: str
    videos: int
    k: int
    trustworthiness: float
    in_truth: float | None  # share of the k nearest in what was mapped that have a common label
    on_map: float | None  # the same of the k nearest on the map
    by_chance: float | None  # the same of others drawn at random

    def line(self) -> str:
        text = f"trustworthiness {self.trustworthiness:.3f}"
        if self.in_truth is None:
            return text
        shares = f"{self.in_truth:.0%} of the {self.k} nearest, {self.on_map:.0%} on the map"
        return f"{text}\nwith a common label: {shares}, {self.by_chance:.0%} by chance"


def nearness(maps: Sequence[Map], labels: scipy.sparse.csr_array | None, seed: int = 0) -> list[Nearness]:
    """The numbers of each map; labels: (n, classes) of the mapped videos."""
    found = []
    for shown in maps:
        videos, k = shown.neighbours.shape
        shares = None, None, None
        if labels is not None:
            near = nearest_on_map(shown.coordinates, k)
            shares = _mean(label_share(labels, shown.neighbours)), _mean(label_share(labels, near))
            shares = *shares, share_by_chance(labels, k, seed)
        found.append(Nearness(shown.title, videos, k, shown.trustworthiness, *shares))
    return found


def _mean(share: np.ndarray) -> float | None:
    return float(np.nanmean(share)) if np.isfinite(share).any() else None


def nearness_table(found: Sequence[Nearness]) -> Styler:
    """A row per map."""
    k = found[0].k
    frame = pd.DataFrame(
        {
            "map of": [row.title for row in found],
            "videos": [f"{row.videos:,}" for row in found],
            "trustworthiness": [f"{row.trustworthiness:.3f}" for row in found],
            f"common label, {k} nearest before": [_percent(row.in_truth) for row in found],
            f"{k} nearest on the map": [_percent(row.on_map) for row in found],
            "by chance": [_percent(row.by_chance) for row in found],
        }
    )
    return plain(frame, left=["map of"])


def _percent(share: float | None) -> str:
    return "no labels" if share is None else f"{share:.1%}"


def map_figure(maps: Sequence[Map], groups: Groups, numbers: Sequence[Nearness], title: str = "") -> Picture:
    """A panel per map with its numbers, one legend with counts for all.

    maps: of the same videos; groups: how their points are coloured; numbers: from `nearness`, in the same order
    """
    columns = 2 if len(maps) in (2, 4) else min(len(maps), 3)
    rows = -(-len(maps) // columns)
    side = WIDTH / max(columns, 2)
    with style():
        figure = picture(WIDTH, rows * (side + 0.35) + 0.5 + 0.22 * -(-len(groups.names) // 5), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, shown, found in zip(grid, maps, numbers, strict=False):
            _points(axes, shown.coordinates, groups, side)
            axes.set_title(label(shown.title, side - 0.3, weight="bold"))
            text = found.line() if side > 4 else found.line().replace("nearest, ", "nearest,\n")
            axes.set_xlabel(text, fontsize=SMALL, color=SOFT, loc="left")
        for axes in grid[len(maps) :]:
            axes.remove()
        explained = f"{groups.title}, number of videos in brackets"
        options = {"loc": "outside lower left", "ncols": 5, "alignment": "left"}
        figure.legend(handles=_handles(groups), title=explained, **options)
        heading(figure, title)
    return figure


def _points(axes: Axes, coordinates: np.ndarray, groups: Groups, side: float) -> None:
    size = float(np.clip(12_000 / len(coordinates), 0.8, 18)) * side / 4.8
    lots = np.random.default_rng(0).permutation(len(coordinates))
    coloured = groups.of != (-1 if groups.grey is None else groups.grey)
    turns = [lots[~coloured[lots]], *np.array_split(lots[coloured[lots]], SLICES)]
    for turn in turns:
        for group, (colour, marker) in enumerate(groups.marks):
            points = coordinates[turn[groups.of[turn] == group]]
            area = size * LARGER.get(marker, 1.0)
            axes.scatter(*points.T, s=area, c=colour, marker=marker, linewidths=0, alpha=0.85)
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.margins(0.03)
    axes.set_aspect("equal", adjustable="datalim")  # all panels as large as each other
    axes.spines[:].set(visible=True, color=FAINT)
    if groups.named:
        _names_where_densest(axes, coordinates, groups, side)


def _names_where_densest(axes: Axes, coordinates: np.ndarray, groups: Groups, side: float) -> None:
    """A coloured group's name at the point that has most of its own around it."""
    reach = np.ptp(coordinates, axis=0).max() / 30
    for group, name in enumerate(groups.names):
        own = coordinates[groups.of == group]
        if group == groups.grey or not len(own):
            continue
        probe = own[:: max(len(own) // 500, 1)]
        around = (np.linalg.norm(probe[:, None] - probe[None], axis=2) < reach).sum(axis=1)
        text = axes.text(*probe[around.argmax()], label(name, side / 3.2, 8, "bold"), fontsize=8, fontweight="bold")
        text.set(ha="center", va="center", color=INK, clip_on=True)
        text.set_path_effects([patheffects.withStroke(linewidth=2.4, foreground="white")])


def _handles(groups: Groups) -> list[Line2D]:
    inches = WIDTH / 5 - 0.4
    return [
        Line2D(
            [], [], color=colour, marker=marker, ls="", markersize=6,
            label=label(name, inches - 0.7, 8.5) + f"  ({count:,})",
        )
        for name, (colour, marker), count in zip(groups.names, groups.marks, groups.counts, strict=True)
    ]  # fmt: skip
