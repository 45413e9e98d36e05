"""WSCH as the loop sees it: its passes, what they look at, and the losses of a step in the order of the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...data.features import directions
from ...data.loader import Batch, Drawn, visible_batches
from ..method import Context, Method, Pass, State
from .centers import find_centers
from .cycle import STAGES, TASKS, passes
from .losses import cluster_loss, contrast_loss, reconstruction_loss, sum_of_directions
from .model import WSCH, retrieved_codes, video_codes
from .neighbours import describe, find_neighbours, similarity_loss
from .settings import NETWORK_SETTINGS, RECIPES, Settings
from .views import check_views, draw_views, hidden_count

WARM_UP = 0.05  # share of the steps over which a cosine learning rate rises


class WSCHMethod(Method):
    """A cycle of three tasks: cluster centres, cluster-guided learning, contrastive learning; each with reconstruction.

    Kept beside the network: "centers", (K, b) of ±1, once there are any; what `find_neighbours` gives, if there are some.
    """

    name = "WSCH"
    Settings = Settings
    recipes = RECIPES
    stages, tasks = STAGES, TASKS
    kept_on_device = ("centers", "descriptor_mean", "descriptor_scale")

    def __init__(self, settings: Settings, videos: int, frames: int, feature_size: int):
        super().__init__(settings, videos, frames, feature_size)
        schedule = self.passes()
        if any(p.tasks in ((), ("centers",)) for p in schedule):
            check_views(frames, settings.pretrain_masking_ratio)
        if any(p.stage == "cycle" for p in schedule):
            check_views(frames, settings.masking_ratio, settings.views)
        if settings.centers > 2 * videos and any("centers" in p.tasks for p in schedule):
            raise ValueError(
                f"centers is {settings.centers}, but {settings.dataset} has {videos} training videos, which give "
                f"{2 * videos} codes (two views of each): choose at most that many."
            )
        self.learning_steps = self.steps_in_pass() * sum(p.learns for p in schedule)

    @classmethod
    def network(cls, settings: Settings, feature_size: int, frames: int) -> WSCH:
        return WSCH(feature_size, **{name: getattr(settings, name) for name in NETWORK_SETTINGS})

    def passes(self) -> list[Pass]:
        chosen = self.settings
        return list(passes(chosen.cycle, chosen.pretrain_epochs, chosen.epochs, chosen.centers_every))

    def effort(self, current: Pass) -> float:
        """Grows with the frames that are seen; a pass that only encodes takes a third."""
        ratio, views = self.masking(current)
        seen = views * (self.frames - hidden_count(self.frames, ratio))
        return (seen + self.frames / 3) * (1.0 if current.learns else 0.3)

    def masking(self, current: Pass) -> tuple[float, int]:
        """The share of frames hidden in a pass, and how many views it takes of each video."""
        if current.stage == "cycle" and current.learns:
            return self.settings.masking_ratio, self.settings.views
        return self.settings.pretrain_masking_ratio, 2

    def learning_rate(self, current: Pass, step: int) -> float:
        return learning_rate(self.settings, step, self.learning_steps)

    def prepare(self, context: Context, generator: torch.Generator) -> dict[str, Tensor]:
        return find_neighbours(context.features, self.settings.neighbours) if self.settings.neighbours else {}

    def trust(self, current: Pass, state: State) -> float:
        """How far neighbours are trusted in a pass, in [0, 1]: in those of the cycle, as far as their features tell."""
        return state.kept["trust"].item() if current.stage == "cycle" and "trust" in state.kept else 0.0

    def weights(self, current: Pass, state: State) -> dict[str, float]:
        pretraining = current.stage == "pretraining"
        weights = {"reconstruction": 1.0 if pretraining else self.settings.weight_reconstruction}
        weights |= {task: getattr(self.settings, f"weight_{task}") for task in current.tasks}
        weights["similarity"] = self.trust(current, state) * self.settings.weight_similarity
        return {task: weight for task, weight in weights.items() if weight}

    def draw(self, current: Pass, state: State) -> Drawn:
        ratio, count = self.masking(current)
        weights, trust = self.weights(current, state), self.trust(current, state)
        one_by_one = self.settings.decoder_positions != "none"
        wanted = ["hidden"] if "reconstruction" in weights and one_by_one else []
        wanted += ["sums"] if "similarity" in weights or ("reconstruction" in weights and not one_by_one) else []
        drawn = self.views(ratio, count, state.generator, " ".join(wanted))
        return self.with_neighbours(drawn, trust, state) if trust else drawn

    def with_neighbours(self, drawn: Drawn, trust: float, state: State) -> Drawn:
        """All views but the first show one of the video's neighbours, each with the probability `trust`."""
        near, (order,), others = state.kept["neighbours"], drawn.videos, (len(drawn.frames) - 1, self.videos)
        taken = torch.rand(others, generator=state.generator) < trust
        which = torch.randint(near.shape[1], others, generator=state.generator)
        shown = torch.where(taken, near[order, which].long(), order)
        return drawn._replace(videos=torch.cat([drawn.videos, shown]))

    def views(self, masking_ratio: float, count: int, generator: torch.Generator, wanted: str = "") -> Drawn:
        """A new order of the training videos, and `count` views of each."""
        order = torch.randperm(self.videos, generator=generator)
        hidden = hidden_count(self.frames, masking_ratio)
        return Drawn(order.unsqueeze(0), draw_views(self.videos, self.frames, hidden, generator, count), wanted)

    def begin(self, current: Pass, state: State, context: Context) -> dict[str, Any]:
        """In a centers pass: encode two views of every training video, and find new cluster centres."""
        if current.learns:
            return {"trust": self.trust(current, state)} if "trust" in state.kept else {}
        drawn = self.views(*self.masking(current), state.generator)
        codes = []
        for batch in visible_batches(context.features, drawn, self.settings.batch_size, context.device):
            with context.cast:
                codes.append(state.model.encode(batch.visible.flatten(0, 1)).unflatten(0, (2, -1)))
        former, every = state.kept.get("centers"), torch.cat(codes, dim=1).flatten(0, 1)
        centers, clustering = find_centers(every, self.settings.centers, former, state.generator)
        state.kept["centers"] = centers
        changed = None if former is None else (former != centers).float().mean().item()
        return {"inertia": clustering.inertia, "iterations": clustering.iterations, "changed_bits": changed}

    def losses(
        self, batch: Batch, weights: Mapping[str, float], state: State, cast: torch.autocast
    ) -> tuple[dict[str, Tensor], Tensor]:
        """All views go through the network as one batch."""
        settings, losses = self.settings, {}
        codes, reconstructions, targets = self.reconstruct(batch, "reconstruction" in weights, state.model, cast)
        if reconstructions is not None:
            losses["reconstruction"] = reconstruction_loss(reconstructions.to(targets.dtype), targets)
        if "cluster" in weights:
            centers = state.kept["centers"]
            losses["cluster"] = cluster_loss(codes, centers, settings.cluster_temperature, settings.cluster_targets)
        # beside similarities, codes are compared as they will be retrieved
        in_whole = retrieved_codes if "similarity" in weights else video_codes
        if "contrast" in weights:
            of_videos = in_whole(codes.flatten(0, 1)).unflatten(0, (len(codes), -1))
            losses["contrast"] = contrast_loss(of_videos, settings.contrast_temperature, settings.tau_plus)
        if "similarity" in weights:
            descriptors = describe(batch.sums, state.kept["descriptor_mean"], state.kept["descriptor_scale"])
            of_views = descriptors.expand(len(codes), -1, -1).flatten(0, 1)
            losses["similarity"] = similarity_loss(in_whole(codes.flatten(0, 1)), of_views)
        return losses, codes.detach()

    def reconstruct(
        self, batch: Batch, decode: bool, model: WSCH, cast: torch.autocast
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The frame codes (V, batch, visible, b); and if `decode`, reconstructions and the mean directions they are held
        against, (V, rows, D): a row for each video, or with positions one for each hidden frame."""
        views, frames = len(batch.visible), batch.visible.flatten(0, 1)
        hidden = self.frames - batch.visible.shape[2]
        reconstructions = targets = None
        with cast:
            if not decode:
                codes = model.frame_codes(frames)
            elif model.tells_positions:
                seen, unseen = batch.seen.flatten(0, 1), batch.unseen.flatten(0, 1)
                codes, reconstructions = model.reconstruct_each(frames, seen, unseen)
            else:
                codes, reconstructions = model(frames, hidden)
        if decode and model.tells_positions:
            targets, reconstructions = directions(batch.hidden).flatten(1, 2), reconstructions.flatten(0, 1)
        elif decode:
            targets = (batch.sums - sum_of_directions(batch.visible)) / hidden
        if decode:
            reconstructions = reconstructions.unflatten(0, (views, -1))
        return codes.unflatten(0, (views, -1)), reconstructions, targets

    def check_kept(self, kept: Mapping[str, Tensor], network: WSCH) -> None:
        super().check_kept(kept, network)
        centers = kept.get("centers")
        if centers is not None and (centers.shape[1:] != (network.bits,) or not (centers.abs() == 1).all()):
            raise ValueError("the centres are no codes of the network")
        if self.settings.neighbours:
            near, trust = kept["neighbours"], kept["trust"].item()
            if near.shape != (self.videos, min(self.settings.neighbours, self.videos - 1)) or not (
                ((near >= 0) & (near < self.videos)).all() and 0 <= trust <= 1
            ):
                raise ValueError("the neighbours are not those of the training videos")


def learning_rate(settings: Settings, step: int, steps: int) -> float:
    """The learning rate of a step, counted from 0 over all learning passes of a run."""
    if settings.learning_rate_schedule == "constant":
        return settings.learning_rate
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return settings.learning_rate * (step + 1) / warm_up
    return settings.learning_rate * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))) / 2
