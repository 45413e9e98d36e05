"""Videos and results as plain data that a page or a widget draws: names, marks, ties, and small pictures as text."""

from __future__ import annotations

import base64
import io
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from PIL import Image

from ...data import Split
from ..frames import Pictures
from .gallery import Gallery, Outside, Place, Result

FRAMES = 12  # of a video in its picture; more are hard to follow and make pages large
SIDE = 112  # pixels, the longer side of a frame
KEPT = 2000  # pictures that are remembered


class Films:
    """Small pictures of videos: their frames side by side, made when first shown, remembered by id."""

    def __init__(self, splits: Mapping[str, Split], frames: int = FRAMES, side: int = SIDE):
        self.splits, self.frames, self.side = splits, frames, side
        self._pictures = {name: Pictures(split) for name, split in splits.items()}
        self._kept: OrderedDict[tuple[str, str], dict] = OrderedDict()

    def __call__(self, places: Sequence[Place]) -> list[dict[str, Any]]:
        """For each video: `source`, a data URI of `frames` side by side; whether they are `moving` pictures; where the
        `middle` one is; the `aspect` of one, width by height."""
        keys = [(place.split, self.splits[place.split].ids[place.row]) for place in places]
        for split in self.splits:
            missing = {key: place.row for key, place in zip(keys, places, strict=True) if place.split == split}
            missing = {key: row for key, row in missing.items() if key not in self._kept}
            if missing:
                shown = self._pictures[split](list(missing.values()))
                self._kept |= {
                    key: film(picture, self.frames, self.side) for key, picture in zip(missing, shown, strict=True)
                }
        found = [self._kept[key] for key in keys]
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found

    def of_outside(self, video: Outside) -> dict[str, Any]:
        """The film of a video from outside: its keyframes or, without any, colours, scaled as those of the database."""
        if video.keyframes is not None:
            return film(video.keyframes, self.frames, self.side)
        return film(self._pictures["database"].colours(video.features)[0])


def film(picture: np.ndarray, frames: int = FRAMES, side: int = SIDE) -> dict[str, Any]:
    """Keyframes (frames, h, w[, 3]) or colours (frames, 3), uint8, side by side in one image.

    Of keyframes at most `frames` are taken, evenly, and no side is longer than `side` pixels.
    """
    if picture.ndim == 2:
        return _film(_data_uri(Image.fromarray(picture[None]), "PNG"), len(picture), moving=False, aspect=1)
    chosen = np.unique(np.linspace(0, len(picture) - 1, frames).round().astype(int))
    images = [Image.fromarray(picture[frame]) for frame in chosen]
    for image in images:
        image.thumbnail((side, side))
    side_by_side = Image.new(images[0].mode, (sum(image.width for image in images), images[0].height))
    for place, image in enumerate(images):
        side_by_side.paste(image, (place * image.width, 0))
    return _film(_data_uri(side_by_side, "JPEG", quality=80), len(images), True, images[0].width / images[0].height)


def _film(source: str, frames: int, moving: bool, aspect: float) -> dict[str, Any]:
    middle = (frames - 1) // 2 / max(frames - 1, 1)  # where a background must stand to show the middle frame whole
    return {
        "source": source,
        "frames": frames,
        "moving": moving,
        "middle": f"{100 * middle:.3f}%",
        "aspect": round(aspect, 4),
    }


def _data_uri(image: Image.Image, kind: str, **options) -> str:
    memory = io.BytesIO()
    image.save(memory, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(memory.getvalue()).decode()}"


def content(gallery: Gallery, films: Films) -> dict[str, Any]:
    """All that is to be seen now: the query, and by method what it retrieves."""
    return {
        "query": query_card(gallery, films),
        "panels": [panel(gallery, films, method) for method in gallery.methods],
    }


def query_card(gallery: Gallery, films: Films) -> dict[str, Any]:
    place = gallery.query
    where = {"query": "query", "database": "database video", "": "from outside"}[place.split]
    if gallery.position:
        where = f"query {gallery.position:,} of {len(gallery.queries):,}"
    return {
        "id": gallery.id_of(place),
        "labels": gallery.labels_of(place),
        "where": where,
        "film": films([place])[0] if place.split else films.of_outside(gallery.outside),
    }


def panel(gallery: Gallery, films: Films, method: str) -> dict[str, Any]:
    """One method's results. Cards carry `tie`: "" alone at a distance, else "start", "middle" or "end" of a group."""
    results = gallery.results(method)
    places = [Place("database", result.row) for result in results]
    ties = [tie for _, group in groupby(results, key=lambda result: result.distance) for tie in _ties(list(group))]
    cards = [
        {
            "id": gallery.id_of(place),
            "row": result.row,
            "rank": result.rank,
            "distance": result.distance,
            "relevant": result.relevant,
            "labels": gallery.labels_of(place),
            "tie": tie,
            "film": picture,
            "bits": bits(gallery, method, place),
        }
        for place, result, tie, picture in zip(places, results, ties, films(places), strict=True)
    ]
    return {"method": method, "summary": summary(results), "bits": bits(gallery, method, gallery.query), "cards": cards}


def _ties(group: list[Result]) -> list[str]:
    return [""] if len(group) == 1 else ["start", *["middle"] * (len(group) - 2), "end"]


def bits(gallery: Gallery, method: str, place: Place) -> str:
    """A code as zeros and ones."""
    return "".join("1" if bit > 0 else "0" for bit in gallery.code(method, place).tolist())


def summary(results: Sequence[Result]) -> str:
    """How many of the shown results share a label with the query."""
    if not results:
        return "no video passes the filters"
    known = [result.relevant for result in results if result.relevant is not None]
    return f"{sum(known)} of {len(known)} shown share a label" if known else f"{len(results)} shown, labels not known"
