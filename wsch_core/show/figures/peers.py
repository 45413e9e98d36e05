"""What a method's quality costs, as a static figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..style import INK, MARKS, WIDTH, Picture, empty, heading, label, picture, style

COSTS = {  # column of the costs -> what its panel is called
    "training seconds": "training, seconds",
    "encoding 1,000 videos, seconds": "encoding 1,000 videos, seconds of one thread",
    "parameters": "parameters",
    "peak memory MB": "peak memory, MB",
}


def quality_and_cost(
    quality: Mapping[str, tuple[float, float]], costs: Mapping[str, Mapping[str, float]], k: int, title: str = ""
) -> Picture:
    """mAP@k of each method against each of its costs: up and to the left is better.

    quality: method -> mAP@k, half its 95 % interval (nan for a single seed); costs: method -> cost by the names in COSTS
    """
    if not quality:
        return empty("No run has a result yet.", title)
    looks = {name: _look(place) for place, name in enumerate(quality)}
    with style():
        figure = picture(WIDTH, 6.6, layout="constrained")
        for axes, (cost, words) in zip(figure.subplots(2, 2, sharey=True).ravel(), COSTS.items(), strict=True):
            for name, (mean, half) in quality.items():
                place = costs.get(name, {}).get(cost, np.nan)
                bar = {"yerr": half, "capsize": 3} if np.isfinite(half) else {}
                if np.isfinite(place) and place > 0:
                    axes.errorbar(place, mean, **bar, **looks[name], ls="", markersize=8, label=name)
            axes.set(xscale="log", xlabel=words)
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7), numticks=7))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 10 else f"{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.margins(0.15)
            axes.grid()
        for axes in figure.axes[::2]:
            axes.set_ylabel(f"mAP@{k}")
        _legend(figure, [*quality])
        heading(figure, title)
    return figure


def _look(place: int) -> dict:
    colours, markers = zip(*((colour, marker) for colour, marker, _ in MARKS), strict=True)
    colours, markers = (*colours, INK), (*markers, "X")
    return {"color": colours[place % len(colours)], "marker": markers[(place + place // len(colours)) % len(markers)]}


def _legend(figure: Picture, names: Sequence[str]) -> None:
    handles = {}
    for axes in figure.axes:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    shown = [name for name in names if name in handles]
    figure.legend(
        [handles[name] for name in shown],
        [label(name, 1.9, 8.5) for name in shown],
        loc="outside lower center",
        ncols=4,
    )
