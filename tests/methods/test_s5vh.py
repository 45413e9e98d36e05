import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from shared import assert_resumes, weights

from wsch_core import encode, evaluate_run, fit, load_run, settings_for
from wsch_core.data.features import Features
from wsch_core.data.loader import visible_batches
from wsch_core.experiments.published import load_published
from wsch_core.methods import s5vh
from wsch_core.methods.parts import mamba
from wsch_core.methods.method import Context
from wsch_core.methods.parts.hash_centers import enough_rows, objective, spread_centers, start_centers
from wsch_core.methods.parts.mamba import Mixer, scan
from wsch_core.methods.s5vh import S5VH, Block, S5VHMethod, Settings, principal_components, whole_videos
from wsch_core.storage.tensors import read_tensors, save_tensors
from wsch_core.training.device import autocast
from wsch_core.training.loop import gradient_step, new_state

CPU = torch.device("cpu")
TINY = Settings(
    dataset="tiny", bits=8, epochs=3, clusters=3, labels_move_from=1, label_rate=0.5, weight_cluster=0.1, batch_size=8,
    learning_rate=1e-3, encoder_width=20, encoder_blocks=2, decoder_width=18, device="cpu", precision="float32",
)  # fmt: skip


def begun(settings, dataset):
    """A method with its state before the first step, the batches of the first pass, and what it weighs."""
    method = S5VHMethod(settings, len(dataset.train), dataset.frames, dataset.feature_size)
    state, context = new_state(method, CPU), Context(dataset.train.features, CPU, autocast(CPU, "float32"))
    state.kept = method.prepare(context, state.generator)
    current = method.passes()[0]
    drawn = method.draw(current, state)
    batches = list(visible_batches(context.features, drawn, settings.batch_size, CPU))
    return method, state, batches, method.weights(current, state), context.cast


def test_a_run_is_evaluated(tiny):
    run = fit(replace(TINY, epochs=1), tiny, name="r", callbacks=[])
    assert run.method is S5VHMethod
    assert run.history[0]["losses"].keys() == {"reconstruction", "contrast", "cluster", "total"}
    codes = encode(load_run("r").model(), tiny.query.features)
    assert codes.dtype == torch.int8
    assert codes.abs().eq(1).all()
    assert evaluate_run(run, tiny, baselines=()) is not None


def test_recipes_are_the_published_settings(tiny):
    chosen = settings_for(tiny, "fcvid", "s5vh", bits=16)
    assert (chosen.bits, chosen.batch_size, chosen.clusters, chosen.epochs, chosen.tau_plus) == (16, 512, 450, 500, 0.1)
    assert settings_for(tiny, "hmdb51", "s5vh").latent_size == 1024
    assert settings_for(tiny, "activitynet", "s5vh") == settings_for(tiny, method="s5vh")


def test_a_run_of_the_published_code_resumes_to_the_bit_after_any_pass(tiny):
    assert_resumes(replace(TINY, published_code=True), tiny)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 20},  # leaves a last batch of one video
        {"weight_contrast": 0.0},
        {"weight_cluster": 0.0},
        {"stochastic_depth": 0.0},
        {"encoder_blocks": 1},
        {"learning_rate_schedule": "constant"},
        {"labels_move_from": 9},
        {"published_code": True},
    ],
    ids=str,
)
def test_every_option_trains_and_differs(tiny, change):
    short = replace(TINY, epochs=2)
    plain = weights(fit(short, tiny, name="plain", callbacks=[]))
    changed = weights(fit(replace(short, **change), tiny, name="changed", callbacks=[]))
    assert all(tensor.isfinite().all() for tensor in changed.values())
    assert not torch.equal(plain["encoder.patch_embed.weight"], changed["encoder.patch_embed.weight"])


def test_the_gradient_reaches_the_classifier_where_it_is_trained(tiny):
    method, state, batches, loss_weights, cast = begun(replace(TINY, published_code=True), tiny)
    gradient_step(method, state, batches[0], loss_weights, cast)
    assert all(parameter.grad.any() for parameter in state.model.parameters())
    assert state.model.classifier.weight.shape == (3, 8)
    _, state, *_ = begun(TINY, tiny)
    assert state.model.classifier is None


def test_labels_begin_as_clusters_and_move_from_an_epoch_on(tiny):
    method, state, batches, loss_weights, cast = begun(TINY, tiny)
    labels = state.kept["labels"].clone()
    assert labels.sum(dim=1).eq(1).all()
    assert labels.sum(dim=0).all()
    for batch in batches:
        gradient_step(method, state, batch, loss_weights, cast)
    assert torch.equal(state.kept["labels"], labels)
    assert state.steps == method.steps_in_pass() == 3
    batch = batches[0]
    state.model.eval()
    codes = s5vh.binarise(state.model.prebinary(tiny.train.features.tensor[batch.videos[0]], torch.arange(10)))
    told = (codes.mean(dim=1) @ state.kept["centers"].T / (8 * 0.5)).softmax(dim=1)
    gradient_step(method, state, batch, loss_weights, cast)
    torch.testing.assert_close(state.kept["labels"][batch.videos[0]], 0.5 * labels[batch.videos[0]] + 0.5 * told)
    others = batches[1].videos[0]
    assert torch.equal(state.kept["labels"][others], labels[others])


def test_centers_are_of_the_clusters_that_give_the_labels(tiny):
    _, state, *_ = begun(TINY, tiny)
    assert torch.equal(state.kept["centers"], torch.from_numpy(start_centers(3, 8, None)).float())
    _, state, *_ = begun(replace(TINY, published_code=True), tiny)
    assert state.kept.keys() == {"labels"}


def test_whole_videos_are_put_together_in_their_order(tiny):
    *_, batches, _, _ = begun(TINY, tiny)
    for batch in batches:
        assert torch.equal(whole_videos(batch), tiny.train.features.tensor[batch.videos[0]])


def test_codes_do_not_hang_on_the_batch_nor_the_mode(tiny):
    model, frames = new_state(S5VHMethod(TINY, 21, 10, 12), CPU).model, tiny.database.features.tensor
    whole = model.encode(frames)
    assert torch.equal(model.eval().encode(frames), whole)
    assert torch.equal(torch.cat([model.train().encode(frame) for frame in frames.split(1)]), whole)


def test_stochastic_depth_leaves_out_more_of_later_blocks():
    model = S5VH(6, 5, 4, encoder_width=16, encoder_blocks=6, decoder_width=16)
    kept = model.draw_kept_blocks(20_000, torch.Generator().manual_seed(0))
    assert kept.unique().tolist() == [0, 1]
    expected = torch.tensor([1, 0.9, 0.8, 0.7, 0.6, 0.5])
    torch.testing.assert_close(kept.mean(dim=1), expected, atol=0.02, rtol=0)
    block, tokens = model.encoder.blocks[0], torch.randn(3, 5, 16)
    added = block(tokens) - tokens
    scaled = block(tokens, torch.tensor([0.0, 1.0, 2.0]))
    torch.testing.assert_close(scaled, tokens + torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1) * added)


def literal_scan(drive, step, decay, write, read):
    """Number by number."""
    outputs = torch.zeros_like(drive)
    for row in range(drive.shape[0]):
        for channel in range(drive.shape[2]):
            for number in range(decay.shape[1]):
                state = 0.0
                for frame in range(drive.shape[1]):
                    remains = math.exp(step[row, frame, channel] * decay[channel, number])
                    state = remains * state + drive[row, frame, channel] * write[row, frame, number]
                    outputs[row, frame, channel] += state * read[row, frame, number]
    return outputs


def scan_inputs(rows, frames, channels, numbers):
    torch.manual_seed(0)
    shapes = [(rows, frames, channels), (rows, frames, channels), (channels, numbers)] + [(rows, frames, numbers)] * 2
    drive, step, decay, write, read = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    return [tensor.requires_grad_() for tensor in (drive, step.exp(), -decay.exp(), write, read)]


def leaves(tensors):
    return [tensor.detach().requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("in_cache", [1, 10**6], ids=["sequence by sequence", "at once"])
def test_the_scan_is_its_formula_and_so_is_its_gradient(monkeypatch, in_cache):
    monkeypatch.setattr(mamba, "IN_CACHE", in_cache)
    inputs = leaves(scan_inputs(3, 4, 5, 2))
    torch.testing.assert_close(scan(*inputs), literal_scan(*(tensor.detach() for tensor in inputs)))
    assert torch.autograd.gradcheck(scan, inputs)


def literal_mixer(mixer, tokens):
    """The steps of the mixer, in float64 and frame by frame."""
    weights = {name: tensor.detach().double() for name, tensor in mixer.state_dict().items()}
    inner, (batch, frames, _) = len(weights["D"]), tokens.shape
    inputs, gate = (tokens.double() @ weights["in_proj.weight"].T).split(inner, dim=-1)
    mixed = torch.zeros(batch, frames, inner, dtype=torch.float64)
    for frame in range(frames):
        for lag in range(4):
            if frame - 3 + lag >= 0:
                mixed[:, frame] += weights["conv1d.weight"][:, 0, lag] * inputs[:, frame - 3 + lag]
    inputs = F.silu(mixed + weights["conv1d.bias"])
    rank = mixer.rank
    step, write, read = (inputs @ weights["x_proj.weight"].T).split([rank, 16, 16], dim=-1)
    step = F.softplus(step @ weights["dt_proj.weight"].T + weights["dt_proj.bias"])
    output = literal_scan(step * inputs, step, -weights["A_log"].exp(), write, read) + weights["D"] * inputs
    return (output * F.silu(gate)) @ weights["out_proj.weight"].T


def test_the_mixer_follows_its_steps():
    torch.manual_seed(0)
    mixer, tokens = Mixer(6), torch.randn(2, 5, 6)
    assert mixer.rank == 1
    assert Mixer(17).rank == 2
    expected = literal_mixer(mixer, tokens).float()
    torch.testing.assert_close(mixer(tokens), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mixer(tokens, 2), expected[:, -2:], rtol=1e-4, atol=1e-6)


def test_a_block_mixes_both_directions():
    torch.manual_seed(0)
    block, tokens = Block(6), torch.randn(2, 7, 6)
    expected = tokens + block.mamba(block.norm1(tokens)) + block.mamba(block.norm2(tokens.flip(1))).flip(1)
    torch.testing.assert_close(block(tokens), expected)
    torch.testing.assert_close(block.end(tokens[:, :4], tokens[:, 4:]), expected[:, 4:])


def test_principal_components_are_those_of_the_plain_form():
    random = np.random.default_rng(0)
    means = random.normal(size=(30, 8)) * np.arange(1, 9) + 3
    left, values, _ = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    found = principal_components(torch.from_numpy(means).float(), 5).numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(left * values)[:, :5], atol=1e-3)
    assert principal_components(torch.from_numpy(means).float(), 100).shape == (30, 8)


def test_hash_centers():
    """Hadamard rows are as far apart as words can be; a sweep spreads others."""
    assert [enough_rows(count, bits) for count, bits in ((16, 8), (17, 8), (4, 6))] == [True, False, False]
    rows = start_centers(16, 8, None)
    assert np.array_equal(np.abs(rows @ rows.T), 8 * (np.eye(16) + np.roll(np.eye(16), 8, axis=0)))
    more = start_centers(20, 8, None)[16:]
    assert np.array_equal(more.sum(axis=1), np.zeros(4))
    meanings = np.eye(5)
    start, history, values = spread_centers(meanings, 6, sweeps=0)
    assert (history, values) == ([], [])
    spread, _, (value,) = spread_centers(meanings, 6, sweeps=1)
    assert np.array_equal(np.abs(spread), np.ones((5, 6)))
    assert value == objective(spread, meanings)
    distances = [((6 - centers @ centers.T) / 2)[np.triu_indices(5, 1)] for centers in (start, spread)]
    assert distances[1].mean() >= distances[0].mean()
    # of two opposite words of 4 bits, for clusters that are alike: 4 / 2^2 - (-1 - 1)
    assert objective(np.array([[1, 1, 1, 1], [-1, -1, -1, -1.0]]), np.ones((2, 1))) == 3


def test_the_learning_rate_is_a_cosine_over_the_epochs():
    method = S5VHMethod(replace(TINY, epochs=4, learning_rate=5e-4), 21, 10, 12)
    rates = [method.learning_rate(current, 0) for current in method.passes()]
    assert rates == pytest.approx([5e-4, 1e-5 + 4.9e-4 * (1 + math.sqrt(0.5)) / 2, 2.55e-4, rates[3]])
    assert 1e-5 < rates[3] < rates[2]


def test_more_epochs_are_refused_where_the_rate_was_spread_over_fewer(tiny):
    fit(TINY, tiny, name="r", callbacks=[])
    with pytest.raises(ValueError, match="cannot be given more epochs"):
        fit(replace(TINY, epochs=4), tiny, name="r", callbacks=[], resume=True)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"bits": 1}, "bits is 1: it must be at least 2"),
        ({"masking_ratio": 1.0}, "masking_ratio is 1.0: it must be a number between 0 and 1"),
        ({"stochastic_depth": 1.0}, "stochastic_depth is 1.0"),
        ({"tau_plus": 1.0}, "tau_plus is 1.0"),
        ({"label_rate": 1.5}, "label_rate is 1.5: it must be a number from 0 to 1"),
        ({"labels_move_from": -1}, "labels_move_from is -1"),
        ({"clusters": 0}, "clusters is 0"),
        ({"learning_rate_schedule": "linear"}, "one of cosine, constant"),
        ({"published_code": "yes"}, "published_code is 'yes': it must be True or False"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_by_name(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        replace(TINY, **change)


def test_settings_that_do_not_fit_the_data_are_refused(tiny):
    with pytest.raises(ValueError, match="clusters is 22, but tiny has 21 training videos: choose at most that many"):
        fit(replace(TINY, clusters=22), tiny, callbacks=[])
    with pytest.raises(ValueError, match=r"masking ratio of 0.05 hides none"):
        fit(replace(TINY, masking_ratio=0.05), tiny, callbacks=[])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels", torch.zeros(21, 4)),
        ("labels", torch.full((21, 3), -1.0)),
        ("labels", None),
        ("centers", torch.zeros(3, 8)),
        ("centers", None),
    ],
    ids=str,
)
def test_a_checkpoint_whose_labels_or_centers_cannot_be_is_refused(tiny, name, value):
    settings = replace(TINY, epochs=1, learning_rate_schedule="constant")
    (path,) = fit(settings, tiny, name="r", callbacks=[]).checkpoints()
    tensors = read_tensors(path)
    del tensors[f"kept.{name}"]
    save_tensors(path, tensors if value is None else tensors | {f"kept.{name}": value})
    with pytest.warns(RuntimeWarning, match="is damaged"), pytest.raises(OSError, match="every checkpoint is damaged"):
        fit(replace(settings, epochs=2), tiny, name="r", callbacks=[], resume=True)


def test_published_files_load(tmp_path):
    """As they are laid out: two mixers of each block, which are the same, and a net that nothing reads."""
    torch.manual_seed(0)
    settings = replace(TINY, published_code=True)
    model = S5VHMethod.network(settings, 12, 10)
    weights = {}
    for name, weight in model.state_dict().items():
        for mixer in ("mamba1", "mamba2"):
            weights[name.replace(".mamba.", f".{mixer}.")] = weight
    weights |= {"get_token_probs.0.weight": torch.ones(20, 20), "get_token_probs.1.mixer.D": torch.ones(40)}
    path = tmp_path / "tiny_8.pth"
    torch.save({"epoch": 3, "model_state_dict": weights}, path)
    found, loaded = load_published(path, "s5vh", frames=10)
    sizes = ("bits", "clusters", "encoder_width", "encoder_blocks", "decoder_width", "published_code")
    assert [getattr(found, name) for name in sizes] == [getattr(settings, name) for name in sizes]
    frames = torch.randn(4, 10, 12)
    assert torch.equal(loaded.encode(frames), model.encode(frames))
    second = {name: weight for name, weight in weights.items() if ".mamba1." not in name}
    torch.save({"model_state_dict": second}, path)
    assert torch.equal(load_published(path, "s5vh", frames=10)[1].encode(frames), model.encode(frames))
    del weights["classifier.weight"]
    torch.save({"model_state_dict": weights}, path)
    with pytest.raises(ValueError, match=r"tiny_8\.pth: classifier\.weight, which tells a size, is missing"):
        load_published(path, "s5vh", frames=10)


def test_features_held_elsewhere_are_left_as_they_are():
    """Means are centred in place: they must be the method's own."""
    features = Features(torch.randn(21, 10, 12, generator=torch.Generator().manual_seed(0)))
    before, mean = features.tensor.clone(), features.mean_pooled()
    method = S5VHMethod(TINY, 21, 10, 12)
    method.prepare(Context(features, CPU, autocast(CPU, "float32")), torch.Generator().manual_seed(0))
    assert torch.equal(features.tensor, before)
    assert torch.equal(features.mean_pooled(), mean)
