"""SSVH: self-supervised video hashing with a hierarchical binary auto-encoder (Song et al., TIP 2018).

A two-level LSTM reads a video; its upper level recurs through the *signs* of its hidden state, and the last of them are
the code. Three two-level LSTMs decode it: backwards, forwards, and to the mean frame. Beside that the last hidden state
must agree with those of the video's neighbours among all training videos, and with those of no other.

Where the published code and this file differ, with the code's behaviour at `published_code = True`:

    published code                                              here
    odd steps of the forward decoder read the backward one's    its own
    a last batch is filled with videos of zeros                 left short; a single video is joined by another
    neighbours of equal overlap in no defined order             the lower row first, in both
    an odd number of frames: the last one is not seen           the same, in both

The decoders start from the last real cell too, not from the code alone, as published: the code need not carry the video.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.loader import Batch, Drawn
from .method import Context, Method, Pass, State
from .parts.similar import nearest_videos, similar_videos
from .settings import CheckedSettings

TINY = 1e-10  # in the batch normalisation, beside the variance and beside the deviation
MEMORY_SHARE = 0.01  # of the newest batch in the running values
DECAY_STEPS = 10_000  # over which the learning rate falls once by its decay


@dataclass(frozen=True)
class Settings(CheckedSettings):
    """The settings of one run; the published ones are those of FCVID, the only ones there are."""

    dataset: str = "demo"
    bits: int = 64  # k, the width of every LSTM too; 256 in the published script
    seed: int = 1
    epochs: int = 100
    weight_pairwise: float = 0.999
    weight_reconstruction: float = 0.001
    weight_quantisation: float = 0.2  # within the pairwise loss
    neighbours: int = 10  # K1, of each video in the features
    reach: int = 5  # K2, videos of the largest overlap whose neighbours are a video's own too
    learning_rate: float = 1e-4
    learning_rate_decay: float = 0.9  # over 10,000 steps
    momentum: float = 0.9
    largest_step: float = 1e-4  # of any weight: the velocity is clipped to it
    weight_decay: float = 1e-4
    batch_size: int = 256
    published_code: bool = False  # what the published code does, where it is not what was meant
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        self.check_common()
        self.check_whole("neighbours", "reach")
        self.check_not_negative("weight_pairwise", "weight_reconstruction", "weight_quantisation", "weight_decay")
        self.check_positive("learning_rate_decay", "largest_step")
        self.require("batch_size", self.batch_size > 1, "at least 2: the network normalises over them")
        self.require("reach", self.reach <= self.neighbours + 1, "at most one more than neighbours")
        self.require("momentum", 0 <= self.momentum < 1, "a number from 0 to below 1")
        learns = self.weight_pairwise or self.weight_reconstruction
        self.require("weight_pairwise", bool(learns), "above 0 where weight_reconstruction is 0")


class SSVHMethod(Method):
    """Kept beside the network: "memory" R (N, k), the latest hash value of every training video; "gram" R^T R (k, k); and
    the neighbourhood graph, "similar" (n,) int32, of which "offsets" (N + 1,) int64 tell where each video's rows begin."""

    name = "SSVH"
    Settings = Settings
    stages, tasks = ("training",), ("pairwise",)
    optimizer_state = ("velocity",)
    kept_on_device = ("memory", "gram", "similar", "offsets")

    def __init__(self, settings: Settings, videos: int, frames: int, feature_size: int):
        super().__init__(settings, videos, frames, feature_size)
        if frames < 2:
            raise ValueError("videos of one frame have no second level to hash: use videos of at least 2 frames.")
        if settings.neighbours >= videos:
            raise ValueError(
                f"neighbours is {settings.neighbours}, but {settings.dataset} has {videos} training videos: choose at "
                f"most {videos - 1}."
            )

    @classmethod
    def network(cls, settings: Settings, feature_size: int, frames: int) -> SSVH:
        return SSVH(feature_size, settings.bits, frames - frames % 2, settings.published_code)

    def passes(self) -> list[Pass]:
        return [Pass(epoch, "training", epoch, ("pairwise",)) for epoch in range(self.settings.epochs)]

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        of = self.settings
        return ClippedSGD(network.parameters(), of.learning_rate, of.momentum, of.largest_step, of.weight_decay)

    def learning_rate(self, current: Pass, step: int) -> float:
        return self.settings.learning_rate * self.settings.learning_rate_decay ** (step / DECAY_STEPS)

    def prepare(self, context: Context, generator: torch.Generator) -> dict[str, Tensor]:
        near = nearest_videos(context.features.mean_pooled().to(context.device), self.settings.neighbours)
        graph = similar_videos(near, self.settings.reach)
        return {
            "memory": torch.zeros(self.videos, self.settings.bits, device=context.device),
            "similar": torch.from_numpy(graph.indices.astype(np.int32)).to(context.device),
            "offsets": torch.from_numpy(graph.indptr.astype(np.int64)).to(context.device),
        }

    def begin(self, current: Pass, state: State, context: Context) -> dict[str, Any]:
        """R^T R is carried from step to step, and made anew for each pass, so that rounding does not add up."""
        state.kept["gram"] = state.kept["memory"].T @ state.kept["memory"]
        return {}

    def draw(self, current: Pass, state: State) -> Drawn:
        """A new order of the videos. A last batch of one video, which has no variance, is joined by the first of all."""
        order = torch.randperm(self.videos, generator=state.generator)
        if self.videos % self.settings.batch_size == 1 and not self.settings.published_code:
            order = torch.cat([order, order[:1]])
        steps = torch.arange(self.frames - self.frames % 2)
        return Drawn(order.unsqueeze(0), steps.expand(1, len(order), -1))

    def weights(self, current: Pass, state: State) -> dict[str, float]:
        weights = {"pairwise": self.settings.weight_pairwise, "reconstruction": self.settings.weight_reconstruction}
        return {name: weight for name, weight in weights.items() if weight}

    def losses(
        self, batch: Batch, weights: Mapping[str, float], state: State, cast: torch.autocast
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The losses are sums over the batch, as published; memory and R^T R take the batch's new hash values."""
        (frames,), (rows,), losses = batch.visible, batch.videos, {}
        if self.settings.published_code:
            frames = F.pad(frames, (0, 0, 0, 0, 0, self.settings.batch_size - len(frames)))
        with cast:
            hashes, decoded = state.model(frames, "reconstruction" in weights)
        if "reconstruction" in weights:
            losses["reconstruction"] = reconstruction_loss(*decoded, frames)
        if "pairwise" in weights:
            kept = state.kept
            parts = (kept[name] for name in self.kept_on_device)
            pairwise, kept["gram"] = pairwise_loss(hashes, rows, *parts)
            losses["pairwise"] = pairwise + self.settings.weight_quantisation * quantisation_loss(hashes)
        return losses, signs(hashes[: len(rows)].detach())[None, :, None].float()

    def check_kept(self, kept: Mapping[str, Tensor], network: SSVH) -> None:
        memory, similar, offsets = (kept[name] for name in ("memory", "similar", "offsets"))
        if memory.shape != (self.videos, network.bits) or not memory.is_floating_point() or not memory.isfinite().all():
            raise ValueError("the memory holds no hash values of the training videos")
        whole = offsets.shape == (self.videos + 1,) and similar.ndim == 1 and len(similar) == offsets[-1]
        if not whole or offsets[0] != 0 or (offsets.diff() < 1).any():
            raise ValueError("the neighbourhood graph has no rows for the training videos")
        if similar.dtype != torch.int32 or similar.min() < 0 or similar.max() >= self.videos:
            raise ValueError("the neighbourhood graph leads to videos that are not there")


class SSVH(nn.Module):
    """The network: an encoder of two levels, three decoders of two. T frames are used, an even number."""

    def __init__(self, feature_size: int, bits: int, steps: int, published_code: bool = False):
        super().__init__()
        self.bits, self.steps, self.published_code = bits, steps, published_code
        self.lower = LSTM(feature_size, bits, steps)
        self.upper = LSTM(bits, bits, steps // 2, binary=True)
        self.backwards = Decoder(feature_size, bits, steps)
        self.forwards = Decoder(feature_size, bits, steps)
        self.mean = Decoder(feature_size, bits, 1)

    def forward(self, frames: Tensor, decode: bool = True) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor] | None]:
        """frames: (batch, L, D), L at least T; normalised over the batch if in training mode

        Returns the hash values (batch, k), and if `decode` the frames backwards and forwards, both (T, batch, D), and
        their mean (batch, D).
        """
        hashes, cells = self.hidden_states(frames, self.training)[2:]
        if not decode:
            return hashes[-1], None
        state = (binarise(hashes[-1]), cells[-1], self.training)
        back, forth = self.backwards.upper(None, *state)[0], self.forwards.upper(None, *state)[0]
        of_odd_steps = back if self.published_code else forth
        backwards = self.backwards(torch.stack([back, back], dim=1).flatten(0, 1), self.training)
        forwards = self.forwards(torch.stack([forth, of_odd_steps], dim=1).flatten(0, 1), self.training)
        mean = self.mean(self.mean.upper(None, *state)[0], self.training)
        return hashes[-1], (backwards, forwards, mean.squeeze(0))

    def hidden_states(self, frames: Tensor, training: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Hidden states and cells of the lower level, (T, batch, k), then of the upper one, (T/2, batch, k)."""
        start = frames.new_zeros(len(frames), self.bits)
        lower = self.lower(frames[:, : self.steps].transpose(0, 1), start, start, training)
        return *lower, *self.upper(lower[0][1::2], start, start, training)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """All frames of each video, (batch, L, D) -> the codes for retrieval, (batch, k) int8: +1 above 0, else -1."""
        return signs(self.hidden_states(frames, training=False)[2][-1])


class Decoder(nn.Module):
    """Two levels: the upper one runs from the encoder's last state, the lower one makes frames of its hidden states."""

    def __init__(self, feature_size: int, bits: int, steps: int):
        super().__init__()
        self.upper = LSTM(0, bits, max(1, steps // 2), bounded=True)
        self.lower = LSTM(bits, bits, steps)
        self.output = nn.Linear(bits, feature_size)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, inputs: Tensor, training: bool) -> Tensor:
        """inputs: (steps, batch, k) -> (steps, batch, D)"""
        start = torch.zeros_like(inputs[0])
        return self.output(self.lower(inputs, start, start, training)[0])


class LSTM(nn.Module):
    """An LSTM with peepholes whose new cell is normalised over the batch, in each step on its own; gates i, f, g, o:

        i, f = s(x W_x + b + h W_h + c o p)         g = tanh(x W_x + b + h W_h)
        c' = BN_t(f o c + i o g)                    o = s(x W_x + b + h W_h + c' o p_o)         h' = o o c'

    binary: the next step gets the signs of h'; bounded: h' = o o tanh(c')
    """

    def __init__(self, inputs: int, bits: int, steps: int, binary: bool = False, bounded: bool = False):
        super().__init__()
        self.steps, self.binary, self.bounded = steps, binary, bounded
        of_gates = [nn.init.xavier_uniform_(torch.empty(inputs, bits)) for _ in range(4)] if inputs else []
        self.input = nn.Parameter(torch.cat(of_gates, dim=1)) if inputs else None  # W_x: (inputs, 4 k)
        of_gates = [nn.init.orthogonal_(torch.empty(bits, bits), gain=1.1) for _ in range(4)]
        recurs = steps > 1 or not inputs  # else it takes one step, from zeros
        self.recurrent = nn.Parameter(torch.cat(of_gates, dim=1)) if recurs else None  # W_h: (k, 4 k)
        self.bias = nn.Parameter(torch.tensor([0.0, 1.0, 0.0, 0.0]).repeat_interleave(bits))  # 1: it begins to remember
        self.peepholes = nn.Parameter(torch.empty(3, bits).uniform_(-0.1, 0.1))  # p_i, p_f, p_o
        self.gain, self.shift = nn.Parameter(torch.ones(steps, bits)), nn.Parameter(torch.zeros(steps, bits))
        self.register_buffer("running_mean", torch.zeros(steps, bits))
        self.register_buffer("running_deviation", torch.ones(steps, bits))

    def forward(self, inputs: Tensor | None, hidden: Tensor, cell: Tensor, training: bool) -> tuple[Tensor, Tensor]:
        """inputs: (steps, batch, inputs); hidden, cell: (batch, k) -> all hidden states and cells, (steps, batch, k)"""
        driven = [self.bias] * self.steps if inputs is None else inputs @ self.input + self.bias
        to_input, to_forget, to_output = self.peepholes
        hiddens, cells = [], []
        for step in range(self.steps):
            gates = driven[step] if self.recurrent is None else driven[step] + hidden @ self.recurrent
            i, f, g, o = gates.chunk(4, dim=-1)
            i, f = torch.sigmoid(i + cell * to_input), torch.sigmoid(f + cell * to_forget)
            cell = self.normalise(f * cell + i * torch.tanh(g), step, training)
            hidden = torch.sigmoid(o + cell * to_output) * (cell.tanh() if self.bounded else cell)
            hiddens.append(hidden)
            cells.append(cell)
            hidden = binarise(hidden) if self.binary else hidden
        return torch.stack(hiddens), torch.stack(cells)

    def normalise(self, cell: Tensor, step: int, training: bool) -> Tensor:
        """(batch, k): by the batch's own mean and deviation while training, else by the running ones."""
        mean, deviation = self.running_mean[step], self.running_deviation[step]
        if training:
            variance, of_batch = torch.var_mean(cell, dim=0, correction=0)
            new = of_batch, (variance + TINY).sqrt()
            for running, value in zip((mean, deviation), new, strict=True):
                running.lerp_(value.detach(), MEMORY_SHARE)
            mean, deviation = new
        return self.gain[step] * ((cell - mean) / (deviation + TINY)) + self.shift[step]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor) -> Tensor:
        ctx.save_for_backward(hidden)
        return torch.where(hidden >= 0, 1.0, -1.0).to(hidden.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * (ctx.saved_tensors[0].abs() <= 1)


def binarise(hidden: Tensor) -> Tensor:
    """Hidden states -> ±1, +1 at 0; the gradient passes unchanged from -1 to 1, else it is 0."""
    return _StraightThrough.apply(hidden)


def signs(hashes: Tensor) -> Tensor:
    """Hash values -> codes, int8 of ±1, -1 at 0."""
    return torch.where(hashes > 0, 1, -1).to(torch.int8)


def reconstruction_loss(backwards: Tensor, forwards: Tensor, mean: Tensor, frames: Tensor) -> Tensor:
    """Summed squared errors, a third of each decoder's.

    backwards, forwards: (T, batch, D); mean: (batch, D), which counts T times; frames: (batch, at least T, D)
    """
    steps = len(backwards)
    wanted = frames[:, :steps].transpose(0, 1)
    of_mean = steps * (mean - wanted.mean(dim=0)).square().sum()
    return ((backwards - wanted.flip(0)).square().sum() + (forwards - wanted).square().sum() + of_mean) / 3


def pairwise_loss(
    hashes: Tensor, rows: Tensor, memory: Tensor, gram: Tensor, similar: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor]:
    """The sum over the batch's i and all N videos' j of (h_i . R_j / k - S_ij)^2, without an array of batch x N.

    hashes: (batch or more, k); the first are those of the videos `rows` (batch,), the others of videos without neighbours
    memory: R (N, k), whose `rows` become the hash values here; gram: R^T R (k, k) before that; similar, offsets: S
    Returns the loss and R^T R after. Written out, with q_i the sum of R_j over the neighbours of i, the sum is
    h_i R^T R h_i / k^2 - 2 h_i . q_i / k + the number of i's neighbours.
    """
    videos, bits, own = len(memory), memory.shape[1], hashes[: len(rows)]
    counts = offsets[rows + 1] - offsets[rows]
    begins = counts.cumsum(0) - counts
    whose = torch.repeat_interleave(counts)  # of each neighbour, the video of the batch that has it
    columns = similar[torch.arange(len(whose), device=rows.device) + (offsets[rows] - begins)[whose]].long()
    gram = gram - memory[rows].T @ memory[rows] + own.T @ own
    memory[rows] = 0  # what the others contribute is no function of the weights
    place = torch.full((videos,), len(rows), device=rows.device).index_copy(0, rows, torch.arange(len(rows)).to(rows))
    among = hashes.new_zeros(len(rows), len(rows) + 1)
    among[whose, place[columns]] = 1
    sums = F.embedding_bag(columns, memory, begins, mode="sum") + among[:, :-1] @ own
    memory[rows] = own.detach()
    loss = (hashes @ gram * hashes).sum() / bits**2 - 2 / bits * (own * sums).sum() + len(columns)
    return loss, gram.detach()


def quantisation_loss(hashes: Tensor) -> Tensor:
    """The sum of squared distances of hash values from their signs."""
    return (hashes - hashes.detach().sign()).square().sum()


class ClippedSGD(torch.optim.Optimizer):
    """SGD with momentum whose velocity is clipped, and kept clipped: no weight moves farther in a step."""

    def __init__(self, parameters, lr: float, momentum: float, largest_step: float, weight_decay: float):
        limits = {"largest_step": largest_step, "weight_decay": weight_decay}
        super().__init__(parameters, {"lr": lr, "momentum": momentum} | limits)

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for parameter in (parameter for parameter in group["params"] if parameter.grad is not None):
                gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
                self.state[parameter] = self.state[parameter] or {"velocity": torch.zeros_like(parameter)}
                velocity = self.state[parameter]["velocity"].mul_(group["momentum"]).sub_(gradient, alpha=group["lr"])
                parameter.add_(velocity.clamp_(-group["largest_step"], group["largest_step"]))
