"""Hash codes: what counts as one, how it is stored, and whether its bits are any good.

A set of codes is a torch.int8 tensor (videos, bits) that holds only -1 and +1. Packed, it is a torch.uint8 tensor
(videos, ceil(bits / 8)) in the order of `numpy.packbits`: the first bit is the highest of the first byte, +1 is a set
bit, and the last byte is filled up with zeros.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def as_tensor(values) -> Tensor:
    """A tensor as it is; an array or a list as a tensor on the CPU, without a copy where torch can share the memory."""
    if isinstance(values, Tensor):
        return values
    # torch warns of read-only arrays, such as memory-mapped files, and refuses negative strides.
    return torch.from_numpy(np.require(values, requirements=("C", "W")))


def as_codes(codes) -> Tensor:
    """Codes as torch.int8, checked.

    codes: (videos, bits) tensor or array of any numeric type that holds only -1 and +1
    returns: (videos, bits) int8, on the device of the input
    Raises ValueError if the shape is not (videos, bits) with at least one bit, or a value is neither -1 nor +1.
    """
    codes = as_tensor(codes)
    if codes.ndim != 2 or codes.shape[1] == 0:
        raise ValueError(f"found codes of shape {tuple(codes.shape)}, expected (videos, bits) with at least one bit")
    is_bit = (codes.abs() if codes.is_signed() else codes) == 1
    if not is_bit.all():
        row, column = (~is_bit).nonzero()[0].tolist()
        raise ValueError(
            f"{codes[row, column].item()} in row {row}, column {column} is not a bit: codes hold only -1 and +1; "
            "binarise real values with torch.where(values > 0, 1, -1), and unpack packed codes with unpack()"
        )
    return codes.to(torch.int8)


def pack(codes) -> Tensor:
    """Eight bits to a byte.

    codes: (videos, bits) of -1 and +1
    returns: (videos, ceil(bits / 8)) uint8, in the order of `numpy.packbits`
    """
    return pack_checked(as_codes(codes))


def pack_checked(codes: Tensor) -> Tensor:
    """`pack` for codes that `as_codes` has seen already."""
    return torch.from_numpy(np.packbits((codes > 0).cpu().numpy(), axis=1)).to(codes.device)


def unpack(packed, bits: int) -> Tensor:
    """The inverse of `pack`.

    packed: (videos, ceil(bits / 8)) uint8
    returns: (videos, bits) int8 of -1 and +1
    Raises ValueError if the shape, the type or the filling of the last byte does not fit the number of bits.
    """
    packed = as_tensor(packed)
    width = (bits + 7) // 8
    if bits < 1 or packed.dtype != torch.uint8 or packed.ndim != 2 or packed.shape[1] != width:
        raise ValueError(
            f"found packed codes of shape {tuple(packed.shape)} and type {packed.dtype}, expected (videos, {width}) "
            f"of torch.uint8 for {bits} bits; give the number of bits that the codes were packed with"
        )
    is_set = torch.from_numpy(np.unpackbits(packed.cpu().numpy(), axis=1).view(np.int8)).to(packed.device)
    if is_set[:, bits:].any():
        raise ValueError(
            f"found set bits behind bit {bits}, expected zeros; give the number of bits that the codes were packed with"
        )
    return is_set[:, :bits] * 2 - 1


@dataclass(frozen=True, eq=False)
class CodeHealth:
    """How well a set of codes uses its bits: ideal bits are balanced, uncorrelated, and tell the videos apart."""

    videos: int
    bits: int
    bit_balance: np.ndarray  # (bits,) mean of each bit, from -1 (always -1) over 0 (balanced) to 1 (always +1)
    bit_correlation: np.ndarray  # (bits, bits) Pearson, in [-1, 1]; 0 between a constant bit and any other bit
    distinct: int  # how many different codes there are

    @property
    def mean_absolute_balance(self) -> float:
        """In [0, 1]: 0 if every bit is +1 for half of the videos, 1 if every bit is constant."""
        return float(np.abs(self.bit_balance).mean())

    @property
    def mean_absolute_correlation(self) -> float:
        """In [0, 1], over pairs of different bits; 0 for a single bit."""
        between_bits = ~np.eye(self.bits, dtype=bool)
        return float(np.abs(self.bit_correlation[between_bits]).mean()) if self.bits > 1 else 0.0

    @property
    def constant_bits(self) -> int:
        """How many bits have the same value for every video."""
        return int((np.abs(self.bit_balance) == 1).sum())

    @property
    def distinct_share(self) -> float:
        """Different codes per video, in (0, 1]."""
        return self.distinct / self.videos


def health(codes) -> CodeHealth:
    """Balance, correlation and diversity of codes (videos, bits) with at least one video."""
    codes = as_codes(codes)
    videos, bits = codes.shape
    if videos == 0:
        raise ValueError("found no codes, expected at least one video to describe")

    values = codes.float()
    balance = values.sum(dim=0).double().cpu().numpy() / videos
    second_moment = (values.T @ values).double().cpu().numpy() / videos

    deviation = np.sqrt(1 - balance**2)
    scale = np.outer(deviation, deviation)
    covariance = second_moment - np.outer(balance, balance)
    correlation = np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0).clip(-1, 1)
    np.fill_diagonal(correlation, 1)

    packed = np.ascontiguousarray(pack(codes).cpu().numpy())
    one_value_per_code = packed.view(np.dtype((np.void, packed.shape[1])))
    return CodeHealth(videos, bits, balance, correlation, len(np.unique(one_value_per_code)))
