"""Static figures of retrieval: mAP@K by method, and precision and recall by Hamming radius.

Plain arrays and dicts in, a `Picture` out; see `style` for how it is shown and saved.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..style import (
    FAINT,
    INK,
    LARGE,
    MARKS,
    SMALL,
    SOFT,
    WIDTH,
    Picture,
    empty,
    heading,
    label,
    measure,
    picture,
    style,
)

NAME, LONGEST = 1.05, 2.1  # inches: from the right edge of the mAP plot to the names of the lines; a name at most


def map_curves(
    results: Mapping[str, Mapping],
    published: Mapping[str, Sequence[float]] | None = None,
    title: str = "",
    ours: str | None = None,
    band: str = "worst and best order of tied results",
) -> Picture:
    """mAP@K against K, a line per method and a name at its end.

    results: method -> ks, expected and, where ties were bounded, lower and upper, all (ks,)
    published: name -> (ks,) values at the ks of the first method, drawn in grey
    ours: the method to stand out; the first where not given
    band: what lies between lower and upper
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
            axes.text(
                1, 1.01, f"band: {band}", transform=axes.transAxes, ha="right", va="bottom", fontsize=SMALL, color=SOFT
            )
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
