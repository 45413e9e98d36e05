import os
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wsch_core import Settings, evaluate_run, fit
from wsch_core.data import load_dataset
from wsch_core.runs.outputs import find_run, run_folder, run_name
from wsch_core.storage.paths import outputs_folder


@pytest.fixture
def short(tiny_settings):
    return replace(tiny_settings, pretrain_epochs=1, epochs=0)


def test_a_run_is_found_by_its_settings_whatever_the_device(tiny, short):
    assert find_run(short, tiny.train.fingerprint) is None
    fit(short, tiny, name="mine", callbacks=[])
    assert find_run(replace(short, device="auto"), tiny.train.fingerprint).name == "mine"
    assert find_run(replace(short, seed=4), tiny.train.fingerprint) is None


def test_a_run_of_other_features_is_not_the_same(tiny_folder, tiny, short):
    fit(short, tiny, name="mine", callbacks=[])
    os.replace(tiny_folder / "database.h5", tiny_folder / "train.h5")
    (tiny_folder / "database.h5").symlink_to(tiny_folder / "train.h5")
    assert find_run(short, load_dataset("tiny").train.fingerprint) is None


def test_an_evaluated_run_is_preferred_then_a_finished_then_the_newest(tiny, short):
    runs = [fit(short, tiny, name=name, callbacks=[]) for name in ("a", "b", "c")]
    for place, run in enumerate(runs):
        os.utime(run.folder / "settings.json", (place, place))
    (runs[2].folder / "weights.safetensors").unlink()
    assert find_run(short, tiny.train.fingerprint).name == "b"
    evaluate_run(runs[0], tiny, baselines=())
    assert find_run(short, tiny.train.fingerprint).name == "a"


def test_damaged_runs_are_not_what_is_looked_for(tiny, short):
    run = fit(short, tiny, name="broken", callbacks=[])
    (run.folder / "settings.json").write_text('{"settings": {"bitz": 3}, "dataset": {}}')
    assert find_run(short, tiny.train.fingerprint) is None
    (run.folder / "settings.json").write_text("{")
    assert find_run(short, tiny.train.fingerprint) is None


def test_a_runs_name_follows_from_its_settings(tiny, short):
    name = run_name("ablation no/pre-training", short, tiny.train.fingerprint)
    assert name.startswith("ablation-no-pre-training-16bits-seed3346-")
    assert name == run_name("ablation no/pre-training", replace(short, device="cuda"), tiny.train.fingerprint)
    assert name != run_name("ablation no/pre-training", replace(short, centers=5), tiny.train.fingerprint)
    assert fit(short, tiny, name=name, callbacks=[]).name == name


@given(st.text(max_size=120) | st.from_regex(r"[\w.+/~-]{1,110}", fullmatch=True))
def test_any_name_is_a_folder_below_outputs_or_refused(name):
    try:
        folder = run_folder(name)
    except ValueError as error:
        assert "cannot be a folder name: use up to 100 letters" in str(error)  # noqa: PT017
    else:
        assert folder.parent == outputs_folder()
        assert folder.name == name
        assert folder.resolve().parent == outputs_folder()


@given(st.text(max_size=200))
def test_a_made_name_can_be_used_whatever_it_is_made_of(prefix):
    assert run_folder(run_name(prefix, Settings(), "f")).parent == outputs_folder()


@pytest.mark.parametrize("name", ["<img src=x>", "-rf", "...", "x" * 200, "日本"])
def test_a_run_of_a_data_set_of_any_name_has_a_folder(tiny_folder, tiny, short, name):
    (tiny_folder.parent / f"{name}.toml").write_text(
        'folder = "tiny"\n' + (tiny_folder.parent / "tiny.toml").read_text()
    )
    data = load_dataset(name)
    assert fit(replace(short, dataset=name), data, callbacks=[]).finished


def test_a_run_tells_what_it_cost(tiny, short):
    run = fit(short, tiny, name="mine", callbacks=[])
    assert run.record["threads"] == torch.get_num_threads()
    assert 10e6 < run.record["peak_memory_bytes"] < 100e9


def test_runs_from_before_a_setting_existed_are_as_if_it_had_its_default(tiny, short):
    run = fit(short, tiny, name="old", callbacks=[])
    record = run.record
    for name in ("centers_every", "encoder_blocks", "decoder_positions"):
        del record["settings"][name]
    run.save_json("settings.json", record)
    assert run.settings == short
    assert find_run(short, tiny.train.fingerprint) == run
    assert fit(replace(short, epochs=1), tiny, name="old", callbacks=[], resume=True).finished
