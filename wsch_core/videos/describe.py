"""One video file as a data set holds it: features, and keyframes to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .decode import read_clip
from .extractors.extract import Extractor
from .extractors.prepare import keyframe


@dataclass(frozen=True)
class Seen:
    """A decoded video."""

    prepared: np.ndarray  # (frames, channels, height, width) uint8, for the extractor
    keyframes: np.ndarray  # (frames, height, width, 3) uint8
    repeated: int  # frames that repeat the one before, because the video has fewer


def see(path: Path, extractor: Extractor, frames: int, threads: int = 1) -> Seen:
    """Decode a video's frames and prepare them for an extractor. Errors as for `read_clip`."""

    def look(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
        return extractor.prepare(image), keyframe(image)

    clip = read_clip(path, frames, look, threads)
    prepared, keyframes = zip(*clip.pictures, strict=True)
    return Seen(np.stack(prepared), np.stack(keyframes), clip.repeated)


def describe(path: Path, extractor: Extractor, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (frames, D) float32 and keyframes (frames, height, width, 3) uint8 of one video file.

    Raises OSError or ValueError with one sentence that names the file and what is wrong with it.
    """
    seen = see(path, extractor, frames, threads=0)
    features = extractor(seen.prepared)
    if not np.isfinite(features).all():
        raise ValueError(f"{path} gets features that are not finite from {extractor.name}: choose another extractor.")
    return features, seen.keyframes
