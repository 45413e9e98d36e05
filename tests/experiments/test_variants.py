from dataclasses import replace

import pytest
import torch

from wsch_core import fit
from wsch_core.experiments.variants import PUBLISHED, VARIANTS, choose_variants, variant_settings
from wsch_core.methods import recipe_of
from wsch_core.storage.tensors import read_tensors

SMALL = {
    "bits": 16, "encoder_width": 64, "decoder_width": 32, "ssd_head_width": 32, "centers": 4, "batch_size": 8,
    "pretrain_masking_ratio": 0.7,  # of 10 frames 3 are visible; a single one would leave attention nothing to learn
    "pretrain_epochs": 2, "epochs": 2, "learning_rate": 1e-3, "device": "cpu", "precision": "float32",
}  # fmt: skip
ADAPTED = {"constant learning rate": {"learning_rate_schedule": "cosine"}}  # else it is what it is compared with


@pytest.fixture
def trained(tiny, monkeypatch):
    """Train a variant on the tiny set, whose neighbours are trusted; returns its final weights and Adam's running means of
    the gradients."""

    monkeypatch.setattr("wsch_core.methods.wsch.neighbours.trust_in", lambda agreement: 1.0)

    def train(name, **common):
        changes = choose_variants([name], {}, tiny, **common)[name]
        settings = replace(variant_settings(name, changes, tiny, common), seed=7)
        run = fit(settings, tiny, name=name.replace(" ", "-") + str(len(common)), callbacks=[])
        state = read_tensors(run.checkpoints()[0])
        weights = read_tensors(run.folder / "weights.safetensors")
        return weights, {name: state.get(f"optimizer.exp_avg.{name}") for name in weights}

    return train


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != PUBLISHED])
def test_every_variant_differs_and_all_its_parameters_learn(trained, name):
    common = SMALL | ADAPTED.get(name, {})
    if name == "cosine learning rate":
        common |= {"learning_rate_schedule": "constant"}
    published, _ = trained(PUBLISHED, **common)
    weights, gradients = trained(name, **common)
    shared = [key for key in weights if key in published and weights[key].shape == published[key].shape]
    assert len(shared) < len(published) or any(not torch.equal(weights[key], published[key]) for key in shared)
    for key, gradient in gradients.items():
        assert gradient is not None, f"{key} never had a gradient"
        assert gradient.abs().sum() > 0, f"the gradient of {key} is zero"


def test_published_comes_first_and_only_once(tiny):
    assert list(choose_variants(["joint", PUBLISHED, "joint"], {}, tiny, bits=16)) == [PUBLISHED, "joint"]
    assert choose_variants([], {}, tiny) == {PUBLISHED: {}}


def test_scaled_settings_follow_what_they_are_compared_with(tiny):
    chosen = choose_variants(["half the centres", "double width", "joint twice as long"], {}, tiny, **SMALL)
    assert chosen["half the centres"] == {"centers": 2}
    assert chosen["double width"] == {"encoder_width": 128, "decoder_width": 64}
    assert chosen["joint twice as long"] == {"cycle": "centers, cluster+contrast", "epochs": 4}


def test_own_variants_come_after_the_named_ones(tiny):
    own = {"two": {"centers": 2, "masking_ratio": None}}
    assert list(choose_variants(["joint"], own, tiny, **SMALL)) == [PUBLISHED, "joint", "two"]


@pytest.mark.parametrize(
    ("names", "own", "complaint"),
    [
        (["jiont"], {}, "'jiont' is not a known variant: did you mean 'joint'"),
        ([], {"joint": {"centers": 3}}, "own variant 'joint': give a name that is not built in"),
        ([], {"mine": 3}, "own variant 'mine': .* its settings as a dictionary"),
        ([], {"mine": {"centres": 3}}, "variant 'mine': 'centres' is not a known setting: did you mean 'centers'"),
        ([], {"mine": {"centers": 0}}, "variant 'mine': centers is 0"),
        ([], {"mine": {"seed": 3}}, "variant 'mine': seed belongs to the whole sweep"),
        ([], {"mine": {"dataset": "demo"}}, "variant 'mine': dataset belongs to the whole sweep"),
        (["constant learning rate"], {}, "'constant learning rate' has the same settings as 'published' here"),
        (["half the centres"], {"two": {"centers": 2}}, "'two' has the same settings as 'half the centres'"),
    ],
)
def test_variants_that_make_no_sense_are_refused(tiny, names, own, complaint):
    with pytest.raises(ValueError, match=complaint):
        choose_variants(names, own, tiny, **SMALL)


def test_a_recipe_wins_over_common_settings_as_any_variant_does(tiny):
    own = {"mine": {"recipe": "plus", "views": 3}, "plain": {"recipe": None, "tau_plus": 0.2}}
    common = SMALL | {"masking_ratio": 0.7}
    chosen = choose_variants(["plus"], own, tiny, **common)
    made = {name: variant_settings(name, changes, tiny, common) for name, changes in chosen.items()}
    assert [(s.masking_ratio, s.views) for s in made.values()] == [(0.7, 2), (0.8, 4), (0.8, 3), (0.7, 2)]
    assert recipe_of(made["plus"]) == "plus"
    with pytest.raises(ValueError, match="variant 'mine': 'pluss' is not a known recipe: did you mean 'plus'"):
        choose_variants([], {"mine": {"recipe": "pluss"}}, tiny)
    with pytest.raises(ValueError, match="recipe is no common setting"):
        choose_variants([], {}, tiny, recipe="plus")


def test_a_seed_is_no_common_setting(tiny):
    with pytest.raises(ValueError, match="give seeds"):
        choose_variants([], {}, tiny, seed=3)
