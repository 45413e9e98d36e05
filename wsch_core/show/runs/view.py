"""The table of runs to work with: itables for what is sorted, filtered and chosen, ipywidgets for what is done then."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from html import escape

import ipywidgets as widgets
from itables.widget import ITable

from ...runs.folder import Run
from ...runs.listing import size_of
from ...runs.notes import read_notes, write_notes
from ...runs.outputs import list_runs
from ...runs.upkeep import archive_run, delete_run, rename_run, restore_run
from ..gallery.view import GalleryView
from ..style import Picture
from . import chosen as together
from .table import shown_frame

CONTROLS = {"topStart": "search", "topEnd": "pageLength"}  # any but the usual ones: those are left out for few runs
NARROW = "<style>.runs-table tfoot input { width: 100%; min-width: 3.5em; }</style>"  # filters widen no column
SECONDS_BETWEEN_LOOKS, SECONDS_WATCHED = 3.0, 3600.0
WIDE, SLIM = {"width": "auto"}, {"width": "230px"}


class RunsView:
    """All runs in a table; below it, what can be done with those that are chosen. `widget` is what a notebook shows.

    k: of the AP@k by which queries are won and lost
    """

    def __init__(self, names: Sequence[str] = (), k: int = 20):
        self.k, self.names = k, list(names)
        self.doomed: list[Run] = []  # asked about, and not deleted yet
        self.ended = threading.Event()  # of watching
        self.archived = widgets.Checkbox(False, description="archive", indent=False, layout=WIDE)
        self.runs, self.shown = self._read()
        self.table = ITable(
            self.shown, select={"style": "multi"}, selected_rows=self._rows(), showIndex=False, column_filters="footer",
            maxBytes=0, maxRows=0, maxColumns=0, lengthMenu=[10, 25, 100], order=[], scrollX=True,
            layout=dict(CONTROLS), classes="display compact nowrap",
        )  # fmt: skip
        self.said = widgets.HTML().add_class("runs-said")
        self.lines = widgets.HTML().add_class("runs-lines")
        self.below = widgets.VBox().add_class("runs-below")
        controls = [self._looks(), self.table.add_class("runs-table"), self.said, self._words(), self._acts()]
        self.widget = widgets.VBox(
            [widgets.HTML(NARROW), *controls, self._comparisons(), self.lines, self.below]
        ).add_class("runs")
        self.table.observe(lambda _: self._do(self._choose), "selected_rows")
        self.archived.observe(lambda _: self._do(self.refresh), "value")
        self._choose()

    # Controls

    def _looks(self) -> widgets.Widget:
        buttons = [
            self._button("choose none", "also of those that a filter hides", self.choose_none),
            self._button("refresh", "read the run folders again", self.refresh),
            self._button("watch", "draw the losses of the chosen runs again while one is being trained", self.watch),
            self._button("stop watching", "", self.ended.set),
        ]
        return widgets.HBox([*buttons, self.archived.add_class("runs-archived")])

    def _words(self) -> widgets.Widget:
        self.tags = widgets.Text(placeholder="tags, with commas between them", layout=SLIM).add_class("runs-tags")
        self.note = widgets.Text(placeholder="a note", layout={"width": "430px"}).add_class("runs-note")
        hint = "keep these tags and this note in the chosen run; of several, add the tags to each"
        return _row(self.tags, self.note, self._button("keep", hint, self.keep))

    def _acts(self) -> widgets.Widget:
        self.name = widgets.Text(placeholder="another name", layout=SLIM).add_class("runs-name")
        self.archive = self._button(
            "put away", "move the chosen runs to the archive, or back from there", self.put_away
        )
        self.sure = self._button("yes, delete", "", self.delete)
        self.sure.layout.display = "none"
        rename = self._button("rename", "", self.rename)
        return _row(self.name, rename, self.archive, self._button("delete …", "asks first", self.ask), self.sure)

    def _comparisons(self) -> widgets.Widget:
        return _row(
            self._button("compare", "settings that differ, losses, mAP@K", self.compare),
            self._button("wins and losses", "of two runs, query by query", self.duel),
            self._button("gallery", "what one or two runs retrieve", self.open),
        )

    def _button(self, name: str, hint: str, act: Callable) -> widgets.Button:
        made = widgets.Button(description=name, tooltip=hint, layout=WIDE)
        made.add_class(f"runs-{name.rstrip(' …').replace(',', '').replace(' ', '-')}")
        made.on_click(lambda _: self._do(act))
        return made

    def _do(self, act: Callable) -> None:
        """Do what was asked for, or say why not."""
        self._say("")
        try:
            act()
        except (ValueError, OSError, RuntimeError) as error:
            self._say(f"✗ {error}")

    def _say(self, text: str) -> None:
        self.said.value = f"<span style='color: var(--jp-ui-font-color2, #666)'>{escape(text)}</span>"

    # What is there, and what is chosen

    @property
    def chosen(self) -> list[Run]:
        """In the order in which they were chosen."""
        return together.named(self.runs, self.names)

    def _read(self) -> tuple:
        runs = list_runs(self.archived.value)
        return runs, shown_frame(runs.as_frame())

    def _rows(self) -> list[int]:
        places = {name: row for row, name in enumerate(self.shown["name"])}
        return [places[name] for name in self.names if name in places]

    def refresh(self) -> None:
        """Read the run folders again; what is chosen stays so."""
        self.runs, self.shown = self._read()
        there = {*self.shown["name"]}
        self.names = [name for name in self.names if name in there]
        names = [*self.names]
        self.table.update(df=self.shown, selected_rows=self._rows())
        self.names = names
        self._show_chosen()

    def _choose(self) -> None:
        marked = {self.shown["name"].iloc[row] for row in self.table.selected_rows if row < len(self.shown)}
        self.names = [name for name in self.names if name in marked]
        self.names += [name for name in self.shown["name"] if name in marked and name not in self.names]
        self._show_chosen()

    def choose_none(self) -> None:
        self.table.selected_rows = []

    def _show_chosen(self) -> None:
        self.doomed, self.sure.layout.display = [], "none"
        self.archive.description = "bring back" if self.archived.value else "put away"
        chosen = self.chosen
        self.lines.value = together.as_code([] if self.archived.value else together.lines_to_copy(chosen))
        one = chosen[0] if len(chosen) == 1 else None
        notes = read_notes(one) if one else None
        self.tags.value, self.note.value = (", ".join(notes.tags), notes.note) if notes else ("", "")
        self.name.value = one.name if one else ""

    def _some(self) -> list[Run]:
        if not self.names:
            raise ValueError("no runs are chosen: click rows of the table first.")
        return self.chosen

    # What is done with them

    def keep(self) -> None:
        """Tags and note of the one chosen run; of several, the tags are added to what each has."""
        runs, tags = self._some(), self.tags.value.split(",")
        for run in runs:
            if len(runs) == 1:
                write_notes(run, tags, self.note.value)
            else:
                former = read_notes(run)
                write_notes(run, [*former.tags, *tags], former.note)
        self.refresh()
        self._say(f"kept in {', '.join(run.name for run in runs)}")

    def rename(self) -> None:
        if len(self._some()) != 1:
            raise ValueError(f"{len(self.names)} runs are chosen: choose the one to rename.")
        (run,) = self.chosen
        self.names = [rename_run(run, self.name.value.strip()).name]
        self.refresh()
        self._say(f"{run.name} is {self.names[0]} now")

    def put_away(self) -> None:
        runs, move = self._some(), restore_run if self.archived.value else archive_run
        for run in runs:
            move(run)
        self.refresh()
        told = "back among the runs" if self.archived.value else "in the archive"
        self._say(f"{', '.join(run.name for run in runs)}: {told}")

    def ask(self) -> None:
        """Say what deleting would remove; `delete` does it."""
        runs = self._some()
        training = [run.name for run in runs if run.being_trained]
        if training:
            raise RuntimeError(f"{training[0]} is being trained, and not deleted: stop that first.")
        freed = sum(size_of(run.folder) for run in runs)
        self.doomed, self.sure.layout.display = runs, ""
        self._say(f"Delete {', '.join(run.name for run in runs)} for good? {freed:,} bytes.")

    def delete(self) -> None:
        doomed, self.doomed = self.doomed, []
        for run in doomed:
            delete_run(run)
        self.refresh()
        self._say(f"deleted: {', '.join(run.name for run in doomed)}")

    # What is seen of them

    def compare(self) -> None:
        runs = self._some()
        parts = [] if len(runs) == 1 else [widgets.HTML(together.differences_table(runs).to_html())]
        self.below.children = [*parts, _image(together.losses(runs))]
        self.below.children += (_image(together.reached(runs)),)

    def duel(self) -> None:
        self._say("reading the data set …")
        self.below.children = [
            widgets.HTML(table.to_html()) for table in together.wins_and_losses(self._some(), self.k)
        ]
        self._say("")

    def open(self) -> None:
        self._say("reading the data set …")
        runs = self._some()
        self.below.children = [GalleryView(together.side_by_side(runs, 12), runs[0].folder).widget]
        self._say("")

    def watch(self) -> None:
        """Draw the losses anew every few seconds, until none of the chosen runs is trained any more, or for an hour."""
        runs = self._some()
        if not any(run.being_trained for run in runs):
            raise ValueError("none of the chosen runs is being trained: there is nothing to watch.")
        self.ended.set()  # an earlier watch
        self.ended = threading.Event()
        self.below.children = [_image(together.losses(runs))]
        about = runs, self.below.children[0], self.ended
        self.watcher = threading.Thread(target=self._watch, args=about, daemon=True)
        self.watcher.start()

    def _watch(self, runs: list[Run], image: widgets.Image, ended: threading.Event) -> None:
        looks = int(SECONDS_WATCHED / SECONDS_BETWEEN_LOOKS)
        while looks and not ended.wait(SECONDS_BETWEEN_LOOKS):
            looks -= 1 if any(run.being_trained for run in runs) else looks
            self._do(lambda: self._look(runs, image))
        self._do(self.refresh)

    def _look(self, runs: list[Run], image: widgets.Image) -> None:
        image.value = together.losses(runs)._repr_png_()
        far = [f"{run.name}: pass {run.passes_done} of {len(run.schedule)}" for run in runs if not run.finished]
        self._say("; ".join(far))


def _row(*controls: widgets.Widget) -> widgets.Widget:
    return widgets.HBox(controls, layout={"flex_flow": "row wrap", "grid_gap": "4px 10px"})


def _image(figure: Picture) -> widgets.Image:
    layout = {"max_width": "100%", "object_fit": "contain"}
    return widgets.Image(
        value=figure._repr_png_(), format="png", layout=layout
    )  # with a tooltip JupyterLab shows an error instead
