import json
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsch_core.methods import recipe_of, recipe_settings
from wsch_core.methods.wsch.settings import RECIPES, Settings

NAMES = [field.name for field in fields(Settings)]


def test_defaults_are_the_published_values():
    s = Settings()
    assert (s.seed, s.batch_size, s.centers, s.learning_rate) == (3346, 128, 800, 1e-4)
    assert (s.pretrain_epochs, s.epochs, s.pretrain_masking_ratio, s.masking_ratio) == (100, 300, 0.9, 0.6)
    assert (s.weight_reconstruction, s.weight_cluster, s.weight_contrast) == (1, 0.02, 1)
    assert (s.cluster_temperature, s.contrast_temperature, s.tau_plus) == (0.2, 0.5, 0.1)
    assert (s.encoder_width, s.decoder_width, s.attention_heads, s.ssd_head_width, s.state_size) == (
        1024,
        1024,
        4,
        128,
        64,
    )
    assert (s.cycle, s.cluster_targets, s.learning_rate_schedule) == ("centers, cluster, contrast", "own", "constant")
    assert (s.centers_every, s.encoder_blocks, s.decoder_positions) == (1, "ssd+attention", "none")


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("bits", 0, "bits is 0: it must be a whole number of at least 1"),
        ("bits", -16, "bits is -16"),
        ("bits", 1, "bits is 1: it must be at least 2"),
        ("bits", 64.0, "bits is 64.0: it must be a whole number"),
        ("bits", "64", "bits is '64': it must be a whole number"),
        ("bits", True, "bits is True"),
        ("bits", 10**6, "at most 4096"),
        ("epochs", -1, "epochs is -1"),
        ("masking_ratio", 1.0, "masking_ratio is 1.0: it must be a number between 0 and 1"),
        ("learning_rate", 0, "learning_rate is 0.0"),
        ("learning_rate", float("nan"), "finite"),
        ("weight_cluster", -0.1, "weight_cluster is -0.1"),
        ("cluster_targets", "other", "one of own, swapped"),
        ("precision", "float16", "one of auto, float32, bfloat16"),
        ("cycle", "cluster", "without centers"),
        ("attention_heads", 3, "encoder_width is 1024, which attention_heads = 3 does not divide"),
        ("ssd_head_width", 100, "ssd_head_width is 100"),
        ("tau_plus", 1.0, "tau_plus is 1.0"),
        ("epochs", 10**9, "epochs is 1000000000: it must be such that a run has at most 200,000 passes"),
        ("pretrain_epochs", 10**9, "pretrain_epochs is 1000000000: it must be at most 200,000 passes"),
        ("learning_rate", 10**400, "learning_rate is 1000.*: it must be a number"),
    ],
)
def test_bad_values_are_refused_by_name(name, value, complaint):
    with pytest.raises(ValueError, match="^" + complaint if complaint.startswith(name) else complaint):
        Settings(**{name: value})


def test_unknown_names_are_refused_with_the_closest():
    with pytest.raises(ValueError, match=r"'bitz' is not a known setting: did you mean 'bits'\?"):
        Settings.create({"bitz": 64})
    with pytest.raises(ValueError, match=r"did you mean 'pretrain_epochs'\?"):
        Settings.create({}, defaults={"pretraining_epochs": 5})


def test_what_is_chosen_wins_over_the_data_sets_defaults():
    made = Settings.create({"bits": 32, "epochs": None}, defaults={"epochs": 7, "bits": 16, "centers": 9})
    assert (made.bits, made.epochs, made.centers, made.batch_size) == (32, 7, 9, 128)


def test_recipes_name_known_settings_and_the_published_one_changes_nothing():
    assert RECIPES["published"] == {}
    assert recipe_settings(None) == {}
    assert recipe_of(Settings()) == "published"
    for name, changes in RECIPES.items():
        made = Settings.create({}, changes)
        assert recipe_of(made) == name
        assert all(getattr(made, setting) != getattr(Settings(), setting) for setting in changes)
        assert made == replace(Settings(), **changes)
    assert recipe_of(Settings.create({"views": 3}, RECIPES["plus"])) == "published"


@pytest.mark.parametrize("name", ["pluss", "", 3, ["plus"]])
def test_unknown_recipes_are_refused(name):
    with pytest.raises(ValueError, match=r"not a known recipe: (did you mean 'plus'\? )?Known are published, plus"):
        recipe_settings(name)


def test_weight_of_reconstruction_may_be_zero():
    assert Settings(weight_reconstruction=0).weight_reconstruction == 0


def test_a_pass_that_would_learn_nothing_is_refused():
    with pytest.raises(ValueError, match="'contrast' of cycle 'contrast' has only losses of weight 0"):
        Settings(cycle="contrast", weight_contrast=0, weight_reconstruction=0)
    assert Settings(cycle="contrast", weight_contrast=0, weight_reconstruction=0, epochs=0).epochs == 0


def test_settings_are_frozen_and_round_trip():
    settings = Settings(bits=32)
    with pytest.raises(FrozenInstanceError):
        settings.bits = 16
    assert Settings.create(settings.as_dict()) == settings
    assert replace(settings, bits=64) == Settings()


HUGE = st.sampled_from([10**400, -(10**400), 2**63, 10**5000, float("nan"), float("inf"), "x" * 10**5, [[[[]]]] * 999])
ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.lists(st.integers()) | HUGE
    | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2) | st.binary(max_size=5)
)  # fmt: skip
SENSIBLE = st.fixed_dictionaries(
    {},
    optional={
        "bits": st.integers(2, 4096), "seed": st.integers(0, 2**63 - 1), "epochs": st.integers(0, 1000),
        "masking_ratio": st.floats(0.01, 0.99), "learning_rate": st.floats(1e-9, 1e3), "dataset": st.text(max_size=20),
        "weight_cluster": st.floats(0, 1e9) | st.integers(0, 10**300), "tau_plus": st.floats(0, 0.99),
        "cycle": st.sampled_from(["contrast", "centers, cluster", "centers, cluster+contrast, contrast"]),
    },
)  # fmt: skip


@given(SENSIBLE, st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=12), ANYTHING, max_size=3))
def test_any_dictionary_gives_settings_that_json_keeps_or_a_sentence_that_names_a_key(sensible, junk):
    try:
        settings = Settings.create(sensible | junk)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert len(str(error)) < 1500  # noqa: PT017
        assert any(name in str(error) or repr(name)[:50] in str(error) for name in junk)  # noqa: PT017
    else:
        assert Settings.create(json.loads(json.dumps(settings.as_dict()))) == settings


@given(
    st.sampled_from(NAMES),
    ANYTHING,
)
def test_any_value_is_taken_or_refused_by_name(name, value):
    try:
        settings = Settings(**{name: value})
    except ValueError as error:
        assert name in str(error)  # noqa: PT017
    else:
        assert getattr(settings, name) == value
