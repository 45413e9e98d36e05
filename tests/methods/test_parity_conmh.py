"""ConMH against values of the authors' own modules: every file in WSCH_PARITY_CONMH (colon-separated), whole.

Limits: tensors within 2e-6 of their largest absolute value, codes exactly, losses within 1e-6 relative, gradient norms
within 5e-6 relative, whole gradients and those of the clamped contrast within 5e-6 of their largest.
"""

import pytest
import torch
import torch.nn.functional as F
from parity import ParityFile, assert_norm, assert_within, parity_files

from wsch_core.methods.conmh import ConMHMethod
from wsch_core.methods.parts.layers import binarise
from wsch_core.methods.wsch.losses import contrast_loss

SIZES = {"encoder_width": "width", "encoder_blocks": "encoder_depth", "decoder_width": "decoder_width",
         "decoder_blocks": "decoder_depth", "bits": "bits"}  # fmt: skip


@pytest.fixture(scope="module", params=parity_files("conmh"), ids=lambda path: path.stem)
def case(request) -> ParityFile:
    case = ParityFile(request.param)
    c = case.config
    case.load("conmh", c["frames"], encoder_heads=c["encoder_heads"], decoder_heads=c["decoder_heads"],
              masking_ratio=c["mask_ratio"], weight_contrast=c["contrast_weight"],
              contrast_temperature=c["temperature"], tau_plus=c["tau_plus"], batch_size=c["batch"])  # fmt: skip
    case.method = ConMHMethod(case.settings, c["batch"], c["frames"], c["feature_size"])
    return case


def test_sizes_are_read_off_the_shapes(case):
    for ours, theirs in SIZES.items():
        assert getattr(case.settings, ours) == case.config[theirs], ours


@torch.no_grad()
def test_the_views(case):
    batch = case.batch()
    inside = case.outputs_of(case.model.encoder.blocks[0], case.model.encoder)
    q = case.model.prebinary(batch.visible.flatten(0, 1), batch.seen.flatten(0, 1))
    codes = binarise(q)
    reconstructed = case.model.reconstruct(codes, batch.seen.flatten(0, 1), batch.unseen.flatten(0, 1))
    first_block, encoded = inside()
    assert_within(first_block.chunk(2)[0], case["block1_view1"])
    for view, parts in enumerate(zip(encoded.chunk(2), q.chunk(2), codes.chunk(2), reconstructed.chunk(2)), start=1):  # noqa: B905
        assert_within(parts[0], case[f"encoder_view{view}"])
        assert_within(parts[1], case[f"prebinary_view{view}"])
        assert torch.equal(parts[2], case[f"frame_codes_view{view}"].float())
        assert_within(parts[2].mean(dim=1), case[f"code_view{view}"])
        assert_within(parts[3], case[f"recon_view{view}"])


@torch.no_grad()
def test_codes_for_retrieval(case):
    x = case["x"]
    inside = case.outputs_of(case.model.encoder)
    q = case.model.prebinary(x, torch.arange(x.shape[1]))
    assert_within(inside()[0], case["encoder_full"])
    assert_within(q, case["prebinary_full"])
    assert torch.equal(binarise(q), case["frame_codes_full"].float())
    assert torch.equal(binarise(q).sum(dim=1).sign(), case["retrieval_reference"].float())
    assert torch.equal(case.model.encode(x), case["retrieval_code"])


def test_losses_and_gradients(case):
    losses, total = case.losses({"reconstruction": 1.0, "contrast": case.config["contrast_weight"]})
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(float(case[f"loss_{name}"]), rel=1e-6), name
    assert total.item() == pytest.approx(float(case["loss_total"]), rel=1e-6)
    gradients = case.gradients(total)
    for name in case.names("gradnorm."):
        assert_norm(gradients[name], case[f"gradnorm.{name}"], 5e-6, name)
    assert gradients.keys() == set(case.names("gradnorm."))
    for name in case.names("grad."):
        assert_within(gradients[name], case[f"grad.{name}"], 5e-6)


def test_the_contrast_where_the_maximum_is_active(case):
    views = [case["clamp_in1"].requires_grad_(), case["clamp_in2"].requires_grad_()]
    c = case.config
    codes = torch.stack([F.normalize(view, dim=-1) for view in views])
    loss = contrast_loss(codes, c["temperature"], c["tau_plus"])
    loss.backward()
    assert loss.item() == pytest.approx(float(case["clamp_loss"]), rel=5e-6)
    for number, view in enumerate(views, start=1):
        assert_within(view.grad, case[f"clamp_grad{number}"], 5e-6)
    flat = codes.detach().flatten(0, 1).double()
    similar = (flat @ flat.T / c["temperature"]).exp()
    rows, videos = torch.arange(len(flat)), len(flat) // 2
    positives = similar[rows, rows.roll(videos)]
    count = len(flat) - 2
    raw = (similar.sum(dim=1) - similar.diagonal() - positives - c["tau_plus"] * count * positives) / (
        1 - c["tau_plus"]
    )
    floor = count * torch.tensor(-1 / c["temperature"], dtype=torch.float64).exp()
    assert int((raw < floor).sum()) == int(case["clamp_active_rows"])
