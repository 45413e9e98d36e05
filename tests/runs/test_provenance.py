"""What a run is, and what its results were made from, follow from what files hold, not from which lie there."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from measured import measured, taking
from shared import Interrupt, rewrite

from notebooks import PATIENCE
from wsch_core import encode, evaluate_run, fit, load_dataset, load_run
from wsch_core.data import checksums
from wsch_core.data.demo.build import build_demo
from wsch_core.experiments import report
from wsch_core.experiments.evaluation import is_evaluated, run_codes
from wsch_core.experiments.repeat import complete_run
from wsch_core.runs.folder import Run
from wsch_core.runs.outputs import create_run, list_runs, making_run
from wsch_core.show.gallery.gallery import methods_for
from wsch_core.show.maps.maps import Setup, compared_maps
from wsch_core.storage.files import remove_leftovers, temporary_name, write_whole
from wsch_core.storage.paths import outputs_folder
from wsch_core.storage.tensors import digest
from wsch_core.training import checkpoint
from wsch_core.training.loop import Interrupted
from wsch_core.videos.query import query_video

RECORD = {"settings": {}, "dataset": {}}


@pytest.fixture
def run(tiny, tiny_settings):
    run = fit(tiny_settings, tiny, name="r", callbacks=[])
    evaluate_run(run, tiny, baselines=())
    return run


@pytest.mark.parametrize("kills", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_after_a_kill_at_any_moment_results_are_those_of_the_network(tiny, tiny_settings, kills):
    script = Path(__file__).parents[1] / "killed_results.py"
    command = [sys.executable, str(script), str(kills), str(kills), json.dumps(tiny_settings.as_dict())]
    with taking() as taken:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["killed"], told["finished"], told["left"]) == (kills, True, [])
    counts = {"kills": kills, "survived": kills, "while_writing": 0}
    measured("kills", f"more epochs, codes and metrics, killed {kills} times", **counts, seconds=taken["seconds"])


def maps_of_itq(run, data):
    return compared_maps(["itq"], run, Setup(data, data.database))


def cut(tiny, settings, after_pass, name="cut", resume=False):
    with pytest.raises(KeyboardInterrupt):
        fit(settings, tiny, name=name, callbacks=[Interrupt(after_pass)], resume=resume)
    return load_run(name)


class TestFinished:
    def test_is_a_run_that_has_passed_all_of_its_schedule(self, run):
        assert (run.finished, run.evaluated, run.unfinished) == (True, True, "")
        assert run.title == "WSCH, 16 bits"

    @pytest.mark.parametrize("fails", ["the disk is full", "killed"])
    def test_is_not_a_run_that_was_to_get_more_epochs(self, run, tiny, tiny_settings, monkeypatch, fails):
        """The higher number stands in settings.json, and nothing more could be done."""
        error = OSError(28, "No space left on device") if fails == "the disk is full" else SystemExit()

        def stop(*_, **__):
            raise error

        longer = replace(tiny_settings, epochs=4)
        with monkeypatch.context() as broken:
            broken.setattr(checkpoint, "save_tensors", stop)
            with pytest.raises(type(error)):
                fit(longer, tiny, name="r", callbacks=[], resume=True)
        assert run.settings.epochs == 4
        assert (run.finished, run.evaluated) == (False, False)
        assert run.unfinished == "unfinished: 7 of 13 passes"
        again, done = complete_run(longer, tiny, callbacks=[], baselines=())
        assert (again.name, done, len(again.history)) == ("r", "resumed", 13)
        assert again.evaluated

    def test_says_how_far_it_is(self, tiny, tiny_settings):
        stopped = cut(tiny, tiny_settings, 2)
        assert stopped.unfinished == "unfinished: 2 of 7 passes"
        assert stopped.title == "WSCH, 16 bits, unfinished: 2 of 7 passes"

    def test_weights_of_a_former_version_open(self, run):
        from safetensors.torch import load_file, save_file

        path, told = run.folder / "weights.safetensors", run.weights
        save_file(load_file(path), path)
        assert run.finished
        assert run.weights == told == digest(run.model().state_dict())

    def test_comes_before_newest(self, run, tiny, tiny_settings):
        cut(tiny, tiny_settings, 2)
        assert load_run().name == "r"
        assert load_run("cut").name == "cut"
        shutil.rmtree(run.folder)
        with pytest.raises(ValueError, match=r"no run in .* is finished: resume cut, or name the one"):
            load_run()

    def test_a_damaged_run_is_not_the_newest_which_is_said(self, run, tiny, tiny_settings, capsys):
        broken = fit(tiny_settings, tiny, name="broken", callbacks=[])
        (broken.folder / "settings.json").write_text("{")
        assert load_run().name == "r"
        assert "broken is not taken for the newest run: " in capsys.readouterr().out

    def test_a_run_dated_in_the_future_is_not_the_newest(self, run, tiny, tiny_settings):
        early = fit(tiny_settings, tiny, name="early", callbacks=[])
        os.utime(early.folder / "settings.json", (4e9, 4e9))
        assert load_run().name == "r"
        assert [found.name for found in list_runs()] == ["early", "r"]

    def test_only_then_a_report_is_printed(self, run, tiny, tiny_settings):
        cut(tiny, replace(tiny_settings, epochs=4), 8, name="r", resume=True)
        with pytest.raises(
            SystemExit, match=r"run r has no metrics of its network \(unfinished: 8 of 13 passes\): train"
        ):
            report.main(["r"])


class TestResults:
    def test_of_a_half_trained_network_are_not_those_of_the_run(self, tiny, tiny_settings):
        def look(progress):
            if progress.entry and progress.current.number == 3:
                beside = load_run("r")
                evaluate_run(beside, tiny, baselines=())
                found.append(run_codes(beside, tiny.database))
                assert not beside.evaluated

        found = []
        run = fit(tiny_settings, tiny, name="r", callbacks=[look])
        assert run.finished
        assert not run.evaluated
        now = run_codes(run, tiny.database)
        assert torch.equal(now, encode(run.model(), tiny.database.features))
        assert not torch.equal(now, found[0])
        assert complete_run(tiny_settings, tiny, baselines=())[1] == "evaluated"
        assert run.evaluated

    def test_of_weights_that_were_replaced_are_made_anew(self, run, tiny, tiny_settings):
        other = fit(replace(tiny_settings, seed=1), tiny, name="other", callbacks=[])
        shutil.copy(other.folder / "weights.safetensors", run.folder)
        assert run.finished
        assert not run.evaluated
        assert run.stored_codes(tiny.database) is None

    @pytest.mark.parametrize("split", ["database", "query"])
    @pytest.mark.parametrize("what", ["features", "labels", "ids"])
    def test_of_a_data_set_that_has_changed_are_made_anew(self, run, tiny_folder, tiny_settings, split, what):
        dataset = load_dataset("tiny")
        assert complete_run(tiny_settings, dataset, baselines=())[1] == "found"
        if what == "features":
            rewrite(tiny_folder / f"{split}.h5", "feats", lambda value: value[::-1])
        elif what == "labels":
            labels = scipy.io.loadmat(tiny_folder / f"{split}.mat")["labels"]
            scipy.io.savemat(tiny_folder / f"{split}.mat", {"labels": np.roll(labels, 1, axis=1)})
        else:
            with h5py.File(tiny_folder / f"{split}.h5", "r+") as file:
                file["ids"] = [f"video {row}" for row in range(len(file["feats"]))]
        changed = load_dataset("tiny")
        assert not is_evaluated(run, changed)
        if what != "labels":
            assert run.stored_codes(changed.splits[split]) is None
        assert complete_run(tiny_settings, changed, baselines=())[1] == "evaluated"
        assert complete_run(tiny_settings, changed, baselines=())[1] == "found"

    def test_of_other_training_features_stop_a_resumed_run_wherever_they_differ(self, tiny_folder, tiny_settings):
        for row in range(21):
            with h5py.File(tiny_folder / "train.h5", "r+") as file:
                before, file["feats"][row, 4, 7] = float(file["feats"][row, 4, 7]), 5.0
            changed = load_dataset("tiny").train.fingerprint
            with h5py.File(tiny_folder / "train.h5", "r+") as file:
                file["feats"][row, 4, 7] = before
            assert load_dataset("tiny").train.fingerprint != changed

    def test_damaged_metrics_are_made_again(self, run, tiny, tiny_settings):
        (run.folder / "metrics.json").write_text("{")
        assert not run.evaluated
        assert complete_run(tiny_settings, tiny, baselines=())[1] == "evaluated"


class TestChecksums:
    def test_are_kept_while_a_file_stays_as_it_is(self, tiny_folder, monkeypatch):
        read = []
        monkeypatch.setattr(checksums, "SETTLED", -1e9)
        monkeypatch.setattr(checksums, "read_slice", lambda data, *rows: read.append(1) or data[rows[0] : rows[1]])
        first = load_dataset("tiny").train.fingerprint
        assert len(read) == 1
        assert load_dataset("tiny").train.fingerprint == first
        assert len(read) == 1
        stat = (tiny_folder / "train.h5").stat()
        rewrite(tiny_folder / "train.h5", "feats", lambda value: value[::-1])
        os.utime(tiny_folder / "train.h5", ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a copy that keeps times
        assert load_dataset("tiny").train.fingerprint != first
        assert len(read) == 2

    def test_of_a_file_that_has_just_changed_are_not_kept(self, tiny_folder):
        (tiny_folder / "train.h5").touch()
        _ = load_dataset("tiny").train.fingerprint
        assert not (tiny_folder / ".cache" / checksums.KEPT).exists()

    @pytest.mark.parametrize("content", ["", "[1]", '{"a": 1}', "[" * 100_000])
    def test_a_damaged_file_of_them_is_written_anew(self, tiny_folder, monkeypatch, content):
        monkeypatch.setattr(checksums, "SETTLED", -1e9)
        first = load_dataset("tiny").train.fingerprint
        kept = tiny_folder / ".cache" / checksums.KEPT
        kept.write_text(content)
        assert load_dataset("tiny").train.fingerprint == first
        assert str((tiny_folder / "train.h5").resolve()) in kept.read_text()

    def test_do_not_depend_on_how_features_are_stored(self, tiny_folder):
        first = load_dataset("tiny").train.fingerprint
        with h5py.File(tiny_folder / "train.h5", "r+") as file:
            value = file["feats"][()]
            del file["feats"]
            file.create_dataset("feats", data=value, chunks=(2, 5, 12), compression="gzip", shuffle=True)
        assert load_dataset("tiny").train.fingerprint == first


class TestFolders:
    def test_appear_with_their_settings_or_not_at_all(self, tiny_folder):
        def fail():
            with making_run("new", RECORD) as run:
                assert json.loads((run.folder / "settings.json").read_text()) == RECORD
                assert not (outputs_folder() / "new").exists()
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        assert not any(outputs_folder().iterdir())
        create_run("new", RECORD)
        with pytest.raises(FileExistsError, match="new exists: choose another run name"):
            create_run("new", RECORD)

    def test_an_empty_one_that_a_killed_process_left_is_used(self, tiny_folder):
        (outputs_folder() / "new").mkdir(parents=True)
        assert json.loads((create_run("new", RECORD).folder / "settings.json").read_text()) == RECORD

    def test_what_is_left_of_a_killed_import_is_removed_and_the_name_free(self, tiny_folder):
        code = (
            "import os, signal, sys; from wsch_core.runs.outputs import making_run\n"
            "with making_run('new', {}): os.kill(os.getpid(), signal.SIGKILL)"
        )
        done = subprocess.run([sys.executable, "-c", code], timeout=PATIENCE)
        assert done.returncode == -9
        assert [path.name[:9] for path in outputs_folder().iterdir()] == [".writing-"]
        create_run("new", RECORD)
        assert [path.name for path in outputs_folder().iterdir()] == ["new"]

    def test_unnamed_runs_of_the_same_second_get_names_of_their_own(self, tiny, tiny_settings, monkeypatch):
        class Frozen(checkpoint.datetime):
            @classmethod
            def now(cls, *zone):
                return cls(2026, 1, 2, 3, 4, 5).astimezone()

        monkeypatch.setattr(checkpoint, "datetime", Frozen)
        short = replace(tiny_settings, pretrain_epochs=0, epochs=0)
        names = [fit(short, tiny, callbacks=[]).name for _ in range(3)]
        assert names == [f"tiny-16bits-20260102-030405{end}" for end in ("", "-2", "-3")]

    def test_one_that_vanishes_while_runs_are_listed_is_left_out(self, run, monkeypatch):
        (outputs_folder() / "gone").mkdir()
        (outputs_folder() / "gone" / "settings.json").symlink_to("nowhere")
        assert [found.name for found in list_runs()] == ["r"]

    def test_what_a_killed_evaluation_left_is_removed_by_the_next(self, run, tiny):
        dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
        name = temporary_name().replace(f"-{os.getpid()}-", f"-{dead.stdout.strip()}-")
        (run.folder / f"{name}abc").write_text("half")
        living = run.folder / f"{temporary_name()}abc"
        living.write_text("of a process that goes on")
        evaluate_run(run, tiny, baselines=())
        assert [path.name for path in run.folder.glob(".writing-*")] == [living.name]

    def test_that_cannot_be_written_end_in_a_sentence(self, run, tiny, tiny_settings, monkeypatch):
        shutil.rmtree(run.folder / ".lock", ignore_errors=True)
        (run.folder / ".lock").unlink(missing_ok=True)
        (run.folder / ".lock").mkdir()
        with pytest.raises(OSError, match=r"\.lock cannot be locked \(.*\): make .* writable"):
            fit(tiny_settings, tiny, name="r", callbacks=[], resume=True)

        def refused(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("wsch_core.storage.files.tempfile.mkstemp", refused)
        with pytest.raises(
            OSError, match=r"codes\.h5 cannot be written \(Permission denied\): free some space, or make"
        ):
            evaluate_run(run, tiny, baselines=())


@pytest.mark.parametrize("compare", [lambda run, data: methods_for(run, data, "itq"), maps_of_itq])
def test_a_baseline_in_other_letters_is_recognised(run, tiny, compare):
    with pytest.raises(ValueError, match="'itq' is not a known run: did you mean 'ITQ'"):
        compare(run, tiny)


def test_a_folder_is_no_video(tmp_path, tiny):
    with pytest.raises(OSError, match=r"is not a regular file: remove it, and give the path of a video file"):
        query_video(tmp_path, tiny.definition)


def test_a_demo_set_that_finds_no_room_ends_in_a_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wsch_core.data.demo.build._write_all", full)
    with pytest.raises(
        OSError, match=r"Cannot make the demo set in .*demo \(No space left on device\): set WSCH_DATA to"
    ):
        build_demo(tmp_path / "demo", report=lambda text: None)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("value", [[1, 2], 5, np.zeros((2, 2))])
def test_odd_attributes_end_in_a_sentence(tiny_folder, value):
    with h5py.File(tiny_folder / "train.h5", "r+") as file:
        file.attrs["extractor_version"] = value
    with pytest.raises(ValueError, match=r"train\.h5: the attribute extractor_version is .*, but it must be one text"):
        len(load_dataset("tiny").train)


def test_leftovers_of_living_processes_and_other_machines_stay(tmp_path):
    for name in (temporary_name(), ".writing-elsewhere-1-x", ".writing-", ".writing-x"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    write_whole(tmp_path / "a", lambda path: path.write_text("b"))
    assert len(list(tmp_path.iterdir())) == 5


class TestInterrupted:
    def test_says_the_name_how_far_it_was_and_how_it_goes_on(self, tiny, tiny_settings):
        with pytest.raises(Interrupted) as told:
            fit(tiny_settings, tiny, callbacks=[Interrupt(2)])
        name = list_runs()[-1].name
        assert str(told.value).startswith(f"run {name} was interrupted after 2 of 7 passes: fit(settings, dataset, ")
        assert told.value._render_traceback_() == [str(told.value)]
        assert fit(tiny_settings, tiny, name=name, resume=True, callbacks=[]).finished

    def test_while_it_prepares_as_well(self, tiny, tiny_settings, monkeypatch):
        def stop(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("wsch_core.methods.wsch.method.WSCHMethod.prepare", stop)
        with pytest.raises(Interrupted, match="after 0 of 7 passes"):
            fit(tiny_settings, tiny, name="r", callbacks=[])


def test_a_thousand_runs_are_judged_in_seconds(run):
    folder = Run(run.folder)
    start = time.process_time()
    for _ in range(100):
        assert folder.evaluated
    assert time.process_time() - start < 5
