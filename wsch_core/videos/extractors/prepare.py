"""Pictures as an extractor's network takes them, and small ones to look at.

Resizing is Pillow's and the arithmetic that of the `transformers` image processors, which a test compares with this; their
own code wants torchvision, which does not load beside a CPU build of torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...storage.files import read_json
from ...storage.words import one_line

KEYFRAME = (64, 96)  # height and width of the pictures kept to look at
BY_SHORTER_SIDE = ("ConvNext", "CLIP", "Bit")  # processors to which a plain number as size is that of the shorter side
LARGEST_SIDE = 1536  # pixels of a network's input
SQUASHED_FROM = 384  # pixels: ConvNext's processor crops smaller pictures, and squashes those of this size or larger


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes a network's input."""

    size: tuple[int, int]  # (height, width) of the input
    # To so long a shorter side, or to (height, width), and then the middle is cut out; a float, below 1, cuts a square of
    # that share of the shorter side out of the middle first, and resizes it to `size`.
    resize: int | float | tuple[int, int] | None
    resample: int = Image.Resampling.BICUBIC
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)  # of each channel, after scaling
    deviation: tuple[float, ...] = (1.0,)
    mode: str = "RGB"  # or "L", grey

    def picture(self, image: Image.Image) -> np.ndarray:
        """One picture -> (channels, height, width) uint8."""
        image = image.convert(self.mode)
        if isinstance(self.resize, float):
            image = _middle(image, self.resize).resize(self.size[::-1], self.resample)
        elif self.resize is not None:
            image = image.resize(self._resized(image), self.resample)
        height, width = self.size
        left, top = (image.width - width) // 2, (image.height - height) // 2
        if (left, top) != (0, 0):
            image = image.crop((left, top, left + width, top + height))  # black where it is smaller
        return np.atleast_3d(np.array(image)).transpose(2, 0, 1)

    def normalise(self, pictures: Tensor) -> Tensor:
        """(n, channels, height, width) uint8 -> the same as float32, scaled and normalised."""
        mean, deviation = (
            pictures.new_tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.deviation)
        )
        return (pictures.float() * self.scale - mean) / deviation

    def _resized(self, image: Image.Image) -> tuple[int, int]:
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        shorter, longer = sorted(image.size)
        other = max(self.resize, int(self.resize * longer / shorter))
        return (self.resize, other) if image.width <= image.height else (other, self.resize)


def _middle(image: Image.Image, share: float) -> Image.Image:
    side = max(1, round(share * min(image.size)))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def keyframe(image: Image.Image) -> np.ndarray:
    """The whole picture, as large as it fits into `KEYFRAME`, with black around it: (height, width, 3) uint8."""
    height, width = KEYFRAME
    small = image.convert("RGB")
    factor = min(height / small.height, width / small.width)
    size = max(1, round(small.width * factor)), max(1, round(small.height * factor))
    small = small.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    canvas = Image.new("RGB", (width, height))
    canvas.paste(small, ((width - small.width) // 2, (height - small.height) // 2))
    return np.asarray(canvas)


def read_preparation(folder: Path) -> Preparation:
    """The preparation that a model folder's preprocessor_config.json describes.

    Raises OSError or ValueError with one sentence that names the file and the field that is missing or not understood.
    """
    path = folder / "preprocessor_config.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing, which tells how large and how normalised pictures must be: choose a model that has it."
        )
    try:
        return _preparation(read_json(path, "choose another image model"))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = one_line(repr(error))
        raise ValueError(f"{path} is not understood ({reason}): choose another image model.") from error


def _preparation(fields: dict[str, Any]) -> Preparation:
    kind = fields.get("image_processor_type") or fields.get("feature_extractor_type") or ""
    unknown = [name for name in ("include_top", "rescale_offset", "do_pad") if fields.get(name)]
    if unknown:
        raise ValueError(f"{unknown[0]} is set")
    resize, crop = None, None
    if fields.get("do_resize", True):
        resize = _size(fields["size"], shorter=any(name in kind for name in BY_SHORTER_SIDE))
        if "ConvNext" in kind and isinstance(resize, int):
            crop = (resize, resize)
            resize = crop if resize >= SQUASHED_FROM else int(resize / fields.get("crop_pct", 224 / 256))
    if fields.get("do_center_crop"):
        crop = _size(fields["crop_size"])
    size = crop or resize
    if not isinstance(size, tuple):
        raise ValueError("pictures of one size do not come out of it")
    normalised = fields.get("do_normalize", True)
    made = Preparation(
        size=size,
        resize=resize,
        resample=int(fields.get("resample", Image.Resampling.BICUBIC)),
        scale=float(fields.get("rescale_factor", 1 / 255)) if fields.get("do_rescale", True) else 1.0,
        mean=tuple(map(float, fields["image_mean"])) if normalised else (0.0,) * 3,
        deviation=tuple(map(float, fields["image_std"])) if normalised else (1.0,) * 3,
    )
    sides = [*made.size, *(resize if isinstance(resize, tuple) else (resize or 1,))]
    if not all(1 <= side <= LARGEST_SIDE for side in sides):
        raise ValueError(f"pictures would have sides of {sides}, but 1 to {LARGEST_SIDE} are made")
    if (len(made.mean), len(made.deviation)) != (3, 3) or 0 in made.deviation:
        raise ValueError("image_mean and image_std are not three numbers each")
    if not np.isfinite([made.scale, *made.mean, *made.deviation]).all():
        raise ValueError("rescale_factor, image_mean or image_std is not finite")
    return made


def _size(given: Any, shorter: bool = False) -> int | tuple[int, int]:
    """512, {"shortest_edge": 512} or {"height": 512, "width": 512}; a plain number means the shorter side, or both."""
    if isinstance(given, dict):
        return int(given["shortest_edge"]) if "shortest_edge" in given else (int(given["height"]), int(given["width"]))
    return int(given) if shorter else (int(given), int(given))
