"""The table of runs, and what is done to a run as a whole."""

import json
import shutil
import time
from dataclasses import replace

import pytest

from wsch_core import evaluate_run, fit, list_runs, load_run, settings_for
from wsch_core.runs.folder import Run
from wsch_core.runs.listing import COLUMNS, size_of
from wsch_core.runs.notes import Notes, read_notes, write_notes
from wsch_core.runs.upkeep import archive_run, delete_run, how_to_go_on, rename_run, restore_run
from wsch_core.storage.paths import outputs_folder


class Interrupt:
    def __init__(self, after):
        self.after = after

    def __call__(self, progress):
        if progress.entry is not None and progress.current.number + 1 == self.after:
            raise KeyboardInterrupt


@pytest.fixture
def short(tiny_settings):
    return replace(tiny_settings, pretrain_epochs=1, epochs=1)


def interrupted(settings, dataset, name, after=2):
    with pytest.raises(KeyboardInterrupt):
        fit(settings, dataset, name, callbacks=[Interrupt(after)])
    return load_run(name)


def row_of(name):
    return next(row for row in list_runs().rows() if row["name"] == name)


class TestTable:
    def test_tells_the_state_of_every_run(self, tiny, short):
        interrupted(short, tiny, "stopped")
        fit(short, tiny, "trained", callbacks=[])
        measured = fit(short, tiny, "measured", callbacks=[])
        evaluate_run(measured, tiny)
        broken = fit(short, tiny, "broken", callbacks=[])
        (broken.folder / "settings.json").write_text("{")
        rows = {row["name"]: row for row in list_runs().rows()}
        states = {name: row["state"] for name, row in rows.items()}
        assert states == {
            "stopped": "interrupted", "trained": "finished", "measured": "evaluated", "broken": "damaged",
        }  # fmt: skip
        assert (rows["stopped"]["passes done"], rows["stopped"]["passes"]) == (1, 4)
        assert "settings.json is damaged" in rows["broken"]["problem"]
        assert all(set(row) == set(COLUMNS) for row in rows.values())
        with load_run("stopped").lock():
            assert row_of("stopped")["state"] == "training"
        assert row_of("stopped")["state"] == "interrupted"

    def test_tells_what_metrics_and_history_hold(self, tiny, short):
        run = fit(replace(short, bits=8), tiny, "measured", callbacks=[])
        evaluate_run(run, tiny, ks=(5, 20))
        row, methods = row_of("measured"), run.metrics["methods"]
        assert [row["mAP@5"], row["mAP@20"]] == methods["WSCH"]["expected"]
        assert row["mAP@100"] is None
        assert row["its mAP@20"] == max(methods[name]["expected"][1] for name in ("LSH", "PCAH", "ITQ"))
        assert row["its mAP@20"] == methods[row["best baseline"]]["expected"][1]
        assert row["seconds"] == pytest.approx(sum(entry["seconds"] for entry in run.history))
        assert row["bytes"] == sum(path.stat().st_size for path in run.folder.rglob("*"))

    def test_tells_settings_that_differ_from_the_data_sets_own(self, tiny_folder, tiny, short):
        definition = tiny_folder.parent / "tiny.toml"
        definition.write_text(definition.read_text() + "[settings]\ncenters = 4\n")
        chosen = {name: getattr(short, name) for name in ("encoder_width", "decoder_width", "batch_size", "device")}
        chosen |= {"pretrain_epochs": 0, "epochs": 1, "precision": "float32"}
        fit(settings_for(tiny, bits=8, centers=4, **chosen), tiny, "same", callbacks=[])
        told = row_of("same")["settings"].split(", ")
        assert "centers = 4" not in told
        assert {"pretrain_epochs = 0", "epochs = 1", "encoder_width = 64"} <= set(told)
        assert not [setting for setting in told if setting.startswith(("bits", "seed", "dataset", "device"))]
        fit(settings_for(tiny, "plus", bits=8, centers=4, **chosen | {"views": 2}), tiny, "nearly", callbacks=[])
        assert row_of("nearly")["recipe"] == "published"
        assert "views = 2" not in row_of("nearly")["settings"]
        definition.unlink()
        assert "centers = 4" in row_of("same")["settings"]  # now told from the published value

    def test_is_a_frame_whose_numbers_can_be_sorted(self, tiny, short):
        interrupted(short, tiny, "stopped")
        evaluate_run(fit(short, tiny, "measured", callbacks=[]), tiny, baselines=())
        frame = list_runs().as_frame()
        assert list(frame) == list(COLUMNS)
        assert frame.sort_values("mAP@20")["name"].tolist() == ["measured", "stopped"]
        assert frame["created"].dt.tz is not None
        assert frame["bits"].tolist() == [16, 16]

    def test_of_no_runs_is_empty(self, tiny_folder):
        assert list_runs().rows() == []
        assert list(list_runs().as_frame()) == list(COLUMNS)

    def test_a_killed_run_with_half_a_line(self, tiny, short):
        run = interrupted(short, tiny, "stopped", after=3)
        with open(run.folder / "history.jsonl", "a") as file:
            file.write('{"pass": 2, "sta')
        assert row_of("stopped")["passes done"] == 2

    def test_a_damaged_history_is_said(self, tiny, short):
        run = interrupted(short, tiny, "stopped", after=3)
        (run.folder / "history.jsonl").write_text('{"seconds": 1.0}\nnonsense\n')
        row = row_of("stopped")
        assert row["state"] == "damaged"
        assert "history.jsonl is damaged" in row["problem"]

    def test_metrics_that_do_not_count_are_said(self, tiny, short):
        run = fit(short, tiny, "mine", callbacks=[])
        evaluate_run(run, tiny, baselines=())
        fit(replace(short, epochs=2), tiny, "mine", callbacks=[], resume=True)
        evaluate_run(run, tiny, baselines=())
        run.save_json("metrics.json", run.metrics | {"made_from": {"weights": "others"}})
        row = row_of("mine")
        assert (row["state"], row["mAP@5"]) == ("finished", None)
        assert "was made by another network" in row["problem"]
        (run.folder / "metrics.json").write_text("{")
        assert "metrics.json is damaged" in row_of("mine")["problem"]

    @pytest.mark.slow
    def test_of_two_thousand_runs_opens_soon(self, tiny, short):
        run = fit(short, tiny, "first", callbacks=[])
        evaluate_run(run, tiny)
        (run.folder / "codes.h5").unlink()
        for checkpoint in run.checkpoints():
            checkpoint.write_bytes(b"")
        for number in range(1, 2000):
            shutil.copytree(run.folder, run.folder.with_name(f"run-{number}"))
        start = time.process_time()
        frame = list_runs().as_frame()
        assert time.process_time() - start < 15  # 1.5 on an idle machine
        assert (frame["state"] == "evaluated").sum() == 2000


class TestNotes:
    def test_are_kept_and_read_back(self, tiny, short):
        run = fit(short, tiny, "mine", callbacks=[])
        assert read_notes(run) == Notes()
        write_notes(run, ["good", " to  show ", "good", ""], " looks\nright ")
        assert read_notes(run) == Notes(("good", "to show"), "looks\nright")
        assert (row_of("mine")["tags"], row_of("mine")["note"]) == ("good, to show", "looks\nright")
        write_notes(run, [], "")
        assert read_notes(run) == Notes()

    @pytest.mark.parametrize(
        ("tags", "note", "complaint"),
        [(["a,b"], "", "without commas"), (["x" * 61], "", "up to 60"), ([], "x" * 10_001, "note is")],
    )
    def test_of_impossible_sizes_are_refused(self, tiny, short, tags, note, complaint):
        run = fit(short, tiny, "mine", callbacks=[])
        with pytest.raises(ValueError, match=complaint):
            write_notes(run, tags, note)
        assert not (run.folder / "notes.json").exists()

    @pytest.mark.parametrize("text", ["{", "[]", '{"tags": "a"}', '{"tags": [1], "note": ""}', '{"tags": []}'])
    def test_that_are_damaged_are_said_and_hide_nothing_else(self, tiny, short, text):
        run = fit(short, tiny, "mine", callbacks=[])
        (run.folder / "notes.json").write_text(text)
        row = row_of("mine")
        assert row["state"] == "finished"
        assert "notes.json is damaged" in row["problem"]
        write_notes(run, ["new"], "")
        assert row_of("mine")["problem"] == ""


class TestUpkeep:
    def test_a_run_gets_another_name(self, tiny, short):
        run = fit(short, tiny, "old", callbacks=[])
        assert rename_run(run, "new").folder == outputs_folder() / "new"
        assert [found.name for found in list_runs()] == ["new"]
        fit(replace(short, epochs=2), tiny, "new", callbacks=[], resume=True)
        fit(short, tiny, "other", callbacks=[])
        with pytest.raises(FileExistsError, match="other exists: choose another name"):
            rename_run(load_run("new"), "other")
        with pytest.raises(ValueError, match="cannot be a folder name"):
            rename_run(load_run("new"), "../x")

    def test_the_archive_is_out_of_sight_until_a_run_is_brought_back(self, tiny, short):
        run = fit(short, tiny, "mine", callbacks=[])
        write_notes(run, ["good"], "")
        away = archive_run(run)
        assert list_runs() == []
        assert [row["tags"] for row in list_runs(archived=True).rows()] == ["good"]
        with pytest.raises(ValueError, match="holds no runs"):
            load_run("mine")
        fit(short, tiny, "mine", callbacks=[])
        with pytest.raises(FileExistsError, match="choose another name"):
            restore_run(away)
        rename_run(away, "before")
        (archived,) = list_runs(archived=True)
        assert restore_run(archived).finished
        assert [found.name for found in list_runs()] == ["before", "mine"]
        assert list_runs(archived=True) == []

    def test_a_run_is_deleted_with_all_its_files(self, tiny, short):
        run = fit(short, tiny, "mine", callbacks=[])
        (run.folder / "figures").mkdir()
        (run.folder / "figures" / "a.png").write_bytes(b"123")
        assert size_of(run.folder) == sum(p.stat().st_size for p in run.folder.rglob("*") if p.is_file())
        delete_run(run)
        assert list(outputs_folder().iterdir()) == []

    @pytest.mark.parametrize("act", [delete_run, archive_run, lambda run: rename_run(run, "new")])
    def test_nothing_is_done_to_a_run_that_is_being_trained(self, tiny, short, act):
        run = fit(short, tiny, "mine", callbacks=[])
        with run.lock(), pytest.raises(RuntimeError, match="mine is being trained"):
            act(run)
        assert load_run("mine").finished

    def test_a_linked_run_is_left_alone(self, tiny, short, tmp_path):
        run = fit(short, tiny, "mine", callbacks=[])
        elsewhere = tmp_path / "elsewhere"
        run.folder.rename(elsewhere)
        run.folder.symlink_to(elsewhere)
        with pytest.raises(OSError, match="no folder of its own"):
            delete_run(run)
        assert Run(elsewhere).finished

    def test_the_line_to_go_on_goes_on(self, tiny, short):
        run = interrupted(short, tiny, "stopped")
        line = how_to_go_on(run)
        assert line == 'fit(load_run("stopped").settings, load_dataset("tiny"), "stopped", resume=True)'
        from wsch_core import load_dataset

        eval(line, {"fit": fit, "load_run": load_run, "load_dataset": load_dataset})
        assert row_of("stopped")["state"] == "finished"

    def test_a_run_that_goes_while_runs_are_listed_is_left_out(self, tiny, short):
        runs = [fit(short, tiny, name, callbacks=[]) for name in ("a", "b")]
        found = list_runs()
        delete_run(runs[0])
        assert [row["name"] for row in found.rows()] == ["b"]

    def test_records_are_json(self, tiny, short):
        run = fit(short, tiny, "mine", callbacks=[])
        write_notes(run, ["猫"], "é")
        assert json.loads((run.folder / "notes.json").read_text()) == {"tags": ["猫"], "note": "é"}
