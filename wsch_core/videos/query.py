"""A video from outside as a query of a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..data.definition import Definition
from ..storage.files import check_file
from .describe import describe
from .extractors.extract import extractor_of


def query_video(path: Path | str, definition: Definition, device: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """Features (frames, D) float32 and keyframes (frames, height, width, 3) uint8 of a video file, as those of the set.

    Raises FileNotFoundError, OSError or ValueError with one sentence that names the file, or why the set's extractor
    cannot be had.
    """
    path = Path(path).expanduser()
    check_file(path, "give the path of a video file, or of one video's features (.h5)")  # before a network is loaded
    return describe(path, extractor_of(definition, device), definition.frames)
