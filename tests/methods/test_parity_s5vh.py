"""S5VH against values computed by the authors' own modules.

Every file named in the environment variable WSCH_PARITY_S5VH (colon-separated) is checked for everything it holds; all
sizes are read from the file. Limits: tensors within 2e-6 of their largest absolute value, codes, indices and centres
exactly, losses within 1e-6, gradient norms within 1e-4 relative, latent values and anchors within 2e-5.
"""

import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from shared import FIXTURES

from wsch_core.data.features import Features
from wsch_core.data.loader import Drawn, visible_batches
from wsch_core.experiments.published import published_network
from wsch_core.methods.method import State
from wsch_core.methods.parts.hash_centers import SEED, least_distance, spread_centers, start_centers
from wsch_core.methods.parts.layers import binarise, kmeans
from wsch_core.methods.s5vh import ASSIGNMENTS, S5VHMethod, principal_components, whole_videos
from wsch_core.training.device import autocast

FILES = [path for path in os.environ.get("WSCH_PARITY_S5VH", str(FIXTURES / "parity_s5vh.npz")).split(":") if path]
CPU = torch.device("cpu")
STAGES = {"warm": 10**6, "align": 0}  # the epoch from which labels move


class Case:
    """One parity file: its arrays, the network with its weights, and both views of its videos as a batch."""

    def __init__(self, path: str):
        with np.load(path) as file:
            self.arrays = {name: file[name] for name in file.files}
        self.config = c = json.loads(str(self.arrays["config_json"]))
        self.names = [name.removeprefix("param.") for name in self.arrays if name.startswith("param.")]
        self.settings, self.model = published_network(
            {name: self.tensor(f"param.{name}") for name in self.names}, "s5vh", c["L"],
            masking_ratio=c["mask_ratio"], tau_plus=c["tau_plus"], contrast_temperature=c["temperature"],
            weight_contrast=c["alpha"], weight_cluster=c["a_cluster"], cluster_temperature=c["temperature_cluster"],
            label_rate=c["smoothing_alpha"],
        )  # fmt: skip
        masks = torch.stack([self.tensor("mask1"), self.tensor("mask2")])
        self.seen = (~masks).int().argsort(dim=-1, descending=True, stable=True)[..., : -int(masks[0, 0].sum())]
        drawn = Drawn(torch.arange(c["B"]).unsqueeze(0), self.seen, "hidden")
        (self.batch,) = visible_batches(Features(self.tensor("x")), drawn, c["B"], CPU)
        self.kept_blocks = torch.cat(
            [self.tensor(f"droppath_keep.{pass_}") for pass_ in ("view1", "view2", "label")], 1
        )

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(self.arrays[name]))

    @cache  # noqa: B019 (cases live as long as the tests)
    @torch.enable_grad()
    def step(self, stage: str):
        """The losses of a step, their weighted sum, the codes, its gradients and the labels afterwards."""
        settings = replace(self.settings, labels_move_from=STAGES[stage])
        method = S5VHMethod(settings, max(self.config["B"], settings.clusters), self.config["L"], self.config["D"])
        labels = self.tensor({"warm": "labels_onehot", "align": "labels_soft"}[stage]).clone()
        state, weights = State(self.model, None, torch.Generator(), {"labels": labels}), method.weights(None, None)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.model, "draw_kept_blocks", lambda videos, generator: self.kept_blocks)
            losses, codes = method.losses(self.batch, weights, state, autocast(CPU, "float32"))
        total = sum(weight * losses[name] for name, weight in weights.items())
        named = dict(self.model.named_parameters())
        gradients = dict(zip(named, torch.autograd.grad(total, list(named.values())), strict=True))
        return losses, total, codes, gradients, labels


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
    assert case.tensor("x").shape == (c["B"], c["L"], c["D"])
    sizes = {"bits": "bits", "clusters": "nclusters", "encoder_width": "hidden", "encoder_blocks": "encoder_depth",
             "decoder_width": "decoder"}  # fmt: skip
    assert {name: getattr(case.settings, name) for name in sizes} == {name: c[key] for name, key in sizes.items()}
    assert case.seen.shape[-1] == c["L"] - int(c["mask_ratio"] * c["L"])
    assert c["decoder_depth"] == len(case.model.decoder.blocks)
    assert torch.equal(whole_videos(case.batch), case.tensor("x"))


@torch.no_grad()
def test_forward(case):
    model, view, seen = case.model, case.batch.visible[0], case.batch.seen[0]
    outputs = {}
    block = model.encoder.blocks[0]
    hooks = [
        block.norm1.register_forward_hook(lambda module, inputs, output: outputs.update(mamba_in=output)),
        block.mamba.register_forward_hook(lambda module, inputs, output: outputs.update(mamba_out=output.chunk(2)[0])),
        block.register_forward_hook(lambda module, inputs, output: outputs.update(block0=output)),
        model.encoder.register_forward_hook(lambda module, inputs, output: outputs.update(encoder=output)),
    ]
    outputs["prebinary"] = model.prebinary(view, seen)
    for hook in hooks:
        hook.remove()
    outputs["frame_codes"] = binarise(outputs["prebinary"])
    outputs["cluster_logits"] = model.classifier(outputs["frame_codes"].mean(dim=1))
    outputs["recon"] = model.reconstruct(outputs["frame_codes"], seen, case.batch.unseen[0])
    for name, output in outputs.items():
        assert_within(output, case.tensor(f"eval.{name}_view1"), 0 if name == "frame_codes" else 2e-6)
    assert len(outputs) == sum(name.startswith("eval.") and name.endswith("_view1") for name in case.arrays)


@torch.no_grad()
def test_retrieval(case):
    frames, numbers = case.tensor("x"), torch.arange(case.config["L"])
    prebinary = case.model.prebinary(frames, numbers)
    assert_within(prebinary, case.tensor("eval.prebinary_full"))
    assert_within(
        case.model.binary(case.model.encoder(frames, numbers, None)), case.tensor("eval.prebinary_full_without_ln")
    )
    codes = binarise(prebinary)
    assert torch.equal(codes, case.tensor("eval.frame_codes_full"))
    ternary = codes.mean(dim=1).sign()
    assert torch.equal(ternary, case.tensor("retrieval_codes_reference"))
    assert (ternary == 0).float().mean().item() == pytest.approx(float(case.arrays["zero_fraction_reference_sign"]))
    assert torch.equal(case.model.encode(frames).float(), case.tensor("retrieval_codes"))


@torch.no_grad()
def test_training_passes(case):
    count = case.config["B"]
    for view in range(2):
        kept = case.kept_blocks[:, view * count : (view + 1) * count]
        codes = binarise(case.model.prebinary(case.batch.visible[view], case.batch.seen[view], kept))
        assert torch.equal(codes, case.tensor(f"train.frame_codes_view{view + 1}"))
        assert torch.equal(codes, case.step("warm")[2][view])
        assert_within(case.model.classifier(codes.mean(dim=1)), case.tensor(f"train.cluster_logits_view{view + 1}"))
        decoded = case.model.reconstruct(codes, case.batch.seen[view], case.batch.unseen[view])
        assert_within(decoded, case.tensor(f"train.recon_view{view + 1}"))


@pytest.mark.parametrize("stage", STAGES)
def test_losses(case, stage):
    losses, total, *_ = case.step(stage)
    assert total.item() == pytest.approx(float(case.arrays[f"loss_total.{stage}"]), rel=1e-6, abs=1e-6)
    for name, loss in losses.items():
        key = f"loss_{name}" if f"loss_{name}" in case.arrays else f"loss_{name}.{stage}"
        assert loss.item() == pytest.approx(float(case.arrays[key]), rel=1e-6, abs=1e-6), name


@torch.no_grad()
def test_labels(case):
    method = S5VHMethod(
        case.settings, max(case.config["B"], case.settings.clusters), case.config["L"], case.config["D"]
    )
    kept = case.kept_blocks[:, -case.config["B"] :]
    state, cast = State(case.model, None, torch.Generator()), autocast(CPU, "float32")
    scores = method.label_scores(case.tensor("x"), state, cast, kept)
    assert_within(scores, case.tensor("label_pred_logits"))
    assert_within(case.step("align")[4], case.tensor("labels_after"))
    assert torch.equal(case.step("warm")[4], case.tensor("labels_onehot"))


@pytest.mark.parametrize("stage", STAGES)
def test_gradient_norms(case, stage):
    gradients = case.step(stage)[3]
    for name in case.names:
        ours = gradients[name.replace(".mamba1.", ".mamba.")].norm().item()
        assert ours == pytest.approx(float(case.arrays[f"gradnorm.{stage}.{name}"]), rel=1e-4), name
    assert len(gradients) == sum(name.startswith(f"gradnorm.{stage}.") for name in case.arrays)


def test_principal_components(case):
    prep = case.config["prep"]
    latent, expected = principal_components(case.tensor("prep.video_means"), prep["latent"]), case.tensor("prep.latent")
    assert latent.shape == (prep["N"], prep["latent"])
    assert_within(latent * (latent * expected).sum(dim=0).sign(), expected, 2e-5)  # axes are free in sign


def test_anchors(case):
    latent = case.tensor("prep.latent")
    means, nearest = kmeans(latent, latent[case.tensor("prep.anchor_init_index")], ASSIGNMENTS)
    order = list(dict.fromkeys(nearest.tolist()))  # theirs are numbered as they first appear among the videos
    assert_within(means[order], case.tensor("prep.anchors"), 2e-5)
    closest = case.tensor("prep.nearest3")
    assert torch.equal(torch.tensor(order)[closest[:, 0]], nearest)
    assert torch.equal(torch.cdist(latent, means[order]).argsort(dim=1)[:, :3], closest)


def test_semantic_centers(case):
    """The published recipe's faiss, from the same latent values; what it finds is all that centres are spread for."""
    latent, found = case.arrays["prep.latent"], case.arrays["prep.semantic_centers"]
    clusters = faiss.Kmeans(
        latent.shape[1], len(found), niter=20, nredo=5, seed=1, max_points_per_centroid=200, min_points_per_centroid=1
    )
    clusters.train(latent)
    assert np.array_equal(clusters.assign(latent)[1], case.arrays["prep.semantic_assignment"])
    unit = clusters.centroids / np.linalg.norm(clusters.centroids, axis=1, keepdims=True)
    assert_within(torch.from_numpy(unit), torch.from_numpy(found), 2e-5)


def test_the_start_of_hash_centers(case):
    count, bits = case.arrays["prep.hash_centers_init"].shape
    assert least_distance(count, bits) == int(case.arrays["prep.d_max"])
    start = start_centers(count, bits, np.random.RandomState(SEED))
    assert np.array_equal(start, case.arrays["prep.hash_centers_init"])
    assert np.array_equal(start_centers(20, 8, None), case.arrays["prep.csq_extra_20x8"])


def test_the_first_sweep_of_hash_centers(case):
    centers, _, values = spread_centers(meanings(case), case.config["prep"]["bits"], sweeps=1)
    assert np.array_equal(centers, case.arrays["prep.hash_centers_first_sweep"])
    assert values == pytest.approx(case.arrays["prep.objective_per_sweep"][:1])


@pytest.mark.slow
def test_hash_centers(case):
    centers, sweeps, values = spread_centers(meanings(case), case.config["prep"]["bits"], sweeps=20)
    assert np.array_equal(sweeps[0], case.arrays["prep.hash_centers_first_sweep"])
    assert np.array_equal(centers, case.arrays["prep.hash_centers"])
    assert values == pytest.approx(case.arrays["prep.objective_per_sweep"])


def meanings(case: Case) -> np.ndarray:
    return case.arrays["prep.semantic_centers"].astype(np.float64)
