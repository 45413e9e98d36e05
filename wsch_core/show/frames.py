"""Videos as rows of frames: keyframes where a data set has them, else its features as colours."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from ..data import Split
from .style import SMALL, SOFT, WIDTH, Picture, empty, label, place, sheet, style

MOST_FITTED = 1500  # frames that the colours' components are found from; more would take long and change little
MOST_SHOWN = 13  # frames in a row; more would be too small to see
NAMES = 1.75  # inches at the left of each row


class FeatureColours:
    """Frames' features as colours: the three leading principal components of a sample become red, green and blue.

    Each is scaled from its 2nd to its 98th percentile in the sample. Features without variation are grey.
    """

    def __init__(self, sample):
        """sample: (videos, frames, size), finite features to take components and scales from (ValueError)."""
        flat = _finite(sample)
        self.mean = flat.mean(dim=0) if len(flat) else flat.sum(dim=0)
        fitted = flat[torch.linspace(0, len(flat) - 1, min(len(flat), MOST_FITTED)).long()] - self.mean
        # The smaller of (frames, frames) and (size, size) is decomposed: features can be 4,096 wide.
        if len(fitted) < fitted.shape[1]:
            _, left = torch.linalg.eigh(fitted @ fitted.T)
            directions = torch.nn.functional.normalize(fitted.T @ left.flip(1)[:, :3], dim=0)
        else:
            directions = torch.linalg.eigh(fitted.T @ fitted)[1].flip(1)[:, :3]
        if directions.shape[1]:
            largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
            directions = directions * largest.sign()  # an eigenvector has no sign of its own
        self.directions = directions
        scale = (flat - self.mean) @ directions
        low, high = (scale.quantile(share, dim=0) if len(flat) else scale.sum(dim=0) for share in (0.02, 0.98))
        self.low, self.spread = low, high - low
        # What is a rounding error beside the features is no variation, and must not be stretched to full colours.
        widest, strongest = (values.max().item() if values.numel() else 0 for values in (self.spread, flat.abs()))
        self.enough = max(1e-5 * widest, 1e-7 * strongest, 1e-30)

    def __call__(self, features) -> np.ndarray:
        """(videos, frames, size), finite -> (videos, frames, 3) uint8."""
        values = (_finite(features) - self.mean) @ self.directions
        share = (values - self.low) / self.spread.clamp_min(self.enough)
        share = torch.where(self.spread > self.enough, share, 128 / 255).clamp(0, 1)
        colours = torch.full((len(values), 3), 128, dtype=torch.uint8)
        colours[:, : share.shape[1]] = (share * 255).round().to(torch.uint8)
        return colours.view(*features.shape[:2], 3).numpy()


def _finite(features) -> torch.Tensor:
    flat = torch.as_tensor(features).flatten(0, 1).double()
    if not flat.isfinite().all():
        raise ValueError("features with values that are no finite numbers have no colours")
    return flat


def feature_colours(features, basis=None) -> np.ndarray:
    """Features (videos, frames, size) as colours (videos, frames, 3) uint8, scaled by themselves or by a `basis`."""
    return FeatureColours(features if basis is None else basis)(features)


class Pictures:
    """What can be seen of a split's videos; remembers how features become colours, which takes long to find out."""

    def __init__(self, split: Split):
        self.split = split

    def __call__(self, videos: Sequence[int]) -> np.ndarray:
        """Keyframes (n, frames, h, w[, 3]) of chosen videos, or colours (n, frames, 3); uint8."""
        keyframes = self.split.keyframes(videos)
        return self.colours(self.split.features.read(videos)) if keyframes is None else keyframes

    @cached_property
    def colours(self) -> FeatureColours:
        videos = len(self.split)
        return FeatureColours(self.split.features.read(np.linspace(0, videos - 1, min(256, videos)).astype(int)))


def pictures(split: Split, videos: Sequence[int]) -> np.ndarray:
    """`Pictures` of a split, for once."""
    return Pictures(split)(videos)


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
