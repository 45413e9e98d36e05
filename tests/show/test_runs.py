"""The table of runs and what is compared of chosen ones; the widgets themselves are used in test_browser.py."""

import time
from dataclasses import replace

import nbformat
import numpy as np
import pytest

from notebooks import ROOT, outputs, run_papermill
from wsch_core import evaluate_run, fit, list_runs, load_run
from wsch_core.runs.notes import read_notes
from wsch_core.show.runs import chosen as together
from wsch_core.show.runs.table import runs_table, shown_frame
from wsch_core.show.runs.view import RunsView
from wsch_core.storage.paths import outputs_folder


@pytest.fixture
def three(tiny, tiny_settings):
    """Two seeds, evaluated, and another recipe's run that was interrupted."""
    short = replace(tiny_settings, bits=8, pretrain_epochs=1, epochs=1)
    runs = [fit(replace(short, seed=seed), tiny, f"seed{seed}", callbacks=[]) for seed in (1, 2)]
    for run in runs:
        evaluate_run(run, tiny, baselines=("LSH",))

    def stop(progress):
        if progress.entry is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(replace(short, masking_ratio=0.8), tiny, "other", callbacks=[stop])
    return [*runs, load_run("other")]


def test_the_table_is_read_by_people(three):
    frame = list_runs().as_frame()
    shown = shown_frame(frame)
    assert shown["name"].tolist() == ["other", "seed2", "seed1"]
    assert shown["state"].iloc[0] == "interrupted, pass 0 of 4"
    assert "problem" not in shown
    assert "masking_ratio = 0.8" in shown["settings"].iloc[0]
    html = runs_table(frame, most=2).to_html()
    assert "newest 2 of 3 runs" in html
    assert "seed1" not in html
    (three[0].folder / "notes.json").write_text('{"tags": ["<b>"], "note": "<img src=x>"}')
    (three[1].folder / "settings.json").write_text("{")
    html = runs_table(list_runs().as_frame()).to_html()
    assert "<img" not in html
    assert "is damaged" in html


def test_what_is_compared(three, tiny):
    found = list_runs()
    newest = together.newest_comparable(found, found.as_frame())
    assert [run.name for run in newest] == ["seed1", "seed2"]
    different = together.differences(three).set_index("setting")
    assert different.index.tolist() == ["seed", "masking_ratio"]
    assert different.loc["masking_ratio"].tolist() == ["0.6", "0.6", "0.8"]
    assert together.losses(three)._repr_png_()
    assert together.reached(three)._repr_png_()
    with pytest.raises(ValueError, match="no run 'x' in the table"):
        together.named(found, ["x"])
    for none in (together.losses([]), together.reached([three[2]])):
        assert none._repr_png_()


def test_wins_and_losses_are_those_of_the_gallery(three):
    duels, disputed = together.wins_and_losses(three[:2], 5)
    gallery = together.side_by_side(three[:2], 5)
    ours, theirs = (gallery.precision(name) for name in gallery.methods)
    assert duels.data[["won", "lost"]].values.tolist() == [[(ours > theirs).sum(), (ours < theirs).sum()]]
    most = np.abs(ours - theirs).argmax()
    assert disputed.data["query"].iloc[0] == gallery.dataset.query.ids[most]
    with pytest.raises(ValueError, match="1 runs are chosen: choose two"):
        together.wins_and_losses(three[:1])


def test_lines_to_copy(three):
    assert together.lines_to_copy(three[:2]) == [
        "papermill notebooks/gallery.ipynb out.ipynb -p run seed1 -p compare_run seed2",
        "papermill notebooks/umap.ipynb out.ipynb -p run seed1 -p compare seed2",
    ]
    assert together.lines_to_copy(three)[0].startswith('fit(load_run("other").settings')


class TestView:
    def choose(self, view, *names):
        view.table.selected_rows = [view.shown["name"].tolist().index(name) for name in names]

    def test_keeps_tags_and_notes(self, three):
        view = RunsView()
        view._do(view.keep)
        assert "no runs are chosen" in view.said.value
        self.choose(view, "seed1")
        view.tags.value, view.note.value = "good, to show", "the first"
        view._do(view.keep)
        assert read_notes(three[0]).tags == ("good", "to show")
        assert view.shown.set_index("name").loc["seed1", "note"] == "the first"
        self.choose(view, "seed1", "seed2")
        view.tags.value = "both"
        view._do(view.keep)
        assert [read_notes(run).tags for run in three[:2]] == [("good", "to show", "both"), ("both",)]
        assert read_notes(three[0]).note == "the first"

    def test_renames_puts_away_and_brings_back(self, three):
        view = RunsView(["seed1"])
        assert [run.name for run in view.chosen] == ["seed1"]
        view.name.value = "first"
        view._do(view.rename)
        assert [run.name for run in view.chosen] == ["first"]
        view._do(view.put_away)
        assert sorted(run.name for run in list_runs()) == ["other", "seed2"]
        assert view.names == []
        view.archived.value = True
        assert view.shown["name"].tolist() == ["first"]
        self.choose(view, "first")
        view._do(view.put_away)
        assert sorted(run.name for run in list_runs()) == ["first", "other", "seed2"]
        view.name.value = "../x"
        self.choose(view)
        view._do(view.rename)
        assert "choose the one to rename" in view.said.value or "no runs are chosen" in view.said.value

    def test_deletes_what_was_asked_about_and_nothing_else(self, three):
        view = RunsView(["seed1"])
        view._do(view.delete)
        assert three[0].finished
        view._do(view.ask)
        size = sum(path.stat().st_size for path in three[0].folder.rglob("*") if path.is_file())
        assert f"Delete seed1 for good? {size:,} bytes." in view.said.value
        self.choose(view, "seed2")  # another choice takes the question back
        view._do(view.delete)
        assert len(list_runs()) == 3
        view._do(view.ask)
        view._do(view.delete)
        assert sorted(run.name for run in list_runs()) == ["other", "seed1"]
        self.choose(view, "other")
        with three[2].lock():
            view._do(view.ask)
            assert "other is being trained" in view.said.value

    def test_shows_the_chosen_runs(self, three):
        view = RunsView(["seed1", "other"])
        assert "fit(load_run(&quot;other&quot;)" in view.lines.value
        view._do(view.compare)
        assert len(view.below.children) == 3
        view._do(view.duel)
        assert view.said.value.count("✗") == 0
        view._do(view.open)
        assert "gallery" in view.below.children[0]._dom_classes
        self.choose(view, "seed1", "seed2", "other")
        view._do(view.open)
        assert "choose one, or two of one data set" in view.said.value

    def test_watches_until_nothing_is_trained_any_more(self, three, monkeypatch):
        monkeypatch.setattr("wsch_core.show.runs.view.SECONDS_BETWEEN_LOOKS", 0.05)
        view = RunsView(["seed1", "other"])
        view._do(view.watch)
        assert "nothing to watch" in view.said.value
        with three[2].lock():
            view._do(view.watch)
            (image,) = view.below.children
            first = image.value
            history = three[2].folder / "history.jsonl"
            entry = three[0].folder / "history.jsonl"
            history.write_text("".join(entry.read_text().splitlines(keepends=True)[:2]))
            wait_until(lambda: image.value != first)
            wait_until(lambda: "other: pass 2 of 4" in view.said.value)
        view.watcher.join(30)
        assert not view.watcher.is_alive()


def wait_until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_the_notebook_without_a_kernel(three, tmp_path):
    out = tmp_path / "out.ipynb"
    done = run_papermill(ROOT / "notebooks", "runs.ipynb", out, {"k": 5})
    assert done.returncode == 0, done.stderr
    found = outputs(nbformat.read(out, as_version=4))
    assert sum("image/png" in output.get("data", {}) for output in found) == 2
    shown = "".join(map(str, found))
    assert all(name in shown for name in ("seed1", "seed2", "other", "masking_ratio = 0.8", "AP@5"))
    assert 'fit(load_run("other").settings' in shown
    figures = outputs_folder() / "compared-runs" / "figures"
    assert {path.name for path in figures.iterdir()} == {"losses.png", "map.png"}
    done = run_papermill(ROOT, "notebooks/runs.ipynb", out, {"runs": "seed1, seed3"})
    assert "there is no run 'seed3' in the table" in done.stderr


@pytest.mark.slow
def test_the_notebook_without_runs(tiny_folder, tmp_path):
    done = run_papermill(ROOT / "notebooks", "runs.ipynb", tmp_path / "out.ipynb", {})
    assert done.returncode == 0, done.stderr
