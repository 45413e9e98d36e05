"""Static figures of an ablation: the forest plot, and the picture of the cycle.

Plain values in, a `Picture` out; see `style` for how it is shown and saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ...experiments.compare import Comparison, mean_interval
from ..style import (
    GREEN,
    INK,
    MARKS,
    ORANGE,
    SMALL,
    SOFT,
    VERMILION,
    WIDTH,
    Picture,
    empty,
    heading,
    label,
    picture,
    style,
)
from .run import LOSSES, TASKS, lines_by_task

History = Sequence[Mapping]
ROW = 0.34  # inches that a variant takes in the forest plot
DRAWN_SINGLY = 200  # passes; in longer runs those of a cycle are drawn as bands, since each would be a hair's breadth
POINTS = 300  # of a line at most; longer ones are averaged in steps
COLOURED = 6  # variants whose curves have a colour of their own; the others are grey
GREY = "#B8B8B8"


def forest(comparisons: Sequence[Comparison], k: int, reference: str, title: str = "") -> Picture:
    """mAP@k of each variant with its 95 % interval and its seeds, and beside it the paired difference to the reference."""
    if not any(one.values for one in comparisons):
        return empty("No run has a result yet.", title)
    rows = np.arange(len(comparisons))
    with style():
        figure = picture(WIDTH, 1.25 + ROW * max(len(rows), 2) + 0.3 * bool(title), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.25))
        _whiskers(left, [[*one.values.values()] for one in comparisons], [(INK, "o")] * len(rows))
        marks = [_verdict_mark(one, reference) for one in comparisons]
        _whiskers(right, [one.differences for one in comparisons], marks)
        _limits(left, [value for one in comparisons for value in one.values.values()], comparisons, "")
        _limits(right, [0.0, *(value for one in comparisons for value in one.differences)], comparisons, "difference")
        right.axvline(0, color=SOFT, lw=1.0, zorder=1)
        mean = next((one.mean for one in comparisons if one.name == reference), np.nan)
        left.axvline(mean, color=SOFT, lw=0.9, ls=(0, (2, 2)), zorder=1)
        left.set_yticks(rows, [label(one.name, 1.75, 8) for one in comparisons])
        left.set_ylim(len(rows) - 0.45, -0.55)  # first variant on top
        for row, one in zip(rows, comparisons, strict=True):
            words = f"reference ({_count(one)})" if one.name == reference else f"{one.verdict} ({_count(one)})"
            place = {"transform": right.get_yaxis_transform(), "va": "center", "fontsize": 8}
            right.text(1.02, row, words, color=_verdict_mark(one, reference)[0], **place)
        left.set(xlabel=f"mAP@{k}", title=f"mAP@{k}")
        right.set(
            xlabel=f"difference in mAP@{k}", title=label(f"difference to {reference}, seed by seed", 3.6, 9, "bold")
        )
        for axes in (left, right):
            axes.grid(axis="x")
            axes.tick_params(axis="y", length=0)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.spines["left"].set_visible(False)
        note = "mark: mean · bar: 95 % interval (Student's t over seeds), arrow: it goes on · small dots: the seeds"
        figure.supxlabel(note, x=0.008, ha="left", fontsize=SMALL, color=SOFT)
        heading(figure, title)
    return figure


def _count(one: Comparison) -> str:
    return f"{len(one.values)} {'seed' if len(one.values) == 1 else 'seeds'}"


def _verdict_mark(one: Comparison, reference: str) -> tuple[str, str]:
    """Colour and marker; never colour alone."""
    if one.name == reference or not one.more_than_noise:
        return (INK if one.name == reference else SOFT), "o"
    return (GREEN, "^") if one.difference > 0 else (VERMILION, "v")


def _whiskers(axes: Axes, rows: Sequence[Sequence[float]], marks: Sequence[tuple[str, str]]) -> None:
    """For each row of values, one per seed: their mean and its interval, and the seeds as dots below."""
    frame = pd.DataFrame([(row, value) for row, seeds in enumerate(rows) for value in seeds], columns=["row", "value"])
    if frame.empty:  # seaborn would warn
        return
    options = {"ax": axes, "orient": "h", "native_scale": True, "legend": False}
    sns.stripplot(x=frame["value"], y=frame["row"] + 0.26, jitter=False, color=SOFT, size=3, zorder=2, **options)
    colours, markers = zip(*marks, strict=True)
    sns.pointplot(
        frame, x="value", y="row", hue="row", hue_order=range(len(rows)), palette=[*colours], markers=[*markers],
        markersize=7, linestyle="none", errorbar=_interval, err_kws={"linewidth": 2.0, "zorder": 3}, zorder=4, **options,
    )  # fmt: skip
    axes.set_ylabel("")


def _interval(values: Sequence[float]) -> tuple[float, float]:
    mean, half_width = mean_interval(values)
    return mean - half_width, mean + half_width


def _limits(axes: Axes, values: Sequence[float], comparisons: Sequence[Comparison], what: str) -> None:
    """Room for every seed and most intervals: one over two seeds is so wide that it would press all else together."""
    prefix = f"{what}_" if what else ""
    pairs = [(getattr(one, what or "mean"), getattr(one, f"{prefix}half_width")) for one in comparisons]
    ends = [end for mean, half in pairs if np.isfinite(half) for end in (mean - half, mean + half)]
    low, high = min(values), max(values)
    spread = max(high - low, 0.02)
    low, high = (max(low - spread, min([low, *ends])), min(high + spread, max([high, *ends])))
    margin = 0.06 * max(high - low, 0.02)
    axes.set_xlim(low - margin, high + margin)
    for row, (mean, half) in enumerate(pairs):
        for end, edge, arrow in ((mean - half, low - margin, "<"), (mean + half, high + margin, ">")):
            if np.isfinite(half) and (end < edge if arrow == "<" else end > edge):
                axes.plot([edge], [row], marker=arrow, color=SOFT, markersize=6, clip_on=False, zorder=5, ls="")


def cycle(histories: Mapping[str, Sequence[History]], title: str = "") -> Picture:
    """What each pass learned, and the losses by task, laid over each other.

    histories: variant -> one history for each seed; lines are means over seeds. The first variants have colours of their
    own, the others are grey: give those first that are to be told apart.
    """
    histories = {name: [h for h in seeds if h] for name, seeds in histories.items()}
    histories = {name: seeds for name, seeds in histories.items() if seeds}
    curves = {name: _mean_curves(seeds) for name, seeds in histories.items()}
    panels = [loss for loss in LOSSES if any(loss in found for found in curves.values())]
    if not panels:
        return empty("No training pass with a loss yet.", title)
    with style():
        above = 0.28 * len(histories) + 0.7
        rows = (len(panels) + 1) // 2
        figure = picture(WIDTH, above + 2.5 * rows + 0.9, layout="constrained")
        grid = figure.add_gridspec(rows + 1, 2, height_ratios=[above, *[2.5] * rows])
        strips = figure.add_subplot(grid[0, :])
        _strips(strips, {name: seeds[0] for name, seeds in histories.items()})
        looks = {name: _look(place) for place, name in enumerate(histories)}
        for place, loss in enumerate(panels):
            axes = figure.add_subplot(grid[1 + place // 2, place % 2])
            _panel(axes, loss, curves, looks)
        _variant_legend(figure, looks)
        heading(figure, title)
    return figure


def _look(place: int) -> dict:
    """The line of a variant; the first is black."""
    if place >= COLOURED:
        return {"color": GREY, "ls": "-", "lw": 0.9, "zorder": 2}
    colours = (INK, *(colour for colour, *_ in MARKS))
    return {"color": colours[place], "ls": MARKS[place][2], "lw": 2.0 if place == 0 else 1.5, "zorder": 5 - 0.1 * place}


def _task_look(task: str) -> tuple[str, str]:
    """Colour and marker of what a pass learned."""
    return TASKS.get(task, (ORANGE, "P", "-"))[:2]


def _strips(axes: Axes, histories: Mapping[str, History]) -> None:
    """A strip for each variant, passes from left to right, coloured by task; above it, what the colours mean."""
    found, title = [], "what each pass learned"
    for row, history in enumerate(histories.values()):
        by_task: dict[str, list[int]] = {}
        for line in history:
            by_task.setdefault(" + ".join(line["tasks"]) or "pre-training", []).append(line["pass"] + 1)
        found += [task for task in by_task if task not in found]
        singly = len(history) <= DRAWN_SINGLY
        bands = [task for task in by_task if task != "pre-training"]
        if not singly and len(bands) > 1:
            title = "what each pass learned (bands: in turn, from the top)"
        for task, numbers in by_task.items():
            height = 0.7 if singly or task == "pre-training" else 0.7 / len(bands)
            top = row - 0.35 + (0 if height == 0.7 else bands.index(task) * height)
            spans = [(n - 0.5, 0.88) for n in numbers] if singly else [(min(numbers) - 0.5, np.ptp(numbers) + 1)]
            axes.broken_barh(spans, (top, height), facecolors=_task_look(task)[0], linewidth=0)
    longest = max(line["pass"] + 1 for history in histories.values() for line in history)
    axes.set(xlim=(0, longest + 1), ylim=(len(histories) - 0.4, -0.6))
    axes.set_yticks(range(len(histories)), [label(name, 1.75, 8) for name in histories])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    _pass_axis(axes, 10)
    marks = [
        Line2D([], [], ls="", marker=_task_look(task)[1], color=_task_look(task)[0], markersize=6.5, label=_words(task))
        for task in sorted(found, key=lambda task: [*TASKS, task].index(task))
    ]
    above = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
    axes.set_title(title, pad=24)
    axes.legend(handles=marks, ncols=len(marks), handletextpad=0.1, columnspacing=1.2, **above)


def _pass_axis(axes: Axes, most: int) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(most, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("training pass")


def _mean_curves(histories: Sequence[History]) -> dict[str, dict[str, np.ndarray]]:
    """loss -> task -> (passes, 2): number of the pass from 1 and the mean over seeds, in steps where there are many"""
    curves: dict[str, dict[str, np.ndarray]] = {}
    for loss in LOSSES:
        seeds = [lines_by_task(history, loss) for history in histories]
        for task in dict.fromkeys(task for lines in seeds for task in lines):
            points = np.concatenate([lines[task] for lines in seeds if task in lines])
            numbers, which = np.unique(points[:, 0], return_inverse=True)
            means = np.bincount(which, points[:, 1]) / np.bincount(which)
            steps = np.array_split(np.column_stack([numbers, means]), min(len(numbers), POINTS))
            curves.setdefault(loss, {})[task] = np.array([step.mean(axis=0) for step in steps])
    return curves


def _panel(axes: Axes, loss: str, curves: Mapping[str, Mapping], looks: Mapping[str, dict]) -> None:
    values = []
    for place, (name, found) in enumerate(curves.items()):
        for task, points in found.get(loss, {}).items():
            colour, marker = _task_look(task)
            every = max(len(points) // 8, 1)
            marks = {"marker": marker, "markerfacecolor": colour, "markeredgecolor": "white", "markeredgewidth": 0.6}
            marks |= {"markersize": 6, "markevery": (place * every // COLOURED, every)}  # seldom one over another
            axes.plot(*points.T, **looks[name], **(marks if place < COLOURED else {}))
            values.append(points[:, 1])
    values = np.concatenate(values)
    finite = values[np.isfinite(values)]
    title = LOSSES[loss]
    if len(finite):
        low, usual, high = np.quantile(finite, (0, 0.95, 1))
        if high - usual > 1.5 * (usual - low) > 0:  # a few first passes would press all the others together
            axes.set_ylim(low - 0.06 * (usual - low), usual + 0.3 * (usual - low))
            title += ", beginning cut off"
    axes.set_title(title)
    _pass_axis(axes, 8)
    axes.grid()


def _variant_legend(figure: Picture, looks: Mapping[str, dict]) -> None:
    variants = [Line2D([], [], **look, label=label(name, 2.2, 8.5)) for name, look in [*looks.items()][:COLOURED]]
    if len(looks) > COLOURED:
        variants.append(Line2D([], [], **looks[[*looks][COLOURED]], label=f"{len(looks) - COLOURED} others"))
    figure.legend(handles=variants, loc="outside lower left", ncols=min(len(variants), 4), handlelength=2.8)


def _words(task: str) -> str:
    return {"pre-training": task, "centers": "finding centres"}.get(task, f"learning {task}")
