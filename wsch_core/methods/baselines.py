"""Three classic ways to hash real-valued features: the lines that every learned code is read against.

All three are linear: a bit is the sign of a projection of the centred features.

    LSH   random Gaussian directions (Charikar 2002, "Similarity estimation techniques from rounding algorithms")
    PCAH  the leading principal directions (Wang, Kumar & Chang 2010, "Semi-supervised hashing for scalable image
          retrieval")
    ITQ   the leading principal directions, rotated so that the signs lose least (Gong & Lazebnik 2011, "Iterative
          quantization: a Procrustean approach to learning binary codes")
"""

from dataclasses import dataclass

import numpy as np
import scipy
import torch
from torch import Tensor

from ..retrieval.codes import as_tensor

BASELINES = ("LSH", "PCAH", "ITQ")
ITQ_ITERATIONS = 50
ROWS_AT_ONCE = 4096
COLUMNS_AT_ONCE = 1024  # of the covariance, which is computed on and above its diagonal
LARGE = 1024  # features longer than this are analysed in float32, where float64 would take four times as long


@dataclass(frozen=True, eq=False)
class LinearHash:
    """A fitted baseline."""

    name: str
    mean: Tensor  # (size,) float32, of the training features
    projection: Tensor  # (size, bits) float32

    def encode(self, features) -> Tensor:
        """sign((features - mean) @ projection), with -1 for exactly 0.

        features: (videos, size), finite, on the device of the training features
        returns: (videos, bits) int8 of -1 and +1
        """
        features = _as_features(features)
        if features.shape[1] != len(self.mean):
            raise ValueError(
                f"found features of size {features.shape[1]}, expected {len(self.mean)}, the size that {self.name} was "
                "fitted to"
            )
        codes = [torch.where((rows - self.mean) @ self.projection > 0, 1, -1) for rows in features.split(ROWS_AT_ONCE)]
        return torch.cat(codes).to(torch.int8)


def fit_baseline(name: str, features, bits: int, seed: int = 0) -> LinearHash:
    """Fit one of `BASELINES`.

    name: "LSH", "PCAH" or "ITQ"
    features: (videos, size) training features, one mean-pooled row per video, finite
    seed: of the random directions of LSH and the random start of ITQ; the global generator is left alone
    Raises ValueError if the features do not span as many directions as PCAH and ITQ need, which is one per bit.
    """
    if name not in BASELINES:
        raise ValueError(f"found baseline {name!r}, expected one of {', '.join(BASELINES)}")
    if bits < 1:
        raise ValueError(f"found {bits} bits, expected at least 1")
    features = _as_features(features)
    if len(features) == 0:
        raise ValueError(f"found no training features for {name}, expected at least one video")

    generator = torch.Generator().manual_seed(seed)
    rough = features.mean(dim=0)  # what it lacks is added: eight times as fast as a mean in float64, and as good
    mean = rough + sum((rows - rough).sum(dim=0).double() for rows in features.split(ROWS_AT_ONCE)) / len(features)
    if name == "LSH":
        projection = torch.randn(features.shape[1], bits, generator=generator).to(features.device)
    else:
        projection = _principal_directions(name, features, mean, bits)
    if name == "ITQ":
        projected = torch.cat([(rows - mean.float()) @ projection.float() for rows in features.split(ROWS_AT_ONCE)])
        projection = projection @ _quantising_rotation(projected, generator)
    return LinearHash(name, mean.float(), projection.float())


def _as_features(features) -> Tensor:
    features = as_tensor(features).float()
    if features.ndim != 2:
        raise ValueError(
            f"found features of shape {tuple(features.shape)}, expected (videos, size); pool the frames of each video"
        )
    # A norm is finite only if its whole row is, and needs no copy of the features.
    broken = (~torch.linalg.vector_norm(features, dim=1).isfinite()).nonzero()
    if len(broken):
        raise ValueError(
            f"found NaN or infinite features in {len(broken)} videos, first in row {int(broken[0])}, expected finite "
            "ones; repair or drop these videos"
        )
    return features


def _principal_directions(name: str, features: Tensor, mean: Tensor, bits: int) -> Tensor:
    """`leading_directions`, one for each bit; refused where features do not vary in as many (ValueError)."""
    videos, size = features.shape
    variances, directions = leading_directions(features, mean, bits)
    dtype = _precision(size)
    # Variance below this is rounding, of the eigenvalues and of the mean, and a bit made of it would be noise.
    rounding = torch.finfo(dtype).eps * np.sqrt(size) * variances[0]
    rounding += size * torch.finfo(dtype).eps ** 2 * float(mean.square().sum())
    span = int((variances > rounding).sum())
    if bits > span:
        raise ValueError(
            f"found {videos} training videos with features of size {size} that vary in {span} directions, but {name} "
            f"needs {bits}, one for each bit; use fewer bits, more videos, or LSH"
        )
    return directions


def leading_directions(features: Tensor, mean: Tensor, count: int) -> tuple[np.ndarray, Tensor]:
    """Principal directions of features (videos, size) with this mean: variances (count,), falling, and (size, count)
    float64, orthonormal columns; the largest entry of each is positive. There are at most `size`."""
    size = features.shape[1]
    covariance = _upper_covariance(features, mean.to(_precision(size))).cpu().numpy()
    # Only the leading eigenvectors, which torch.linalg.eigh cannot do: a third of the time for 4096 features.
    leading = (max(size - count, 0), size - 1)
    variances, directions = scipy.linalg.eigh(covariance, lower=False, subset_by_index=leading)
    variances, directions = variances[::-1].astype(np.float64), directions[:, ::-1].astype(np.float64)
    directions = directions * np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(len(variances))])
    return variances, torch.from_numpy(directions).to(features.device)


def _precision(size: int) -> torch.dtype:
    return torch.float64 if size <= LARGE else torch.float32


def _upper_covariance(features: Tensor, mean: Tensor) -> Tensor:
    """(size, size), in the precision of the mean; only what is on and above the diagonal means anything."""
    videos, size = features.shape
    covariance = torch.zeros(size, size, dtype=mean.dtype, device=features.device)
    for rows in features.split(ROWS_AT_ONCE):
        centred = rows - mean
        for start in range(0, size, COLUMNS_AT_ONCE):
            block = centred[:, start : start + COLUMNS_AT_ONCE]
            covariance[start : start + COLUMNS_AT_ONCE, start:] += block.T @ centred[:, start:] / videos
    return covariance


def _quantising_rotation(projected: Tensor, generator: torch.Generator) -> Tensor:
    """The rotation R (bits, bits) that locally minimises the quantisation error |sign(V R) - V R|^2; V: (videos, bits).

    Gong & Lazebnik, section 2.2: for fixed R the best codes are the signs, for fixed codes the best R solves the
    orthogonal Procrustes problem.
    """
    bits = projected.shape[1]
    start = torch.randn(bits, bits, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(start).Q.to(projected.device)
    for _ in range(ITQ_ITERATIONS):
        codes = (projected @ rotation.float()).sign()
        left, _, right = torch.linalg.svd((codes.T @ projected).double())
        rotation = right.T @ left.T
    return rotation
