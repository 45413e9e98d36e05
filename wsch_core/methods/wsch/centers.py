"""Cluster centres: k-means over binary codes, and the sign of its means."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MOST_ITERATIONS = 300
TOLERANCE = 1e-4  # of the codes' mean variance, on the squared shift of all centres
# codes compared with centres at a time; on the CPU so few that the products stay in its cache
ROWS = {"cpu": 512, "cuda": 2**16}


@dataclass(frozen=True)
class Clustering:
    """What k-means found."""

    means: Tensor  # (K, b) float32
    nearest: Tensor  # (n,) index of each code's centre; the lowest of equally near ones
    inertia: float  # sum of squared distances to the nearest mean
    iterations: int


def find_centers(
    codes: Tensor, count: int, former: Tensor | None, generator: torch.Generator
) -> tuple[Tensor, Clustering]:
    """Binary cluster centres of codes: k-means, then the sign of its means.

    codes: (n, b) of ±1; former: (K, b) of ±1, the centres to start from, or None to start from k-means++
    Returns the centres (K, b) of ±1 and the clustering. A mean of exactly 0 keeps the former bit, +1 the first time.
    Deterministic for a generator's state. Raises ValueError if there are fewer codes than centres.
    """
    codes = codes.float()
    if len(codes) < count:
        raise ValueError(
            f"centers is {count}, but the training set gives only {len(codes)} codes (two views of each video): "
            f"choose at most {len(codes)} centers."
        )
    start = kmeans_plus_plus(codes, count, generator) if former is None else former.float()
    clustering = kmeans(codes, start)
    kept = torch.ones_like(start) if former is None else former.float()
    return torch.where(clustering.means == 0, kept, clustering.means.sign()), clustering


def kmeans(codes: Tensor, start: Tensor) -> Clustering:
    """Lloyd's algorithm from given centres: codes (n, b), start (K, b), Euclidean distance.

    Stops when no code changes its centre, when all centres together move less than the tolerance, or after 300
    iterations. An empty cluster is moved to the code farthest from its centre.
    """
    tolerance = TOLERANCE * codes.var(dim=0, correction=0).mean()
    square = codes.square().sum(dim=1)
    means, (halves, nearest) = start, _closest(codes, start)
    for iteration in range(1, MOST_ITERATIONS + 1):  # noqa: B007 (told in the result)
        updated = _update(codes, nearest, 2 * halves + square, means)
        moved = (updated != means).any(dim=1)
        shift = (updated - means).square().sum()
        former, means = nearest, updated
        if moved.any():
            halves, nearest = _follow(codes, means, moved, halves, nearest)
        if shift <= tolerance or torch.equal(nearest, former):
            break
    distances = (2 * halves + square).clamp_min_(0)
    return Clustering(means, nearest, distances.sum(dtype=torch.float64).item(), iteration)


def _closest(codes: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Which mean is nearest to every code, the first of equally near ones, and how near: both (n,).

    Told as half the squared distance, less half the code's own square, which changes no order: |m|^2 / 2 - x . m.
    """
    half_norms = means.square().sum(dim=1) / 2
    rows = codes.split(ROWS[codes.device.type])
    found = [torch.addmm(half_norms, some, means.T, alpha=-1).min(dim=1) for some in rows]
    return torch.cat([values for values, _ in found]), torch.cat([indices for _, indices in found])


def _follow(codes: Tensor, means: Tensor, moved: Tensor, halves: Tensor, nearest: Tensor) -> tuple[Tensor, Tensor]:
    """`_closest` after some means, moved (K,), have changed, from what it was before.

    A code whose own mean stayed is compared with the moved ones only: the others were farther, and still are. Most means
    soon stay, which saves two thirds of all comparisons.
    """
    loser = moved[nearest]  # its mean moved: every mean may be the nearest now
    lost, kept = loser.nonzero().flatten(), (~loser).nonzero().flatten()
    rivals = moved.nonzero().flatten()
    halves, nearest = halves.clone(), nearest.clone()
    halves[lost], nearest[lost] = _closest(codes[lost], means)
    values, which = _closest(codes[kept], means[rivals])
    which, present = rivals[which], halves[kept]
    closer = (values < present) | ((values == present) & (which < nearest[kept]))
    won = kept[closer]
    halves[won], nearest[won] = values[closer], which[closer]
    return halves, nearest


def _update(codes: Tensor, nearest: Tensor, distances: Tensor, means: Tensor) -> Tensor:
    """Means of the codes of each cluster; each empty cluster takes one of the codes farthest from their centre."""
    sums = torch.zeros_like(means).index_add_(0, nearest, codes)
    sizes = torch.bincount(nearest, minlength=len(means))
    empty = torch.nonzero(sizes == 0).flatten().tolist()
    if empty:
        farthest = distances.argsort(descending=True, stable=True)
        for code in farthest[distances[farthest] > 0].tolist():  # a code at its centre has nothing to gain
            donor = nearest[code]
            if sizes[donor] > 1:  # a cluster keeps at least one code
                cluster = empty.pop(0)
                sums[donor] -= codes[code]
                sizes[donor] -= 1
                sums[cluster], sizes[cluster] = codes[code], 1
            if not empty:
                break
    return torch.where(sizes.unsqueeze(1) > 0, sums / sizes.clamp_min(1).unsqueeze(1), means)


def kmeans_plus_plus(codes: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Starting centres (K, b): each drawn with probability proportional to its squared distance from those before.

    Arthur & Vassilvitskii 2007; of 2 + ln K candidates the one that lowers the sum of distances most is kept.
    """
    candidates = 2 + int(math.log(count))
    first = torch.randint(len(codes), (1,), generator=generator).item()
    chosen = [first]
    closest = _distances_to(codes, codes[[first]])[0]
    draws = torch.rand(count, candidates, generator=generator, dtype=torch.float64).to(codes.device)
    for draw in draws[1:]:
        cumulated = closest.double().cumsum(0)
        drawn = torch.searchsorted(cumulated, draw * cumulated[-1]).clamp_max(len(codes) - 1)
        remaining = torch.minimum(_distances_to(codes, codes[drawn]), closest)
        best = remaining.sum(dim=1).argmin()
        closest = remaining[best]
        chosen.append(drawn[best])
    return codes[torch.tensor([int(index) for index in chosen], device=codes.device)]


def _distances_to(codes: Tensor, points: Tensor) -> Tensor:
    """Squared distances between codes of ±1, (points, n): 2 (b - x . y), exact."""
    return 2 * (codes.shape[1] - points @ codes.T)
