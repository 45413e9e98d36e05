"""SSVH against values computed by the authors' own modules.

Every file named in the environment variable WSCH_PARITY_SSVH (colon-separated) is checked for everything it holds; all
sizes are read from the file. Limits: tensors within 1e-5 of their largest absolute value, codes, neighbours, overlaps and
similar videos exactly, losses within 5e-6 and gradient norms within 1e-4 relative.
"""

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from shared import FIXTURES

from wsch_core.methods.parts.similar import nearest_videos, overlaps, similar_videos
from wsch_core.methods.ssvh import (
    SSVH,
    ClippedSGD,
    binarise,
    pairwise_loss,
    quantisation_loss,
    reconstruction_loss,
    signs,
)

FILES = [path for path in os.environ.get("WSCH_PARITY_SSVH", str(FIXTURES / "parity_ssvh.npz")).split(":") if path]
NETS = {  # theirs -> ours
    "net_lu": "lower",
    "net_en_hiera": "upper",
    "net_ru": "backwards.lower",
    "net_rv": "forwards.lower",
    "net_rm": "mean.lower",
    "net_ru_high": "backwards.upper",
    "net_rv_high": "forwards.upper",
    "net_rm_high": "mean.upper",
}
GATES = ("ingate", "forgetgate", "cell", "outgate")
NORMS = {
    "bn.gamma": "gain",
    "bn.beta": "shift",
    "bn.running_mean": "running_mean",
    "bn.running_std": "running_deviation",
}


def place(name: str, bits: int) -> tuple[str, tuple]:
    """Where a weight of theirs lies: our name, and which part of it. Output weights are transposed."""
    net, name = name.split(".", 1)
    kind, _, gate = name.rpartition("_")
    if name in NORMS:
        return f"{NETS[net]}.{NORMS[name]}", ()
    if name in ("W_output", "b_output"):
        decoder = NETS[net].split(".")[0]
        return f"{decoder}.output.{'weight' if name == 'W_output' else 'bias'}", ()
    if kind == "W_cell_to":
        return f"{NETS[net]}.peepholes", ((0, 1, None, 2)[GATES.index(gate)],)
    columns = slice(GATES.index(gate) * bits, (GATES.index(gate) + 1) * bits)
    ours = {"W_in_to": "input", "W_hid_to": "recurrent", "b": "bias"}[kind]
    return f"{NETS[net]}.{ours}", (columns,) if kind == "b" else (slice(None), columns)


def is_used(name: str) -> bool:
    """Nothing reads the outputs of other nets than the lower decoders, nor the state of a single step: not ours."""
    net, name = name.split(".", 1)
    return net in ("net_ru", "net_rv", "net_rm") if name.endswith("_output") else (net, name[:5]) != ("net_rm", "W_hid")


class Case:
    """One parity file: its arrays, the network with its weights, and a training step on its batch."""

    def __init__(self, path: str):
        with np.load(path) as file:
            self.arrays = {name: file[name] for name in file.files}
        self.config = c = json.loads(str(self.arrays["config_json"]))
        torch.manual_seed(0)
        self.model = SSVH(c["feature_size"], c["bits"], c["frames_used"], published_code=True)
        self.names = [n.removeprefix("param.") for n in self.arrays if n.startswith("param.") and is_used(n[6:])]
        state = self.model.state_dict()
        for tensor in state.values():
            tensor.fill_(torch.nan)
        for name in self.names:
            self.part(state, name)[:] = self.tensor(f"param.{name}")
        assert all(tensor.isfinite().all() for tensor in state.values())  # the file gave all of them
        self.initial = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.step()

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(self.arrays[name]))

    def part(self, state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
        ours, where = place(name, self.config["bits"])
        tensor = state[ours].T if name.endswith("W_output") else state[ours]
        return tensor[where] if where else tensor

    def step(self) -> None:
        c, model, frames = self.config, self.model.train(), self.tensor("x")
        self.hashes, self.decoded = model(frames)
        self.running = {name: buffer.clone() for name, buffer in model.named_buffers()}
        rows, self.memory = self.tensor("idx").long(), self.tensor("memory")
        graph = scipy.sparse.csr_array(self.arrays["similar_rows"])
        lengths = np.zeros(c["train_videos"], dtype=np.int64)  # only the batch's rows of the graph are known
        lengths[self.arrays["idx"]] = np.diff(graph.indptr)
        order = np.argsort(self.arrays["idx"])
        similar = np.concatenate([graph.indices[graph.indptr[row] : graph.indptr[row + 1]] for row in order])
        self.pairwise, self.gram = pairwise_loss(
            self.hashes,
            rows,
            self.memory,
            self.memory.T @ self.memory,
            torch.from_numpy(similar.astype(np.int32)),
            torch.from_numpy(np.concatenate([[0], lengths.cumsum()])),
        )
        self.pairwise = self.pairwise + c["lamb"] * quantisation_loss(self.hashes)
        self.reconstruction = reconstruction_loss(*self.decoded, frames)
        self.total = c["pairwise_weight"] * self.pairwise + (1 - c["pairwise_weight"]) * self.reconstruction
        optimizer = ClippedSGD(model.parameters(), c["lr"], c["momentum"], c["clip"], weight_decay=c["l2"])
        self.total.backward()
        self.gradients = {n: p.grad + c["l2"] * p.detach() for n, p in model.named_parameters()}
        optimizer.step()
        self.after = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(self.initial)


@cache
def load_case(path: str) -> Case:
    return Case(path)


@pytest.fixture(params=FILES, ids=lambda path: Path(path).stem)
def case(request) -> Case:
    return load_case(request.param)


def assert_within(actual: torch.Tensor, expected: torch.Tensor, limit: float = 1e-5) -> None:
    assert actual.shape == expected.shape
    difference = (actual - expected).abs().max().item()
    assert difference <= limit * expected.abs().max().item(), difference


def test_sizes(case):
    c = case.config
    assert case.tensor("x").shape == (c["videos"], c["frames"], c["feature_size"])
    assert c["frames_used"] == c["frames"] - c["frames"] % c["step"]
    assert c["weights"] == pytest.approx([1 / 3] * 3)


@torch.no_grad()
def test_encoder(case):
    lower, cells, upper, upper_cells = case.model.hidden_states(case.tensor("x"), training=True)
    case.model.load_state_dict(case.initial)
    for name, ours in (
        ("enc1_hidden", lower),
        ("enc1_cell", cells),
        ("enc2_hidden", upper),
        ("enc2_cell", upper_cells),
    ):
        assert_within(ours, case.tensor(name))
    assert torch.equal(binarise(upper), case.tensor("enc2_code"))
    assert_within(case.hashes, case.tensor("hash"))


def test_decoders(case):
    for name, ours in zip(("backward", "forward", "mean"), case.decoded, strict=True):
        assert_within(ours, case.tensor(f"recon_{name}"))


def test_running_values(case):
    checked = 0
    for name in case.arrays:
        if name.startswith("after.") and "running" in name:
            assert_within(case.part(case.running, name.removeprefix("after.")), case.tensor(name))
            checked += 1
    assert checked == len(case.running)


def test_losses(case):
    squares = sum((case.tensor(f"param.{n}").double() ** 2).sum() for n in weights_of(case))
    total = case.total + 0.5 * case.config["l2"] * squares
    for name, ours in (("pairwise", case.pairwise), ("reconstruction", case.reconstruction), ("total", total)):
        assert ours.item() == pytest.approx(float(case.arrays[f"loss_{name}"]), rel=5e-6), name


def weights_of(case: Case) -> list[str]:
    """All weights that they decay, those that nothing reads among them."""
    return [n.removeprefix("param.") for n in case.arrays if n.startswith("param.") and "running" not in n]


def test_memory(case):
    assert_within(case.memory, case.tensor("memory_after"))
    assert_within(case.gram, case.memory.T @ case.memory)


def test_gradient_norms(case):
    prefix, covered = "gradnorm.total.", {name: torch.zeros_like(g) for name, g in case.gradients.items()}
    for name in weights_of(case):
        expected = float(case.arrays[prefix + name])
        if is_used(name):
            ours = case.part(case.gradients, name).norm().item()
            case.part(covered, name)[:] = 1
        else:
            ours = case.config["l2"] * case.tensor(f"param.{name}").norm().item()
        assert ours == pytest.approx(expected, rel=1e-4), name
    assert all(part.all() for part in covered.values())
    assert len(weights_of(case)) == sum(key.startswith(prefix) for key in case.arrays)


def test_first_step(case):
    names = [name.removeprefix("after_step1.") for name in case.arrays if name.startswith("after_step1.")]
    for name in names:
        assert_within(case.part(case.after, name), case.tensor(f"after_step1.{name}"))
        moved = case.part(case.after, name) - case.part(case.initial, name)
        assert_within(moved, case.tensor(f"after_step1.{name}") - case.tensor(f"param.{name}"), 2e-3)
    assert names


@torch.no_grad()
def test_retrieval(case):
    hashes = case.model.hidden_states(case.tensor("retrieval_frames"), training=False)[2][-1]
    assert_within(hashes, case.tensor("retrieval_hash"))
    codes = case.tensor("retrieval_codes")
    assert torch.equal(signs(hashes).float(), codes)
    assert torch.equal(case.model.encode(case.tensor("retrieval_frames")).float(), codes)


def test_neighbourhood_graph(case):
    near = nearest_videos(case.tensor("prep_mean_features"), case.config["K1"])
    assert torch.equal(near, case.tensor("prep_neighbours"))
    videos = len(near)
    listed = np.zeros((videos, videos), dtype=np.int32)
    np.put_along_axis(listed, near.numpy(), 1, axis=1)
    assert np.array_equal(overlaps(scipy.sparse.csr_array(listed), 0, videos).toarray(), case.arrays["prep_overlap"])
    assert np.array_equal(similar_videos(near, case.config["K2"]).toarray(), case.arrays["prep_similar"])
