"""Static figures of a run: the data it saw, how it learned, how healthy its codes are.

Plain arrays and dicts in, a `Picture` out; see `style` for how it is shown and saved.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, ScalarFormatter, StrMethodFormatter

from ..style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    NORMAL,
    ORANGE,
    PURPLE,
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

NAMED_CLASSES = 40  # more classes than this are drawn as a sorted outline instead of a bar and a name each


def class_histogram(counts: Mapping[str, np.ndarray], class_names: Sequence[str], title: str = "") -> Picture:
    """Videos per class, a panel per split.

    counts: split name -> (classes,) integers
    """
    counts = {split: np.asarray(count) for split, count in counts.items()}
    for split, count in counts.items():
        if count.shape != (len(class_names),):
            raise ValueError(f"split {split!r}: {len(class_names)} class names, but counts of shape {count.shape}")
    if not counts or not len(class_names):
        return empty("No labelled videos.", title)
    with style():
        draw = _class_bars if len(class_names) <= NAMED_CLASSES else _class_outline
        return draw(counts, class_names, title)


def _class_bars(counts: dict, names: Sequence[str], title: str) -> Picture:
    rows = np.arange(len(names))
    figure = picture(WIDTH, 1.3 + 0.24 * max(len(names), 2), layout="constrained")
    panels = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    for axes, (split, count) in zip(panels, counts.items(), strict=True):
        bars = axes.barh(rows, count, height=0.72, color=BLUE)
        axes.bar_label(bars, labels=[f"{n:,}" for n in count], padding=3, fontsize=SMALL, color=SOFT)
        axes.set(xlabel="videos", xlim=(0, max(count.max(), 1) * (1 + 0.07 * len(counts))))
        _count_axis(axes.xaxis, 4)
        axes.set_title(_split_title(split, count, WIDTH / len(counts) - 0.6))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(rows, [label(name, 2.0, 8) for name in names])
    panels[0].set_ylim(len(names) - 0.4, -0.6)  # first class on top
    heading(figure, title)
    return figure


def _class_outline(counts: dict, names: Sequence[str], title: str) -> Picture:
    """Too many classes for names: one order for all splits, by videos in all of them, so that panels compare."""
    order = np.argsort(-sum(counts.values()), kind="stable")
    ranks = np.arange(1, len(names) + 1)
    figure = picture(WIDTH, 1.0 + 1.55 * len(counts), layout="constrained")
    panels = figure.subplots(len(counts), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (split, count) in zip(panels, counts.items(), strict=True):
        axes.bar(ranks, count[order], width=1.0, color=BLUE, linewidth=0)
        axes.set(ylabel="videos", xlim=(0.5, len(names) + 0.5), ylim=(0, max(count.max(), 1) * 1.08))
        _count_axis(axes.yaxis, 4)
        axes.set_title(_split_title(split, count, WIDTH - 1))
        axes.grid(axis="y")
    shown = np.unique(np.linspace(0, len(names) - 1, 5).round().astype(int))
    ticks = [f"{rank + 1}\n{label(names[order[rank]], 1.6, 8)}" for rank in shown]
    panels[-1].set_xticks(shown + 1, ticks)
    panels[-1].get_xticklabels()[0].set_horizontalalignment("left")
    panels[-1].get_xticklabels()[-1].set_horizontalalignment("right")
    panels[-1].set_xlabel("classes sorted by size, all splits together (rank, and the names of some)")
    heading(figure, title)
    return figure


def _split_title(split: str, count: np.ndarray, inches: float) -> str:
    text = f"{split}: {count.sum():,} labels"  # not videos: a video may have several, or none
    if absent := int((count == 0).sum()):
        text += f", {absent} {'class' if absent == 1 else 'classes'} with none"
    return label(text, inches, NORMAL, "bold")


def _count_axis(axis, most: int) -> None:
    axis.set_major_locator(MaxNLocator(most, integer=True))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


TASKS = {  # what a pass learned -> colour, marker, dash
    "pre-training": (INK, "o", "-"),
    "cluster": (VERMILION, "s", (0, (5, 1.6))),
    "contrast": (BLUE, "^", "-"),
    "cluster + contrast": (GREEN, "D", (0, (4, 1.4, 1, 1.4))),
    "centers": (PURPLE, "v", (0, (1.2, 1.4))),
    "contrast + cluster": (GREEN, "D", (0, (4, 1.4, 1, 1.4))),  # this and the following are of WSCH's peers
    "contrast + prototypes": (GREEN, "D", (0, (4, 1.4, 1, 1.4))),
    "neighbours + anchors": (VERMILION, "s", (0, (5, 1.6))),
    "pairwise": (VERMILION, "s", (0, (5, 1.6))),
}
LOSSES = {
    "reconstruction": "reconstruction loss",
    "cluster": "cluster loss",
    "contrast": "contrast loss",
    "prototypes": "prototype loss",
    "neighbours": "neighbour loss",
    "anchors": "anchor loss",
    "pairwise": "pairwise loss",
    "inertia": "k-means inertia",
}


def loss_curves(history: Sequence[Mapping], title: str = "") -> Picture:
    """A panel per loss over the passes of both stages, and in it a line per task.

    The tasks take turns, so one line through all passes would zig-zag between what each task does to the loss.
    history: one dict per pass, as in history.jsonl
    """
    panels = {loss: lines for loss in LOSSES if (lines := lines_by_task(history, loss))}
    if not panels:
        return empty("No training pass with a loss yet.", title)
    found = {task for lines in panels.values() for task in lines}
    marks = {task: TASKS.get(task, (ORANGE, "P", (0, (7, 1.5)))) for task in [*TASKS, *sorted(found - set(TASKS))]}
    with style():
        rows, columns = (len(panels) + 1) // 2, min(len(panels), 2)
        figure = picture(WIDTH, 1.0 + 2.4 * rows, layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
        for axes, (loss, lines) in zip(grid, panels.items(), strict=False):
            _loss_panel(axes, LOSSES[loss], {task: lines[task] for task in marks if task in lines}, marks)
            _mark_stages(axes, history)
            _pass_axis(axes, [line["pass"] + 1 for line in history])
        for axes in grid[len(panels) :]:
            axes.remove()
        for axes in grid[max(len(panels) - columns, 0) : len(panels)]:
            axes.set_xlabel("training pass")
            axes.tick_params(labelbottom=True)
        handles = {}
        for axes in grid[: len(panels)]:
            handles |= {line.get_label(): line for line in axes.lines if line.get_label() in marks}
        shown = [task for task in marks if task in handles]
        figure.legend(
            [handles[task] for task in shown],
            [f"learning {task}" if task != "pre-training" else task for task in shown],
            loc="outside lower center",
            ncols=len(shown),
            handlelength=3.2,
        )
        heading(figure, title)
    return figure


def lines_by_task(history: Sequence[Mapping], loss: str) -> dict[str, np.ndarray]:
    """task -> (passes, 2): number of the pass from 1, value; a value that is no finite number becomes a gap"""
    lines = {}
    for line in history:
        value = line.get("inertia") if loss == "inertia" else line.get("losses", {}).get(loss)
        if value is None:
            continue
        task = " + ".join(line.get("tasks", ())) or "pre-training"
        lines.setdefault(task, []).append((line["pass"] + 1, value if np.isfinite(value) else np.nan))
    return {task: np.array(points, dtype=float) for task, points in lines.items()}


def _loss_panel(axes: Axes, name: str, lines: dict[str, np.ndarray], marks: dict) -> None:
    for task, points in lines.items():
        colour, marker, dash = marks[task]
        every = max(len(points) // 12, 1)  # marks tell lines apart, a thousand of them would cover the line
        size = 5 if len(points) < 40 else 4
        axes.plot(*points.T, color=colour, marker=marker, ls=dash, lw=1.4, markersize=size, markevery=every, label=task)
    values = np.concatenate([points[:, 1] for points in lines.values()])
    finite = values[np.isfinite(values)]
    if len(finite) and finite.min() > 0 and finite.max() > 50 * finite.min():
        axes.set_yscale("log")
        name += " (log scale)"
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.4g}"))
    else:
        axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))  # no "+1.2e1" to add in one's head
    if lost := len(values) - len(finite):
        name += f", {lost} not finite"
    axes.set_title(name)
    axes.grid()


def _pass_axis(axes: Axes, passes: Sequence[int]) -> None:
    first, last = min(passes), max(passes)
    margin = max(0.03 * (last - first), 0.5)
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))


def _mark_stages(axes: Axes, history: Sequence[Mapping]) -> None:
    """A rule between the last pass of pre-training and the first of what follows, where the run has both."""
    before = [line["pass"] + 1 for line in history if line.get("stage") == "pretraining"]
    after = [line["pass"] + 1 for line in history if line.get("stage") in ("cycle", "training")]
    if not before or not after:
        return
    then = next(line["stage"] for line in history if line["pass"] + 1 == min(after))
    first, border, last = min(before), (max(before) + min(after)) / 2, max(after)
    axes.axvline(border, color=SOFT, lw=0.9, ls=(0, (2, 2)), label="_stages", zorder=1)
    above = axes.get_xaxis_transform()
    words = {"fontsize": SMALL, "color": SOFT, "va": "bottom", "transform": above}
    if border - first > 0.2 * (last - first):
        axes.text(border, 1.01, "pre-training  ", ha="right", **words)
        axes.text(border, 1.01, f"  {then}", ha="left", **words)
    else:  # no room for words left of the rule
        axes.text(border, 1.01, f"  pre-training ends, {then} begins", ha="left", **words)
    axes.set_title(axes.get_title(loc="left"), pad=18)  # above these words


def code_health_figure(
    bit_balance: np.ndarray, bit_correlation: np.ndarray, distinct: int, videos: int, title: str = ""
) -> Picture:
    """Whether the bits are used: each should be on as often as off, and say something the others do not.

    bit_balance: (bits,) mean of each bit as -1 or 1
    bit_correlation: (bits, bits), not a number where a bit never changes
    """
    balance, correlation = np.asarray(bit_balance, dtype=float), np.asarray(bit_correlation, dtype=float)
    bits = len(balance)
    if correlation.shape != (bits, bits):
        raise ValueError(f"{bits} bits, but correlations of shape {correlation.shape}")
    with style():
        figure = picture(WIDTH, 4.3 if title else 4.0, layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        _balance_panel(left, balance)
        every = max(bits // 8, 1)
        sns.heatmap(
            correlation, ax=right, vmin=-1, vmax=1, cmap="RdBu_r", square=True, xticklabels=every, yticklabels=every,
            cbar_kws={"label": "correlation", "ticks": (-1, -0.5, 0, 0.5, 1), "shrink": 0.86},
        )  # fmt: skip
        right.set(xlabel="bit", ylabel="bit", facecolor=FAINT, title="correlation of bits")
        right.tick_params(axis="y", labelrotation=0)
        left.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        figure.supxlabel(
            _health_line(balance, correlation, distinct, videos), x=0.008, ha="left", fontsize=8.5, color=INK
        )
        heading(figure, title)
    return figure


STUCK = 0.9  # a bit with |mean| from here on has one value in 95 % of the videos or more


def _balance_panel(axes: Axes, balance: np.ndarray) -> None:
    bars = axes.bar(np.arange(len(balance)), balance, width=0.8, color=BLUE)
    for bar, mean in zip(bars, balance, strict=True):
        if abs(mean) >= STUCK:
            bar.set(facecolor="white", edgecolor=VERMILION, hatch="/////", linewidth=0.8)
    axes.axhline(0, color=SOFT, lw=0.8)
    axes.set(xlabel="bit", ylabel="mean of the bit as −1 or 1", xlim=(-0.8, len(balance) - 0.2), ylim=(-1.04, 1.04))
    hatched = f" (hatched: |mean| ≥ {STUCK:g})" if (np.abs(balance) >= STUCK).any() else ""
    axes.set_title("balance of bits" + hatched)
    axes.grid(axis="y")


def _health_line(balance: np.ndarray, correlation: np.ndarray, distinct: int, videos: int) -> str:
    bits = len(balance)
    parts = [f"{bits} bits", f"{distinct:,} distinct codes of {videos:,} videos ({distinct / max(videos, 1):.1%})"]
    if bits:
        parts.append(f"mean |balance| {np.abs(balance).mean():.2f}")
    apart = np.abs(correlation[~np.eye(bits, dtype=bool)])
    if np.isfinite(apart).any():
        parts.append(f"mean |correlation| of two bits {np.nanmean(apart):.2f}")
    if silent := int(np.isnan(np.diag(correlation)).sum()):
        parts.append(f"{silent} never changing (grey)")
    return "  ·  ".join(parts)
