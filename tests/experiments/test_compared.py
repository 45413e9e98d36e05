"""Methods side by side: how long each may train, what is chosen of each, and who wins which query."""

import numpy as np
import pytest

from wsch_core import evaluate_run, fit
from wsch_core.experiments import budget, peers
from wsch_core.experiments.budget import Pace, fitted, gradient_steps, measure_pace, scaled
from wsch_core.experiments.peers import choose_methods, cost_of, duels, most_disputed, precision_by_query
from wsch_core.experiments.results import grouped
from wsch_core.methods import METHODS, method_of

AUTOENCODER = {"encoder_width": 20, "encoder_blocks": 1, "encoder_heads": 2, "decoder_width": 18, "decoder_heads": 2}
SMALL = {
    "wsch": {"encoder_width": 64, "decoder_width": 32, "centers": 4, "pretrain_epochs": 2, "epochs": 4},
    "conmh": {"epochs": 3, **AUTOENCODER},
    "autossvh": {"epochs": 3, "warm_up_epochs": 1, "clusters": "3, 5", **AUTOENCODER},
    "bth": {"encoder_width": 20, "anchors": 8, "pretrain_epochs": 3, "epochs": 6},
    "ssvh": {"neighbours": 4, "reach": 2, "epochs": 3},
    "s5vh": {
        "clusters": 3, "encoder_width": 20, "encoder_blocks": 1, "decoder_width": 18, "epochs": 3, "labels_move_from": 1,
    },
}  # fmt: skip
SMALL = {name: {"batch_size": 8, "device": "cpu", "precision": "float32", **chosen} for name, chosen in SMALL.items()}
every_method = pytest.mark.parametrize("method", METHODS)


def small(method, **chosen):
    return METHODS[method].Settings(dataset="tiny", bits=8, **SMALL[method] | chosen)


class TestBudget:
    def test_all_that_counts_epochs_grows_alike(self):
        settings = METHODS["autossvh"].Settings(epochs=40, warm_up_epochs=10)
        assert [scaled(settings, 2.5).epochs, scaled(settings, 2.5).warm_up_epochs] == [100, 25]
        assert [scaled(settings, 0.01).epochs, scaled(settings, 0.01).warm_up_epochs] == [1, 1]
        assert scaled(METHODS["wsch"].Settings(pretrain_epochs=0, epochs=4), 2).pretrain_epochs == 0

    @every_method
    def test_the_longest_run_within_the_budget_is_found(self, tiny, method):
        settings = small(method)
        for steps in (20, 300, 4000):
            found = fitted(settings, lambda s: gradient_steps(s, tiny), steps)
            assert gradient_steps(found, tiny) <= steps
            one_more = scaled(settings, (found.epochs + 1) / settings.epochs)
            assert gradient_steps(one_more, tiny) > steps
        assert fitted(settings, lambda s: gradient_steps(s, tiny), 0) == scaled(settings, 0)

    @every_method
    def test_a_pace_knows_every_pass(self, tiny, method):
        settings = small(method)
        pace = measure_pace(settings, tiny)
        assert pace.seconds(settings, tiny) > 0
        assert pace.seconds(scaled(settings, 3), tiny) > pace.seconds(settings, tiny)
        assert {budget.kind(p) for p in budget.method_for(settings, tiny).passes()} == {*pace.other} == {*pace.first}

    def test_what_has_no_epochs_stays_so(self, tiny):
        settings = small("wsch", epochs=0)
        assert {*measure_pace(settings, tiny).other} == {"pretraining: reconstruction"}
        assert fitted(small("wsch", epochs=0, pretrain_epochs=0), lambda s: gradient_steps(s, tiny), 5).epochs == 0

    def test_seconds_are_added_up_by_kind(self, tiny):
        pace = Pace(5.0, {"training: pairwise": 3.0}, {"training: pairwise": 1.0})
        assert pace.seconds(small("ssvh", epochs=4), tiny) == 5 + 3 + 3 * 1


class TestChosen:
    def test_steps_are_those_of_the_first_method(self, tiny):
        own = {"wsch": SMALL["wsch"], "wsch plus": SMALL["wsch"], "bth": SMALL["bth"]}
        found = choose_methods([*own], tiny, 8, "steps", own=own)
        assert [*found] == ["WSCH", "WSCH, plus", "BTH"]
        assert found["WSCH"].settings.epochs == 4
        assert all(0.7 * found["WSCH"].steps <= one.steps <= found["WSCH"].steps for one in found.values())
        assert found["BTH"].changes["epochs"] == found["BTH"].settings.epochs
        assert {one.settings.bits for one in found.values()} == {8}

    def test_a_pace_is_measured_once(self, tiny, tmp_path, monkeypatch):
        def choose():
            return choose_methods(
                ["ssvh"], tiny, 8, "seconds", 0.5, {"ssvh": SMALL["ssvh"]}, tmp_path / "c" / "pace.json"
            )

        found = choose()
        monkeypatch.setattr(peers, "measure_pace", None)
        assert choose() == found

    def test_published_epochs_stay(self, tiny):
        (found,) = choose_methods(["conmh fcvid"], tiny, 16).values()
        assert found.name == "ConMH, fcvid"
        assert found.settings.epochs == 800
        assert method_of(found.settings) == "conmh"

    @pytest.mark.parametrize(
        ("names", "more", "complaint"),
        [
            (["bht"], {}, "'bht' is not a known method: did you mean 'bth'"),
            (["bth plus"], {}, "method 'bth plus': 'plus' is not a known recipe"),
            (
                ["bth"],
                {"own": {"bth": {"anchor": 3}}},
                "method 'bth': 'anchor' is not a known setting: did you mean 'anchors",
            ),
            (["bth"], {"own": {"bth": {"seed": 3}}}, "method 'bth': seed belongs to the whole comparison"),
            (["bth"], {"own": {"ssvh": {}}}, "'ssvh' is not a known method among those compared"),
            (["bth"], {"budget": "seconds"}, "amount is 0: give the seconds"),
            (["bth"], {"budget": "hours"}, "budget is 'hours': it must be one of published, steps, seconds"),
            ([], {}, "there is nothing to compare"),
        ],
    )
    def test_what_cannot_be_compared_is_refused(self, tiny, names, more, complaint):
        with pytest.raises(ValueError, match=complaint):
            choose_methods(names, tiny, 8, **more)


def test_queries_won_and_lost():
    precision = {"a": np.array([0.5, 0.5, 0.5, 0.0]), "b": np.array([0.75, 0.5, 0.0, 0.125])}
    (duel,) = duels(precision, "a")
    assert (duel.name, duel.won, duel.lost, duel.level) == ("b", 2, 1, 1)
    assert most_disputed(precision, 2) == [2, 0]
    assert duels(precision, "failed") == []


def test_runs_of_several_methods_are_groups(tiny):
    chosen = [
        small("wsch"),
        small("ssvh"),
        small("ssvh", seed=5),
        small("ssvh", reach=3),
        small("bth", published_code=True),
    ]
    runs = [fit(settings, tiny, f"run{number}", callbacks=[]) for number, settings in enumerate(chosen)]
    for run in runs:
        evaluate_run(run, tiny, baselines=())
    names = ["ours", "reach 2 (SSVH)", "reach 3 (SSVH)", "BTH"]
    assert [group.method for group in grouped(runs)] == names
    assert [len(group.runs) for group in grouped(runs)] == [1, 2, 1, 1]
    assert [group.method for group in grouped(runs, [*"aabab"])] == ["a", "b"]
    precision = precision_by_query(runs[1:3], tiny, 5)
    of_runs = [run.metrics["methods"]["SSVH"]["expected"][0] for run in runs[1:3]]
    assert precision.shape == (5,)
    assert precision.mean() == pytest.approx(np.mean(of_runs))
    cost = cost_of(runs[4], tiny)
    assert cost.parameters == sum(parameter.numel() for parameter in runs[4].model().parameters())
    assert cost.encode_seconds > 0
