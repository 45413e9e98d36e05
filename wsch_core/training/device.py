"""Where and how precisely to compute: device and precision, resolved once for a run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

# bfloat16 is chosen if it multiplies this much faster than float32. Machines are far from it on either side: at most 1
# where it is emulated, 3 to 4 with AVX-512's bfloat16, more with units made for it (AMX, tensor cores).
WORTHWHILE = 1.7
SIZES = {"cpu": 1024, "cuda": 4096}  # of the matrices multiplied to find out, so that the product outweighs starting it


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


def resolve_precision(name: str, device: torch.device) -> str:
    """ "auto" is "bfloat16" where the device multiplies matrices much faster with it, else "float32"."""
    if name != "auto":
        return name
    return "bfloat16" if _speed_up(str(device)) >= WORTHWHILE else "float32"


@cache
def _speed_up(device: str) -> float:
    """How much faster a matrix product is in bfloat16 than in float32.

    Always the same product, whatever is trained: the same machine must choose the same precision every time.
    """
    size = SIZES[torch.device(device).type]
    plain = torch.ones(size, size, device=device)
    short = plain.bfloat16()
    seconds = {"float32": [], "bfloat16": []}
    for _ in range(8):  # in turn, so that a busy moment strikes both; the best of each counts
        seconds["float32"].append(_seconds(lambda: plain @ plain, device))
        seconds["bfloat16"].append(_seconds(lambda: short @ short, device))
    return min(seconds["float32"]) / min(seconds["bfloat16"])


def _seconds(compute: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    compute()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def peak_memory(device: torch.device) -> int | None:
    """The most bytes ever in use: on a GPU those torch gave out, else the resident memory of this process.

    None where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024


def autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
