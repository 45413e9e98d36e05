"""Masked views of a video, two as published or more: which frames each one sees."""

from __future__ import annotations

import torch
from torch import Tensor


def hidden_count(frames: int, masking_ratio: float) -> int:
    """How many of a video's frames a masking ratio hides: int(p L), as published (22 of 25 at p = 0.9).

    Raises ValueError if none is hidden: there would be nothing to reconstruct.
    """
    hidden = int(masking_ratio * frames)
    if frames == 1:
        raise ValueError(
            "videos of one frame cannot be trained on, because masking hides some of the frames: use videos of more frames."
        )
    if hidden < 1:
        raise ValueError(
            f"a masking ratio of {masking_ratio} hides none of a video's {frames} frames, so there is nothing to "
            f"reconstruct: raise it to at least {1 / frames:.2g}, or use videos of more frames."
        )
    return hidden


def check_views(frames: int, masking_ratio: float, views: int = 2) -> None:
    """Refuse what `hidden_count` refuses, and more views than can begin at different places (ValueError)."""
    hidden = hidden_count(frames, masking_ratio)
    if views > hidden + 1:
        raise ValueError(
            f"views is {views}, but a masking_ratio of {masking_ratio} hides {hidden} of a video's {frames} frames, so "
            f"that only {hidden + 1} views differ: choose at most {hidden + 1}, or raise masking_ratio."
        )


def draw_views(videos: int, frames: int, hidden: int, generator: torch.Generator, views: int = 2) -> Tensor:
    """Draw the views of every video: (views, videos, visible) frame numbers, ascending within a view.

    One random permutation per video: the first view shows its first frames, the last view its last, and others begin at
    even distances between, so that views are disjoint whenever the visible frames of all fit into the video. Drawn on
    the generator's device.
    """
    permutations = torch.rand(videos, frames, generator=generator, device=generator.device).argsort(dim=1)
    begins = [view * hidden // (views - 1) for view in range(views)]
    return torch.stack([permutations[:, begin : begin + frames - hidden] for begin in begins]).sort(dim=-1).values
