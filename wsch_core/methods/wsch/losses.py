"""The three losses: reconstruction, cluster, contrast. Each takes all views of a batch, stacked: view 1, then view 2.

The published method has two views. With V views, sums over views are multiplied by 2 / V: weights keep their meaning.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...data.features import SMALLEST_NORM, directions


def sum_of_directions(frames: Tensor) -> Tensor:
    """Frames (..., n, D) -> the sum of their directions (..., D).

    A product with the inverse norms, which unlike `directions(frames).sum(dim=-2)` writes no array of the frames' size.
    """
    norms = torch.linalg.vector_norm(frames, dim=-1, keepdim=True).clamp_min(SMALLEST_NORM)
    return (norms.reciprocal().transpose(-1, -2) @ frames).squeeze(-2)


def reconstruction_loss(reconstructions: Tensor, hidden_directions: Tensor) -> Tensor:
    """1 - mean cosine between reconstruction and hidden frames, summed over the views.

    reconstructions: (V, rows, D); a row for each video, whose reconstruction serves all its hidden frames, or one for each
        hidden frame
    hidden_directions: (V, rows, D), the mean of the directions of the hidden frames that a row stands for

    The mean over hidden frames of cos(r, frame) is the scalar product of r's direction with the mean of the frames'
    directions: no single hidden frame is needed. In [0, 4].
    """
    cosines = (directions(reconstructions) * hidden_directions).sum(dim=-1)
    return (1 - cosines.mean(dim=-1)).sum() * (2 / len(cosines))


def cluster_loss(frame_codes: Tensor, centers: Tensor, temperature: float = 0.2, targets: str = "own") -> Tensor:
    """Cross-entropy of a view's similarities to all centres against its nearest centre, summed over the views.

    frame_codes: (V, batch, visible, b) of ±1; centers: (K, b) of ±1
    targets: "own" takes each view's nearest centre (published), "swapped" the view's before it (of two: the other's)

    Of several centres at the same distance the first is taken, decided on whole numbers: rounding has no say.
    """
    votes = frame_codes.sum(dim=2)  # (V, batch, b)
    nearest = (votes.detach() @ centers.T).argmax(dim=-1)  # (V, batch); products of whole numbers, exact in float32
    if targets == "swapped":
        nearest = nearest.roll(1, 0)
    similarities = F.normalize(votes, dim=-1, eps=1.0) @ F.normalize(centers, dim=-1).T
    of_views = [F.cross_entropy(s / temperature, n) for s, n in zip(similarities, nearest, strict=True)]
    return sum(of_views) * (2 / len(of_views))


def contrast_loss(codes: Tensor, temperature: float = 0.5, tau_plus: float = 0.1) -> Tensor:
    """The debiased contrastive loss (Chuang et al. 2020) over the V x batch normalised video codes.

    codes: (V, batch, b). Two views of a video are each other's positive; the codes of all other videos are negatives, of
    which a share `tau_plus` is assumed to be of the same class. More than two views give more pairs, whose losses are
    averaged; their negatives count as two of each video. A batch of one video has no negatives and a loss of 0.
    """
    views, batch, _ = codes.shape
    flat = codes.flatten(0, 1)
    logits = flat @ flat.T / temperature
    itself = torch.arange(views * batch, device=codes.device)
    same_video = itself % batch == (itself % batch).unsqueeze(1)
    count = 2 * batch - 2
    pairs = []
    for other in range(1, views):
        positives = logits[itself, itself.roll(other * batch)]
        # everything is taken relative to the positive, and a video's own codes are left out instead of subtracted: at
        # small temperatures the sum would lose all others beside them
        relative = (logits - positives.unsqueeze(1)).masked_fill(same_video, -torch.inf)
        negatives = relative.exp().sum(dim=1) * (2 / views)
        floor = count * (-1 / temperature - positives).exp()
        pairs.append(torch.maximum((negatives - tau_plus * count) / (1 - tau_plus), floor).log1p().mean())
    return sum(pairs) / len(pairs)
