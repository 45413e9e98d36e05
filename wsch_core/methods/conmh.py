"""ConMH: contrastive masked autoencoders for self-supervised video hashing (Wang et al., AAAI 2023).

    visible frames -> encoder -> hash layer -> codes -> decoder -> every hidden frame

A masked autoencoder whose bottleneck is one code for each visible frame, and a contrast between the mean codes of two
views of a video that show different frames. One stage; no clusters, no teacher.

Where the authors' code differs from what is done here:

| their code | here |
|---|---|
| a bit is 0 where an even number of frames is evenly split | the sign of the mean pre-binary value decides, 0 gives -1 |
| masks come from the loader's worker and repeat after a resume | drawn with the run's generator, which is kept |
| the learning rate of a resumed run decays an epoch late | a function of the epoch |
| test labels are scored every few epochs | never seen in training |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..data.loader import Batch, Drawn
from .method import Method, Pass, State
from .parts.layers import EPSILON, Block, binarise, initialise, mask_token, sinusoids, step_decay
from .settings import CheckedSettings
from .wsch.losses import contrast_loss
from .wsch.model import majority, video_codes
from .wsch.views import check_views, draw_views, hidden_count

NETWORK_SETTINGS = (
    "bits", "encoder_width", "encoder_blocks", "encoder_heads", "decoder_width", "decoder_blocks", "decoder_heads",
)  # fmt: skip


@dataclass(frozen=True)
class Settings(CheckedSettings):
    """The settings of one run, by default those published for ActivityNet."""

    dataset: str = "demo"
    bits: int = 64  # b
    seed: int = 1

    epochs: int = 500
    masking_ratio: float = 0.5  # p, of a video's frames in each view
    weight_contrast: float = 0.2  # a
    contrast_temperature: float = 0.5  # T
    tau_plus: float = 0.05  # assumed share of false negatives

    batch_size: int = 128
    learning_rate: float = 1e-4  # falls by a tenth every 20 epochs
    least_learning_rate: float = 1e-5

    encoder_width: int = 256  # H
    encoder_blocks: int = 12
    encoder_heads: int = 6  # need not divide the width
    decoder_width: int = 192  # H_d
    decoder_blocks: int = 2
    decoder_heads: int = 3

    device: str = "auto"  # "auto": the GPU if there is one; else "cpu", "cuda", "cuda:1"
    precision: str = "auto"  # "auto": bfloat16 where the device computes it faster

    def __post_init__(self) -> None:
        self.check_common()
        self.check_masked_autoencoder()

    def check_masked_autoencoder(self) -> None:
        self.check_whole(*NETWORK_SETTINGS)
        self.check_positive("contrast_temperature")
        self.check_not_negative("weight_contrast", "least_learning_rate")
        self.require("masking_ratio", 0 < self.masking_ratio < 1, "a number between 0 and 1")
        self.require("tau_plus", 0 <= self.tau_plus < 1, "a number from 0 to below 1")
        for part in ("encoder", "decoder"):
            width = getattr(self, f"{part}_width")
            self.require(f"{part}_heads", getattr(self, f"{part}_heads") <= width, f"at most {part}_width, {width}")


RECIPES = {
    "published": {},
    "activitynet": {},
    "fcvid": {"epochs": 800, "masking_ratio": 0.75, "weight_contrast": 1.0, "tau_plus": 0.1, "batch_size": 512},
    "yfcc": {"epochs": 40, "masking_ratio": 0.75, "weight_contrast": 1.0, "tau_plus": 0.1},
}


class ConMH(nn.Module):
    """The network; parameters have the names of the published weights."""

    def __init__(
        self,
        feature_size: int,  # D
        frames: int,  # L
        bits: int,  # b
        encoder_width: int = 256,  # H
        encoder_blocks: int = 12,
        encoder_heads: int = 6,
        decoder_width: int = 192,  # H_d
        decoder_blocks: int = 2,
        decoder_heads: int = 3,
    ):
        super().__init__()
        self.mask_token = mask_token(decoder_width)
        self.frames = frames
        self.encoder = Encoder(feature_size, frames, encoder_width, encoder_blocks, encoder_heads)
        self.decoder = Decoder(feature_size, decoder_width, decoder_blocks, decoder_heads)
        self.encoder_to_decoder = nn.Linear(bits, decoder_width, bias=False)
        self.binary = nn.Linear(encoder_width, bits)  # hash layer
        self.ln = nn.LayerNorm(bits)

    @property
    def bits(self) -> int:
        return self.binary.out_features

    def prebinary(self, frames: Tensor, numbers: Tensor) -> Tensor:
        """Visible frames (batch, n, D) and their numbers (batch, n) -> pre-binary values q (batch, n, b)."""
        return self.hash_layer(self.encoder(self.encoder.embed(frames, numbers)))

    def hash_layer(self, tokens: Tensor) -> Tensor:
        return self.ln(self.binary(tokens).to(self.ln.weight.dtype))

    def reconstruct(self, codes: Tensor, seen: Tensor, unseen: Tensor) -> Tensor:
        """Codes (batch, n, b) of the frames `seen` (batch, n) -> the frames `unseen` (batch, m), (batch, m, D)."""
        visible = self.encoder_to_decoder(codes) + self.decoder_positions(seen)
        return self.decoder(
            torch.cat([visible, self.mask_token + self.decoder_positions(unseen)], dim=1), seen.shape[1]
        )

    def decoder_positions(self, numbers: Tensor) -> Tensor:
        return sinusoids(self.frames, self.mask_token.shape[-1], numbers.device)[numbers]

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """All frames of each video, (batch, L, D) -> the codes for retrieval, (batch, b) int8 of ±1."""
        prebinary = self.prebinary(frames, torch.arange(frames.shape[1], device=frames.device))
        return majority(binarise(prebinary), prebinary)


class Encoder(nn.Module):
    """Tokens of visible frames (batch, n, H) -> one vector for each, (batch, n, H)."""

    def __init__(self, feature_size: int, frames: int, width: int, blocks: int, heads: int):
        super().__init__()
        self.frames, self.width = frames, width
        self.patch_embed = nn.Linear(feature_size, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.head = nn.Linear(width, width)
        initialise(self)

    def embed(self, frames: Tensor, numbers: Tensor) -> Tensor:
        """Raw frames (batch, n, D) and their numbers in the whole video (batch, n) or (n,) -> tokens."""
        return self.patch_embed(frames) + sinusoids(self.frames, self.width, numbers.device)[numbers]

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens))


class Decoder(nn.Module):
    """Tokens (batch, n, H_d) of which the last are reconstructed, those from `first` on: (batch, n - first, D)."""

    def __init__(self, feature_size: int, width: int, blocks: int, heads: int):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.head = nn.Linear(width, feature_size)
        initialise(self)

    def forward(self, tokens: Tensor, first: int) -> Tensor:
        *others, last = self.blocks
        for block in others:
            tokens = block(tokens)
        return self.head(self.norm(last(tokens, first)))  # of the last block nothing else is read


class ConMHMethod(Method):
    """One stage: every pass learns reconstruction and contrast."""

    name = "ConMH"
    Settings = Settings
    recipes = RECIPES
    stages, tasks = ("training",), ("contrast",)

    def __init__(self, settings: Settings, videos: int, frames: int, feature_size: int):
        super().__init__(settings, videos, frames, feature_size)
        check_views(frames, settings.masking_ratio)

    @classmethod
    def network(cls, settings: Settings, feature_size: int, frames: int) -> ConMH:
        return ConMH(feature_size, frames, **{name: getattr(settings, name) for name in NETWORK_SETTINGS})

    def passes(self) -> list[Pass]:
        return [Pass(epoch, "training", epoch, ("contrast",)) for epoch in range(self.settings.epochs)]

    def learning_rate(self, current: Pass, step: int) -> float:
        return step_decay(self.settings.learning_rate, self.settings.least_learning_rate, current.epoch)

    def draw(self, current: Pass, state: State) -> Drawn:
        """A new order of the videos, and two views of each: the first and the last frames of a permutation."""
        order = torch.randperm(self.videos, generator=state.generator)
        hidden = hidden_count(self.frames, self.settings.masking_ratio)
        return Drawn(order.unsqueeze(0), draw_views(self.videos, self.frames, hidden, state.generator), "hidden")

    def weights(self, current: Pass, state: State) -> dict[str, float]:
        weights = {"reconstruction": 1.0, "contrast": self.settings.weight_contrast}
        return {name: weight for name, weight in weights.items() if weight}

    def losses(
        self, batch: Batch, weights: Mapping[str, float], state: State, cast: torch.autocast
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Both views go through the network as one batch: they show equally many frames, and no layer mixes videos."""
        codes, reconstructions = through(state.model, batch, batch.visible, cast)
        losses = {"reconstruction": reconstruction_loss(reconstructions, batch.hidden)}
        if "contrast" in weights:
            losses["contrast"] = self.contrast(codes)
        return losses, codes.detach()

    def contrast(self, codes: Tensor) -> Tensor:
        """Frame codes (2, batch, visible, b) -> the debiased contrast of the views' mean codes."""
        of_videos = video_codes(codes.flatten(0, 1)).unflatten(0, (len(codes), -1))
        return contrast_loss(of_videos, self.settings.contrast_temperature, self.settings.tau_plus)


def through(model: ConMH, batch: Batch, visible: Tensor, cast: torch.autocast) -> tuple[Tensor, Tensor]:
    """visible: (2, batch, V, D), what the encoder is given of a batch -> the frame codes (2, batch, V, b), and the
    reconstructions of the hidden frames (2, batch, m, D)."""
    seen, unseen = batch.seen.flatten(0, 1), batch.unseen.flatten(0, 1)
    with cast:
        codes = binarise(model.prebinary(visible.flatten(0, 1), seen))
        reconstructions = model.reconstruct(codes, seen, unseen)
    return codes.unflatten(0, (2, -1)), reconstructions.unflatten(0, (2, -1))


def reconstruction_loss(reconstructions: Tensor, hidden: Tensor) -> Tensor:
    """(2, batch, m, D) and the raw frames of this shape -> the mean squared error, summed over the views."""
    return (reconstructions.to(hidden.dtype) - hidden).square().mean(dim=(1, 2, 3)).sum()
