"""What the tests of parity share: a file of reference values, and what our code makes of its inputs."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from wsch_core.data.features import Features
from wsch_core.data.loader import Batch, Drawn, hidden_frames, visible_batches
from wsch_core.experiments.published import published_network
from wsch_core.methods.method import State
from wsch_core.training.device import autocast

CPU = torch.device("cpu")


def parity_files(method: str) -> list[Path]:
    """Those of the environment variable WSCH_PARITY_<METHOD>, else the copy in tests/fixtures."""
    copy = str(Path(__file__).parent / "fixtures" / f"parity_{method}.npz")
    return [Path(path) for path in os.environ.get(f"WSCH_PARITY_{method.upper()}", copy).split(":") if path]


class ParityFile:
    """One file: its arrays as tensors, the network with its weights, and its views as a batch."""

    def __init__(self, path: Path):
        with np.load(path) as file:
            self.arrays = {name: file[name] for name in file.files}
        self.config = json.loads(str(self.arrays["config_json"]))
        self.method = None  # given by the test, which knows its settings

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(self.arrays[name]))

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def names(self, prefix: str) -> list[str]:
        return [name.removeprefix(prefix) for name in self.arrays if name.startswith(prefix)]

    def load(self, method: str, frames: int, **chosen) -> None:
        weights = {name: self[f"param.{name}"] for name in self.names("param.")}
        self.settings, self.model = published_network(weights, method, frames, **chosen)

    @property
    def state(self) -> State:
        return State(self.model, None, torch.Generator())

    def batch(self) -> Batch:
        """Both views of x, as the loader gives them: mask1 and mask2 are True where a frame is hidden."""
        masks = torch.stack([self["mask1"], self["mask2"]])
        hidden = int(masks[0, 0].sum())
        assert (masks.sum(dim=-1) == hidden).all()
        seen = hidden_frames(masks.long().argsort(dim=-1, descending=True, stable=True)[..., :hidden], masks.shape[-1])
        drawn = Drawn(torch.arange(len(self["x"])).unsqueeze(0), seen, "hidden")
        (batch,) = visible_batches(Features(self["x"]), drawn, len(self["x"]), CPU)
        assert torch.equal(torch.zeros_like(masks).scatter(-1, batch.unseen, True), masks)
        return batch

    def losses(self, weights, batch=None, state=None):
        """The method's own losses of the batch, and their weighted sum."""
        losses, _ = self.method.losses(batch or self.batch(), weights, state or self.state, autocast(CPU, "float32"))
        return losses, sum(weight * losses[name] for name, weight in weights.items())

    def gradients(self, loss) -> dict[str, torch.Tensor]:
        """By our names of the weights; those that the loss does not reach are left out."""
        named = dict(self.model.named_parameters())
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        return {name: gradient for name, gradient in zip(named, found, strict=True) if gradient is not None}

    def outputs_of(self, *modules):
        """A function that gives what these modules last gave, and lets them alone from then on."""
        outputs = [None] * len(modules)

        def keep(place):
            return lambda module, inputs, output: outputs.__setitem__(place, output)

        hooks = [module.register_forward_hook(keep(place)) for place, module in enumerate(modules)]

        def give():
            for hook in hooks:
                hook.remove()
            return outputs

        return give


def assert_within(actual, expected, limit: float = 2e-6) -> None:
    """No farther than `limit` of the expected values' largest."""
    assert actual.shape == expected.shape
    difference = (actual - expected).abs().max().item()
    assert difference <= limit * expected.abs().max().item(), difference


def assert_norm(gradient, expected, limit: float, name: str) -> None:
    assert gradient.double().norm().item() == pytest.approx(float(expected), rel=limit), name
