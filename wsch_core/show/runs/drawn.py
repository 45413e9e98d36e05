"""Small drawings of a run that is being trained, as SVG: quickly made, and in the colours of the notebook's theme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from ...methods.method import Pass
from ..figures.run import LOSSES, TASKS, lines_by_task
from ..style import INK, ORANGE

WIDTH, HEIGHT = 900, 16  # of the strip, in its own units: it is as wide as the notebook
DRAWN_SINGLY = 450  # passes
PANEL = (280, 130)  # pixels of a panel of curves
LEFT, TOP, BOTTOM = 46, 20, 18  # pixels around its lines
POINTS = 200  # of a line at most; longer ones are averaged in steps
TEXT, FAINT = "var(--jp-ui-font-color1, #222)", "var(--jp-border-color2, #ddd)"


def task_of(tasks: Sequence[str]) -> str:
    return " + ".join(tasks) or "pre-training"


def colour_of(task: str) -> str:
    colour = TASKS.get(task, (ORANGE,))[0]
    return TEXT if colour == INK else colour


def strip(schedule: Sequence[Pass], done: int) -> str:
    """Every pass as a bar coloured by what it learns, those to come pale; below, how many of each are done.

    done: passes that are over
    In long runs the tasks of a cycle become bands, one above the other, since a bar would be a hair's breadth.
    """
    shapes, legend = [], []
    tasks = list(dict.fromkeys(task_of(p.tasks) for p in schedule))
    banded = [task for task in tasks if task != "pre-training"] if len(schedule) > DRAWN_SINGLY else []
    for task in tasks:
        numbers = [p.number for p in schedule if task_of(p.tasks) == task]
        over, height = sum(number < done for number in numbers), HEIGHT / len(banded) if task in banded else HEIGHT
        top = banded.index(task) * height if task in banded else 0
        for part, opacity in ((numbers[:over], 1), (numbers[over:], 0.25)):
            spans = [(part[0], part[-1] + 1)] if part and len(schedule) > DRAWN_SINGLY else [(n, n + 0.9) for n in part]
            each = WIDTH / len(schedule)
            path = "".join(f"M{a * each:.1f} {top:.1f}H{b * each:.2f}v{height:.1f}H{a * each:.1f}z" for a, b in spans)
            shapes.append(f'<path d="{path}" style="fill: {colour_of(task)}; opacity: {opacity}"/>')
        legend.append(
            f'<span style="white-space: nowrap; margin-right: 14px"><span style="color: {colour_of(task)}">■</span> '
            f"{escape(task)} {over:,} of {len(numbers):,}</span>"
        )
    words = f"passes: {done:,} of {len(schedule):,} done"
    return (
        f'<svg role="img" aria-label="{words}" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" '
        f'style="display: block; width: 100%; height: {HEIGHT}px">{"".join(shapes)}</svg>'
        f'<div style="color: {TEXT}; font-size: 12px; line-height: 1.6">{"".join(legend)}</div>'
    )


def curves(history: Sequence[Mapping], passes: int, watched: Sequence[Mapping] = ()) -> str:
    """A panel for each loss, in it a line for each task; and one for what was watched.

    history: a line for each pass that is over; passes: of the whole run; watched: see `experiments.watch`
    """
    panels = {title: lines for loss, title in LOSSES.items() if (lines := lines_by_task(history, loss))}
    drawn = [_panel(title, lines, passes) for title, lines in panels.items()]
    if watched:
        points = np.array([(line["pass"] + 1, line["map"]) for line in watched], float)
        drawn.append(_panel(f"mAP@{watched[-1]['k']}, watched only", {"": points}, passes))
    return f'<div style="display: flex; flex-wrap: wrap; gap: 4px 12px">{"".join(drawn)}</div>'


def _panel(title: str, lines: Mapping[str, np.ndarray], passes: int) -> str:
    width, height = PANEL
    values = np.concatenate([points[:, 1] for points in lines.values()])
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    spread = (high - low) or max(abs(high), 1.0)
    right, bottom = width - 6, height - BOTTOM

    def at(points: np.ndarray) -> np.ndarray:
        x = LEFT + (points[:, 0] - 1) / max(passes - 1, 1) * (right - LEFT)
        return np.column_stack([x, bottom - (points[:, 1] - low) / spread * (bottom - TOP - 4)])

    shapes = []
    for task, points in lines.items():
        points = points[np.isfinite(points[:, 1])]
        steps = np.array_split(points, min(max(len(points), 1), POINTS))
        places = at(np.array([step.mean(axis=0) for step in steps])) if len(points) else np.empty((0, 2))
        path, colour = " ".join(f"{x:.1f},{y:.1f}" for x, y in places), colour_of(task) if task else TEXT
        shapes.append(f'<polyline points="{path}" style="fill: none; stroke: {colour}; stroke-width: 1.6"/>')
        if len(places):
            shapes.append(f'<circle cx="{places[-1, 0]:.1f}" cy="{places[-1, 1]:.1f}" r="2.6" style="fill: {colour}"/>')
    text = f'style="fill: {TEXT}; font: 11px var(--jp-ui-font-family, sans-serif)"'
    named = [
        f'<text x="{LEFT}" y="12" {text} font-weight="600">{escape(title)}</text>',
        f'<text x="{LEFT - 5}" y="{TOP + 8}" text-anchor="end" {text}>{high:.3g}</text>',
        f'<text x="{LEFT - 5}" y="{bottom}" text-anchor="end" {text}>{low:.3g}</text>',
        f'<text x="{LEFT}" y="{height - 4}" {text}>pass 1</text>',
        f'<text x="{right}" y="{height - 4}" text-anchor="end" {text}>{passes:,}</text>',
    ]
    frame = f'<path d="M{LEFT} {TOP}V{bottom}H{right}" style="fill: none; stroke: {FAINT}"/>'
    label = f"{title} over the passes, from {low:.3g} to {high:.3g}"
    return (
        f'<svg role="img" aria-label="{escape(label)}" width="{width}" height="{height}">'
        f"{frame}{''.join(shapes)}{''.join(named)}</svg>"
    )
