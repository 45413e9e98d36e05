"""Where and how precisely to compute: device and precision, resolved once for a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch

WORTHWHILE = 1.2  # bfloat16 is chosen if it multiplies this much faster than float32, conversions included


def resolve_device(name: str) -> torch.device:
    """ "auto" is the GPU if there is one, else the CPU; other names are torch's. Raises ValueError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device is {name!r}: it must be auto, cpu, cuda or cuda:N.") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {name!r}: it must be auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device is {name!r}, but this torch sees {torch.cuda.device_count()} GPUs: use 'auto' or 'cpu', or install a "
            "CUDA build of torch."
        )
    return device


def resolve_precision(name: str, device: torch.device, width: int) -> str:
    """ "auto" is "bfloat16" where the device multiplies matrices of this width faster with it, else "float32"."""
    if name != "auto":
        return name
    return "bfloat16" if _speed_up(str(device), min(width, 1024)) >= WORTHWHILE else "float32"


@cache
def _speed_up(device: str, width: int) -> float:
    """How much faster a matrix product is in bfloat16, with the conversions that autocast makes."""
    left, right = torch.ones(2048, width, device=device), torch.ones(width, 4 * width, device=device)
    plain = _seconds(lambda: left @ right, device)
    return plain / _seconds(lambda: left.bfloat16() @ right.bfloat16(), device)


def _seconds(compute: Callable[[], object], device: str) -> float:
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        compute()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
