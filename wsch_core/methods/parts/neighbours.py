"""Which videos are alike: anchors among their latents, and partners that share some (BTH; its graph is S5VH's too)."""

from __future__ import annotations

import numpy as np
import scipy  # whose parts are loaded when first used
import torch
from torch import Tensor

from .layers import kmeans

NEAREST = 5  # anchors of a video that count
ITERATIONS = 16  # of k-means
ALIKE = 1e-5  # a similarity above it counts
ROWS = 1024  # videos whose pairs are looked at together


def find_anchors(latents: Tensor, count: int, generator: torch.Generator, repeated: bool = False) -> Tensor:
    """k-means of latents (N, H) from so many of them, drawn at random: (K, H), K at most `count`.

    repeated: drawn with replacement; those drawn twice lose a cluster
    """
    videos = len(latents)
    if repeated:
        start = torch.randint(videos, (count,), generator=generator)
    else:
        start = torch.randperm(videos, generator=generator)[:count]
    return kmeans(latents, latents[start.to(latents.device)], ITERATIONS)[0]


def nearest_anchors(latents: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Latents (N, H), anchors (K, H) -> each video's nearest anchors (N, 5) and their distances, float64; on the CPU."""
    anchors, found = anchors.double(), []
    for some in latents.split(ROWS):
        some = some.double()
        near = (anchors.square().sum(dim=1) - 2 * some @ anchors.T).topk(NEAREST, largest=False).indices
        distances = (some.unsqueeze(1) - anchors[near]).norm(dim=-1)
        found.append((near.cpu(), distances.cpu()))
    nearest, distances = zip(*found, strict=True)
    return torch.cat(nearest), torch.cat(distances)


class Neighbours:
    """Which videos are alike, told by the anchors they share.

    Z_k (N, K) has k entries in each row, a softmax of -distance^2 / c over the k nearest anchors; A_k = Z_k diag(1 / column
    sums) Z_k^T, and S_k says where it is above 1e-5. The tag of a pair is S_3 + 2 (S_5 - S_4): 1 for alike, 2 for nearly
    alike. All are sparse, and rows of A_k are made some at a time: the matrix of all pairs never lies in memory.
    """

    def __init__(self, nearest: Tensor, distances: Tensor, anchors: int):
        """nearest, distances: (N, 5), the nearest first; anchors: K."""
        self.videos, self.entries, self.shares = len(nearest), {}, {}
        for k in (3, 4, 5):
            squares, c = distances[:, :k].square(), distances[:, k - 1].mean().square()
            values = (-squares / c.clamp_min(torch.finfo(torch.float64).tiny)).softmax(dim=1)
            columns, starts = nearest[:, :k].flatten().numpy(), np.arange(0, k * self.videos + 1, k)
            self.entries[k] = scipy.sparse.csr_array(
                (values.flatten().numpy(), columns, starts), shape=(self.videos, anchors)
            )
            mass = self.entries[k].sum(axis=0)
            self.shares[k] = (self.entries[k] / np.where(mass > 0, mass, 1)).T.tocsr()  # a row without videos stays 0

    def tags(self, first: int, last: int) -> scipy.sparse.csr_array:
        """The tags of a range of videos with all videos: (last - first, N), sparse, columns ascending."""
        alike = {k: (self.entries[k][first:last] @ self.shares[k] > ALIKE).astype(np.int8) for k in (3, 4, 5)}
        tags = scipy.sparse.csr_array(alike[3] + 2 * (alike[5] - alike[4]))
        tags.eliminate_zeros()
        tags.sort_indices()
        return tags

    def partners(self, similar: Tensor, generator: torch.Generator, alone: bool = True) -> Tensor:
        """For each video one drawn evenly among those alike where `similar` (N,), else among those nearly alike: (N,).

        alone: a video is its own partner only if no other is alike
        Where none is nearly alike, one of tag 0 is drawn; else one that is not alike; else any other.
        """
        draws = torch.rand(self.videos, generator=generator, dtype=torch.float64).numpy()
        parts = [
            self._partners_of(first, similar.numpy()[first : first + ROWS], draws[first : first + ROWS], alone)
            for first in range(0, self.videos, ROWS)
        ]
        return torch.from_numpy(np.concatenate(parts))

    def _partners_of(self, first: int, similar: np.ndarray, draws: np.ndarray, alone: bool) -> np.ndarray:
        """As `partners`, of some videos from `first` on; draws: (n,) in [0, 1), which of those that fit is taken."""
        rows, found = len(similar), np.arange(first, first + len(similar))
        tags = self.tags(first, first + rows)
        row = np.repeat(np.arange(rows), np.diff(tags.indptr))
        fits = np.where(similar[row], tags.data == 1, tags.data == 2)
        if alone:
            fits &= tags.indices != found[row]
        counts = np.bincount(row[fits], minlength=rows)
        some = counts > 0
        places = counts.cumsum() - counts + (draws * counts).astype(np.int64)
        found[some] = tags.indices[fits][places[some]]
        for place in np.flatnonzero(~some & ~similar):
            here = slice(*tags.indptr[place : place + 2])
            found[place] = self._other(first + place, tags.indices[here], tags.data[here], draws[place])
        return found

    def _other(self, video: int, tagged: np.ndarray, tags: np.ndarray, draw: float) -> int:
        """A video of tag 0; if there is none, one that is not alike; else any other; else the video itself."""
        known = np.union1d(tagged, [video])
        for excluded in (known, np.union1d(tagged[tags == 1], [video]), np.array([video])):
            count = self.videos - len(excluded)
            if count:
                place = int(draw * count)  # among those left, of which place + i stand before the i-th excluded
                return place + np.searchsorted(excluded - np.arange(len(excluded)), place, side="right")
        return video
