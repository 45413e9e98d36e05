"""Videos as rows of frames: keyframes where a data set has them, else its features as colours."""

from collections.abc import Sequence

import numpy as np
import torch

from ..data import Split
from .style import SMALL, SOFT, WIDTH, Picture, empty, label, place, sheet, style

MOST_FITTED = 1500  # frames that the colours' components are found from; more would take long and change little
MOST_SHOWN = 13  # frames in a row; more would be too small to see
NAMES = 1.75  # inches at the left of each row


def feature_colours(features: np.ndarray, basis: np.ndarray | None = None) -> np.ndarray:
    """Frames' features as colours: (videos, frames, size) -> (videos, frames, 3) uint8.

    The three leading principal components of all frames, each scaled from its 2nd to its 98th percentile, become red,
    green and blue. Features without variation are grey. basis: other features of the same set, (videos, frames, size),
    to take components and scales from, so that colours of several pictures can be compared.
    """
    flat = torch.as_tensor(features).flatten(0, 1).double()
    reference = flat if basis is None else torch.as_tensor(basis).flatten(0, 1).double()
    if not (flat.isfinite().all() and reference.isfinite().all()):
        raise ValueError("features with values that are no finite numbers have no colours")
    if not len(reference):
        return np.full((*features.shape[:2], 3), 128, np.uint8)
    mean = reference.mean(dim=0)
    fitted = reference[torch.linspace(0, len(reference) - 1, min(len(reference), MOST_FITTED)).long()] - mean
    # The smaller of (frames, frames) and (size, size) is decomposed: features can be 4,096 wide.
    if len(fitted) < fitted.shape[1]:
        _, left = torch.linalg.eigh(fitted @ fitted.T)
        directions = torch.nn.functional.normalize(fitted.T @ left.flip(1)[:, :3], dim=0)
    else:
        directions = torch.linalg.eigh(fitted.T @ fitted)[1].flip(1)[:, :3]
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    directions = directions * largest.sign()  # an eigenvector has no sign of its own
    values, scale = (flat - mean) @ directions, (reference - mean) @ directions
    low, high = scale.quantile(0.02, dim=0), scale.quantile(0.98, dim=0)
    spread = high - low
    # What is a rounding error beside the features is no variation, and must not be stretched to full colours.
    enough = max(1e-5 * spread.max().item(), 1e-7 * reference.abs().max().item(), 1e-30)
    share = torch.where(spread > enough, (values - low) / spread.clamp_min(enough), 128 / 255).clamp(0, 1)
    colours = torch.full((len(flat), 3), 128, dtype=torch.uint8)
    colours[:, : share.shape[1]] = (share * 255).round().to(torch.uint8)
    return colours.view(*features.shape[:2], 3).numpy()


def pictures(split: Split, videos: Sequence[int]) -> np.ndarray:
    """What can be seen of chosen videos: keyframes (n, frames, h, w[, 3]), or colours (n, frames, 3); uint8."""
    keyframes = split.keyframes(videos)
    if keyframes is not None:
        return keyframes
    sample = torch.linspace(0, len(split) - 1, min(256, len(split))).long()
    return feature_colours(split.features.read(videos), basis=split.features.read(sample))


def as_image(frame: np.ndarray) -> np.ndarray:
    """One frame, (h, w), (h, w, 3) or a colour (3,), as an image."""
    return frame[None, None] if frame.ndim == 1 else frame


def example_strips(split: Split, videos: int = 5) -> Picture:
    """Some videos of a split, evenly spread over it, with their ids and labels."""
    chosen = np.linspace(0, len(split) - 1, min(videos, len(split))).astype(int).tolist()
    return frame_strips(pictures(split, chosen), [split.ids[v] for v in chosen], [split.label_names(v) for v in chosen])


def frame_strips(strips: np.ndarray, titles: Sequence[str], subtitles: Sequence[str] | None = None) -> Picture:
    """A row of frames per video, time from left to right.

    strips: (videos, frames, h, w[, 3]) uint8 keyframes, or (videos, frames, 3) uint8 colours
    titles: a name per video; subtitles: a second line per video
    """
    if not len(strips):
        return empty("No videos to show.")
    frames = strips.shape[1]
    shown = np.unique(np.linspace(0, frames - 1, min(frames, MOST_SHOWN)).round().astype(int))
    cell = (WIDTH - NAMES - 0.15) / max(len(shown), 6)
    height = min(cell, 0.3) if strips.ndim == 3 else cell * strips.shape[2] / strips.shape[3]
    pitch = max(height, 0.36) + 0.08
    with style():
        figure, axes = sheet(WIDTH, 0.3 + pitch * len(strips))
        for column, frame in enumerate(shown):
            where = NAMES + (column + 0.5) * cell
            axes.text(where, 0.2, f"{frame + 1}", ha="center", fontsize=SMALL, color=SOFT)
        axes.text(NAMES - 0.1, 0.2, f"frame of {frames}", ha="right", fontsize=SMALL, color=SOFT)
        for row, strip in enumerate(strips):
            top = 0.28 + row * pitch
            name = label(titles[row], NAMES - 0.25, weight="bold", middle=True)
            axes.text(0.1, top + 0.15, name, fontweight="bold", va="center")
            if subtitles is not None:
                text = label(subtitles[row], NAMES - 0.25, SMALL)
                axes.text(0.1, top + 0.31, text, fontsize=SMALL, color=SOFT, va="center")
            for column, frame in enumerate(shown):
                place(axes, as_image(strip[frame]), NAMES + column * cell, top, cell - 0.03, height)
    return figure
