"""Runs that are killed, and two processes on one run."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from measured import measured, taking
from shared import assert_same_run

from notebooks import PATIENCE
from wsch_core import fit, load_run
from wsch_core.storage.tensors import read_tensors
from wsch_core.training.checkpoint import restore_newest

SCRIPT = Path(__file__).parents[1] / "killed.py"


def kill_and_finish(name, kills, seed, settings):
    command = [sys.executable, str(SCRIPT), name, str(kills), str(seed), json.dumps(settings.as_dict())]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def one_thread():
    """Sums over several threads are rounded differently; the killed processes use one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("kills", "epochs"), [(5, 60), pytest.param(30, 400, marks=pytest.mark.slow)], ids=["5 kills", "30 kills"]
)
def test_a_killed_run_ends_bitwise_as_if_it_had_not_been(tiny, tiny_settings, one_thread, kills, epochs):
    settings = replace(tiny_settings, epochs=epochs)
    with taking() as taken:
        told = kill_and_finish("killed", kills, seed=kills, settings=settings)
    assert told["finished"]
    assert told["killed"] == kills
    if kills >= 30:
        assert told["while_writing"] >= 1
    whole = fit(settings, tiny, name="whole", callbacks=[])
    killed = load_run("killed")
    assert_same_run(whole, killed)
    newest = [read_tensors(run.checkpoints()[0]) for run in (whole, killed)]
    assert newest[0].keys() == newest[1].keys()
    assert all(torch.equal(newest[0][name], newest[1][name]) for name in newest[0])
    assert not list(killed.folder.glob(".writing-*"))
    counts = {"kills": kills, "survived": told["killed"], "while_writing": told["while_writing"]}
    measured("kills", f"{len(whole.history)} passes, killed {kills} times", **counts, seconds=taken["seconds"])


def test_without_the_random_state_a_resumed_run_ends_differently(tiny, tiny_settings, monkeypatch):
    whole = fit(tiny_settings, tiny, name="whole", callbacks=[])

    def stop(progress):
        if progress.entry and progress.current.number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tiny_settings, tiny, name="cut", callbacks=[stop])

    def restore_but_for_the_random_state(run, state, method):
        fresh = state.generator.get_state()
        found = restore_newest(run, state, method)
        state.generator.set_state(fresh)
        return found

    monkeypatch.setattr("wsch_core.training.loop.restore_newest", restore_but_for_the_random_state)
    resumed = fit(tiny_settings, tiny, name="cut", callbacks=[], resume=True)
    with pytest.raises(AssertionError):
        assert_same_run(whole, resumed)


def test_a_second_process_on_a_run_is_refused(tiny, tiny_settings):
    def train_beside(progress):
        with pytest.raises(RuntimeError, match="run r is being trained by another process: wait for it"):
            fit(tiny_settings, tiny, name="r", callbacks=[], resume=True)

    assert fit(tiny_settings, tiny, name="r", callbacks=[train_beside]).finished


def test_a_failed_save_leaves_the_checkpoint_before_it(tiny, tiny_settings, monkeypatch):
    from wsch_core.storage import tensors as tensors_module

    whole = fit(tiny_settings, tiny, name="whole", callbacks=[])
    save_file, calls = tensors_module.save_file, []

    def full_disk(tensors, path, metadata):
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"half a check")
            raise OSError(28, "No space left on device")
        save_file(tensors, path, metadata)

    complaint = r"checkpoint-\d+\.safetensors cannot be written \(No space left on device\)"
    with monkeypatch.context() as patch:
        patch.setattr(tensors_module, "save_file", full_disk)
        with pytest.raises(OSError, match=complaint):
            fit(tiny_settings, tiny, name="full", callbacks=[])
    assert len(load_run("full").checkpoints()) == 2
    assert_same_run(whole, fit(tiny_settings, tiny, name="full", callbacks=[], resume=True))


def test_a_history_that_cannot_be_written_is_named(tiny, tiny_settings):
    whole = fit(tiny_settings, tiny, name="whole", callbacks=[])

    def replace_by_a_folder(progress):
        if progress.entry and progress.current.number == 3:
            history = load_run("cut").folder / "history.jsonl"
            history.rename(history.with_name("kept"))
            history.mkdir()

    with pytest.raises(OSError, match=r"history\.jsonl cannot be written \(Is a directory\): .*resume the run"):
        fit(tiny_settings, tiny, name="cut", callbacks=[replace_by_a_folder])
    folder = load_run("cut").folder
    (folder / "history.jsonl").rmdir()
    (folder / "kept").rename(folder / "history.jsonl")
    assert_same_run(whole, fit(tiny_settings, tiny, name="cut", callbacks=[], resume=True))
