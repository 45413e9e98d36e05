"""BTH against values of the authors' own modules: every file in WSCH_PARITY_BTH (colon-separated), whole.

Limits: tensors within 2e-6 of their largest absolute value; codes, nearest anchors and tags exactly; losses within 1e-6
relative, gradient norms within 1e-5 relative.
"""

from dataclasses import replace

import pytest
import torch
from parity import ParityFile, assert_norm, assert_within, parity_files

from wsch_core.data.loader import Batch
from wsch_core.experiments.published import published_network
from wsch_core.methods.bth import BTHMethod, anchor_loss, neighbour_loss
from wsch_core.methods.parts.layers import binarise, kmeans
from wsch_core.methods.parts.neighbours import ITERATIONS, Neighbours, nearest_anchors

NAMES = {"reconstruction": "mask", "neighbours": "neighbour", "anchors": "cluster"}


@pytest.fixture(scope="module", params=parity_files("bth"), ids=lambda path: path.stem)
def case(request) -> ParityFile:
    case = ParityFile(request.param)
    c = case.config
    case.load("bth", c["frames"], dropout=0.0, anchors=c["start_centres"], batch_size=c["videos"],
              **{f"weight_{ours}": c[f"weight_{theirs}"] for ours, theirs in NAMES.items()})  # fmt: skip
    return case


@pytest.fixture
def inputs(case) -> Batch:
    """A batch of pairs; each video's clean frames, then those it is corrupted to."""
    frames = case.config["frames"]
    clean, corrupted = (torch.stack([case[f"x{v}{kind}"] for v in (1, 2)]) for kind in ("_clean", ""))
    videos = torch.stack([case["item1"], case["item2"]])
    source = torch.arange(frames, 2 * frames).expand(videos.shape[1], 2, -1)
    more = {"source": source, "similar": case["is_similar"], "anchor": case["prep_nearest3"][videos, 0].T}
    return Batch(videos, torch.cat([clean, corrupted], dim=2), torch.empty(0), more=more)


def method_of(case, published: bool) -> BTHMethod:
    c = case.config
    settings = replace(case.settings, published_code=published)
    return BTHMethod(settings, c["train_videos"], c["frames"], c["feature_size"])


def names_of_weights(case) -> dict[str, str]:
    """Published name -> ours, told by the weights themselves: loading gives each a number of its own."""
    numbered = {
        name: torch.full_like(case[f"param.{name}"], number)
        for number, name in enumerate(case.names("param."), start=1)
    }
    _, network = published_network(numbered, "bth", case.config["frames"])
    ours = {int(weight.flatten()[0]): name for name, weight in network.state_dict().items()}
    return {name: ours[number] for number, name in enumerate(numbered, start=1) if number in ours}


def test_sizes_are_read_off_the_shapes(case):
    c = case.config
    assert (case.settings.bits, case.settings.encoder_width) == (c["bits"], c["hidden"])
    assert c["layers"] == c["heads"] == 1


@torch.no_grad()
def test_the_network(case):
    embedded = []
    hook = case.model.attention_norm.register_forward_pre_hook(lambda module, given: embedded.append(given[0]))
    for video in (1, 2):
        hidden = case.model.hidden(case[f"x{video}"])
        assert_within(hidden, case[f"hidden{video}"])
        z = case.model.prebinary(hidden)
        assert_within(z, case[f"prebinary{video}"])
        codes = binarise(z)
        assert torch.equal(codes, case[f"frame_codes{video}"])
        assert_within(codes.mean(dim=1), case[f"code_mean{video}"])
        assert_within(case.model.restore(codes), case[f"recon{video}"])
    hook.remove()
    assert_within(embedded[0], case["embed1"])


@torch.no_grad()
def test_codes_for_retrieval(case):
    x = case["x1_clean"]
    codes = binarise(case.model.prebinary(case.model.hidden(x)))
    assert_within(codes.mean(dim=1), case["retrieval_mean"])
    expected = case["retrieval_codes_reference"]
    assert torch.equal(codes.sum(dim=1).sign(), expected)
    assert (expected == 0).double().mean().item() == pytest.approx(
        float(case["zero_fraction_reference_sign"]), abs=1e-6
    )
    encoded = case.model.encode(x).float()
    assert torch.equal(encoded[expected != 0], expected[expected != 0])
    assert (encoded.abs() == 1).all()


def test_latents(case):
    with torch.no_grad():
        assert_within(case.model.hidden(case["latent_features"]).mean(dim=1), case["latent"])


def test_anchors(case):
    latents = case["prep_latent"]
    anchors, nearest = kmeans(latents, latents[case["prep_start_index"]], ITERATIONS)
    assert len(anchors) == case.config["anchors"]
    assert_within(anchors, case["prep_anchors"])
    assert torch.equal(nearest, case["prep_nearest3"][:, 0])


def test_the_graph(case):
    nearest, distances = nearest_anchors(case["prep_latent"], case["prep_anchors"])
    assert torch.equal(nearest[:, :3], case["prep_nearest3"])
    neighbours = Neighbours(nearest, distances, len(case["prep_anchors"]))
    for k in (3, 4, 5):
        expected = case[f"prep_Z{k}"]
        assert_within(torch.from_numpy(neighbours.entries[k].toarray()).float()[: len(expected)], expected)
        sigma = distances[:, k - 1].mean() / 2**0.5
        assert sigma.item() == pytest.approx(float(case[f"prep_sigma{k}"]), rel=1e-6)
    tags = neighbours.tags(0, len(nearest)).toarray()
    assert torch.equal(torch.from_numpy(tags), case["prep_tags"])


@pytest.mark.parametrize(("key", "published"), [("total", True), ("total_clean", False)])
def test_losses_and_gradients_of_stage_2(case, inputs, key, published):
    case.method, c, state = method_of(case, published), case.config, case.state
    state.kept = {"anchors": case["prep_anchors"]}
    assert_within(state.kept["anchors"][inputs.more["anchor"].T], torch.stack([case["n1"], case["n2"]]))
    losses, total = case.losses({ours: c[f"weight_{theirs}"] for ours, theirs in NAMES.items()}, inputs, state)
    keys = NAMES | {"reconstruction": "mask" if published else "mask_clean"}
    for ours, theirs in keys.items():
        assert losses[ours].item() == pytest.approx(float(case[f"loss_{theirs}"]), rel=1e-6), ours
    if published:
        assert total.item() == pytest.approx(float(case["loss_total"]), rel=1e-6)
    check_norms(case, f"gradnorm.{key}.", total)


def test_gradients_of_stage_1(case, inputs):
    case.method = method_of(case, published=True)
    _, total = case.losses({"reconstruction": 1.0}, inputs)
    check_norms(case, "gradnorm.stage1.", total)


def check_norms(case, prefix, total):
    gradients, ours = case.gradients(total), names_of_weights(case)
    names = case.names(prefix)
    assert {ours[name] for name in names} == gradients.keys()
    for name in names:
        assert_norm(gradients[ours[name]], case[f"{prefix}{name}"], 1e-5, name)


def test_the_losses_of_pairs_are_those_of_the_text(case):
    """From the file's own codes and hidden values."""
    codes = torch.stack([case["frame_codes1"], case["frame_codes2"]])
    neighbours = neighbour_loss(codes, case["is_similar"])
    assert neighbours.item() == pytest.approx(float(case["loss_neighbour"]), rel=1e-6)
    hidden, near = torch.stack([case["hidden1"], case["hidden2"]]), torch.stack([case["n1"], case["n2"]])
    assert anchor_loss(hidden, near).item() == pytest.approx(float(case["loss_cluster"]), rel=1e-6)
