"""The gallery as widgets: ipywidgets for what is chosen, one anywidget for the cards."""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Callable
from html import escape
from pathlib import Path

import anywidget
import ipywidgets as widgets
import traitlets

from ...storage.files import make_folder, write_whole
from ...storage.words import as_cell
from .cards import Films, content
from .gallery import ORDERS, Gallery, Place

HERE = Path(__file__).parent
EVERY = "every class"
MOST_RESULTS = 60


class Cards(anywidget.AnyWidget):
    """Draws `content`; sends {"query": row}, or {"choose": [method, id], "on": bool}."""

    _esm = HERE / "gallery.js"
    _css = HERE / "gallery.css"
    content = traitlets.Dict().tag(sync=True)
    chosen = traitlets.List().tag(sync=True)  # "method\nid"
    codes = traitlets.Bool(False).tag(sync=True)


class GalleryView:
    """Controls around the cards of a `Gallery`; `widget` is what a notebook shows.

    folder: where exports go, as gallery/<query>.csv
    """

    def __init__(self, gallery: Gallery, folder: Path):
        self.gallery, self.folder, self.films = gallery, folder, Films(gallery.splits)
        self.cards = Cards(content=content(gallery, self.films))
        self.cards.on_msg(self._on_message)
        self.chosen: dict[tuple[str, str], None] = {}
        self.said = widgets.HTML().add_class("gallery-said")
        self.widget = widgets.VBox([*self._controls(), self.said, self.cards]).add_class("gallery")

    def _controls(self) -> list[widgets.Widget]:
        classes = (EVERY, *self.gallery.dataset.definition.classes)
        slim, wide = {"width": "auto"}, {"description_width": "initial"}
        self.order = widgets.Dropdown(options=ORDERS, description="queries", layout={"width": "230px"})
        self.of_class = widgets.Dropdown(options=classes, description="of", layout={"width": "230px"})
        self.id = widgets.Text(
            placeholder="id of a video, then Enter", continuous_update=False, layout={"width": "200px"}
        )
        self.file = widgets.Text(
            placeholder="path of a video, or of one's features (.h5)",
            continuous_update=False,
            layout={"width": "290px"},
        )
        most = min(MOST_RESULTS, len(self.gallery.dataset.database))
        k = min(self.gallery.k, most)
        self.k = widgets.IntSlider(k, 1, most, description="k", continuous_update=False, layout={"width": "280px"})
        self.self_match = widgets.Checkbox(False, description="the query's own entry", indent=False, layout=slim)
        self.only_misses = widgets.Checkbox(False, description="only misses", indent=False, layout=slim)
        self.only_class = widgets.Dropdown(
            options=classes, description="results of", style=wide, layout={"width": "240px"}
        )
        self.codes = widgets.Checkbox(False, description="codes, bit for bit", indent=False, layout=slim)
        buttons = {}
        for name, hint, css, act in (
            ("◀", "the query before, in the list", "before", lambda: self.gallery.step(-1)),
            ("▶", "the next query of the list", "next", lambda: self.gallery.step(1)),
            ("back", "along the trail of clicked videos", "back", self.gallery.back),
        ):
            buttons[name] = widgets.Button(description=name, tooltip=hint, layout=slim).add_class(f"gallery-{css}")
            buttons[name].on_click(lambda _, act=act: self._do(act))
        hint = "write ids and distances of the ticked cards, or of all shown, as CSV"
        export = widgets.Button(description="export", tooltip=hint, layout=slim).add_class("gallery-export")
        export.on_click(lambda _: self.export())
        self.order.observe(lambda _: self._do(self._reorder), "value")
        self.of_class.observe(lambda _: self._do(self._reorder), "value")
        self.id.observe(lambda change: change["new"] and self._do(self._go_to, change["new"].strip()), "value")
        self.file.observe(lambda change: change["new"] and self._do(self.gallery.bring, change["new"].strip()), "value")
        for control in (self.k, self.self_match, self.only_misses, self.only_class):
            control.observe(lambda _: self._do(self._filter), "value")
        widgets.link((self.codes, "value"), (self.cards, "codes"))
        for name in ("order", "of_class", "id", "file", "k", "self_match", "only_misses", "only_class", "codes"):
            getattr(self, name).add_class(f"gallery-{name.replace('_', '-')}")
        rows = (
            [self.order, self.of_class, buttons["◀"], buttons["▶"], buttons["back"], self.id],
            [self.k, self.only_class, self.only_misses, self.self_match, self.codes],
            [self.file, export],
        )
        return [widgets.HBox(row, layout={"flex_flow": "row wrap", "grid_gap": "4px 10px"}) for row in rows]

    def _do(self, act: Callable, *arguments) -> None:
        """Carry out what was asked for and draw again; what cannot be done is said, and nothing changes."""
        start = time.perf_counter()
        try:
            act(*arguments)
            self.cards.content = content(self.gallery, self.films)
        except (ValueError, OSError, ImportError) as error:
            self._say(f"✗ {error}")
            return
        self._say(f"answered in {1000 * (time.perf_counter() - start):.0f} ms")

    def _say(self, text: str) -> None:
        self.said.value = f"<span style='color: var(--jp-ui-font-color2, #666)'>{escape(text)}</span>"

    def _reorder(self) -> None:
        of_class = "" if self.of_class.value == EVERY else self.of_class.value
        if self.order.value.endswith("first"):
            self._say("computing every query's own AP …")
        self.gallery.order(self.order.value, of_class)

    def _filter(self) -> None:
        self.gallery.k = self.k.value
        self.gallery.self_match, self.gallery.only_misses = self.self_match.value, self.only_misses.value
        self.gallery.only_class = "" if self.only_class.value == EVERY else self.only_class.value

    def _go_to(self, video: str) -> None:
        self.gallery.go(self.gallery.place_of(video))

    def _on_message(self, _, message: object, __) -> None:
        """What was clicked; anything else, which only a script could send, changes nothing."""
        if not isinstance(message, dict):
            return
        if "query" in message:
            row = message["query"]
            if type(row) is int and 0 <= row < len(self.gallery.dataset.database):
                same = self.gallery.dataset.queries_are_database
                self._do(self.gallery.go, Place("query" if same else "database", row))
        elif type(message.get("on")) is bool:
            shown = [(panel["method"], card["id"]) for panel in self.cards.content["panels"] for card in panel["cards"]]
            ticked = [key for key in shown if [*key] == message.get("choose")]
            if ticked and message["on"]:
                self.chosen[ticked[0]] = None
            elif ticked:
                self.chosen.pop(ticked[0], None)
            self.cards.chosen = ["\n".join(key) for key in self.chosen]

    def export(self) -> Path:
        """Write the ticked cards that are shown, or all shown if none is ticked; returns the file."""
        shown = [(panel["method"], card) for panel in self.cards.content["panels"] for card in panel["cards"]]
        ticked = [(method, card) for method, card in shown if (method, card["id"]) in self.chosen]
        query = self.gallery.id_of(self.gallery.query)
        path = self.folder / "gallery" / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', query)[:80] or 'query'}.csv"

        def write(draft: Path) -> None:
            with open(draft, "w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                rows.writerow(["query", "method", "rank", "distance", "id", "relevant", "labels"])
                for method, card in ticked or shown:
                    known = "" if card["relevant"] is None else int(card["relevant"])
                    cells = [query, method, card["rank"], card["distance"], card["id"], known, card["labels"]]
                    rows.writerow(map(as_cell, cells))

        try:
            make_folder(self.folder, "gallery")
            write_whole(path, write)
        except OSError as error:
            self._say(f"✗ {error}")
            raise
        self._say(f"{len(ticked or shown)} rows in {path.parent.parent.name}/gallery/{path.name}")
        return path
