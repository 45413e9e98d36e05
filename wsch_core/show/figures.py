"""Static figures of a run: the data it saw, how it learned, how well it retrieves, how healthy its codes are.

Plain arrays and dicts in, a `Picture` out; see `style` for how it is shown and saved.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, ScalarFormatter, StrMethodFormatter

from .style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    LARGE,
    MARKS,
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
    measure,
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
}
LOSSES = {
    "reconstruction": "reconstruction loss",
    "cluster": "cluster loss",
    "contrast": "contrast loss",
    "inertia": "k-means inertia",
}


def loss_curves(history: Sequence[Mapping], title: str = "") -> Picture:
    """A panel per loss over the passes of both stages, and in it a line per task.

    The tasks take turns, so one line through all passes would zig-zag between what each task does to the loss.
    history: one dict per pass, as in history.jsonl
    """
    panels = {loss: lines for loss in LOSSES if (lines := _lines_by_task(history, loss))}
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
            _pass_axis(axes, [line["pass"] for line in history])
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


def _lines_by_task(history: Sequence[Mapping], loss: str) -> dict[str, np.ndarray]:
    """task -> (passes, 2): number of the pass, value; a value that is no finite number becomes a gap"""
    lines = {}
    for line in history:
        value = line.get("inertia") if loss == "inertia" else line.get("losses", {}).get(loss)
        if value is None:
            continue
        task = " + ".join(line.get("tasks", ())) or "pre-training"
        lines.setdefault(task, []).append((line["pass"], value if np.isfinite(value) else np.nan))
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
    """A rule between the last pass of pre-training and the first of the cycle, where the run has both."""
    before = [line["pass"] for line in history if line.get("stage") == "pretraining"]
    after = [line["pass"] for line in history if line.get("stage") == "cycle"]
    if not before or not after:
        return
    first, border, last = min(before), (max(before) + min(after)) / 2, max(after)
    axes.axvline(border, color=SOFT, lw=0.9, ls=(0, (2, 2)), label="_stages", zorder=1)
    above = axes.get_xaxis_transform()
    words = {"fontsize": SMALL, "color": SOFT, "va": "bottom", "transform": above}
    if border - first > 0.2 * (last - first):
        axes.text(border, 1.01, "pre-training  ", ha="right", **words)
        axes.text(border, 1.01, "  cycle", ha="left", **words)
    else:  # no room for words left of the rule
        axes.text(border, 1.01, "  pre-training ends, cycle begins", ha="left", **words)
    axes.set_title(axes.get_title(loc="left"), pad=18)  # above these words


NAME, LONGEST = 1.05, 2.1  # inches: from the right edge of the mAP plot to the names of the lines; a name at most


def map_curves(
    results: Mapping[str, Mapping],
    published: Mapping[str, Sequence[float]] | None = None,
    title: str = "",
    ours: str | None = None,
) -> Picture:
    """mAP@K against K, a line per method and a name at its end.

    results: method -> ks, expected and, where ties were bounded, lower and upper, all (ks,)
    published: name -> (ks,) values at the ks of the first method, drawn in grey
    ours: the method to stand out; the first where not given
    """
    if not results:
        return empty("No results to compare yet.", title)
    ours = next(iter(results)) if ours is None else ours
    ks = np.asarray(next(iter(results.values()))["ks"])
    published = {name: np.asarray(values, dtype=float) for name, values in (published or {}).items()}
    for name, values in published.items():
        if values.shape != ks.shape:
            raise ValueError(f"published {name!r}: {len(ks)} values of K, but values of shape {values.shape}")
    with style():
        room = 0.21 * (len(results) + len(published))
        height = max(4.2, room + 1.2)
        figure = picture(WIDTH, height)
        axes = figure.add_axes((0, 0, 1, 1))
        ends = _published_lines(axes, ks, published) + _method_lines(axes, results, ours)
        left, bottom, top = 0.62, 0.52, 0.62 if title else 0.32  # inches
        right = NAME + 0.1 + max(measure(text, 8, "bold") for text, *_ in ends)
        size = WIDTH - left - right, height - bottom - top
        axes.set_position((left / WIDTH, bottom / height, size[0] / WIDTH, size[1] / height))
        _k_axis(axes, sorted({int(k) for result in results.values() for k in result["ks"]}), size[0])
        axes.set_ylabel("mAP@K")
        axes.grid()
        _name_ends(axes, ends, *size)
        if any(result.get("lower") is not None for result in results.values()):
            note = "band: worst and best order of tied results"
            axes.text(1, 1.01, note, transform=axes.transAxes, ha="right", va="bottom", fontsize=SMALL, color=SOFT)
        if title:
            where = {"fontsize": LARGE, "fontweight": "bold", "va": "top"}
            figure.text(0.012, 1 - 0.12 / height, label(title, WIDTH - 0.3, LARGE, "bold"), **where)
    return figure


def _method_lines(axes: Axes, results: Mapping[str, Mapping], ours: str) -> list[tuple]:
    """Draw them; return what stands at each line's end: text, K, value, look, weight."""
    ends = []
    others = MARKS[1:]
    baselines = [name for name in results if name != ours]
    for name, result in results.items():
        first = name == ours
        place = 0 if first else baselines.index(name)
        colour, marker, dash = MARKS[0] if first else others[place % len(others)]
        if not first and place >= len(others):
            dash = ":"  # colours begin again: another dash keeps the pair of them apart
        look = {"color": colour, "marker": marker, "ls": dash, "lw": 2.6 if first else 1.4, "zorder": 4 if first else 3}
        ks, expected = np.asarray(result["ks"]), np.asarray(result["expected"], dtype=float)
        axes.plot(ks, expected, markersize=6.5 if first else 5, label=name, **look)
        if result.get("lower") is not None and result.get("upper") is not None:
            low, high = (np.asarray(result[bound], dtype=float) for bound in ("lower", "upper"))
            axes.fill_between(ks, low, high, color=colour, alpha=0.16, lw=0, zorder=2)
        weight = "bold" if first else "normal"
        ends.append((label(name, LONGEST, 8, weight), ks[-1], expected[-1], look, weight))
    return ends


def _published_lines(axes: Axes, ks: np.ndarray, published: dict[str, np.ndarray]) -> list[tuple]:
    ends, suffix = [], " (published)"
    for place, (name, values) in enumerate(published.items()):
        marker = "x+12*"[place % 5]
        look = {"color": "#8A8A8A", "marker": marker, "ls": "--", "lw": 1.2, "zorder": 2.5}
        axes.plot(ks, values, markersize=5, label=f"{name}{suffix}", **look)
        text = label(name, LONGEST - measure(suffix, 8), 8) + suffix
        ends.append((text, ks[-1], values[-1], look, "normal"))
    return ends


def _k_axis(axes: Axes, ks: list[int], inches: float) -> None:
    """Ticks at the ks, the last always with its number, the others where there is room for it."""
    scale, name = np.asarray, "K, nearest videos taken into account"
    if ks[-1] > 25 * max(ks[0], 1):
        axes.set_xscale("log")
        axes.minorticks_off()
        scale, name = np.log, name + " (log scale)"
    at = (scale(ks) - scale(ks[0])) / max(scale(ks[-1]) - scale(ks[0]), 1e-9) * inches
    texts, right = [], np.inf
    for k, place in zip(reversed(ks), reversed(at), strict=True):
        fits = right - place > 0.08 + 0.09 * len(str(k))
        texts.insert(0, f"{k}" if fits else "")
        right = place if fits else right
    axes.set_xticks(ks, texts)
    axes.set_xlabel(name)


def _name_ends(axes: Axes, ends: list[tuple], width: float, height: float) -> None:
    """Names right of the lines' ends, moved apart where the ends are close, a thin rule leading to each.

    width, height: of the axes, in inches
    """
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    middle = (low + high) / 2  # for a line without a last value
    known = [value if np.isfinite(value) else middle for _, _, value, _, _ in ends]
    at = spread([(value - low) / (high - low) for value in known], 0.2 / height)
    beside = {"transform": axes.transAxes, "clip_on": False}
    words = {"transform": axes.transAxes, "va": "center", "fontsize": 8}
    for (text, k, value, look, weight), y in zip(ends, at, strict=True):
        if np.isfinite(value):
            end = axes.transAxes.inverted().transform(axes.transData.transform((k, value)))
            axes.plot([end[0], 1 + 0.2 / width], [end[1], y], color=FAINT, lw=0.8, zorder=1, **beside)
        mark = {part: look[part] for part in ("color", "marker", "ls", "lw")}
        axes.plot(1 + np.array([0.22, 0.38, 0.54]) / width, [y] * 3, markevery=[1], markersize=5, **mark, **beside)
        number = f"{value:.3f}" if np.isfinite(value) else "–"
        axes.text(1 + 0.62 / width, y, number, fontweight=weight, **words)
        axes.text(1 + NAME / width, y, text, fontweight=weight, **words)


def spread(at: Sequence[float], gap: float) -> list[float]:
    """Move numbers as little as their order and a least gap between them allow, staying within [0, 1] where they fit.

    Neighbours that are too close form a group, laid out evenly around the mean of where its members want to be.
    """
    order = np.argsort(at, kind="stable")
    groups: list[list[float]] = []  # each: wanted places, from the lowest
    starts: list[float] = []
    room = max(1 - gap * (len(at) - 1), 0)
    for wanted in np.asarray(at, dtype=float)[order]:
        groups.append([wanted])
        starts.append(wanted)
        while True:
            inside = gap * (len(groups[-1]) - 1)
            centre = np.mean([want - gap * place for place, want in enumerate(groups[-1])])
            starts[-1] = min(max(centre, 0), max(1 - inside, 0)) if room else centre
            if len(groups) < 2 or starts[-2] + gap * len(groups[-2]) <= starts[-1] + 1e-12:
                break
            last = groups.pop()
            starts.pop()
            groups[-1] += last
    placed = np.empty(len(at))
    placed[order] = [
        start + gap * place for start, group in zip(starts, groups, strict=True) for place in range(len(group))
    ]
    return placed.tolist()


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
        image = right.imshow(
            correlation, cmap=colormaps["RdBu_r"].with_extremes(bad=FAINT), vmin=-1, vmax=1, interpolation="nearest"
        )
        right.set(xlabel="bit", ylabel="bit")
        right.set_title("correlation of bits")
        right.spines[:].set_visible(False)
        for axis in (left.xaxis, right.xaxis, right.yaxis):
            axis.set_major_locator(MaxNLocator(8, integer=True))
        figure.colorbar(
            image, ax=right, label="correlation", ticks=(-1, -0.5, 0, 0.5, 1), shrink=0.86
        ).outline.set_visible(False)
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


def radius_curves(precision: np.ndarray, recall: np.ndarray, title: str = "") -> Picture:
    """Retrieval by Hamming radius: everything within it is returned.

    precision, recall: (bits + 1,) at radius 0, 1, ..; precision is not a number where nothing is returned
    """
    precision, recall = np.asarray(precision, dtype=float), np.asarray(recall, dtype=float)
    if precision.shape != recall.shape or precision.ndim != 1:
        raise ValueError(f"precision of shape {precision.shape}, but recall of shape {recall.shape}")
    radius = np.arange(len(precision))
    with style():
        figure = picture(WIDTH, 3.6 if title else 3.3, layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
        every = max(len(radius) // 14, 1)
        for values, name, (colour, marker, dash) in ((precision, "precision", MARKS[0]), (recall, "recall", MARKS[1])):
            left.plot(radius, values, color=colour, marker=marker, ls=dash, markevery=every, label=name)
        left.set(xlabel="Hamming radius (bits)", ylabel="precision, recall", ylim=(-0.03, 1.05))
        left.xaxis.set_major_locator(MaxNLocator(9, integer=True))
        left.set_title("within a radius")
        left.legend(loc="center right", handlelength=3)
        right.plot(recall, precision, color=INK, marker="o", markersize=3.5, lw=1.3)
        right.set(xlabel="recall", ylabel="precision", xlim=(-0.03, 1.13), ylim=(-0.03, 1.05))
        right.set_title("precision against recall")
        _name_radii(right, precision, recall)
        for axes in (left, right):
            axes.grid()
        heading(figure, title)
    return figure


def _name_radii(axes: Axes, precision: np.ndarray, recall: np.ndarray) -> None:
    """Write the radius beside some points, far enough apart to be read."""
    written = []
    for radius, (x, y) in enumerate(zip(recall, precision, strict=True)):
        if not np.isfinite(x + y) or any(np.hypot(x - a, y - b) < 0.16 for a, b in written):
            continue
        written.append((x, y))
        words = {"textcoords": "offset points", "fontsize": SMALL, "color": SOFT}
        axes.annotate(f"r = {radius}", (x, y), (5, 5), **words)
