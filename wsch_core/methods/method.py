"""What a method gives to the loop, to run folders and to evaluation: one page, which every method fills.

A method is a class in a room or file of its own, and a line in `wsch_core.methods.METHODS`. It says what its settings
are, which passes a run has, what a step sees of the videos, and what it learns from them. The rest is done once for all:
`training.loop` runs the passes, `training.checkpoint` keeps the state, `runs.folder` and `experiments.evaluation` read it.

What a run must repeat bit for bit after a kill is drawn from `State.generator`, or made from the seed and the number of the
step (`step_generator`), and lies in the network, the optimizer or `State.kept`: checkpoints hold these whole.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..data.disk import DiskFeatures
from ..data.features import Features
from ..data.loader import Batch, Drawn


@dataclass(frozen=True)
class Pass:
    """One turn over the training set."""

    number: int  # from 0, over the whole run
    stage: str  # one of the method's `stages`
    epoch: int  # from 0, within the stage
    tasks: tuple[str, ...]  # some of the method's `tasks`: what is learned beside what every pass learns
    learns: bool = True  # whether it takes gradient steps; if not, `Method.begin` is all of it

    @property
    def title(self) -> str:
        return "+".join(self.tasks) or "reconstruction"


@dataclass
class State:
    """All that changes while training."""

    model: nn.Module
    optimizer: torch.optim.Optimizer | None
    generator: torch.Generator  # on the CPU, so that what it draws is the same on every device
    kept: dict[str, Tensor] = field(default_factory=dict)  # what a method keeps beside the network, by name
    steps: int = 0  # gradient steps so far
    history: list[dict[str, Any]] = field(default_factory=list)  # a line for each finished pass


@dataclass(frozen=True)
class Context:
    """What the loop lends a method: the training features, where to compute, and how precisely."""

    features: Features | DiskFeatures
    device: torch.device
    cast: torch.autocast


class Method(ABC):
    """One method, for one run. What is abstract must be given; the rest has the usual answer."""

    name: ClassVar[str]  # in tables and figures
    Settings: ClassVar[type]  # a frozen dataclass of `CheckedSettings`, the published values as its defaults
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {"published": {}}  # named changes of the settings
    stages: ClassVar[tuple[str, ...]]  # that passes belong to
    tasks: ClassVar[tuple[str, ...]]  # that passes may learn, or do
    optimizer_state: ClassVar[tuple[str, ...]] = ("step", "exp_avg", "exp_avg_sq")  # what the optimizer keeps: Adam's
    kept_on_device: ClassVar[tuple[str, ...]] = ()  # names in `State.kept` that live where the network computes

    def __init__(self, settings: Any, videos: int, frames: int, feature_size: int):
        """Refuse settings that do not fit `videos` training videos of `frames` frames (ValueError)."""
        self.settings, self.videos, self.frames, self.feature_size = settings, videos, frames, feature_size

    @classmethod
    @abstractmethod
    def network(cls, settings: Any, feature_size: int, frames: int) -> nn.Module:
        """A network with new weights, drawn from torch's default generator. It has `bits`, and `encode`: whole videos
        (batch, L, D) -> codes for retrieval (batch, b), int8 of ±1, always computed in float32."""

    def new_network(self, seed: int) -> nn.Module:
        """A network with new weights, the same for the same seed; torch's own random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # weights are drawn on the CPU, whatever the device
            return self.network(self.settings, self.feature_size, self.frames)

    @abstractmethod
    def passes(self) -> list[Pass]:
        """All passes of the run, in order."""

    def effort(self, current: Pass) -> float:
        """About how long a pass takes beside the others, in any unit: expected until one of its kind was measured."""
        return 1.0

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(network.parameters(), lr=self.settings.learning_rate, fused=True)

    def learning_rate(self, current: Pass, step: int) -> float:
        """Of a step, counted from 0 over all learning passes."""
        return self.settings.learning_rate

    def prepare(self, context: Context, generator: torch.Generator) -> dict[str, Tensor]:
        """What is made once from the training features, before the first pass: the first of what is kept."""
        return {}

    def begin(self, current: Pass, state: State, context: Context) -> dict[str, Any]:
        """What comes before the steps of a pass, and is all of a pass that does not learn; entries for its history.

        A method may change the weights here, and put another optimizer into `state`.
        """
        return {}

    @abstractmethod
    def draw(self, current: Pass, state: State) -> Drawn:
        """Which frames of which videos the steps of a learning pass see, drawn with `state.generator`."""

    @abstractmethod
    def weights(self, current: Pass, state: State) -> dict[str, float]:
        """The losses that a pass learns, with their weights; what weighs nothing is left out, and not computed."""

    @abstractmethod
    def losses(
        self, batch: Batch, weights: Mapping[str, float], state: State, cast: torch.autocast
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The losses of a batch, by the names of `weights`, and the frame codes (V, batch, frames, b) of ±1 behind them.

        A method may change `state.kept` here: what it holds of the batch's videos.
        """

    def check_kept(self, kept: Mapping[str, Tensor], network: nn.Module) -> None:
        """Refuse what a checkpoint claims was kept, where it cannot be (ValueError): here, what is not finite."""
        broken = [name for name, tensor in kept.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
        if broken:
            raise ValueError(f"{broken[0]} is not finite")

    def steps_in_pass(self) -> int:
        """Gradient steps of a pass in which every training video is taken once."""
        return math.ceil(self.videos / self.settings.batch_size)


def step_generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """A generator on the computing device for what is drawn inside a step (dropout); the same for the same step."""
    return torch.Generator(device).manual_seed((seed * 1_000_003 + step) % 2**63)
