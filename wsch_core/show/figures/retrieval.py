"""Queries and the videos that their codes retrieve, as a static figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from ...data import Dataset
from ...retrieval.search import nearest
from ..frames import as_image, pictures
from ..gallery.gallery import Gallery, Place
from ..style import BLUE, INK, PAPER, SMALL, SOFT, VERMILION, WIDTH, Picture, empty, label, place, sheet, style

CARD = 0.88  # inches
LEFT, FIRST = 0.12, 1.28  # inches: the query's card, the first result's card
FILM, BETWEEN = 4, 0.03  # small frames beneath the large one; inches of white between pictures
SMALL_FRAME = (CARD - BETWEEN * (FILM - 1)) / FILM
MOST_RESULTS = int((WIDTH - FIRST) / (CARD + 0.06))
HIT, MISS = "✓", "✗"


@dataclass(frozen=True)
class Video:
    """A query, or one of its results."""

    id: str
    labels: str
    picture: np.ndarray | None = None  # (frames, h, w[, 3]) uint8 keyframes, or (frames, 3) uint8 colours
    distance: int | None = None  # Hamming distance from the query; None for the query itself
    relevant: bool | None = None  # shares a label with the query; None where the query's are not known


def retrieved(
    codes: Mapping[str, Tensor], dataset: Dataset, queries: int = 6, neighbours: int = 8, seed: int = 0
) -> Picture:
    """Some queries, drawn at random, and their nearest database videos; a query's own entry is left out.

    codes: "query" and "database", (videos, bits) of ±1
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(dataset.query))[: max(queries, 0)]).tolist()
    if not chosen:
        return retrieval_figure([])
    itself = torch.tensor(chosen) if dataset.queries_are_database else None
    available = len(dataset.database) - dataset.queries_are_database
    found, distances = nearest(codes["query"][chosen], codes["database"], min(neighbours, available), itself)
    query_pictures = pictures(dataset.query, chosen)
    rows = []
    for place_, (query, places) in enumerate(zip(chosen, found.tolist(), strict=True)):
        shown = pictures(dataset.database, places)
        results = [
            Video(
                dataset.database.ids[video],
                dataset.database.label_names(video),
                shown[rank],
                int(distances[place_, rank]),
                _share_a_label(dataset, query, video),
            )
            for rank, video in enumerate(places)
        ]
        rows.append(
            (Video(dataset.query.ids[query], dataset.query.label_names(query), query_pictures[place_]), results)
        )
    return retrieval_figure(rows)


def retrieved_now(gallery: Gallery, neighbours: int = MOST_RESULTS) -> Picture:
    """The gallery's present query, of the data set or from outside, and what each of its methods finds: a row for each."""
    place = gallery.query
    shown = pictures(gallery.splits[place.split], [place.row])[0] if place.split else gallery.outside.keyframes
    rows = []
    for method in gallery.methods:
        found = gallery.results(method)[:neighbours]
        frames = pictures(gallery.splits["database"], [result.row for result in found])
        results = [
            Video(gallery.id_of(there), gallery.labels_of(there), frames[rank], result.distance, result.relevant)
            for rank, result in enumerate(found)
            for there in [Place("database", result.row)]
        ]
        rows.append((Video(gallery.id_of(place), method, shown), results))
    return retrieval_figure(rows)


def _share_a_label(dataset: Dataset, query: int, video: int) -> bool | None:
    if dataset.query.labels is None or dataset.database.labels is None or not dataset.query.labels[[query]].nnz:
        return None
    return (dataset.query.labels[[query]] @ dataset.database.labels[[video]].T).nnz > 0


def retrieval_figure(rows: Sequence[tuple[Video, Sequence[Video]]]) -> Picture:
    """A row per query: the query, then its results, the nearest first. At most 8 results fit.

    Hits have a check mark and a solid frame, misses a cross and a dashed one. Results at the same distance are bracketed:
    their order means nothing.
    """
    if not rows:
        return empty("No queries to show.")
    aspect = _aspect(rows)
    pitch_down = 0.24 + _tall(aspect) + 0.46
    with style():
        figure, axes = sheet(WIDTH, 0.42 + pitch_down * len(rows))
        axes.text(LEFT, 0.22, "query", fontweight="bold")
        axes.text(FIRST, 0.22, "nearest videos, d = Hamming distance", fontweight="bold")
        legend = f"{HIT} shares a label (solid frame)   {MISS} does not (dashed)   ┌─┐ same distance"
        axes.text(WIDTH - 0.1, 0.22, legend, ha="right", fontsize=SMALL, color=SOFT)
        for row, (query, results) in enumerate(rows):
            top = 0.42 + row * pitch_down
            _card(axes, query, LEFT, top + 0.16, aspect)
            pitch = (WIDTH - FIRST - 0.08) / max(len(results[:MOST_RESULTS]), 8)
            for rank, video in enumerate(results[:MOST_RESULTS]):
                _card(axes, video, FIRST + rank * pitch, top + 0.16, aspect)
            _bracket_ties(axes, results[:MOST_RESULTS], top + 0.09, pitch)
    return figure


def _aspect(rows: Sequence[tuple[Video, Sequence[Video]]]) -> float:
    """Width by height of the keyframes, which are all alike; 1 for colours and where there are none."""
    shapes = [
        video.picture.shape for query, results in rows for video in (query, *results) if video.picture is not None
    ]
    return next((shape[2] / shape[1] for shape in shapes if len(shape) > 2), 1.0)


def _tall(aspect: float) -> float:
    """Inches of a card without its text."""
    return (CARD + SMALL_FRAME) / aspect + BETWEEN


def _card(axes: Axes, video: Video, left: float, top: float, aspect: float) -> None:
    """One video: its middle frame over a film of small ones, or its colours; a frame of the right style; two lines."""
    tall, large = _tall(aspect), CARD / aspect
    if video.picture is None:
        axes.add_patch(Rectangle((left, top), CARD, tall, facecolor=PAPER, edgecolor="none"))
        axes.text(left + CARD / 2, top + large / 2, "no picture", ha="center", fontsize=SMALL, color=SOFT)
    elif video.picture.ndim == 2:  # one colour says little, all of them side by side show how the video changes
        place(axes, video.picture[None], left, top, CARD, tall).set_interpolation("nearest")
    else:
        place(axes, as_image(video.picture[len(video.picture) // 2]), left, top, CARD, large)
        for column, frame in enumerate(np.linspace(0, len(video.picture) - 1, FILM).round().astype(int)):
            where = left + column * (SMALL_FRAME + BETWEEN), top + large + BETWEEN
            place(axes, as_image(video.picture[frame]), *where, SMALL_FRAME, SMALL_FRAME / aspect)
    colour, dashes, width = {True: (BLUE, "-", 2.2), False: (VERMILION, (0, (3, 2)), 1.8), None: (INK, "-", 0.8)}[
        video.relevant
    ]
    frame = Rectangle((left, top), CARD, tall, fill=False, edgecolor=colour, linestyle=dashes, linewidth=width)
    axes.add_patch(frame)
    mark = {True: f"{HIT}  ", False: f"{MISS}  ", None: ""}[video.relevant]
    name = label(video.id, CARD, SMALL, "bold", middle=True)
    first = name if video.distance is None else f"{mark}d = {video.distance}"
    axes.text(left, top + tall + 0.15, first, fontsize=SMALL, color=colour, fontweight="bold")
    axes.text(left, top + tall + 0.29, label(video.labels, CARD, SMALL), fontsize=SMALL, color=SOFT)


def _bracket_ties(axes: Axes, results: Sequence[Video], top: float, pitch: float) -> None:
    start = 0
    for _, group in groupby(results, key=lambda video: video.distance):
        count = len(list(group))
        if count > 1:
            left, right = FIRST + start * pitch, FIRST + (start + count - 1) * pitch + CARD
            axes.plot([left, left, right, right], [top + 0.05, top, top, top + 0.05], color=SOFT, linewidth=0.9)
        start += count
