"""A map to point at: an anywidget for the points, ipywidgets around it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import anywidget
import ipywidgets as widgets
import numpy as np
import traitlets

from ...data import Dataset
from ...runs.folder import Run
from ...storage.files import make_folder, write_whole
from ...storage.words import as_cell
from ..gallery.cards import Films
from ..gallery.gallery import Gallery, Place, methods_for
from ..gallery.view import GalleryView
from .groups import Groups
from .maps import Map, Setup

HERE = Path(__file__).parent
STYLES = (HERE.parent / "gallery" / "gallery.css", HERE / "map.css")  # the cards of a gallery are shown here too


class Points(anywidget.AnyWidget):
    """Draws maps; sends {"hover": point} or {"select": points}, and shows what `detail` then tells."""

    _esm = HERE / "map.js"
    _css = (HERE.parent / "gallery" / "gallery.css").read_text(encoding="utf-8") + (HERE / "map.css").read_text(
        encoding="utf-8"
    )
    points = traitlets.Bytes().tag(sync=True)  # (maps, n, 2) uint16: from one edge of the map to the other
    titles = traitlets.List().tag(sync=True)  # of the maps
    groups = traitlets.Bytes().tag(sync=True)  # (n,) uint8
    names = traitlets.List().tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)  # of the groups
    detail = traitlets.Dict().tag(sync=True)


class MapView:
    """Maps of the same videos, two at a time, to point at and to choose from; `widget` is what a notebook shows.

    folder: where chosen ids go, as maps/chosen-1.csv and so on
    gallery: makes the gallery in which chosen videos open; None where the mapped split has none (train)
    """

    def __init__(
        self,
        maps: Sequence[Map],
        groups: Groups,
        setup: Setup,
        folder: Path,
        gallery: Callable[[], Gallery] | None = None,
    ):
        self.maps, self.groups, self.setup, self.folder, self.gallery = list(maps), groups, setup, folder, gallery
        self.films = Films({setup.split.name: setup.split})
        self.chosen: list[int] = []
        names = [
            {"name": name, "colour": colour, "marker": marker, "count": int(count), "grey": int(place == groups.grey)}
            for place, (name, (colour, marker), count) in enumerate(
                zip(groups.names, groups.marks, groups.counts, strict=True)
            )
        ]
        shades = groups.of.astype(np.uint8).tobytes()
        points = b"".join(_unit_square(shown).tobytes() for shown in self.maps)
        titles = [shown.title for shown in self.maps]
        self.points = Points(groups=shades, names=names, title=groups.title, points=points, titles=titles)
        self.points.on_msg(self._on_message)
        self.said = widgets.HTML().add_class("map-said")
        self.below = widgets.VBox()
        self.widget = widgets.VBox([self._controls(), self.points, self.said, self.below]).add_class("map-view")
        self._say("no videos are chosen yet")

    def _controls(self) -> widgets.Widget:
        export = widgets.Button(description="export ids", tooltip="write the chosen videos as CSV").add_class(
            "map-export"
        )
        export.on_click(lambda _: self._try(self.export))
        buttons = [export]
        if self.gallery is not None:
            opened = widgets.Button(description="open in the gallery", layout={"width": "auto"}).add_class("map-open")
            opened.on_click(lambda _: self._try(self.open))
            buttons.append(opened)
        return widgets.HBox(buttons)

    def _try(self, act: Callable) -> None:
        """Do what a button asks for, or say why not."""
        try:
            act()
        except (ValueError, OSError) as error:
            self._say(f"✗ {error}")

    def _say(self, text: str) -> None:
        self.said.value = f"<span style='color: var(--jp-ui-font-color2, #666)'>{escape(text)}</span>"

    def _on_message(self, _, message: object, __) -> None:
        """What was pointed at or chosen; anything else, which only a script could send, changes nothing."""
        if not isinstance(message, dict):
            return
        videos = len(self.setup.ids)
        if type(message.get("hover")) is int and 0 <= message["hover"] < videos:
            self._try(lambda: self._show(int(self.setup.videos[message["hover"]])))
        elif isinstance(message.get("select"), list):
            points = dict.fromkeys(point for point in message["select"] if type(point) is int)
            self.chosen = [point for point in points if 0 <= point < videos]
            self._say(f"{len(self.chosen):,} of {videos:,} videos chosen")

    def _show(self, row: int) -> None:
        (film,) = self.films([Place(self.setup.split.name, row)])
        names = self.setup.split.label_names(row)
        self.points.detail = {"id": self.setup.split.ids[row], "labels": names, "film": film}

    def export(self) -> Path:
        """Write id, labels and group of the chosen videos; returns the file, a new one every time.

        Raises ValueError if none are chosen, OSError if the run folder cannot be written.
        """
        self._some()
        folder = make_folder(self.folder, "maps")
        numbers = [int(path.stem[7:]) for path in folder.glob("chosen-*.csv") if path.stem[7:].isdecimal()]
        path = folder / f"chosen-{max(numbers, default=0) + 1}.csv"

        def write(draft: Path) -> None:
            with open(draft, "w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                rows.writerow(["id", "labels", "group"])
                for point in self.chosen:
                    labels = self.setup.split.label_names(int(self.setup.videos[point]))
                    cells = [self.setup.ids[point], labels, self.groups.names[self.groups.of[point]]]
                    rows.writerow(map(as_cell, cells))

        write_whole(path, write)
        self._say(f"{len(self.chosen):,} videos in {self.folder.name}/maps/{path.name}")
        return path

    def open(self) -> None:
        """Show a gallery beneath whose queries are the chosen videos; ValueError if none are chosen."""
        self._some()
        gallery = self.gallery()
        split = next(name for name, split in gallery.splits.items() if split is self.setup.split)
        gallery.list([Place(split, int(self.setup.videos[point])) for point in self.chosen])
        self.below.children = (GalleryView(gallery, self.folder).widget,)
        self._say(f"{len(self.chosen):,} videos are the queries of the gallery below")

    def _some(self) -> None:
        if not self.chosen:
            raise ValueError("no videos are chosen: drag a loop around some first.")


def _unit_square(shown: Map) -> np.ndarray:
    """The map's points, (n, 2) uint16, its longer side filling the square from 0 to 65,535, with a margin."""
    low, high = shown.coordinates.min(axis=0), shown.coordinates.max(axis=0)
    side = max(float((high - low).max()), 1e-9)
    inside = (shown.coordinates - (low + high) / 2) / side * 0.94 + 0.5
    return np.round(inside * 65_535).astype(np.uint16)


def gallery_of(run: Run, dataset: Dataset, split: str) -> Callable[[], Gallery] | None:
    """What makes a gallery of a run, for videos of a split; None for the train split, which is never searched."""
    if split == "train":
        return None
    return lambda: Gallery(dataset, methods_for(run, dataset))
