"""Which training videos belong together, told by their features alone: lists of nearest videos, and what they share."""

from __future__ import annotations

import numpy as np
import scipy
import torch
from torch import Tensor

from ...data.features import SMALLEST_NORM

COSINES, OVERLAPS = 2**26, 2**23  # computed at a time


def nearest_videos(means: Tensor, neighbours: int) -> Tensor:
    """Mean features (N, D), which are normalised in place -> (N, neighbours + 1): itself, then the most similar by cosine.

    A similarity serves both its videos, so half of them are computed, a block of rows at a time.
    """
    means /= torch.linalg.vector_norm(means, dim=1, keepdim=True).clamp_min(SMALLEST_NORM)
    videos, most = len(means), neighbours + 1
    best = means.new_full((videos, most), -torch.inf)
    which = torch.zeros(videos, most, dtype=torch.int64, device=means.device)

    def keep(first: int, last: int, values: Tensor, offset: int) -> None:
        """values: (last - first, candidates), candidates counted from `offset`"""
        values, places = values.topk(min(most, values.shape[1]), dim=1)
        values, places = torch.cat([best[first:last], values], 1), torch.cat([which[first:last], places + offset], 1)
        best[first:last], order = values.topk(most, dim=1)
        which[first:last] = places.gather(1, order)

    step = max(1, COSINES // videos)
    for first in range(0, videos, step):
        last = min(first + step, videos)
        cosines = means[first:last] @ means[first:].T
        cosines.diagonal().fill_(torch.inf)  # whatever rounding or zeros make of it
        keep(first, last, cosines, first)
        if last < videos:
            keep(last, videos, cosines[:, last - first :].T.contiguous(), first)
    return which


def similar_videos(near: Tensor, reach: int) -> scipy.sparse.csr_array:
    """Lists of nearest videos (N, K1 + 1) -> S, (N, N) of 0 and 1: videos whose hash values should agree.

    E(i) joins the lists of the `reach` videos whose own have the largest overlap with i's, of equal ones the lower rows;
    S_ij = 1 if j is in E(i) or i in E(j).
    """
    videos, length = near.shape
    near = near.cpu().numpy()
    ones, begins = np.ones(near.size, dtype=np.int32), np.arange(0, near.size + 1, length)
    lists = scipy.sparse.csr_array((ones, near.ravel(), begins), shape=(videos, videos))
    work = (lists @ lists.sum(axis=0)).cumsum() // OVERLAPS  # a row's work: how often its neighbours are listed
    ends = [*np.flatnonzero(np.diff(work)) + 1, videos]
    chosen = [_largest(overlaps(lists, a, b), reach) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    chosen = np.concatenate(chosen)
    picks = scipy.sparse.csr_array(
        (ones[: chosen.size], chosen.ravel(), np.arange(0, chosen.size + 1, reach)), shape=(videos, videos)
    )
    extended = picks @ lists
    graph = (extended + extended.T + scipy.sparse.eye_array(videos, dtype=np.int32, format="csr")).tocsr()
    graph.sort_indices()
    graph.data[:] = 1
    return graph


def overlaps(lists: scipy.sparse.csr_array, first: int, last: int) -> scipy.sparse.csr_array:
    """How many videos the lists of videos `first` to `last` share with every other, (last - first, N); 0 is left out."""
    return (lists[first:last] @ lists.T).tocsr()


def _largest(overlap: scipy.sparse.csr_array, count: int) -> np.ndarray:
    """The columns of the `count` largest entries of each row, the lower of equal ones first: (rows, count)."""
    rows, videos = overlap.shape
    row, largest = np.repeat(np.arange(rows), np.diff(overlap.indptr)), int(overlap.data.max())
    keys = (row * (largest + 1) + largest - overlap.data) * videos + overlap.indices  # one number orders by all three
    keys.sort()
    return keys[overlap.indptr[:-1, None] + np.arange(count)] % videos
