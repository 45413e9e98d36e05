"""What a map can be believed: numbers that compare nearness on it with nearness in what was mapped."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from .layout import distance_rows

SCORED = 2_000  # videos that trustworthiness is computed from, beside all others: more take long, and change little


def scored_videos(videos: int, seed: int) -> np.ndarray:
    """The videos that stand for all where every one of them would take too long: (n,) in order."""
    if videos <= SCORED:
        return np.arange(videos)
    return np.sort(np.random.default_rng(seed).choice(videos, SCORED, replace=False))


def nearest_on_map(coordinates: np.ndarray, k: int, videos: np.ndarray | None = None) -> np.ndarray:
    """The k nearest others on the map, (n, k): of all videos, or of those given."""
    videos = np.arange(len(coordinates)) if videos is None else videos
    _, found = cKDTree(coordinates).query(coordinates[videos], k + 1)
    itself = found == videos[:, None]
    itself[~itself.any(axis=1), -1] = True  # among points at one place, a point need not find itself
    return found[~itself].reshape(len(videos), k)


def trustworthiness(values: Tensor, coordinates: np.ndarray, k: int, videos: np.ndarray) -> float:
    """Venna and Kaski's measure: 1 if the k nearest on the map are the k nearest in truth, 0 if they are the farthest.

    A neighbour on the map that is only the r-th nearest in truth costs r - k. Codes tie: then r is any of the ranks that
    the equally near share, and the expected cost is taken. Ranks are among all videos; the mean is over those given.
    values: (n, bits) int8 codes or (n, size) float32 features; coordinates: (n, 2); videos: which to take the mean over
    k: lowered to less than half of the videos, beyond which the measure is not defined
    """
    n = len(coordinates)
    k = max(1, min(k, (n - 1) // 2))
    near = torch.from_numpy(nearest_on_map(coordinates, k, videos))
    cost = 0.0
    for rows, distances in distance_rows(values, videos):
        distances[torch.arange(len(distances)), torch.from_numpy(videos[rows])] = -1  # itself: rank 0
        found = distances.gather(1, near[rows])
        ordered = distances.sort(dim=1).values
        nearer = torch.searchsorted(ordered, found) - 1
        last = torch.searchsorted(ordered, found, right=True) - 1
        cost += _expected_cost(nearer.double(), last.double(), k).sum().item()
    return 1 - cost / len(videos) * 2 / (k * (2 * n - 3 * k - 1))


def _expected_cost(nearer: Tensor, last: Tensor, k: int) -> Tensor:
    """The mean of max(r - k, 0) over the ranks r = nearer + 1, ..., last."""
    from_rank = nearer.clamp(min=k)
    costly = (last - from_rank).clamp(min=0)  # so many of the ranks lie beyond k
    return costly * ((from_rank + 1 + last) / 2 - k) / (last - nearer)


def label_share(labels: scipy.sparse.csr_array, neighbours: np.ndarray) -> np.ndarray:
    """For each video the share of its neighbours that have a label in common with it: (n,), NaN without labels.

    labels: (n, classes) of 0 and 1; neighbours: (n, k) rows of `labels`
    """
    n, k = neighbours.shape
    common = labels[np.repeat(np.arange(n), k)].multiply(labels[neighbours.ravel()]).sum(axis=1)
    share = (np.asarray(common).reshape(n, k) > 0).mean(axis=1)
    return np.where(np.asarray(labels.sum(axis=1)).ravel() > 0, share, np.nan)


def share_by_chance(labels: scipy.sparse.csr_array, k: int, seed: int) -> float:
    """What `label_share` is on average for neighbours drawn at random: the line every share is read against."""
    n = len(labels.indptr) - 1
    step = np.random.default_rng(seed).integers(1, n, size=(n, k))
    return float(np.nanmean(label_share(labels, (np.arange(n)[:, None] + step) % n)))
