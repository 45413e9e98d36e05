"""BTH: self-supervised video hashing by bidirectional transformers (Li et al., CVPR 2021).

    corrupted frames -> one transformer block over the video -> a code for each frame -> every frame, linearly

Stage 1 learns to restore frames. Its latents of all videos give anchors, and anchors tell which videos are alike: those
that share one of their nearest. Stage 2 starts from new weights and learns pairs of videos beside the frames: alike ones
get like codes, others opposite ones, and each video keeps near its anchor.

Where the authors' code differs from what is done here; `published_code` brings theirs back where it says so:

| their code | here |
|---|---|
| the target is the corrupted input itself: nothing hidden is ever restored | clean frames; `published_code`: the input |
| a video met twice in an epoch carries both corruptions | each is corrupted anew |
| a video is among its own partners | only if it has no other; `published_code`: always |
| centres start from videos drawn with replacement | without; `published_code`: with |
| partners repeat from epoch to epoch | drawn with the run's generator |
| a video with partners of no kind ends the run | takes one that is not alike, else any other |
| bits may be 0 where an even number of frames is evenly split | the sign of the mean pre-binary value decides, 0 gives -1 |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.loader import Batch, Drawn
from .method import Context, Method, Pass, State, step_generator
from .parts.layers import binarise, sinusoids, step_decay
from .parts.neighbours import NEAREST, Neighbours, find_anchors, nearest_anchors
from .settings import MOST_PASSES, CheckedSettings
from .wsch.model import majority

Drop = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Settings(CheckedSettings):
    """The settings of one run, by default those published for FCVID, the only ones."""

    dataset: str = "demo"
    bits: int = 64  # b
    seed: int = 1

    pretrain_epochs: int = 56  # of stage 1
    epochs: int = 56  # of stage 2
    zeroed: float = 0.12  # share of frames that become zero
    replaced: float = 0.015  # share of frames that become a frame of any training video
    anchors: int = 2000  # K, at most
    weight_reconstruction: float = 0.92  # in stage 2; stage 1 learns reconstruction alone
    weight_neighbours: float = 0.08
    weight_anchors: float = 0.8

    batch_size: int = 256  # videos in stage 1, pairs in stage 2
    learning_rate: float = 3e-4  # falls by a tenth every 20 epochs
    least_learning_rate: float = 1e-4
    dropout: float = 0.1

    encoder_width: int = 256  # H
    published_code: bool = False  # as the authors' code where that differs, see above

    device: str = "auto"  # "auto": the GPU if there is one; else "cpu", "cuda", "cuda:1"
    precision: str = "auto"  # "auto": bfloat16 where the device computes it faster

    def __post_init__(self) -> None:
        self.check_common()
        self.check_whole("pretrain_epochs", "anchors", "encoder_width")
        self.require("pretrain_epochs", self.pretrain_epochs <= MOST_PASSES, f"at most {MOST_PASSES:,}")
        self.require("anchors", self.anchors >= NEAREST, f"at least {NEAREST}: so many are looked at for each video")
        self.require("encoder_width", self.encoder_width > 1, "at least 2: the network normalises over it")
        self.check_not_negative("weight_neighbours", "weight_anchors", "least_learning_rate", "zeroed", "replaced")
        self.check_positive("weight_reconstruction")
        self.require("replaced", self.zeroed + self.replaced <= 1, "such that zeroed + replaced is at most 1")
        self.require("dropout", 0 <= self.dropout < 1, "a number from 0 to below 1")


RECIPES = {"published": {}, "fcvid": {}}


class BTH(nn.Module):
    """The network. Keys have no bias: the softmax over them is blind to it."""

    def __init__(self, feature_size: int, frames: int, bits: int, width: int = 256):
        super().__init__()
        self.frames, self.width = frames, width
        self.frame_map = nn.Linear(feature_size, width)  # W_f
        self.attention_norm = Norm(width)
        self.query, self.key, self.value, self.output = (nn.Linear(width, width, bias=place != 1) for place in range(4))
        self.feed_norm = Norm(width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.binary = nn.Linear(width, bits)  # W_b
        self.restore = nn.Linear(bits, feature_size)  # W_r

    @property
    def bits(self) -> int:
        return self.binary.out_features

    def hidden(self, frames: Tensor, drop: Drop = lambda values: values) -> Tensor:
        """All frames of each video (batch, L, D) -> h (batch, L, H); drop: what dropout does to values."""
        e = drop(self.frame_map(frames) + sinusoids(self.frames, self.width, frames.device))
        normed = self.attention_norm(e)
        match = self.query(normed) @ self.key(normed).transpose(1, 2) / self.width**0.5
        mixed = drop(match.softmax(dim=-1)).to(match.dtype) @ self.value(normed)
        h = e + drop(self.output(mixed))
        fed = self.narrow(drop(F.gelu(self.widen(self.feed_norm(h)), approximate="tanh")))
        return drop(h + drop(fed))

    def prebinary(self, hidden: Tensor) -> Tensor:
        """h (batch, L, H) -> z (batch, L, b)."""
        return self.binary(hidden).to(hidden.dtype)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """All frames of each video, (batch, L, D) -> the codes for retrieval, (batch, b) int8 of ±1."""
        prebinary = self.prebinary(self.hidden(frames))
        return majority(binarise(prebinary), prebinary)


class Norm(nn.Module):
    """Layer normalisation by the unbiased standard deviation, to which 1e-6 is added."""

    def __init__(self, width: int):
        super().__init__()
        self.gain, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, values: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(values, dim=-1, keepdim=True)
        return self.gain * (values - mean) / (deviation + 1e-6) + self.bias


class BTHMethod(Method):
    """Stage 1 learns frames, stage 2 frames and pairs.

    Kept from the beginning of stage 2: "anchors" (K, H); "nearest" (N, 5), the nearest anchors of each training video, and
    "distances" (N, 5) to them, float64.
    """

    name = "BTH"
    Settings = Settings
    recipes = RECIPES
    stages, tasks = ("pretraining", "training"), ("neighbours", "anchors")
    kept_on_device = ("anchors",)

    def __init__(self, settings: Settings, videos: int, frames: int, feature_size: int):
        super().__init__(settings, videos, frames, feature_size)
        if settings.anchors > videos and settings.epochs:
            raise ValueError(
                f"anchors is {settings.anchors}, but {settings.dataset} has {videos} training videos: choose at most that "
                "many."
            )

    @classmethod
    def network(cls, settings: Settings, feature_size: int, frames: int) -> BTH:
        return BTH(feature_size, frames, settings.bits, settings.encoder_width)

    def passes(self) -> list[Pass]:
        first, second = self.settings.pretrain_epochs, self.settings.epochs
        one = [Pass(epoch, "pretraining", epoch, ()) for epoch in range(first)]
        return one + [Pass(first + epoch, "training", epoch, self.tasks) for epoch in range(second)]

    def learning_rate(self, current: Pass, step: int) -> float:
        return step_decay(self.settings.learning_rate, self.settings.least_learning_rate, current.epoch)

    def weights(self, current: Pass, state: State) -> dict[str, float]:
        if current.stage == "pretraining":
            return {"reconstruction": 1.0}
        weights = {task: getattr(self.settings, f"weight_{task}") for task in ("reconstruction", *self.tasks)}
        return {task: weight for task, weight in weights.items() if weight}

    def begin(self, current: Pass, state: State, context: Context) -> dict[str, Any]:
        """Between the stages: latents, anchors, and a network with new weights."""
        if current.stage == "pretraining" or current.epoch > 0:
            return {}
        latents = self.latents(state.model, context)
        anchors = find_anchors(latents, self.settings.anchors, state.generator, self.settings.published_code)
        if len(anchors) < NEAREST:
            raise ValueError(f"only {len(anchors)} anchors differ, but {NEAREST} are needed: raise anchors.")
        nearest, distances = nearest_anchors(latents, anchors)
        state.kept = {"anchors": anchors, "nearest": nearest, "distances": distances}
        seed = int(torch.randint(2**62, (), generator=state.generator))
        state.model.load_state_dict(self.new_network(seed).state_dict())
        state.optimizer = self.optimizer(state.model)
        return {"found_anchors": len(anchors)}

    def latents(self, model: BTH, context: Context) -> Tensor:
        """(N, H): the mean of h over the clean frames of each training video, without dropout."""
        batches = context.features.batches(self.settings.batch_size)
        with torch.no_grad():
            return torch.cat([model.hidden(frames.to(context.device)).mean(dim=1) for frames in batches])

    def draw(self, current: Pass, state: State) -> Drawn:
        """Every video once, in stage 2 with a partner; and what becomes of each frame.

        After a video's own frames come those that replace some of them. more: "source" (n, V, L), which of these each
        frame is taken from, -1 for zero; in stage 2 "similar" (n,) ±1, and "anchor" (n, V), the nearest.
        """
        settings, generator = self.settings, state.generator
        videos, more = torch.randperm(self.videos, generator=generator).unsqueeze(0), {}
        if current.stage != "pretraining":
            nearest = state.kept["nearest"]
            neighbours = Neighbours(nearest, state.kept["distances"], len(state.kept["anchors"]))
            similar = torch.rand(self.videos, generator=generator) < 0.5
            partners = neighbours.partners(similar, generator, alone=not settings.published_code)
            videos = torch.stack([videos[0], partners[videos[0]]])
            more = {"similar": torch.where(similar, 1.0, -1.0)[videos[0]], "anchor": nearest[videos, 0].T}
        own = torch.arange(self.frames).expand(*videos.shape, -1)
        chance = torch.rand(own.shape, generator=generator)
        replaced = (chance >= settings.zeroed) & (chance < settings.zeroed + settings.replaced)
        source = torch.where(replaced, self.frames + replaced.cumsum(dim=-1) - 1, own)
        source = source.masked_fill(chance < settings.zeroed, -1)
        others = (*videos.shape, int(replaced.sum(dim=-1).max()))
        any_video = torch.randint(self.videos, others, generator=generator)
        any_frame = torch.randint(self.frames, others, generator=generator)
        return Drawn(
            torch.cat([videos.unsqueeze(-1).expand(own.shape), any_video], dim=-1),
            torch.cat([own, any_frame], dim=-1),
            more=more | {"source": source.transpose(0, 1)},
        )

    def losses(
        self, batch: Batch, weights: Mapping[str, float], state: State, cast: torch.autocast
    ) -> tuple[dict[str, Tensor], Tensor]:
        clean, corrupted = batch.visible[:, :, : self.frames], corrupt(batch.visible, batch.more["source"])
        generator = step_generator(self.settings.seed, state.steps, clean.device)
        with cast:
            hidden = state.model.hidden(corrupted.flatten(0, 1), dropout(self.settings.dropout, generator))
            codes = binarise(state.model.prebinary(hidden))
            restored = state.model.restore(codes)
        codes, hidden = codes.unflatten(0, clean.shape[:2]), hidden.unflatten(0, clean.shape[:2])
        target = corrupted if self.settings.published_code else clean
        losses = {"reconstruction": (restored.to(target.dtype) - target.flatten(0, 1)).square().mean()}
        if "neighbours" in weights:
            losses["neighbours"] = neighbour_loss(codes, batch.more["similar"])
        if "anchors" in weights:
            losses["anchors"] = anchor_loss(hidden, state.kept["anchors"][batch.more["anchor"].T])
        return losses, codes.detach()

    def check_kept(self, kept: Mapping[str, Tensor], network: BTH) -> None:
        if not kept:
            return
        anchors, nearest, distances = kept["anchors"], kept["nearest"], kept["distances"]
        fits = anchors.shape[1:] == (network.width,) and nearest.shape == distances.shape == (self.videos, NEAREST)
        if not fits or nearest.dtype != torch.int64 or not ((nearest >= 0) & (nearest < len(anchors))).all():
            raise ValueError("the anchors are not those of these videos and this network")
        if not anchors.isfinite().all() or not distances.isfinite().all():
            raise ValueError("the anchors are not finite")


def dropout(rate: float, generator: torch.Generator) -> Drop:
    def drop(values: Tensor) -> Tensor:
        stays = torch.rand(values.shape, generator=generator, device=values.device) >= rate
        return values * stays / (1 - rate)

    return drop if rate else lambda values: values


def corrupt(frames: Tensor, source: Tensor) -> Tensor:
    """Frames (V, batch, n, D) and where each comes from, (batch, V, L), -1 for zero -> (V, batch, L, D)."""
    source = source.transpose(0, 1).flatten(0, 1)
    rows = torch.arange(len(source), device=source.device).unsqueeze(1)
    taken = frames.flatten(0, 1)[rows, source.clamp_min(0)]
    return taken.masked_fill_((source < 0).unsqueeze(-1), 0).unflatten(0, frames.shape[:2])


def neighbour_loss(codes: Tensor, similar: Tensor) -> Tensor:
    """Frame codes (2, batch, L, b) of pairs, and ±1 for alike or not (batch,) -> mean squared error of their product."""
    one, other = codes.sum(dim=2)  # whole numbers
    product = (one * other).sum(dim=-1) / (codes.shape[2] ** 2 * codes.shape[3])
    return (similar - product).square().mean()


def anchor_loss(hidden: Tensor, anchors: Tensor) -> Tensor:
    """h (2, batch, L, H) and each video's anchor (2, batch, H) -> the sum over both videos of the mean squared error."""
    return (hidden.mean(dim=2) - anchors).square().mean(dim=(1, 2)).sum()
