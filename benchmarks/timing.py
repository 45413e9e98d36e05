"""What the benchmarks share: timing alternatives in turn, the machine's limits, and a table with its JSON."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch


def in_turn(alternatives: dict[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> dict[str, float]:
    """Median seconds of each alternative. They take turns, so that a busy moment of the machine strikes all."""
    seconds = {name: [] for name in alternatives}
    for turn in range(warm_up + rounds):
        for name, run in alternatives.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int = 4096) -> float:
    """Floating-point operations per second that a large square matrix product reaches: what a step can be held against."""
    left, right = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / in_turn({"product": lambda: left @ right}, 5, 2)["product"]


def machine(device: torch.device | str = "cpu") -> dict:
    """What the figures were measured on."""
    found = {"torch": torch.__version__, "threads": torch.get_num_threads(), "python": platform.python_version()}
    cpu = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if "model name" in line]
        if cpu.exists()
        else []
    )
    found["cpu"] = f"{names[0]} x {len(names)}" if names else platform.processor()
    found["amx"] = cpu.exists() and "amx_bf16" in cpu.read_text()
    if torch.device(device).type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found | {"date": time.strftime("%Y-%m-%d")}


def table(head: Iterable[str], rows: Iterable[Iterable]) -> None:
    """Print a table that Markdown understands."""
    head, rows = [*head], [[*row] for row in rows]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(cell if isinstance(cell, str) else f"{cell:,.4g}" for cell in row) + " |")
    print(flush=True)


def save(path: Path | None, found: dict) -> None:
    if path:
        path.write_text(json.dumps(found, indent=1))
