from dataclasses import replace

import numpy as np
import pytest
import torch
from shared import assert_resumes, weights

from wsch_core import encode, evaluate_run, fit, load_run, settings_for
from wsch_core.data.loader import visible_batches
from wsch_core.methods import ssvh
from wsch_core.methods.method import Context
from wsch_core.methods.ssvh import LSTM, SSVH, ClippedSGD, Settings, SSVHMethod
from wsch_core.storage.tensors import read_tensors, save_tensors
from wsch_core.training.device import autocast
from wsch_core.training.loop import gradient_step, new_state

CPU = torch.device("cpu")
TINY = Settings(
    dataset="tiny", bits=8, epochs=3, neighbours=4, reach=2, learning_rate=1e-2, largest_step=1e-2, batch_size=8,
    device="cpu", precision="float32",
)  # fmt: skip


def begun(settings, dataset):
    """A method with its state before the first step, the batches of the first pass, and what it weighs."""
    method = SSVHMethod(settings, len(dataset.train), dataset.frames, dataset.feature_size)
    state, context = new_state(method, CPU), Context(dataset.train.features, CPU, autocast(CPU, "float32"))
    state.kept = method.prepare(context, state.generator)
    current = method.passes()[0]
    method.begin(current, state, context)
    drawn = method.draw(current, state)
    batches = list(visible_batches(context.features, drawn, settings.batch_size, CPU))
    return method, state, batches, method.weights(current, state), context.cast


def test_a_run_trains_and_is_evaluated(tiny):
    run = fit(replace(TINY, epochs=6), tiny, name="r", callbacks=[])
    assert run.method is SSVHMethod
    losses = [line["losses"] for line in run.history]
    assert losses[0].keys() == {"pairwise", "reconstruction", "total"}
    assert losses[-1]["reconstruction"] < losses[0]["reconstruction"]
    # the first batches meet an empty memory, which agrees with no neighbour
    assert losses[-1]["pairwise"] < losses[1]["pairwise"]
    codes = encode(load_run("r").model(), tiny.query.features)
    assert codes.dtype == torch.int8
    assert codes.abs().eq(1).all()
    assert evaluate_run(run, tiny, baselines=()) is not None


def test_settings_of_a_data_set(tiny):
    chosen = settings_for(tiny, method="ssvh", bits=16)
    assert (chosen.dataset, chosen.bits, chosen.epochs, chosen.neighbours, chosen.reach) == ("tiny", 16, 100, 10, 5)
    with pytest.raises(ValueError, match="'neighbors' is not a known setting: did you mean 'neighbours'"):
        settings_for(tiny, method="ssvh", neighbors=3)


def test_a_run_of_the_published_code_resumes_to_the_bit_after_any_pass(tiny):
    assert_resumes(replace(TINY, published_code=True, batch_size=10), tiny)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 20},  # leaves a last batch of one video
        {"weight_reconstruction": 0.0},
        {"weight_pairwise": 0.0},
        {"published_code": True},
    ],
    ids=str,
)
def test_every_option_trains_and_differs(tiny, change):
    short = replace(TINY, epochs=1)
    plain = weights(fit(short, tiny, name="plain", callbacks=[]))
    changed = weights(fit(replace(short, **change), tiny, name="changed", callbacks=[]))
    assert all(tensor.isfinite().all() for tensor in changed.values())
    assert not torch.equal(plain["lower.input"], changed["lower.input"])


def test_the_gradient_reaches_every_weight_that_is_read(tiny):
    method, state, (batch, *_), loss_weights, cast = begun(TINY, tiny)
    gradient_step(method, state, batch, loss_weights, cast)  # fills the memory: the gain of the last cell is 1 before
    gradient_step(method, state, batch, loss_weights, cast)
    model = state.model
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    # a single step from zeros reads neither its state nor what it would forget
    lower, bits = model.mean.lower, TINY.bits
    assert lower.recurrent is None
    assert not lower.peepholes.grad[:2].any()
    assert not lower.input.grad[:, bits : 2 * bits].any()


def test_a_last_batch_of_one_video_is_joined_by_another(tiny):
    _, _, batches, _, _ = begun(replace(TINY, batch_size=20), tiny)
    assert [batch.videos.shape[1] for batch in batches] == [20, 2]
    assert batches[1].videos[0, 1] == batches[0].videos[0, 0]
    _, _, batches, _, _ = begun(replace(TINY, batch_size=20, published_code=True), tiny)
    assert [batch.videos.shape[1] for batch in batches] == [20, 1]


def test_the_published_code_fills_a_last_batch_with_zeros(tiny):
    method, state, batches, loss_weights, cast = begun(replace(TINY, published_code=True), tiny)
    last = batches[-1]
    assert last.visible.shape[1] == 5
    filled = torch.cat([last.visible[0], torch.zeros(3, 10, 12)])
    before = state.kept["memory"].clone()
    hashes, decoded = state.model(filled)
    losses, codes = method.losses(last, loss_weights, state, cast)
    assert codes.shape == (1, 5, 1, 8)
    assert losses["reconstruction"].item() == pytest.approx(ssvh.reconstruction_loss(*decoded, filled).item(), rel=1e-5)
    changed = (state.kept["memory"] != before).any(dim=1).nonzero().flatten()
    assert torch.equal(changed, last.videos[0].sort().values)
    torch.testing.assert_close(state.kept["memory"][last.videos[0]], hashes[:5].detach())


def test_an_odd_number_of_frames_leaves_the_last_one_out():
    torch.manual_seed(0)
    model, frames = SSVH(6, 4, 4), torch.randn(3, 5, 6)
    assert SSVHMethod.network(replace(TINY, bits=4), 6, 5).steps == 4
    other = frames.clone()
    other[:, 4] = 9
    assert torch.equal(model(frames)[0], model(other)[0])


def test_codes_do_not_hang_on_the_batch_nor_the_mode(tiny):
    model, frames = new_state(SSVHMethod(TINY, 21, 10, 12), CPU).model, tiny.database.features.tensor
    for _ in range(5):
        model(frames)  # moves the running values
    whole = model.encode(frames)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert torch.equal(model.eval().encode(frames), whole)
    assert torch.equal(torch.cat([model.train().encode(frame) for frame in frames.split(1)]), whole)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert torch.equal(ssvh.signs(torch.tensor([-0.5, 0.0, 0.5])), torch.tensor([-1, -1, 1], dtype=torch.int8))


def test_binary_hidden_states():
    hidden = torch.tensor([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5], requires_grad=True)
    codes = ssvh.binarise(hidden)
    codes.backward(torch.arange(1.0, 8.0))
    assert codes.tolist() == [-1, -1, -1, 1, 1, 1, 1]
    assert hidden.grad.tolist() == [0, 2, 3, 4, 5, 6, 0]


def test_a_step_of_the_lstm_is_its_formula():
    torch.manual_seed(0)
    net, x, hidden, cell = LSTM(5, 3, 2), torch.randn(4, 5), torch.randn(4, 3), torch.randn(4, 3)
    (xi, xf, xg, xo), (hi, hf, hg, ho) = (w.chunk(4, dim=1) for w in (net.input, net.recurrent))
    (pi, pf, po), (bi, bf, bg, bo) = net.peepholes, net.bias.chunk(4)
    i = torch.sigmoid(x @ xi + bi + hidden @ hi + cell * pi)
    f = torch.sigmoid(x @ xf + bf + hidden @ hf + cell * pf)
    new = f * cell + i * torch.tanh(x @ xg + bg + hidden @ hg)
    deviation = ((new - new.mean(0)) ** 2).mean(0).sqrt()
    normed = (new - new.mean(0)) / deviation
    o = torch.sigmoid(x @ xo + bo + hidden @ ho + normed * po)
    hiddens, cells = net(torch.stack([x, x]), hidden, cell, training=True)
    torch.testing.assert_close(cells[0], normed, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hiddens[0], o * normed, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net.running_mean[0], 0.01 * new.mean(0))
    torch.testing.assert_close(net.running_deviation[0], 0.99 + 0.01 * deviation)


def test_pairwise_loss_is_the_plain_form():
    torch.manual_seed(0)
    videos, bits, rows = 20, 6, torch.tensor([3, 17, 5, 8])
    similar = torch.rand(videos, videos) < 0.3
    similar = similar | similar.T | torch.eye(videos, dtype=torch.bool)
    memory = torch.randn(videos, bits, dtype=torch.float64)
    hashes = torch.randn(6, bits, dtype=torch.float64, requires_grad=True)  # two of them of no video
    whole = memory.index_copy(0, rows, hashes[:4])
    target = torch.cat([similar[rows].double(), torch.zeros(2, videos)])
    plain = (hashes @ whole.T / bits - target).square().sum()
    (wanted,) = torch.autograd.grad(plain, hashes)

    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), similar.sum(1).cumsum(0)])
    columns = similar.nonzero()[:, 1].to(torch.int32)
    loss, gram = ssvh.pairwise_loss(hashes, rows, memory, memory.T @ memory, columns, offsets)
    loss.backward()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-12)
    torch.testing.assert_close(hashes.grad, wanted, rtol=1e-12, atol=1e-12)
    assert torch.equal(memory, whole.detach())
    torch.testing.assert_close(gram, whole.T.detach() @ whole.detach(), rtol=1e-12, atol=1e-12)
    assert not gram.requires_grad


def test_the_memory_follows_the_steps(tiny):
    method, state, batches, loss_weights, cast = begun(TINY, tiny)
    for batch in batches:
        gradient_step(method, state, batch, loss_weights, cast)
    memory, gram = state.kept["memory"], state.kept["gram"]
    assert memory.abs().sum(dim=1).all()  # every video has been seen
    torch.testing.assert_close(gram, memory.T @ memory, rtol=1e-4, atol=1e-4)


def test_the_optimizer_clips_its_velocity():
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    optimizer = ClippedSGD([parameter], lr=0.1, momentum=0.9, largest_step=0.05, weight_decay=0.5)
    value, velocity = parameter.detach().numpy().copy(), np.zeros(3)
    for gradient in ([3.0, 0.1, 0.0], [-0.2, 0.3, 0.0], [0.1, -9.0, 0.0]):
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        velocity = np.clip(0.9 * velocity - 0.1 * (np.array(gradient) + 0.5 * value), -0.05, 0.05)
        value = value + velocity
        np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=1e-6)
    assert optimizer.state[parameter]["velocity"].shape == parameter.shape


def test_the_learning_rate_falls():
    method = SSVHMethod(replace(TINY, learning_rate=0.5), 21, 10, 12)
    rates = [method.learning_rate(method.passes()[0], step) for step in (0, 10_000, 20_000)]
    assert rates == pytest.approx([0.5, 0.45, 0.405])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"bits": 1}, "bits is 1: it must be at least 2"),
        ({"batch_size": 1}, "batch_size is 1: it must be at least 2"),
        ({"neighbours": 0}, "neighbours is 0"),
        ({"reach": 6}, "reach is 6: it must be at most one more than neighbours"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"largest_step": 0.0}, "largest_step is 0.0: it must be a number above 0"),
        ({"weight_pairwise": 0.0, "weight_reconstruction": 0.0}, "weight_pairwise is 0.0"),
        ({"published_code": 1}, "published_code is 1: it must be True or False"),
        ({"precision": "float16"}, "precision is 'float16'"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_by_name(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        replace(TINY, **change)


def test_settings_that_do_not_fit_the_data_are_refused(tiny):
    with pytest.raises(ValueError, match="neighbours is 21, but tiny has 21 training videos: choose at most 20"):
        fit(replace(TINY, neighbours=21), tiny, callbacks=[])
    with pytest.raises(ValueError, match="at least 2 frames"):
        SSVHMethod(TINY, 21, 1, 12)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory", torch.zeros(21, 9)),
        ("memory", torch.full((21, 8), torch.nan)),
        ("offsets", torch.zeros(22, dtype=torch.int64)),
        ("similar", torch.full((400,), 21, dtype=torch.int32)),
        ("similar", None),
    ],
    ids=str,
)
def test_a_checkpoint_whose_memory_or_graph_cannot_be_is_refused(tiny, name, value):
    run = fit(replace(TINY, epochs=1), tiny, name="r", callbacks=[])
    (path,) = run.checkpoints()
    tensors = read_tensors(path)
    if value is None:
        del tensors[f"kept.{name}"]
    elif name == "similar":
        tensors["kept.similar"] = value[: len(tensors["kept.similar"])]
    else:
        tensors[f"kept.{name}"] = value
    save_tensors(path, tensors)
    with pytest.warns(RuntimeWarning, match="is damaged"), pytest.raises(OSError, match="every checkpoint is damaged"):
        fit(replace(TINY, epochs=2), tiny, name="r", callbacks=[], resume=True)
