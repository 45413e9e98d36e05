"""The network and the losses against reference values computed by an independent implementation.

Every file named in the environment variable WSCH_PARITY_FILES (colon-separated) is checked for everything it holds; all
sizes are read from the file. Limits: forward tensors within 2e-6 of their largest absolute value, codes exactly, losses
within 1e-6, gradient norms within 1e-4 relative. Ours are computed in double precision: what is left is the reference's
own rounding, the same on every machine.
"""

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from shared import PARITY

from wsch_core.data.features import Features, directions
from wsch_core.experiments.reference import load_reference_weights
from wsch_core.methods.wsch.losses import cluster_loss, contrast_loss, reconstruction_loss
from wsch_core.methods.wsch.model import WSCH, binarise, majority, video_codes

FILES = [path for path in os.environ.get("WSCH_PARITY_FILES", str(PARITY)).split(":") if path]
DEVICE = os.environ.get("WSCH_TEST_DEVICE", "cpu")
STEPS = {"cluster": "weight_cluster", "contrast": "weight_contrast"}


class Case:
    """One parity file: its arrays, the network with its weights, and what our code computes from its inputs."""

    def __init__(self, path: str):
        with np.load(path) as file:
            self.arrays = {name: file[name] for name in file.files}
        self.config = json.loads(str(self.arrays["config_json"]))
        weights = {n.removeprefix("param."): self.tensor(n) for n in self.arrays if n.startswith("param.")}
        self.model, self.centers = load_reference_weights(weights)
        self.model.to(DEVICE).double()
        self.centers = self.centers.double()
        frames = self.tensor("x")
        self.features = Features(frames)
        self.hidden = int(self.arrays["mask1"][0].sum())
        masks = torch.stack([self.tensor("mask1"), self.tensor("mask2")])
        visible_numbers = (~masks).int().argsort(dim=-1, descending=True, stable=True)
        self.views = visible_numbers[..., : frames.shape[1] - self.hidden]

    def tensor(self, name: str) -> torch.Tensor:
        value = torch.from_numpy(np.array(self.arrays[name])).to(DEVICE)
        return value.double() if value.is_floating_point() else value

    def visible(self) -> torch.Tensor:
        videos = torch.arange(len(self.features), device=DEVICE).repeat(2)
        return self.features.gather(videos, self.views.flatten(0, 1))

    def losses(self) -> dict[str, torch.Tensor]:
        visible = self.visible()
        codes, reconstructions = self.model(visible, self.hidden)
        sums = self.features.direction_sums.repeat(2, 1) - directions(visible).sum(dim=1)
        pair = lambda tensor: tensor.unflatten(0, (2, -1))  # noqa: E731
        c = self.config
        return {
            "reconstruction": reconstruction_loss(pair(reconstructions), pair(sums / self.hidden)),
            "cluster": cluster_loss(pair(codes), self.centers, c["tau_cluster"]),
            "contrast": contrast_loss(pair(video_codes(codes)), c["tau_contrast"], c["tau_plus"]),
        }


@cache
def load_case(path: str) -> Case:
    return Case(path)


@pytest.fixture(params=FILES, ids=lambda path: Path(path).stem)
def case(request) -> Case:
    return load_case(request.param)


def assert_within(actual: torch.Tensor, expected: torch.Tensor, limit: float = 2e-6) -> None:
    assert actual.shape == expected.shape
    difference = (actual - expected).abs().max().item()
    assert difference <= limit * expected.abs().max().item(), difference


def test_sizes(case):
    c = case.config
    assert case.model.bits == c["bits"]
    assert case.features.tensor.shape == (c["B"], c["L"], c["D"])
    assert case.model.encoder.input_projection.weight.shape == (c["hidden"], c["D"])
    assert case.model.decoder.input_projection.weight.shape == (c["decoder"], c["bits"])


@torch.no_grad()
def test_forward(case):
    view = case.visible()[: len(case.features)]
    assert_within(case.model.encoder.mixer(case.tensor("ssd_in")), case.tensor("ssd_out"))
    tokens = case.model.encoder(view)
    assert_within(tokens, case.tensor("encoder_view1"))
    prebinary = case.model.hash_layer(tokens)
    assert_within(prebinary, case.tensor("prebinary_view1"))
    codes, reconstruction = case.model(view, case.hidden)
    assert torch.equal(codes, case.tensor("frame_codes_view1"))
    assert_within(reconstruction.unsqueeze(1).expand(-1, case.hidden, -1), case.tensor("recon_view1"))


@torch.no_grad()
def test_video_codes(case):
    visible = case.visible().unflatten(0, (2, -1))
    for number, view in enumerate(visible, start=1):
        assert_within(video_codes(case.model.frame_codes(view)), case.tensor(f"code_view{number}"))
    frames = case.features.tensor
    prebinary = case.model.hash_layer(case.model.encoder(frames))
    pooled = case.tensor("pooled_full")
    assert_within(video_codes(binarise(prebinary)), pooled)
    ties = binarise(prebinary).sum(dim=1) == 0
    assert ties.float().mean().item() == pytest.approx(float(case.arrays["zero_fraction_reference_sign"]), abs=1e-6)
    codes = case.model.encode(frames)
    assert torch.equal(codes, majority(binarise(prebinary), prebinary))
    assert torch.equal(codes[~ties].float(), pooled.sign()[~ties])


def test_losses(case):
    for name, loss in case.losses().items():
        assert loss.item() == pytest.approx(float(case.arrays[f"loss_{name}"]), abs=1e-6), name


@pytest.mark.parametrize("task", STEPS)
def test_gradient_norms(case, task):
    case.model.zero_grad(set_to_none=True)
    losses = case.losses()
    (losses["reconstruction"] + case.config[STEPS[task]] * losses[task]).backward()
    norms = {name: p.grad.norm().item() for name, p in case.model.named_parameters()}
    checked = 0
    for name, ours in WSCH_NAMES(case.model).items():
        expected = float(case.arrays[f"gradnorm.{task}_step.{name}"])
        assert norms[ours] == pytest.approx(expected, rel=1e-4), name
        checked += 1
    assert checked == len(norms) == sum(key.startswith(f"gradnorm.{task}_step.") for key in case.arrays)


def WSCH_NAMES(model: WSCH) -> dict[str, str]:
    from wsch_core.experiments.reference import NAMES

    return NAMES
