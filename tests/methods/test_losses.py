import math

import literal
import pytest
import torch

from wsch_core.data.features import Features
from wsch_core.data.loader import Drawn, visible_batches
from wsch_core.methods.method import State
from wsch_core.methods.wsch.losses import cluster_loss, contrast_loss, reconstruction_loss
from wsch_core.methods.wsch.method import WSCHMethod
from wsch_core.methods.wsch.model import WSCH, video_codes
from wsch_core.methods.wsch.settings import Settings
from wsch_core.methods.wsch.views import draw_views
from wsch_core.training.device import autocast

WEIGHTS = {"reconstruction": 1.0, "cluster": 0.02, "contrast": 1.0}
FRAMES = 10
PLAIN = autocast(torch.device("cpu"), "float32")


def make_case(batch=6, frames=FRAMES, hidden=6, seed=0, count=2, **kind):
    """A network, its centres, videos (one frame of them all zero) and views, in float64."""
    torch.manual_seed(seed)
    model = WSCH(feature_size=12, bits=16, encoder_width=64, decoder_width=32, **kind).double()
    torch.nn.init.normal_(model.decoder.mask_token)
    videos = torch.randn(batch, frames, 12, dtype=torch.float64)
    videos[0, 3] = 0
    views = draw_views(batch, frames, hidden, torch.Generator().manual_seed(seed), count)
    state = State(model, None, None, {"centers": torch.randn(5, 16, dtype=torch.float64).sign()})
    return state, videos, views


def batch_of(videos, views, wanted="sums"):
    """All videos as one batch."""
    drawn = Drawn(torch.arange(6).unsqueeze(0), views, wanted)
    return next(visible_batches(Features(videos), drawn, 6, torch.device("cpu")))


def losses_of(batch, weights, state, settings):
    method = WSCHMethod(settings, 800, FRAMES, 12)
    return method.losses(batch, weights, state, PLAIN)


def assert_same(state, fast, slow, loss_tolerance, gradient_tolerance):
    """Both ways give the same losses, task by task, and the same gradient of every parameter."""
    gradients = []
    for losses in (fast, slow):
        state.model.zero_grad()
        sum(weight * losses[task] for task, weight in WEIGHTS.items()).backward()
        gradients.append({name: p.grad.clone() for name, p in state.model.named_parameters()})
    for task in WEIGHTS:
        torch.testing.assert_close(fast[task], slow[task], **loss_tolerance)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], **gradient_tolerance)


@pytest.mark.parametrize(("hidden", "count"), [(1, 2), (3, 2), (6, 2), (9, 2), (8, 3), (8, 4), (3, 4), (9, 10)])
def test_shortcuts_equal_the_literal_method(hidden, count):
    """Reading only visible frames, one mask query, all views in one batch: the same losses and gradients."""
    state, videos, views = make_case(hidden=hidden, count=count)
    settings = Settings()
    fast, _ = losses_of(batch_of(videos, views), WEIGHTS, state, settings)
    slow = literal.training_losses(state.model, videos, views, state.kept["centers"], settings)
    assert_same(state, fast, slow, {"rtol": 1e-12, "atol": 1e-12}, {"rtol": 1e-9, "atol": 1e-12})


@pytest.mark.parametrize("hidden", [1, 6, 9])
def test_decoding_with_positions_equals_the_literal_method(hidden):
    state, videos, views = make_case(hidden=hidden, decoder_positions="sinusoidal")
    settings = Settings(decoder_positions="sinusoidal")
    fast, _ = losses_of(batch_of(videos, views, "hidden"), WEIGHTS, state, settings)
    slow = literal.training_losses(state.model, videos, views, state.kept["centers"], settings)
    # its positions are float32
    assert_same(state, fast, slow, {"rtol": 1e-5, "atol": 1e-6}, {"rtol": 1e-4, "atol": 1e-6})


def test_with_positions_hidden_frames_have_reconstructions_of_their_own():
    model = make_case(decoder_positions="sinusoidal")[0].model
    seen, unseen = torch.tensor([[0, 2, 5]]), torch.tensor([[1, 3, 4]])
    frames = torch.randn(1, 3, 12, dtype=torch.float64)
    _, one = model.reconstruct_each(frames, seen, unseen)
    assert not torch.allclose(one[:, 0], one[:, 1])
    _, other = model.reconstruct_each(frames, seen + 4, unseen + 4)
    assert not torch.allclose(one, other)


def test_reconstruction_bounds():
    directions = torch.tensor([[[1.0, 0], [0, 1]]] * 2)
    assert reconstruction_loss(directions * 3, directions).item() == pytest.approx(0, abs=1e-6)
    assert reconstruction_loss(-directions, directions).item() == pytest.approx(4)
    assert reconstruction_loss(torch.zeros(2, 2, 2), directions).item() == pytest.approx(2)


def test_cluster_takes_the_first_of_equally_near_centres():
    codes = torch.tensor([[1.0, 1, 1, -1], [1, 1, -1, 1]]).expand(2, 1, 2, 4).clone().requires_grad_()
    centers = torch.tensor([[1.0, 1, 1, -1], [1, 1, -1, 1], [-1, -1, -1, -1]])
    loss = cluster_loss(codes, centers)
    assert loss.item() == pytest.approx(2 * literal.cluster(codes[0].detach(), centers, 0.2).item(), rel=1e-6)
    loss.backward()
    towards = -codes.grad.sum(dim=(0, 1, 2))
    assert towards[2] > 0 > towards[3]  # towards the first centre, away from the second


def test_swapped_targets_use_the_other_view():
    codes = torch.tensor([[[[1.0, 1, 1, 1]]], [[[-1, -1, -1, 1]]]])
    centers = torch.tensor([[1.0, 1, 1, 1], [-1, -1, -1, -1]])
    own, swapped = cluster_loss(codes, centers), cluster_loss(codes, centers, targets="swapped")
    similarities = torch.tensor([[1.0, -1.0], [-0.5, 0.5]]) / 0.2
    logs = torch.log_softmax(similarities, dim=1)
    assert own.item() == pytest.approx(-(logs[0, 0] + logs[1, 1]).item(), rel=1e-5)
    assert swapped.item() == pytest.approx(-(logs[0, 1] + logs[1, 0]).item(), rel=1e-5)


def test_swapped_targets_are_never_the_views_own():
    codes = torch.tensor([[1.0, 1, 1, 1], [-1, -1, 1, 1], [1, -1, -1, 1]]).view(3, 1, 1, 4)
    logs = torch.log_softmax(codes.view(3, 4) @ codes.view(3, 4).T / 4 / 0.2, dim=1)
    expected = -2 / 3 * (logs[0, 2] + logs[1, 0] + logs[2, 1])
    assert cluster_loss(codes, codes.view(3, 4), targets="swapped").item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("batch", "views"), [(1, 2), (2, 2), (7, 2), (1, 4), (7, 3), (7, 4)])
def test_contrast_equals_its_definition(batch, views):
    torch.manual_seed(batch)
    codes = torch.nn.functional.normalize(torch.randn(views, batch, 8, dtype=torch.float64), dim=-1)
    expected = literal.contrast(codes, 0.5, 0.1)
    torch.testing.assert_close(contrast_loss(codes), torch.as_tensor(expected, dtype=codes.dtype), rtol=1e-7, atol=1e-7)


def test_contrast_floor_holds_where_negatives_are_opposite():
    """Two videos with opposite codes: the debiased negatives fall below their floor 2 exp(-2)."""
    codes = torch.tensor([[[1.0, 0], [-1, 0]]] * 2)
    positive, floor = math.exp(2), 2 * math.exp(-2)
    assert 2 * math.exp(-2) - 0.1 * 2 * positive < floor * 0.9
    assert contrast_loss(codes).item() == pytest.approx(-math.log(positive / (positive + floor)), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 0.1, 0.05, 0.03])
def test_contrast_is_exact_at_small_temperatures(temperature):
    torch.manual_seed(0)
    codes = torch.nn.functional.normalize(torch.randn(2, 9, 16), dim=-1)
    exact = literal.contrast(codes.double(), temperature, 0.1)
    assert contrast_loss(codes, temperature).item() == pytest.approx(float(exact), rel=1e-4)


def test_one_video_alone_has_no_contrast():
    assert contrast_loss(torch.tensor([[[1.0, 0]], [[0, 1]]])).item() == 0


def test_two_views_give_the_published_contrast_to_the_bit():
    """The formula for two views alone, without any factor for their number."""
    codes = torch.nn.functional.normalize(torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    flat, itself = codes.flatten(0, 1), torch.arange(18)
    logits = flat @ flat.T / 0.5
    positives = logits[itself, itself.roll(9)]
    foreign = itself % 9 != (itself % 9).unsqueeze(1)
    negatives = torch.where(foreign, logits - positives.unsqueeze(1), -torch.inf).exp().sum(dim=1)
    debiased = torch.maximum((negatives - 0.1 * 16) / 0.9, 16 * (-2 - positives).exp())
    assert contrast_loss(codes).equal(debiased.log1p().mean())


def test_the_order_of_views_does_not_matter():
    codes = torch.nn.functional.normalize(torch.randn(4, 5, 8, dtype=torch.float64), dim=-1)
    torch.testing.assert_close(contrast_loss(codes), contrast_loss(codes[[2, 0, 3, 1]]))


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("tasks", [(), ("cluster",), ("contrast",), ("cluster", "contrast")])
def test_gradient_reaches_every_parameter(tasks, count):
    state, videos, views = make_case(count=count)
    weights = {task: WEIGHTS[task] for task in ("reconstruction", *tasks)}
    losses, _ = losses_of(batch_of(videos, views), weights, state, Settings())
    sum(weight * losses[task] for task, weight in weights.items()).backward()
    for name, parameter in state.model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_without_reconstruction_the_decoder_is_left_alone():
    state, videos, views = make_case()
    weights = {"contrast": 1.0}
    losses, _ = losses_of(batch_of(videos, views), weights, state, Settings())
    losses["contrast"].backward()
    assert losses.keys() == {"contrast"}
    for name, parameter in state.model.named_parameters():
        assert (parameter.grad is None) == name.startswith("decoder."), name


def test_video_codes_are_the_normalised_mean():
    codes = torch.randn(4, 3, 8).sign()
    mean = codes.mean(dim=1)
    torch.testing.assert_close(video_codes(codes), mean / mean.norm(dim=-1, keepdim=True))
