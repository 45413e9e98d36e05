"""Runs made once, gathered, and held against published results."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import TINY

from wsch_core import Settings, evaluate_run, fit, load_dataset, load_run
from wsch_core.experiments.repeat import complete_all, complete_run
from wsch_core.experiments.results import audit_rows, grouped, mean_relevant, published_rows
from wsch_core.show import tables
from wsch_core.show.figures import reproduce

# Fewer than the 12 features have, so that every baseline can be made.
BITS = (8, 10)
CHOSEN = {name: value for name, value in TINY.items() if name not in ("dataset", "bits")}
PUBLISHED = '\npublished = [{ bits = 8, map = [0.9, 0.2, 0.1, 0.1, 0.1, 0.1], method = "M & N", source = "s" }]\n'


@pytest.fixture
def published(tiny_folder):
    path = tiny_folder.parent / "tiny.toml"
    path.write_text(PUBLISHED + path.read_text())
    return load_dataset("tiny")


@pytest.fixture
def done(published):
    return complete_all(published, BITS, [1, 2], CHOSEN)


def test_finished_runs_are_not_trained_again(done, published):
    assert list(done.values()) == ["trained"] * 4
    again = complete_all(published, BITS, [2, 3], CHOSEN)
    assert list(again.values()) == ["found", "trained", "found", "trained"]
    assert set(again) & set(done)


def test_interrupted_runs_go_on_and_others_are_evaluated(tiny):
    class Stop(Exception):
        pass

    def stop(progress):
        if progress.entry and progress.current.number == 2:
            raise Stop

    settings = Settings(**TINY | {"bits": 8})
    with pytest.raises(Stop):
        fit(settings, tiny, "stopped", [stop])
    run, what = complete_run(settings, tiny)
    assert (run.name, what) == ("stopped", "resumed")
    (run.folder / "metrics.json").unlink()
    assert complete_run(settings, tiny)[1] == "evaluated"
    assert complete_run(settings, tiny)[1] == "found"
    assert complete_run(settings, tiny, self_match="excluded")[1] == "evaluated"


class TestGroups:
    def test_hold_the_metrics_of_their_runs(self, done):
        groups = grouped(list(done))
        assert [(group.bits, group.method, group.seeds) for group in groups] == [
            (8, "ours", [1, 2]),
            (10, "ours", [1, 2]),
        ]
        stored = [run.metrics["methods"]["WSCH"]["expected"] for run in list(done)[:2]]
        assert np.array_equal(groups[0].expected, stored)
        assert groups[0].mean[1] == pytest.approx((stored[0][1] + stored[1][1]) / 2)

    def test_of_other_settings_are_named_by_what_differs(self, done, published):
        other, _ = complete_run(Settings(**TINY | {"bits": 8, "seed": 1, "tau_plus": 0.2}), published)
        groups = grouped([*done, other])
        assert [group.method for group in groups] == [
            "tau_plus 0.1 (ours)",
            "tau_plus 0.2 (ours)",
            "tau_plus 0.1 (ours)",
        ]

    def test_of_recipes_are_named_by_them(self, done, published):
        both = complete_all(published, [8], [1, 2], CHOSEN, recipes=["published", "plus"])
        assert [(run.settings.views, what) for run, what in both.items()] == [
            (2, "found"), (2, "found"), (4, "trained"), (4, "trained"),
        ]  # fmt: skip
        groups = grouped(list(both))
        assert [(group.method, group.seeds) for group in groups] == [("ours", [1, 2]), ("ours, plus", [1, 2])]
        table = reproduce.results_table(groups, published).to_html()
        assert "ours, plus" in table

    def test_of_recipes_that_also_differ_otherwise_say_so(self, done, published):
        changed = CHOSEN | {"tau_plus": 0.2}
        (other,) = complete_all(published, [8], [1], changed, recipes=["plus"])
        assert [group.method for group in grouped([*done, other])] == [
            "tau_plus 0.1 (ours)", "tau_plus 0.2 (ours, plus)", "tau_plus 0.1 (ours)",
        ]  # fmt: skip

    def test_evaluated_in_other_ways_do_not_mix(self, done, published):
        runs = list(done)
        evaluate_run(runs[0], published, self_match="excluded", baselines=())
        with pytest.raises(ValueError, match="evaluated with self_match = excluded and included: evaluate them alike"):
            grouped(runs)

    def test_of_other_data_do_not_mix(self, done):
        record = json.loads((next(iter(done)).folder / "settings.json").read_text())
        record["settings"]["dataset"] = "demo"
        next(iter(done)).save_json("settings.json", record)
        with pytest.raises(ValueError, match=r"different data sets \(demo, tiny\)"):
            grouped(list(done))


def test_published_rows_stand_at_our_depths(published):
    rows = published_rows(published, 8, (5, 7, 100))
    assert rows["M & N"].tolist()[::2] == [0.9, 0.1]
    assert np.isnan(rows["M & N"][1])
    assert published_rows(published, 16, (5,)) == {}


def test_mean_relevant_counts_pairs_with_a_common_label(published):
    queries, database = (np.asarray(s.labels.todense()) for s in (published.query, published.database))
    assert mean_relevant(published) == pytest.approx(((queries @ database.T) > 0).sum(axis=1).mean())


def test_the_audit_finds_what_cannot_be(done, published):
    """K * mAP@K falls from 4.5 to 4 between K = 5 and 20, and from 8 on exceeds the 4.8 relevant videos."""
    rows = audit_rows(grouped(list(done)), published)
    assert [row["found"] for row in rows[:2]] == [[], []]
    assert any("falls from 4.500 at K = 5 to 4.000 at K = 20" in text for text in rows[2]["found"])


class TestShown:
    def test_table_and_files_agree_with_metrics(self, done, published, tmp_path):
        groups = grouped(list(done))
        frame = reproduce.results_frame(groups, published)
        csv, tex = tables.write_tables(tmp_path / "new", "results", frame)
        stored = pd.read_csv(csv)
        assert stored["method"].tolist() == ["ours", "M & N, published", "ours"]
        assert stored["mAP@20"][0] == pytest.approx(groups[0].mean[1])
        assert stored["±@20"][0] == pytest.approx(groups[0].half_width[1])
        assert "M \\& N, published" in tex.read_text()
        html = reproduce.results_table(groups, published).to_html()
        assert f"{groups[0].mean[1]:.3f} ± {groups[0].half_width[1]:.3f}" in html
        assert f"0.200 ({groups[0].mean[1] - 0.2:+.3f})" in html
        assert "M &amp; N" in html

    def test_runs_of_one_seed_are_no_independent_ones(self, done, published):
        """The same run three times says nothing of how much seeds differ."""
        first = grouped(list(done))[0].runs[0]
        copies = [first]
        for name in ("again", "once more"):
            shutil.copytree(first.folder, first.folder.with_name(name.replace(" ", "-")))
            copies.append(load_run(name.replace(" ", "-")))
        (group,) = grouped(copies)
        assert np.isnan(group.half_width).all()
        assert group.mean == pytest.approx(group.expected[0])
        html = reproduce.results_table([group], published).to_html()
        assert "±" not in html
        assert "3 of 1 seed" in html
        assert "Runs of one seed count once" in html
        other = next(
            run for run in done if run.settings.seed != first.settings.seed and run.settings.bits == first.settings.bits
        )
        (mixed,) = grouped([*copies, other])
        (alone,) = grouped([first, other])
        assert mixed.mean == pytest.approx(alone.mean)
        assert mixed.half_width == pytest.approx(alone.half_width)

    def test_curves_for_each_number_of_bits(self, done, published):
        assert list(reproduce.result_curves(grouped(list(done)), published)) == [*BITS]

    def test_runs_and_audit(self, done, published):
        groups = grouped(list(done))
        html = reproduce.runs_table(groups, {run.name: what for run, what in done.items()}).to_html()
        assert html.count("trained") == 4
        assert "✗ no" in reproduce.audit_table(groups, published).to_html()


@pytest.mark.parametrize(("name", "parameter"), [("bits", "bits"), ("seed", "seeds"), ("recipe", "recipe")])
def test_what_each_run_has_of_its_own_is_no_common_setting(tiny, name, parameter):
    with pytest.raises(ValueError, match=f"settings hold {name}, .*: give it as the parameter {parameter}"):
        complete_all(tiny, [8], [1], CHOSEN | {name: 8})


def test_nothing_to_do_is_said(tiny):
    with pytest.raises(ValueError, match="there is nothing to show"):
        complete_all(tiny, [], [1], {})
