"""AutoSSVH against values of the authors' own modules: every file in WSCH_PARITY_AUTOSSVH (colon-separated), whole.

Limits: tensors within 2e-6 of their largest absolute value, codes and indices exactly, losses within 1e-6 relative,
gradient norms within 1e-4 relative.
"""

import pytest
import torch
import torch.nn.functional as F
from parity import ParityFile, assert_norm, assert_within, parity_files

from wsch_core.methods import autossvh
from wsch_core.methods.autossvh import AutoSSVHMethod, densities, prototype_loss
from wsch_core.methods.parts.layers import binarise, kmeans
from wsch_core.methods.wsch.model import video_codes

SIZES = {"encoder_width": "hidden", "encoder_blocks": "encoder_depth", "decoder_width": "decoder",
         "decoder_blocks": "decoder_depth", "bits": "bits"}  # fmt: skip


@pytest.fixture(scope="module", params=parity_files("autossvh"), ids=lambda path: path.stem)
def case(request) -> ParityFile:
    case = ParityFile(request.param)
    c = case.config
    case.load("autossvh", c["L"], encoder_heads=c["encoder_heads"], decoder_heads=c["decoder_heads"],
              masking_ratio=c["mask_prob"], weight_contrast=c["a"], weight_prototypes=c["b"],
              contrast_temperature=c["temperature"], tau_plus=c["tau_plus"], batch_size=c["B"],
              clusters=", ".join(map(str, c["num_cluster"])), prototype_temperature=c["kmeans_temperature"],
              input_dropout=c["data_drop_rate"])  # fmt: skip
    case.method = AutoSSVHMethod(case.settings, c["N"], c["L"], c["D"])
    return case


def clusterings(case):
    return range(len(case.config["num_cluster"]))


def kept_of(case):
    """The file's clusters, as the method keeps them."""
    counts = [len(case[f"cluster.{r}.centroids"]) for r in clusterings(case)]
    firsts = torch.tensor([0, *counts]).cumsum(0)
    return {
        "prototypes": torch.cat([F.normalize(case[f"cluster.{r}.centroids"], dim=-1) for r in clusterings(case)]),
        "densities": torch.cat([case[f"cluster.{r}.density"] for r in clusterings(case)]),
        "assignment": torch.stack([case[f"cluster.{r}.assignment"] + firsts[r] for r in clusterings(case)]),
        "counts": torch.tensor(counts),
    }


@pytest.fixture
def as_drawn(case, monkeypatch):
    """The file's input dropout, where it has one, and its negatives in place of drawn ones."""
    rate = case.config["data_drop_rate"]

    def dropped(frames, _, generator):
        if "dropout_keep.view1" not in case:
            return frames
        keep = torch.stack([case["dropout_keep.view1"], case["dropout_keep.view2"]])
        seen = case.batch().seen.unsqueeze(-1).expand(-1, -1, -1, keep.shape[-1])
        return frames * keep.gather(2, seen) / (1 - rate)

    negatives = iter([case[f"cluster.{r}.negatives_view{view}"] for r in clusterings(case) for view in (1, 2)])

    def with_negatives(columns, batch, generator):
        chosen = next(negatives)
        assert (columns[chosen] == 0).all()
        return columns.index_fill(0, chosen, 1)

    monkeypatch.setattr(autossvh, "dropped", dropped)
    monkeypatch.setattr(autossvh, "with_negatives", with_negatives)


def test_sizes_are_read_off_the_shapes(case):
    for ours, theirs in SIZES.items():
        assert getattr(case.settings, ours) == case.config[theirs], ours
    assert case.model.frames == case.config["L"]


@torch.no_grad()
def test_a_view_without_dropout(case):
    batch = case.batch()
    seen, unseen = batch.seen[0], batch.unseen[0]
    blocks = case.model.encoder.blocks
    inside = case.outputs_of(blocks[0].attn, blocks[0], case.model.encoder)
    q = case.model.prebinary(batch.visible[0], seen)
    for name, output in zip(("attn0", "block0", "encoder"), inside(), strict=True):
        assert_within(output, case[f"eval.{name}_view1"])
    assert_within(q, case["eval.prebinary_view1"])
    assert torch.equal(binarise(q), case["eval.frame_codes_view1"])
    assert_within(case.model.reconstruct(binarise(q), seen, unseen), case["eval.recon_view1"])


@torch.no_grad()
def test_codes_for_retrieval(case):
    x = case["x"]
    q = case.model.prebinary(x, torch.arange(x.shape[1]))
    assert_within(q, case["eval.prebinary_full"])
    codes = binarise(q)
    assert torch.equal(codes, case["eval.frame_codes_full"])
    assert_within(video_codes(codes), case["pooled_full"])
    assert_within(video_codes(codes), case["cluster.features"][: len(x)])
    assert torch.equal(codes.sum(dim=1).sign(), case["retrieval_codes_reference"])
    zeros = (codes.sum(dim=1) == 0).double().mean().item()
    assert zeros == pytest.approx(float(case["zero_fraction_reference_sign"]), abs=1e-6)
    assert torch.equal(case.model.encode(x).float(), case["retrieval_codes"])


def test_clusters(case):
    """A fixed point of k-means, whose means the file holds normalised; and the densities around the means themselves."""
    features, temperature = case["cluster.features"], case.config["kmeans_temperature"]
    for r in clusterings(case):
        assignment = case[f"cluster.{r}.assignment"]
        used, nearest = assignment.unique(return_inverse=True)
        sizes = nearest.bincount().unsqueeze(1)
        means, found = kmeans(features, torch.zeros(len(used), 1).expand(-1, features.shape[1]).index_add(
            0, nearest, features) / sizes, 1)  # fmt: skip
        assert torch.equal(found, nearest)
        assert_within(F.normalize(means, dim=-1), F.normalize(case[f"cluster.{r}.centroids"][used], dim=-1))
        assert_within(densities(features, means, nearest, temperature, 0.0), case[f"cluster.{r}.density"])


def test_training_with_dropout(case, as_drawn):
    batch = case.batch()
    visible = autossvh.dropped(batch.visible, case.config["data_drop_rate"], None)
    with torch.no_grad():
        codes, reconstructions = autossvh.through(case.model, batch, visible, torch.no_grad())
    for view in (1, 2):
        assert torch.equal(codes[view - 1], case[f"train.frame_codes_view{view}"])
        assert_within(reconstructions[view - 1], case[f"train.recon_view{view}"])


@pytest.mark.parametrize("step", ["warm", "cvh"])
def test_losses_and_gradients(case, as_drawn, step):
    weights = {"reconstruction": 1.0, "contrast": case.config["a"]}
    if step == "cvh":
        weights["prototypes"] = case.config["b"]
    state = case.state
    state.kept = kept_of(case)
    losses, total = case.losses(weights, state=state)
    for name, theirs in (("reconstruction", "reconstruction"), ("contrast", "contrast"), ("prototypes", "cvh")):
        if name in weights:
            assert losses[name].item() == pytest.approx(float(case[f"loss_{theirs}"]), rel=1e-6), name
    assert total.item() == pytest.approx(float(case[f"loss_total.{step}"]), rel=1e-6)
    gradients = case.gradients(total)
    names = case.names(f"gradnorm.{step}.")
    assert gradients.keys() == set(names)
    for name in names:
        assert_norm(gradients[name], case[f"gradnorm.{step}.{name}"], 1e-4, name)


@torch.no_grad()
def test_the_terms_of_the_prototype_loss(case, as_drawn):
    codes = torch.stack([case["train.frame_codes_view1"], case["train.frame_codes_view2"]])
    terms = case.method.prototype_terms(codes, torch.arange(codes.shape[1]), kept_of(case), torch.Generator())
    assert_within(terms.flatten(), case["loss_cvh_terms"], 1e-6)


@torch.no_grad()
def test_the_prototype_loss_is_that_of_columns_written_out(case):
    codes = F.normalize(case["train.frame_codes_view1"].sum(dim=1), dim=-1)
    centers, density = F.normalize(case["cluster.0.centroids"], dim=-1), case["cluster.0.density"]
    own = case["cluster.0.assignment"][: len(codes)]
    negatives = case["cluster.0.negatives_view1"]
    columns = torch.cat([own, negatives])
    plain = F.cross_entropy(codes @ centers[columns].T / density[columns], torch.arange(len(codes)))
    counted = prototype_loss(codes, centers, density, own, columns.bincount(minlength=len(centers)))
    assert counted.item() == pytest.approx(plain.item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["plain", "adv"])
def test_the_frame_sampler(case, kind):
    uniform, normal = case[f"sampler.{kind}.uniform"], case[f"sampler.{kind}.normal"]
    x, expected = case["x"], case[f"sampler.{kind}.indices"]
    scores, chosen, tokens, codes, output = case.model.through_sampler(
        x, expected.shape[1], kind == "adv", uniform, normal
    )
    assert torch.equal(chosen, expected)
    for name, value in (("scores", scores), ("selected", tokens), ("output", output)):
        assert_within(value, case[f"sampler.{kind}.{name}"])
    assert torch.equal(codes, case[f"sampler.{kind}.frame_codes"])
    loss = (output - x).square().mean()
    assert loss.item() == pytest.approx(float(case[f"sampler.{kind}.test_loss"]), rel=1e-6)
    gradients = case.gradients(loss)
    names = case.names(f"gradnorm.sampler_{kind}.")
    assert gradients.keys() == set(names)
    for name in names:
        assert_norm(gradients[name], case[f"gradnorm.sampler_{kind}.{name}"], 1e-4, name)
