"""AutoSSVH: self-supervised video hashing with a frame sampler and a contrast of codes with prototypes (CVPR 2025).

ConMH's network, views and two losses; and after a warm-up a third loss, which draws a view's mean code to the prototypes
of its video's clusters. Clusters are found anew at the beginning of every epoch, several times with different numbers.

Where the authors' code differs from what is done here; `published_code` brings theirs back where it says so:

| their code | here |
|---|---|
| the frame sampler in the network is never called: views are random masks | none; `published_code`: there, unused |
| cluster-mates in a batch are each other's negatives | a cluster is one column; `published_code`: one for each video |
| a density of 0, of clusters of equal codes, divides by 0 | at least 0.001; `published_code`: as it comes |
| prototypes are real-valued, though the paper votes on bits | as the code |
| bits may be 0 where an even number of frames is evenly split | the sign of the mean pre-binary value decides, 0 gives -1 |
| the best epoch on the test labels is kept | the last |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.loader import Batch
from ..storage.words import shortened
from . import conmh
from .conmh import NETWORK_SETTINGS, ConMH, ConMHMethod, reconstruction_loss, through
from .method import Context, Pass, State, step_generator
from .parts.layers import binarise, initialise, kmeans, nearest_centers
from .wsch.model import video_codes

ITERATIONS, RESTARTS, PER_CLUSTER = 20, 5, 200  # of k-means; points of each cluster it looks at, at most
LEAST_DENSITY = 1e-3
MOST_CLUSTERINGS = 100


@dataclass(frozen=True)
class Settings(conmh.Settings):
    """The settings of one run, by default those published for ActivityNet."""

    epochs: int = 800
    warm_up_epochs: int = 100  # without prototypes
    weight_prototypes: float = 0.01  # b
    clusters: str = "250, 400, 600"  # K of each clustering
    prototype_temperature: float = 0.2  # mean density of a clustering's clusters
    input_dropout: float = 0.2  # of the visible frames' features
    least_learning_rate: float = 1e-6
    published_code: bool = False  # as the authors' code where that differs, see above

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("warm_up_epochs", self.warm_up_epochs >= 0, "a whole number of at least 0")
        self.check_not_negative("weight_prototypes")
        self.check_positive("prototype_temperature")
        self.require("input_dropout", 0 <= self.input_dropout < 1, "a number from 0 to below 1")
        counts = self.clusters.split(",")
        whole = all(count.strip().isdecimal() and 2 <= int(count) < 2**31 for count in counts[:MOST_CLUSTERINGS])
        self.require(
            "clusters", whole and len(counts) <= MOST_CLUSTERINGS, 'whole numbers above 1, as in "250, 400, 600"'
        )

    @property
    def cluster_counts(self) -> list[int]:
        return [int(count) for count in self.clusters.split(",")]


RECIPES = {
    "published": {},
    "activitynet": {},
    "fcvid": {
        "epochs": 805, "masking_ratio": 0.75, "weight_contrast": 1.0, "tau_plus": 0.1, "batch_size": 512,
        "clusters": "250, 500, 1000", "input_dropout": 0.0, "least_learning_rate": 1e-5,
    },
    "ucf101": {
        "epochs": 350, "masking_ratio": 0.5, "weight_contrast": 1.0, "tau_plus": 0.1, "weight_prototypes": 0.2,
        "warm_up_epochs": 50,
        "input_dropout": 0.0,
    },
    "hmdb51": {
        "epochs": 350, "masking_ratio": 0.7, "weight_contrast": 1.0, "tau_plus": 0.1, "weight_prototypes": 0.2,
        "warm_up_epochs": 50, "input_dropout": 0.0,
    },
}  # fmt: skip


class AutoSSVH(ConMH):
    """ConMH's network with learned positions in the decoder; `sampler` adds the published frame sampler."""

    def __init__(self, feature_size: int, frames: int, sampler: bool = False, **sizes: int):
        super().__init__(feature_size, frames, **sizes)
        self.pos_embed = nn.Parameter(torch.zeros(1, frames, self.mask_token.shape[-1]))  # P
        if sampler:
            self.encoder.sample_net = FrameSampler(self.encoder.width)

    def decoder_positions(self, numbers: Tensor) -> Tensor:
        return self.pos_embed[0][numbers]

    def through_sampler(self, frames: Tensor, count: int, adversarial: bool, uniform: Tensor, normal: Tensor) -> tuple:
        """Whole videos (batch, L, D) and the noise (batch, L) of both kinds -> what the sampler's `forward` gives, the
        codes of the chosen frames, and a reconstruction of all places (batch, L, D): chosen frames come first there."""
        places = torch.arange(self.frames, device=frames.device)
        found = self.encoder.sample_net(self.encoder.embed(frames, places), count, adversarial, uniform, normal)
        codes = binarise(self.hash_layer(self.encoder(found[2])))
        masks = self.mask_token.expand(len(frames), self.frames - count, -1)
        tokens = torch.cat([self.encoder_to_decoder(codes), masks], dim=1) + self.pos_embed
        return *found, codes, self.decoder(tokens, 0)


class FrameSampler(nn.Module):
    """Scores frames, and chooses those with the largest score plus noise; the scorer's gradient is reversed."""

    def __init__(self, width: int):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(1, 1, 1, 1))  # never used
        self.importance_score = Importance(width)
        initialise(self)

    def forward(self, tokens: Tensor, count: int, adversarial: bool, uniform: Tensor, normal: Tensor) -> tuple:
        """tokens: (batch, L, H) -> scores (batch, L) in (0, 1); the chosen frames' numbers (batch, count), ascending; their
        tokens (batch, count, H)."""
        scores = self.importance_score(tokens)
        gumbel = -(-(uniform + 1e-20).log() + 1e-20).log()
        noisy = (-scores if adversarial else scores) + gumbel + 10 * normal
        weights = (2 * (noisy - noisy.mean()) / noisy.std()).softmax(dim=-1)
        chosen = weights.topk(count, dim=-1).indices.sort(dim=-1).values
        kept = weights.gather(1, chosen)
        reversed_ones = 1 - (kept - kept.detach())
        here = chosen.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
        return scores, chosen, tokens.gather(1, here) * reversed_ones.unsqueeze(-1)


class Importance(nn.Module):
    """Tokens (batch, L, H) -> scores (batch, L) in (0, 1)."""

    def __init__(self, width: int):
        super().__init__()
        self.importance_score = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width)
        self.transf = nn.Sequential(nn.Linear(width, 1), nn.Sigmoid())

    def forward(self, tokens: Tensor) -> Tensor:
        return self.transf(tokens + self.norm(self.importance_score(tokens))).squeeze(-1)


class AutoSSVHMethod(ConMHMethod):
    """One stage: reconstruction and contrast, from the warm-up on with prototypes.

    Kept, once there are clusters, with those of all clusterings in one row: "prototypes" (sum of K, b), "densities" (sum of
    K,), "assignment" (clusterings, N) of each training video; and "counts" (clusterings,), K of each, as found.
    """

    name = "AutoSSVH"
    Settings = Settings
    recipes = RECIPES
    tasks = ("contrast", "prototypes")
    kept_on_device = ("prototypes", "densities", "assignment")

    def __init__(self, settings: Settings, videos: int, frames: int, feature_size: int):
        super().__init__(settings, videos, frames, feature_size)
        if max(settings.cluster_counts) > videos and any("prototypes" in p.tasks for p in self.passes()):
            raise ValueError(
                f"clusters is {shortened(settings.clusters)}, but {settings.dataset} has {videos} training videos: choose "
                "at most that many."
            )

    @classmethod
    def network(cls, settings: Settings, feature_size: int, frames: int) -> AutoSSVH:
        sizes = {name: getattr(settings, name) for name in NETWORK_SETTINGS}
        return AutoSSVH(feature_size, frames, settings.published_code, **sizes)

    def passes(self) -> list[Pass]:
        chosen = self.settings
        first = chosen.warm_up_epochs if chosen.weight_prototypes else chosen.epochs
        return [
            Pass(epoch, "training", epoch, ("contrast", "prototypes") if epoch >= first else ("contrast",))
            for epoch in range(chosen.epochs)
        ]

    def weights(self, current: Pass, state: State) -> dict[str, float]:
        prototypes = {"prototypes": self.settings.weight_prototypes} if "prototypes" in current.tasks else {}
        return super().weights(current, state) | prototypes

    def begin(self, current: Pass, state: State, context: Context) -> dict[str, Any]:
        """Cluster the mean codes of all training videos, once for each number of clusters."""
        if "prototypes" not in current.tasks:
            return {}
        codes, settings = [], self.settings
        places = torch.arange(self.frames, device=context.device)
        with torch.no_grad(), context.cast:
            for frames in context.features.batches(settings.batch_size):
                codes.append(video_codes(binarise(state.model.prebinary(frames.to(context.device), places))))
        every = torch.cat(codes)
        least = 0.0 if settings.published_code else LEAST_DENSITY
        kept, first = [], 0
        for count in settings.cluster_counts:
            centers, assignment = cluster(every, count, state.generator)
            density = densities(every, centers, assignment, settings.prototype_temperature, least)
            kept.append((F.normalize(centers, dim=-1), density, first + assignment, len(centers)))
            first += len(centers)
        prototypes, density, assignment, counts = zip(*kept, strict=True)
        state.kept["prototypes"], state.kept["densities"] = torch.cat(prototypes), torch.cat(density)
        state.kept["assignment"], state.kept["counts"] = torch.stack(assignment), torch.tensor(counts)
        return {"clusters": list(counts)}

    def losses(
        self, batch: Batch, weights: Mapping[str, float], state: State, cast: torch.autocast
    ) -> tuple[dict[str, Tensor], Tensor]:
        generator = step_generator(self.settings.seed, state.steps, batch.visible.device)
        visible = dropped(batch.visible, self.settings.input_dropout, generator)
        codes, reconstructions = through(state.model, batch, visible, cast)
        losses = {"reconstruction": reconstruction_loss(reconstructions, batch.hidden)}
        if "contrast" in weights:
            losses["contrast"] = self.contrast(codes)
        if "prototypes" in weights:
            losses["prototypes"] = self.prototype_terms(codes, batch.videos[0], state.kept, generator).mean()
        return losses, codes.detach()

    def prototype_terms(
        self, codes: Tensor, videos: Tensor, kept: Mapping[str, Tensor], generator: torch.Generator
    ) -> Tensor:
        """Frame codes (2, batch, visible, b) and the videos' rows (batch,) -> the loss of each view and clustering,
        (2, clusterings)."""
        counts = kept["counts"].tolist()
        by_clustering = zip(
            kept["prototypes"].split(counts),
            kept["densities"].split(counts),
            kept["assignment"][:, videos],
            strict=True,
        )
        terms, first = [], 0
        views = [video_codes(view) for view in codes]
        for prototypes, density, assignment in by_clustering:
            own = assignment - first
            sizes = own.bincount(minlength=len(prototypes))
            columns = sizes if self.settings.published_code else sizes.clamp_max(1)
            terms.append([
                prototype_loss(view, prototypes, density, own, with_negatives(columns, len(own), generator))
                for view in views
            ])  # fmt: skip
            first += len(prototypes)
        return torch.stack([torch.stack(of_views) for of_views in terms], dim=1)

    def check_kept(self, kept: Mapping[str, Tensor], network: AutoSSVH) -> None:
        if not kept:
            return
        counts, assignment = kept["counts"], kept["assignment"]
        clusters, clusterings = int(counts.sum()), len(self.settings.cluster_counts)
        shapes = {
            "prototypes": (clusters, network.bits), "densities": (clusters,),
            "counts": (clusterings,), "assignment": (clusterings, self.videos),
        }  # fmt: skip
        fits = all(kept[name].shape == shape for name, shape in shapes.items()) and assignment.dtype == torch.int64
        ends = counts.cumsum(0).unsqueeze(1)
        inside = fits and (assignment < ends) & (assignment >= ends - counts.unsqueeze(1))
        if not fits or not inside.all() or not (kept["prototypes"].isfinite().all() and (kept["densities"] >= 0).all()):
            raise ValueError("the clusters are not those of these videos and this network")


def dropped(frames: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Features of which a share `rate` is 0, element by element, and the rest is raised to keep the mean."""
    if not rate:
        return frames
    stays = torch.rand(frames.shape, generator=generator, device=frames.device) >= rate
    return frames * stays / (1 - rate)


def cluster(codes: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """k-means of mean codes (N, b), the best of several restarts -> centres (K, b) and each video's cluster (N,).

    K is at most `count`: clusters that come out empty are left out.
    """
    order = torch.randperm(len(codes), generator=generator)[: PER_CLUSTER * count]
    some = codes[order.to(codes.device)]
    best, least = None, math.inf
    for _ in range(RESTARTS):
        start = some[torch.randperm(len(some), generator=generator)[:count].to(codes.device)]
        centers, nearest = kmeans(some, start, ITERATIONS)
        spread = (some - centers[nearest]).square().sum(dtype=torch.float64).item()
        if spread < least:
            best, least = centers, spread
    used, assignment = nearest_centers(codes, best).unique(return_inverse=True)
    return best[used], assignment


def densities(codes: Tensor, centers: Tensor, assignment: Tensor, temperature: float, least: float) -> Tensor:
    """(K,): mean distance of a cluster's members to its centre, over ln(members + 10); of a single member the largest.

    Clipped to the 10th and 90th percentile, then scaled to the mean `temperature`.
    """
    distances = (codes - centers[assignment]).norm(dim=-1)
    sizes = assignment.bincount(minlength=len(centers))
    sums = torch.zeros_like(centers[:, 0]).index_add_(0, assignment, distances)
    density = sums / sizes.clamp_min(1) / (sizes + 10.0).log()
    density = torch.where(sizes > 1, density, torch.where(sizes > 1, density, 0).max()).clamp_min(least)
    low, high = density.quantile(torch.tensor([0.1, 0.9], device=density.device))
    density = density.clamp(low, high)
    return temperature * density / density.mean()


def with_negatives(columns: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """How often each cluster is a column of the loss, (K,): as in `columns`, and once for as many other clusters as the
    batch has videos, drawn without replacement."""
    others = (columns == 0).nonzero().flatten()
    drawn = torch.randperm(len(others), generator=generator, device=columns.device)[:batch]
    return columns.index_fill(0, others[drawn], 1)


def prototype_loss(codes: Tensor, prototypes: Tensor, density: Tensor, own: Tensor, columns: Tensor) -> Tensor:
    """Cross-entropy of normalised codes (batch, b) with the prototypes (K, b), each over its density, against their own.

    columns: (K,) how often each prototype stands among the columns; 0 leaves it out. Equal columns are never written out:
    n of them add ln n to a logit.
    """
    logits = codes @ prototypes.T / density
    targets = logits.gather(1, own.unsqueeze(1)).squeeze(1)
    return (torch.logsumexp(logits + columns.to(logits.dtype).log(), dim=1) - targets).mean()
