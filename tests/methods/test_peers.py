"""What every method must do: learn with all of its network, repeat itself bit for bit, refuse what cannot be."""

from dataclasses import fields, replace

import pytest
import torch
from conftest import TINY as TINY_WSCH
from shared import assert_same_run, replace_definition, weights

from wsch_core import encode, fit, load_run
from wsch_core.data import load_dataset
from wsch_core.data.loader import visible_batches
from wsch_core.methods import METHODS, method_of, recipe_of, recipe_settings, settings_for
from wsch_core.methods.method import Context
from wsch_core.methods.settings import COMMON
from wsch_core.training.device import autocast
from wsch_core.training.loop import gradient_step, new_state

CPU = torch.device("cpu")
COMMONLY = {
    "dataset": "tiny",
    "bits": 16,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "device": "cpu",
    "precision": "float32",
}
AUTOENCODER = {"encoder_width": 20, "encoder_blocks": 2, "encoder_heads": 3, "decoder_width": 18, "decoder_heads": 4}
TINY = {
    "wsch": TINY_WSCH,
    "conmh": {"epochs": 3, **AUTOENCODER},
    "autossvh": {"epochs": 3, "warm_up_epochs": 1, "weight_prototypes": 0.2, "clusters": "3, 5", **AUTOENCODER},
    "bth": {"pretrain_epochs": 2, "epochs": 2, "anchors": 8, "encoder_width": 20},
    "ssvh": {"epochs": 3, "neighbours": 4, "reach": 2, "learning_rate": 1e-2, "largest_step": 1e-2},
    "s5vh": {
        "epochs": 3,
        "clusters": 3,
        "labels_move_from": 1,
        "label_rate": 0.5,
        "weight_cluster": 0.1,
        "learning_rate_schedule": "constant",
        "encoder_width": 20,
        "encoder_blocks": 2,
        "decoder_width": 18,
    },
}
every_method = pytest.mark.parametrize("method", METHODS)
every_peer = pytest.mark.parametrize(
    "method", [name for name in METHODS if name != "wsch"]
)  # whose loop tests are its own


def tiny_settings_of(method, **chosen):
    return METHODS[method].Settings(**{**COMMONLY, **TINY[method], **chosen})


class Interrupt:
    """A callback that interrupts training at the end of a pass, as Ctrl-C would."""

    def __init__(self, after_pass):
        self.after_pass = after_pass

    def __call__(self, progress):
        if progress.entry is not None and progress.current.number == self.after_pass:
            raise KeyboardInterrupt


def prepared(method, dataset, **chosen):
    """A method, its fresh state and context, prepared as the loop prepares them."""
    settings = tiny_settings_of(method, **chosen)
    of = METHODS[method](settings, len(dataset.train), dataset.frames, dataset.feature_size)
    state, context = new_state(of, CPU), Context(dataset.train.features, CPU, autocast(CPU, "float32"))
    state.kept = of.prepare(context, state.generator)
    return of, state, context


@every_method
def test_gradients_reach_every_parameter(tiny, method):
    of, state, context = prepared(method, tiny)
    reached = set()
    for current in of.passes():
        of.begin(current, state, context)
        if not current.learns:
            continue
        chosen = of.weights(current, state)
        for batch in visible_batches(context.features, of.draw(current, state), of.settings.batch_size, CPU):
            losses, _, codes = gradient_step(of, state, batch, chosen, context.cast)
            assert losses.keys() == chosen.keys()
            assert codes.shape == (*batch.visible.shape[:2], codes.shape[2], of.settings.bits)
            assert (codes.abs() == 1).all()
            for name, parameter in state.model.named_parameters():
                if parameter.grad is not None and parameter.grad.abs().max() > 0:
                    reached.add(name)
    assert reached == dict(state.model.named_parameters()).keys()


@every_peer
def test_training_lowers_the_reconstruction_loss(tiny, method):
    run = fit(tiny_settings_of(method, epochs=12), tiny, name="r", callbacks=[])
    losses = [line["losses"]["reconstruction"] for line in run.history if line["losses"]]
    assert losses[-1] < 0.97 * losses[0]
    assert run.method is METHODS[method]


@every_peer
def test_an_interrupted_run_ends_as_if_it_had_not_been(tiny, method):
    settings = tiny_settings_of(method)
    whole = fit(settings, tiny, name="whole", callbacks=[])
    for after_pass in range(len(whole.history)):
        name = f"cut-{after_pass}"
        with pytest.raises(KeyboardInterrupt):
            fit(settings, tiny, name=name, callbacks=[Interrupt(after_pass)])
        assert encode(load_run(name).model(), tiny.query.features).shape == (5, 16)  # usable as it is
        assert_same_run(whole, fit(settings, tiny, name=name, callbacks=[], resume=True))
    other = fit(replace(settings, seed=7), tiny, name="other", callbacks=[])
    assert whole.history[-1]["losses"] != other.history[-1]["losses"]


@every_peer
def test_more_epochs_can_be_added(tiny, method):
    epochs = tiny_settings_of(method).epochs + 1
    fit(tiny_settings_of(method), tiny, name="short", callbacks=[])
    longer = tiny_settings_of(method, epochs=epochs)
    assert_same_run(
        fit(longer, tiny, name="long", callbacks=[]), fit(longer, tiny, name="short", callbacks=[], resume=True)
    )


@every_peer
def test_features_on_disk_give_the_same_run(tiny, method):
    in_memory = fit(tiny_settings_of(method), tiny, name="memory", callbacks=[])
    on_disk = fit(tiny_settings_of(method), load_dataset("tiny", hold="disk"), name="disk", callbacks=[])
    assert on_disk.record["features_held"] == "on disk"
    assert_same_run(in_memory, on_disk)


@every_method
def test_bfloat16_trains(tiny, method):
    plain = fit(tiny_settings_of(method), tiny, name="plain", callbacks=[])
    short = fit(tiny_settings_of(method, precision="bfloat16"), tiny, name="short", callbacks=[])
    for name, tensor in weights(short).items():
        assert tensor.dtype == torch.float32
        assert tensor.isfinite().all()
        if weights(plain)[name].ndim > 1:
            assert not torch.equal(tensor, weights(plain)[name]), name
    first, other = (run.history[0]["losses"]["reconstruction"] for run in (plain, short))
    assert first == pytest.approx(other, rel=0.05)


@every_method
def test_codes_are_bits_whatever_they_are_encoded_with(tiny, method):
    _, state, _ = prepared(method, tiny)
    frames = tiny.query.features.tensor
    codes = encode(state.model, tiny.query.features)
    assert codes.dtype == torch.int8
    assert codes.shape == (5, state.model.bits)
    assert (codes.abs() == 1).all()
    assert torch.equal(codes, torch.cat([state.model.encode(frame) for frame in frames.split(1)]))


@every_method
@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("bits", 1, "bits is 1: it must be at least 2"),
        ("bits", "64", "bits is '64': it must be a whole number"),
        ("batch_size", 0, "batch_size is 0"),
        ("learning_rate", 0.0, "learning_rate is 0.0: it must be a number above 0"),
        ("epochs", -1, "epochs is -1"),
        ("epochs", 10**9, "epochs is 1000000000"),
        ("seed", -1, "seed is -1"),
        ("precision", "float16", "one of auto, float32, bfloat16"),
    ],
)
def test_bad_settings_are_refused_by_name(method, name, value, complaint):
    with pytest.raises(ValueError, match=complaint):
        METHODS[method].Settings(**{name: value})


@every_method
def test_settings_of_another_method_are_refused(method):
    theirs = {field.name for other in METHODS.values() for field in fields(other.Settings)}
    own = {field.name for field in fields(METHODS[method].Settings)}
    assert {*COMMON, "epochs"} <= own
    for name in theirs - own:
        with pytest.raises(ValueError, match=f"'{name}' is not a known setting"):
            METHODS[method].Settings.create({name: 1})


@every_method
def test_recipes_are_settings(tiny, method):
    of = METHODS[method]
    assert recipe_of(of.Settings()) == "published"
    for recipe in of.recipes:
        settings = settings_for(tiny, recipe, method)
        assert method_of(settings) == method
        assert recipe_of(settings) == (recipe if recipe_settings(recipe, of) else "published")


@every_peer
def test_a_data_set_may_have_settings_of_its_own_for_a_method(tiny_folder, method):
    replace_definition(tiny_folder, "[train]", f"[settings.{method}]\nbatch_size = 5\n[train]")
    dataset = load_dataset("tiny")
    assert settings_for(dataset, method=method).batch_size == 5
    assert settings_for(dataset).batch_size == 128
