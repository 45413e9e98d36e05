"""Nearest training videos whose frames may stand for a video's own, and how far they can be trusted.

Videos are compared by the cosine of their descriptors: the sum of the directions of their frames, each channel centred by
its mean over the training set and divided by its deviation there, softened by half of the mean deviation. No label is
read. Neighbours tell what belongs together where the features know the world, and mislead where they do not. What tells
the two apart is whether both halves of a video have the same neighbours: on features of an image network about two of
three are the same, on features of noisy or made-up frames few are.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...data.disk import DiskFeatures
from ...data.features import SMALLEST_NORM, Features, chunk_videos, direction_sums, spread
from ..parts.similar import nearest_videos

MISLEADING, TRUSTED = 0.5, 0.6  # agreement up to which neighbours are left alone, and from which they are always taken
COMPARED = 10  # neighbours of the two halves
MOST_HALVED = 10_000  # videos, spread over the training set, by whose halves neighbours are judged
MOST_EXACT = 100_000  # videos up to which all pairs are compared
SOFTENED = 0.5  # of the mean deviation is added to each channel's, so that channels that hardly vary stay small
PRINCIPAL, PROBES = 128, 16  # beyond: directions that are kept, and inverted lists that are searched


def find_neighbours(features: Features | DiskFeatures, count: int) -> dict[str, Tensor]:
    """What is prepared once from the training features, on the CPU.

    "neighbours": (videos, k) int32, the k = min(count, videos - 1) nearest other videos
    "descriptor_mean", "descriptor_scale": (D,) what turns direction sums into descriptors, see `describe`
    "agreement": the share of nearest videos that both halves of a video have in common; "trust": see `trust_in`
    """
    count = min(count, len(features) - 1)
    mean, scale = moments(_sums(features), len(features))
    described = (describe(sums, mean, scale) for sums in _sums(features))
    if len(features) <= MOST_EXACT:
        near = nearest_videos(torch.cat(list(described)), count)[:, 1:]
    else:
        near = _nearest_of_many(features, mean, scale, count)
    agreement = halves_agree(features)
    return {
        "neighbours": near.int().contiguous(),
        "descriptor_mean": mean,
        "descriptor_scale": scale,
        "agreement": torch.tensor(agreement),
        "trust": torch.tensor(trust_in(agreement)),
    }


def describe(sums: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Direction sums (..., D) -> descriptors (..., D)."""
    return (sums - mean) * scale


def moments(sums: Iterable[Tensor], videos: int) -> tuple[Tensor, Tensor]:
    """Of direction sums (some, D) at a time: their mean, and what centred sums are multiplied by, both (D,)."""
    first, second = 0, 0
    for some in sums:
        first, second = first + some.double().sum(dim=0), second + some.double().square().sum(dim=0)
    mean = first / videos
    deviation = (second / videos - mean.square()).clamp_min(0).sqrt()
    softened = (deviation + SOFTENED * deviation.mean()).clamp_min(SMALLEST_NORM)
    return mean.float(), softened.reciprocal().float()


def trust_in(agreement: float) -> float:
    """How often a neighbour's frames stand for a video's own, in [0, 1], rising with the agreement of a set's halves."""
    return min(1.0, max(0.0, (agreement - MISLEADING) / (TRUSTED - MISLEADING)))


def halves_agree(features: Features | DiskFeatures) -> float:
    """The mean overlap of the nearest videos by the first and by the second half of the frames, 0 for what chance gives
    and 1 for the same lists. A set of at most 11 videos, of which all are near, tells nothing: 0."""
    rows = spread(len(features), MOST_HALVED)
    videos, half = len(rows), features.frames // 2
    chance = COMPARED / max(videos - 1, 1)
    if chance >= 1 or not half:
        return 0.0
    step = chunk_videos(features.frames, features.size)
    halves = [[direction_sums(part) for part in features.read(some).split([half, features.frames - half], dim=1)]
              for some in rows.split(step)]  # fmt: skip
    lists = []
    for sums in map(torch.cat, zip(*halves, strict=True)):
        lists.append(nearest_videos(describe(sums, *moments([sums], videos)), COMPARED)[:, 1:])
    same = (lists[0].unsqueeze(2) == lists[1].unsqueeze(1)).sum().item() / (videos * COMPARED)
    return (same - chance) / (1 - chance)


def similarity_loss(codes: Tensor, descriptors: Tensor) -> Tensor:
    """The squared difference between the cosines of codes and of descriptors, a weighted mean over all pairs of views.

    codes: (n, b) normalised; descriptors: (n, D), of the video that each view shows. In [0, 4].
    Most pairs have nothing in common, and would outweigh the few that matter for retrieval: a pair weighs its descriptors'
    cosine, where that is above 0, and as much as the mean of this beside it.
    """
    described = F.normalize(descriptors, dim=1)
    targets = described @ described.T
    weights = targets.clamp_min(0)
    weights = weights + weights.mean()
    return (weights * (codes @ codes.T - targets).square()).sum() / weights.sum()


def _sums(features: Features | DiskFeatures):
    """The direction sums of all videos, (some, D) at a time, on the CPU."""
    for some in torch.arange(len(features)).split(chunk_videos(1, features.size)):
        yield features.gather_sums(some.to(features.device)).cpu()


def _nearest_of_many(features: Features | DiskFeatures, mean: Tensor, scale: Tensor, count: int) -> Tensor:
    """As `nearest_videos`, approximately: by the principal directions of the descriptors, in inverted lists.

    All pairs would take hours, and all descriptors more memory than there may be.
    """
    scatter = sum(some.T @ some for some in (describe(sums, mean, scale) for sums in _sums(features)))
    principal = torch.linalg.eigh(scatter.double()).eigenvectors[:, -PRINCIPAL:].float()
    points = [describe(sums, mean, scale) @ principal for sums in _sums(features)]
    points = F.normalize(torch.cat(points), dim=1).numpy()
    import faiss  # only here: few sets are so large

    lists = round(4 * len(points) ** 0.5)
    index = faiss.index_factory(points.shape[1], f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(points[spread(len(points), 40 * lists).numpy()])
    index.add(points)
    index.nprobe = PROBES
    near = torch.from_numpy(index.search(points, count + 1)[1])
    others = near != torch.arange(len(points)).unsqueeze(1)
    order = others.long().argsort(dim=1, descending=True, stable=True)[:, :count]  # itself goes last, wherever it stood
    found = near.gather(1, order)
    itself = torch.arange(len(points)).unsqueeze(1)
    return torch.where(found < 0, itself, found)  # where its lists hold too few
