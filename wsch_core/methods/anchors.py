"""Which videos are alike: anchors among their latents, and partners that share some (BTH; its graph is S5VH's too)."""

from __future__ import annotations

import torch
from torch import Tensor

from .layers import ROWS, kmeans

NEAREST = 5  # anchors of a video that count
ITERATIONS = 16  # of k-means
ALIKE = 1e-5  # a similarity above it counts
ROUNDS = 32  # of drawing partners for all videos at once


def find_anchors(latents: Tensor, count: int, generator: torch.Generator, repeated: bool = False) -> Tensor:
    """k-means of latents (N, H) from so many of them, drawn at random: (K, H), K at most `count`."""
    videos = len(latents)
    start = torch.randint(videos, (count,), generator=generator) if repeated else None
    start = torch.randperm(videos, generator=generator)[:count] if start is None else start
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
    sums) Z_k^T, and S_k says where it is above 1e-5. A pair's tag is S_3 + 2 (S_5 - S_4): 1 for alike, 2 for nearly alike.
    No matrix of all pairs is ever formed: tags are told for the pairs asked for, and partners drawn from the videos of
    shared anchors.
    """

    def __init__(self, nearest: Tensor, distances: Tensor, anchors: int):
        """nearest, distances: (N, 5), the nearest first."""
        self.nearest, self.entries, self.per_mass = nearest, {}, {}
        for k in (3, 4, 5):
            squares, c = distances[:, :k].square(), distances[:, k - 1].mean() ** 2
            self.entries[k] = (-squares / c.clamp_min(torch.finfo(torch.float64).tiny)).softmax(dim=1)
            mass = torch.zeros(anchors, dtype=torch.float64)
            mass.index_add_(0, nearest[:, :k].flatten(), self.entries[k].flatten())
            self.per_mass[k] = torch.where(mass > 0, 1 / mass, 0)
        self.sizes = {k: nearest[:, :k].flatten().bincount(minlength=anchors) for k in (3, 5)}
        self.members = {k: nearest[:, :k].flatten().argsort(stable=True) // k for k in (3, 5)}  # anchor by anchor
        self.starts = {k: self.sizes[k].cumsum(0) - self.sizes[k] for k in (3, 5)}

    def tags(self, one: Tensor, other: Tensor) -> Tensor:
        """Of pairs of videos, (n,) each -> (n,)."""
        alike = {}
        for k in (3, 4, 5):
            shared = self.nearest[one, :k, None] == self.nearest[other, None, :k]
            entries = self.entries[k][one] * self.per_mass[k][self.nearest[one, :k]]
            products = entries.unsqueeze(2) * self.entries[k][other].unsqueeze(1)
            alike[k] = ((products * shared).sum(dim=(1, 2)) > ALIKE).long()
        return alike[3] + 2 * (alike[5] - alike[4])

    def partners(self, videos: Tensor, similar: Tensor, generator: torch.Generator, alone: bool = True) -> Tensor:
        """For each video one drawn evenly among those alike where `similar`, else among those nearly alike: (n,).

        alone: a video is its own partner only if no other is alike. Where none is nearly alike, one of tag 0 is drawn; else
        one that is not alike; else any other.
        """
        found = torch.empty_like(videos)
        for tag, k, chosen in ((1, 3, similar), (2, 5, ~similar)):
            found[chosen] = self._draw(videos[chosen], tag, k, generator, alone)
        return found

    def _draw(self, videos: Tensor, tag: int, k: int, generator: torch.Generator, alone: bool) -> Tensor:
        found, left = torch.empty_like(videos), torch.arange(len(videos))
        for _ in range(ROUNDS):
            one = videos[left]
            other = self._candidates(one, k, generator)
            shared = (self.nearest[one, :k, None] == self.nearest[other, None, :k]).sum(dim=(1, 2))
            # a video stands in the list of each anchor that it shares: taken once in so many times, all are as likely
            taken = torch.rand(len(left), generator=generator) * shared < 1
            taken &= self.tags(one, other) == tag
            if alone:
                taken &= one != other
            found[left[taken]] = other[taken]
            left = left[~taken]
        for place in left.tolist():
            found[place] = self._draw_one(videos[place], tag, k, generator, alone)
        return found

    def _candidates(self, videos: Tensor, k: int, generator: torch.Generator) -> Tensor:
        """A video from the lists of each video's k nearest anchors, each place in them as likely: (n,)."""
        lists = self.nearest[videos, :k]
        ends = self.sizes[k][lists].cumsum(dim=1)
        place = (torch.rand(len(videos), 1, generator=generator, dtype=torch.float64) * ends[:, -1:]).long()
        which = (place >= ends).sum(dim=1, keepdim=True)
        inside = place - (ends - self.sizes[k][lists]).gather(1, which)
        return self.members[k][self.starts[k][lists.gather(1, which)] + inside].squeeze(1)

    def _draw_one(self, video: Tensor, tag: int, k: int, generator: torch.Generator, alone: bool) -> Tensor:
        """As `_draw`, of one video: its partners are written out."""
        lists = [
            self.members[k][self.starts[k][a] : self.starts[k][a] + self.sizes[k][a]] for a in self.nearest[video, :k]
        ]
        others = torch.cat(lists).unique()
        fit = others[(self.tags(video.expand(len(others)), others) == tag) & (not alone or others != video)]
        if not len(fit) and tag == 1:
            return video
        if not len(fit):
            others = torch.arange(len(self.nearest))
            tags, different = self.tags(video.expand(len(others)), others), others != video
            sets = (others[(tags == 0) & different], others[(tags != 1) & different], others[different], video[None])
            fit = next(some for some in sets if len(some))
        return fit[torch.randint(len(fit), (), generator=generator)]
