"""S5VH: self-supervised video hashing with selective state spaces (Wang et al., AAAI 2025).

    visible frames -> bidirectional Mamba blocks -> hash layer -> codes -> one more block -> every hidden frame

A masked autoencoder whose bottleneck is one code for each visible frame, a contrast between two views of a video, and
cluster labels from the features that the videos' mean codes must tell.

Where the published code and this file differ, with the code's behaviour at `published_code = True`:

| published code | here |
|---|---|
| hash centres are prepared and read by nothing; scores come from a linear layer that is trained | the centres, frozen |
| two unrelated k-means, for labels and for centres; the start may hold a video twice | one, from different videos |
| labels move by codes without normalisation, at another scale, with blocks left out | by what retrieval sees |
| a bit is 0 where an even number of frames is evenly split | the sign of the mean pre-binary value, in both |
| a second mixer of every block is replaced by the first, a net of token probabilities never used | neither, in both |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.loader import Batch, Drawn
from .baselines import leading_directions
from .method import Context, Method, Pass, State, step_generator
from .parts.hash_centers import enough_rows, spread_centers
from .parts.layers import EPSILON, binarise, initialise, kmeans, mask_token, sinusoids
from .parts.mamba import Mixer
from .settings import CheckedSettings
from .wsch.losses import contrast_loss
from .wsch.model import majority, video_codes
from .wsch.views import check_views, draw_views, hidden_count

NETWORK_SETTINGS = ("bits", "encoder_width", "encoder_blocks", "decoder_width", "stochastic_depth")
ASSIGNMENTS = 16  # of videos to clusters, at most


@dataclass(frozen=True)
class Settings(CheckedSettings):
    """The settings of one run, by default those published for ActivityNet."""

    dataset: str = "demo"
    bits: int = 64  # b
    seed: int = 1

    epochs: int = 350
    masking_ratio: float = 0.5  # p, of a video's frames in each view
    weight_contrast: float = 0.2  # alpha
    contrast_temperature: float = 0.5  # T
    tau_plus: float = 0.05  # assumed share of false negatives
    weight_cluster: float = 0.001  # a_c
    cluster_temperature: float = 0.5  # T_c
    clusters: int = 100  # K
    latent_size: int = 512  # principal components that are clustered, or as many as there are
    label_rate: float = 0.01  # s, by which labels move towards what the network tells
    labels_move_from: int = 50  # epoch, counted from 0
    center_sweeps: int = 1  # that spread the centres, where there are too few Hadamard rows

    batch_size: int = 128
    learning_rate: float = 5e-4
    least_learning_rate: float = 1e-5
    learning_rate_schedule: str = "cosine"  # or "constant"
    weight_decay: float = 1e-4

    encoder_width: int = 256  # H
    encoder_blocks: int = 6
    decoder_width: int = 192  # H_d
    stochastic_depth: float = 0.5  # share of videos that leave out the last block; less in those before

    published_code: bool = False  # what the published code does, where it is not what was meant
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        self.check_common()
        self.check_choices({"learning_rate_schedule": ("cosine", "constant")})
        self.check_whole("clusters", "latent_size", "encoder_width", "encoder_blocks", "decoder_width")
        self.check_positive("contrast_temperature", "cluster_temperature")
        self.check_not_negative("weight_contrast", "weight_cluster", "least_learning_rate", "weight_decay")
        self.check_not_negative("labels_move_from", "center_sweeps")
        self.require("masking_ratio", 0 < self.masking_ratio < 1, "a number between 0 and 1")
        for name in ("tau_plus", "stochastic_depth"):
            self.require(name, 0 <= getattr(self, name) < 1, "a number from 0 to below 1")
        self.require("label_rate", 0 <= self.label_rate <= 1, "a number from 0 to 1")


RECIPES = {
    "published": {},
    "activitynet": {},
    "fcvid": {  # the authors' logs: masking_ratio 0.3, weight_cluster 0.001, labels that do not move
        "batch_size": 512, "masking_ratio": 0.75, "epochs": 500, "weight_contrast": 2.5, "tau_plus": 0.1,
        "weight_cluster": 0.01, "clusters": 450,
    },
    "ucf101": {"weight_contrast": 1.0, "tau_plus": 0.1, "weight_cluster": 0.1, "clusters": 101},
    "hmdb51": {"weight_contrast": 1.0, "weight_cluster": 0.1, "latent_size": 1024},  # 512 in the authors' logs
}  # fmt: skip


class S5VHMethod(Method):
    """Kept beside the network: "labels" y (N, K), a distribution for every training video; and "centers" (K, b) of ±1,
    which are the classifier's weights, unless these are trained. A cluster that loses all its videos is dropped."""

    name = "S5VH"
    Settings = Settings
    recipes = RECIPES
    stages, tasks = ("training",), ("contrast", "cluster")
    kept_on_device = ("labels", "centers")

    def __init__(self, settings: Settings, videos: int, frames: int, feature_size: int):
        super().__init__(settings, videos, frames, feature_size)
        check_views(frames, settings.masking_ratio)
        if settings.clusters > videos:
            raise ValueError(
                f"clusters is {settings.clusters}, but {settings.dataset} has {videos} training videos: choose at most "
                "that many."
            )

    @classmethod
    def network(cls, settings: Settings, feature_size: int, frames: int) -> S5VH:
        sizes = {name: getattr(settings, name) for name in NETWORK_SETTINGS}
        return S5VH(feature_size, frames, **sizes, classes=settings.clusters if settings.published_code else 0)

    def passes(self) -> list[Pass]:
        return [Pass(epoch, "training", epoch, self.tasks) for epoch in range(self.settings.epochs)]

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        rate, decay = self.settings.learning_rate, self.settings.weight_decay
        return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay, fused=True)

    def learning_rate(self, current: Pass, step: int) -> float:
        highest, least = self.settings.learning_rate, self.settings.least_learning_rate
        if self.settings.learning_rate_schedule == "constant":
            return highest
        return least + (highest - least) * (1 + math.cos(math.pi * current.number / self.settings.epochs)) / 2

    def prepare(self, context: Context, generator: torch.Generator) -> dict[str, Tensor]:
        """Clusters of the videos' mean features, which give labels and centres."""
        chosen, latent = self.settings, principal_components(context.features.mean_pooled(), self.settings.latent_size)
        start = torch.randperm(self.videos, generator=generator)[: chosen.clusters]
        if chosen.published_code:
            start = torch.randint(self.videos, (chosen.clusters,), generator=generator)
        means, nearest = kmeans(latent, latent[start], ASSIGNMENTS)
        kept = {"labels": F.one_hot(nearest, chosen.clusters if chosen.published_code else len(means)).float()}
        if not chosen.published_code:
            meanings = F.normalize(means, dim=1).cpu().double().numpy()
            sweeps = 0 if enough_rows(len(means), chosen.bits) else chosen.center_sweeps
            kept["centers"] = torch.from_numpy(spread_centers(meanings, chosen.bits, sweeps)[0]).float()
        return {name: tensor.to(context.device) for name, tensor in kept.items()}

    def draw(self, current: Pass, state: State) -> Drawn:
        """A new order of the training videos, and two views of each."""
        order = torch.randperm(self.videos, generator=state.generator)
        hidden = hidden_count(self.frames, self.settings.masking_ratio)
        return Drawn(order.unsqueeze(0), draw_views(self.videos, self.frames, hidden, state.generator), "hidden")

    def weights(self, current: Pass, state: State) -> dict[str, float]:
        weights = {"contrast": self.settings.weight_contrast, "cluster": self.settings.weight_cluster}
        return {"reconstruction": 1.0} | {name: weight for name, weight in weights.items() if weight}

    def losses(
        self, batch: Batch, weights: Mapping[str, float], state: State, cast: torch.autocast
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Both views go through the network as one batch."""
        model, settings, losses = state.model, self.settings, {}
        views, count = batch.visible.shape[:2]
        visible, seen, unseen = (part.flatten(0, 1) for part in (batch.visible, batch.seen, batch.unseen))
        generator = step_generator(settings.seed, state.steps, visible.device)
        kept_blocks = model.draw_kept_blocks(
            (views + 1) * count, generator
        )  # the last are of the pass that tells labels
        with cast:
            codes = binarise(model.prebinary(visible, seen, kept_blocks[:, : views * count]))
            reconstructions = model.reconstruct(codes, seen, unseen)
        # 1. every hidden frame, in both views
        errors = (reconstructions.float() - batch.hidden.flatten(0, 1)).square().unflatten(0, (views, count))
        losses["reconstruction"] = errors.flatten(1).mean(dim=1).sum()
        # 2. two views of a video agree, those of two videos do not
        if "contrast" in weights:
            of_videos = video_codes(codes).unflatten(0, (views, count))
            losses["contrast"] = contrast_loss(of_videos, settings.contrast_temperature, settings.tau_plus)
        # 3. each view tells its video's label
        if "cluster" in weights:
            labels = self.labels(batch, state, cast, kept_blocks[:, views * count :])
            scores = codes.mean(dim=1) @ self.classifier(state).T / (settings.bits * settings.cluster_temperature)
            losses["cluster"] = F.cross_entropy(scores, labels.repeat(views, 1))
        return losses, codes.detach().unflatten(0, (views, count))

    def classifier(self, state: State) -> Tensor:
        """(K, b)"""
        return state.model.classifier.weight if self.settings.published_code else state.kept["centers"]

    @torch.no_grad()
    def labels(self, batch: Batch, state: State, cast: torch.autocast, kept_blocks: Tensor) -> Tensor:
        """The labels of a batch's videos (batch, K), which are kept; from some epoch on they have moved before."""
        settings, rows, kept = self.settings, batch.videos[0], state.kept["labels"]
        if state.steps >= settings.labels_move_from * self.steps_in_pass():
            scores = self.label_scores(whole_videos(batch), state, cast, kept_blocks)
            kept[rows] = (1 - settings.label_rate) * kept[rows] + settings.label_rate * scores.softmax(dim=1)
        return kept[rows]

    def label_scores(self, frames: Tensor, state: State, cast: torch.autocast, kept_blocks: Tensor) -> Tensor:
        """What the network tells of whole videos (batch, L, D): (batch, K)."""
        model, settings, numbers = state.model, self.settings, torch.arange(self.frames, device=frames.device)
        with cast:
            if settings.published_code:
                prebinary = model.binary(model.encoder(frames, numbers, kept_blocks)).float()
            else:
                prebinary = model.prebinary(frames, numbers)
        scores = binarise(prebinary).mean(dim=1) @ self.classifier(state).T
        return scores if settings.published_code else scores / (settings.bits * settings.cluster_temperature)

    def check_kept(self, kept: Mapping[str, Tensor], network: S5VH) -> None:
        labels, classes = kept["labels"], self.settings.clusters
        if not self.settings.published_code:
            centers, classes = kept["centers"], len(kept["centers"])
            if centers.shape != (classes, network.bits) or not (centers.abs() == 1).all():
                raise ValueError("the centres are no codes of the network")
        if labels.shape != (self.videos, classes) or not (labels >= 0).all() or not labels.isfinite().all():
            raise ValueError("the labels are no distributions over the clusters")


class S5VH(nn.Module):
    """The network; parameters have the names of the published weights. classes: of a trained classifier, 0 for none."""

    def __init__(
        self,
        feature_size: int,  # D
        frames: int,  # L
        bits: int,  # b
        encoder_width: int = 256,  # H
        encoder_blocks: int = 6,
        decoder_width: int = 192,  # H_d
        stochastic_depth: float = 0.5,
        classes: int = 0,  # K
    ):
        super().__init__()
        self.encoder = Encoder(feature_size, frames, encoder_width, encoder_blocks, stochastic_depth)
        self.binary = nn.Linear(encoder_width, bits)
        self.ln = nn.LayerNorm(bits)
        self.encoder_to_decoder = nn.Linear(bits, decoder_width, bias=False)
        self.mask_token = mask_token(decoder_width)
        self.decoder = Decoder(feature_size, frames, decoder_width)
        self.classifier = nn.Linear(bits, classes, bias=False) if classes else None

    @property
    def bits(self) -> int:
        return self.binary.out_features

    def prebinary(self, frames: Tensor, numbers: Tensor, kept_blocks: Tensor | None = None) -> Tensor:
        """Frames (batch, n, D) and their numbers (batch, n) or (n,) -> pre-binary values q (batch, n, b)."""
        return self.ln(self.binary(self.encoder(frames, numbers, kept_blocks)).to(self.ln.weight.dtype))

    def reconstruct(self, codes: Tensor, seen: Tensor, unseen: Tensor) -> Tensor:
        """Codes (batch, n, b) of the frames `seen` (batch, n) -> the frames `unseen` (batch, m), (batch, m, D)."""
        return self.decoder(self.encoder_to_decoder(codes), self.mask_token, seen, unseen)

    def draw_kept_blocks(self, videos: int, generator: torch.Generator) -> Tensor:
        """Stochastic depth: which blocks each video goes through, (blocks, videos) of 0 and 1."""
        draws = torch.rand(len(self.encoder.blocks), videos, generator=generator, device=generator.device)
        return (draws >= torch.tensor(self.encoder.left_out, device=draws.device).unsqueeze(1)).float()

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """All frames of each video, (batch, L, D) -> the codes for retrieval, (batch, b) int8 of ±1."""
        prebinary = self.prebinary(frames, torch.arange(frames.shape[1], device=frames.device))
        return majority(binarise(prebinary), prebinary)


class Encoder(nn.Module):
    """Frames -> one vector for each, (batch, n, H)."""

    def __init__(self, feature_size: int, frames: int, width: int, blocks: int, stochastic_depth: float):
        super().__init__()
        self.frames = frames
        self.left_out = [stochastic_depth * block / max(1, blocks - 1) for block in range(blocks)]  # share of videos
        self.patch_embed = nn.Linear(feature_size, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.head = nn.Linear(width, width)
        initialise(self)

    def forward(self, frames: Tensor, numbers: Tensor, kept_blocks: Tensor | None) -> Tensor:
        """kept_blocks: (blocks, batch) of 0 and 1; None goes through all."""
        positions = sinusoids(self.frames, self.norm.normalized_shape[0], frames.device)
        tokens = self.patch_embed(frames) + positions[numbers]
        for place, (block, left_out) in enumerate(zip(self.blocks, self.left_out, strict=True)):
            tokens = block(tokens, None if kept_blocks is None else kept_blocks[place] / (1 - left_out))
        return self.head(self.norm(tokens))


class Decoder(nn.Module):
    """Codes of the visible frames, widened to (batch, n, H_d) -> the hidden frames (batch, m, D)."""

    def __init__(self, feature_size: int, frames: int, width: int):
        super().__init__()
        self.frames = frames
        self.blocks = nn.ModuleList([Block(width)])
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.head = nn.Linear(width, feature_size)
        initialise(self)

    def forward(self, visible: Tensor, mask: Tensor, seen: Tensor, unseen: Tensor) -> Tensor:
        positions = sinusoids(self.frames, visible.shape[-1], visible.device)
        hidden = mask + positions[unseen]
        return self.head(self.norm(self.blocks[0].end(visible + positions[seen], hidden)))


class Block(nn.Module):
    """x + M(LN1(x)) + the same M of LN2(x) backwards in time. The residual stream keeps its precision in autocast."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=EPSILON), nn.LayerNorm(width, eps=EPSILON)
        self.mamba = Mixer(width)

    def forward(self, tokens: Tensor, scale: Tensor | None = None) -> Tensor:
        """tokens: (batch, n, width); scale: (batch,), of what the block adds. Both directions are one batch."""
        ahead, behind = self.mamba(torch.cat([self.norm1(tokens), self.norm2(tokens.flip(1))])).chunk(2)
        added = ahead + behind.flip(1)
        return tokens + (added if scale is None else added * scale.view(-1, 1, 1))

    def end(self, before: Tensor, tokens: Tensor) -> Tensor:
        """What becomes of the last tokens, (batch, m, width), where others come before them, (batch, n, width).

        Backwards in time they come first, and the mixer sees no further: the others need not be mixed in.
        """
        ahead = self.mamba(self.norm1(torch.cat([before, tokens], dim=1)), tokens.shape[1])
        return tokens + ahead + self.mamba(self.norm2(tokens.flip(1))).flip(1)


def whole_videos(batch: Batch) -> Tensor:
    """All frames of a batch's videos in their order, (batch, L, D), put together from those seen and those hidden."""
    order = torch.cat([batch.seen[0], batch.unseen[0]], dim=1).argsort(dim=1)
    return torch.cat([batch.visible[0], batch.hidden[0]], dim=1).take_along_dim(order.unsqueeze(-1), dim=1)


def principal_components(means: Tensor, most: int) -> Tensor:
    """Mean features (N, D), which are centred in place -> their principal components: (N, `most`, or as many as can be)."""
    means -= means.mean(dim=0)
    return means @ leading_directions(means, torch.zeros_like(means[0]), min(most, *means.shape))[1].float()
