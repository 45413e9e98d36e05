"""Where features are held while they are used: on the GPU, in memory, or on disk."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

HOLDS = ("auto", "gpu", "memory", "disk")
SHARE_OF_MEMORY = 0.6  # of what is available may be filled with one split's features
SHARE_OF_GPU = 0.7
CONTROL_GROUP = Path("/sys/fs/cgroup")


def held_in_memory(name: str, nbytes: int, hold: str) -> bool:
    """Whether a split's features are read into memory, or stay on disk.

    hold: "auto" decides by size against available memory; "gpu" as well, for the way there
    Raises ValueError if they are to be held in memory and do not fit.
    """
    available = available_memory()
    if hold == "memory" and nbytes > available:
        raise ValueError(
            f'hold is "memory", but the features of {name} take {gigabytes(nbytes)}, and {gigabytes(available)} of memory '
            'are available: use hold = "disk".'
        )
    return hold == "memory" or (hold != "disk" and nbytes <= SHARE_OF_MEMORY * available)


def held_on_gpu(name: str, nbytes: int, hold: str, device: torch.device) -> bool:
    """Whether the training features move to the GPU. Raises ValueError if they are to be held there and cannot."""
    if device.type != "cuda":
        if hold == "gpu":
            raise ValueError(f'hold is "gpu", but the run computes on {device}: use hold = "auto", or device = "cuda".')
        return False
    free, _ = torch.cuda.mem_get_info(device)
    if hold == "gpu" and nbytes > free:
        raise ValueError(
            f'hold is "gpu", but the features of {name} take {gigabytes(nbytes)}, and {gigabytes(free)} of GPU memory are '
            'free: use hold = "memory" or "disk".'
        )
    return hold == "gpu" or (hold == "auto" and nbytes <= SHARE_OF_GPU * free)


def available_memory() -> int:
    """Bytes that can still be used without swapping: the machine's, or less where a control group sets a limit."""
    return min([psutil.virtual_memory().available, *_left_in_control_groups()])


def _left_in_control_groups() -> list[int]:
    """What schedulers and containers leave to this process, by version 2 or 1 of Linux's control groups."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers in ("", "memory"):
            root = CONTROL_GROUP / controllers
            names = ("memory.max", "memory.current") if not controllers else (
                "memory.limit_in_bytes", "memory.usage_in_bytes",
            )  # fmt: skip
            for folder in {root, root / group.strip("/")}:  # in a container its own group is the root
                left += _left_in(folder, *names)
    return left


def _left_in(folder: Path, limit_name: str, usage_name: str) -> list[int]:
    try:
        limit, usage = (folder / limit_name).read_text(), int((folder / usage_name).read_text())
        pairs = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        statistics = {name: int(value) for name, value in pairs}
    except (OSError, ValueError):
        return []
    # Pages of files are given up when memory is needed, so they do not count as used.
    reclaimable = statistics.get("inactive_file", 0) + statistics.get("active_file", 0)
    return [] if limit.strip() == "max" else [max(0, int(limit) - usage + reclaimable)]


def gigabytes(nbytes: float) -> str:
    """1234567890 -> "1.2 GB"; below a tenth of that, megabytes."""
    return f"{nbytes / 1e9:,.1f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:,.1f} MB"
