import json
import re

import numpy as np
import pytest
import torch

from wsch_core import Settings, evaluate_run, fit, settings_for
from wsch_core.data import load_dataset
from wsch_core.experiments.evaluation import CENTRED, REAL_VALUED
from wsch_core.experiments.report import TO_TRY, main, metric_rows, text_table, verdict
from wsch_core.methods.wsch.settings import RECIPES
from wsch_core.retrieval.metrics import evaluate


@pytest.fixture
def run(tiny, tiny_settings):
    return fit(tiny_settings, tiny, name="r", callbacks=[])


def test_a_run_is_evaluated_beside_its_baselines(run, tiny):
    results = evaluate_run(run, tiny, baselines=("LSH", "ITQ", "PCAH") if tiny.feature_size >= 16 else ("LSH",))
    assert list(results.methods) == ["WSCH", "LSH"]
    stored = run.load_codes()
    assert torch.equal(stored["query"][0], results.codes["query"])
    again = evaluate(stored["query"][0], stored["database"][0], tiny.query.labels, tiny.database.labels)
    np.testing.assert_array_equal(again.expected, results.methods["WSCH"].expected)
    assert list(results.table()) == ["WSCH", "LSH", REAL_VALUED, CENTRED]
    metrics = run.metrics
    assert metrics.pop("made_from")["weights"] == run.weights
    assert metrics == json.loads(json.dumps(results.as_dict()))
    assert run.metrics["code_health"]["distinct"] <= 14


def test_k_beyond_the_database_is_left_out(run, tiny):
    results = evaluate_run(run, tiny, baselines=("LSH",))
    within = results.within_database()
    assert (results.ks, within.ks) == ((5, 20, 40, 60, 80, 100), (5,))  # of 14 videos
    assert {len(values) for values in within.table().values()} == {1}
    assert {len(curve["lower"]) for curve in within.curves().values() if curve["lower"] is not None} == {1}
    ks, rows = metric_rows(run)
    assert (ks, set(rows)) == ([5], set(within.table()))
    assert all(rows[name] == pytest.approx(values) for name, values in within.table().items())


def test_baselines_that_cannot_make_so_many_bits_say_so(run, tiny, capsys):
    results = evaluate_run(run, tiny, baselines=("ITQ", "LSH"))
    told = capsys.readouterr().out
    assert re.search("ITQ is left out: .* needs 16, one for each bit", told)
    assert list(results.methods) == ["WSCH", "LSH"]


def test_another_data_set_than_the_run_was_trained_on_is_refused(run, tiny_folder):
    path = tiny_folder.parent / "tiny.toml"
    (tiny_folder.parent / "other.toml").write_text('folder = "tiny"\n' + path.read_text())
    with pytest.raises(ValueError, match="run r was trained with data set tiny, but the data set given has other"):
        evaluate_run(run, load_dataset("other"))


def test_damaged_codes_are_written_anew(run, tiny):
    evaluate_run(run, tiny, baselines=())
    path = run.folder / "codes.h5"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(OSError, match=r"codes\.h5 is damaged .*: evaluate the run again"):
        run.load_codes()
    evaluate_run(run, tiny, baselines=())
    assert set(run.load_codes()) == {"query", "database"}


def test_self_matches_are_excluded_by_id(tiny_folder, tiny_settings):
    path = tiny_folder.parent / "tiny.toml"
    path.write_text(path.read_text().replace('features = ["query.h5"]\nlabels = ["query.mat"]', 'same_as = "database"'))
    dataset = load_dataset("tiny")
    run = fit(tiny_settings, dataset, name="self", callbacks=[])
    included = evaluate_run(run, dataset, baselines=())
    excluded = evaluate_run(run, dataset, baselines=(), self_match="excluded")
    assert included.methods["WSCH"].self_matches_removed == 0
    assert excluded.methods["WSCH"].self_matches_removed == len(dataset.database)
    assert included.methods["WSCH"].expected[0] > excluded.methods["WSCH"].expected[0]
    assert set(run.load_codes()) == {"database"}


def test_a_data_set_without_labels_is_refused(tiny_folder, run):
    path = tiny_folder.parent / "tiny.toml"
    path.write_text(path.read_text().replace('labels = ["query.mat"]', ""))
    with pytest.raises(ValueError, match="tiny: the query split has no labels"):
        evaluate_run(run, load_dataset("tiny"))


def test_settings_come_from_the_choice_then_the_data_set_then_the_paper(tiny_folder):
    with open(tiny_folder.parent / "tiny.toml", "a") as file:
        file.write("[settings]\ncenters = 4\nepochs = 7\n")
    made = settings_for(load_dataset("tiny"), epochs=2, seed=None)
    assert (made.dataset, made.centers, made.epochs, made.seed) == ("tiny", 4, 2, 3346)
    with pytest.raises(ValueError, match="did you mean 'epochs'"):
        settings_for(load_dataset("tiny"), epoch=2)


def test_a_recipe_goes_before_the_data_set_and_behind_the_choice(tiny_folder):
    with open(tiny_folder.parent / "tiny.toml", "a") as file:
        file.write("[settings]\nviews = 3\ncenters = 4\n")
    tiny = load_dataset("tiny")
    made = settings_for(tiny, recipe="plus", learning_rate=0.5)
    assert (made.views, made.centers, made.learning_rate, made.masking_ratio) == (4, 4, 0.5, 0.8)
    assert settings_for(tiny, recipe="published") == settings_for(tiny, recipe=None) == settings_for(tiny)
    published = {name: getattr(Settings(), name) for name in RECIPES["plus"]}
    assert settings_for(tiny, recipe="plus", **published) == settings_for(tiny, views=2)


def test_report_prints_the_table_and_the_paths(run, tiny, capsys, tmp_path):
    evaluate_run(run, tiny, baselines=("LSH",))
    notebook = tmp_path / "out.ipynb"
    notebook.write_text("{}")
    main(["r", "--notebook", str(notebook)])
    printed = capsys.readouterr().out
    assert "tiny, 16 bits, run r" in printed
    assert f"{run.metrics['methods']['LSH']['expected'][0]:9.3f}" in printed
    assert str(notebook) in printed
    assert str(run.folder) in printed


def test_verdict_compares_with_the_best_baseline_and_the_features_and_says_when_codes_lose():
    rows = {"WSCH": [0.5, 0.44], "ITQ": [0.6, 0.4], "LSH": [0.1, 0.3], REAL_VALUED: [0.9, 0.3], CENTRED: [0.9, 0.4]}
    won = "WSCH reaches mAP@20 0.440; the best baseline, ITQ, reaches 0.400: +10% relative; " + CENTRED
    assert verdict([5, 20], rows) == won + " reach 0.400: +10% relative."
    assert verdict([5, 20], rows, k=5).endswith(TO_TRY)
    lost = verdict([5], {"WSCH": [0.5], REAL_VALUED: [0.9]})
    assert lost == f"WSCH reaches mAP@5 0.500; {REAL_VALUED} reach 0.900: -44% relative. {TO_TRY}"
    assert verdict([5], {"WSCH": [0.5]}) == "WSCH reaches mAP@5 0.500."
    assert text_table([5, 20], {"a": [0.1, 0.25]}).splitlines()[1] == "a    0.100    0.250"
