"""What the peers prepare of a whole training set, at FCVID's size: seconds, and memory at its highest.

python benchmarks/peers_prepare.py [--videos 45585] [--feature-size 4096] [--threads 2]

Each method in a process of its own, on random features with clusters: the graph of SSVH; anchors, similarities and the
partners of one epoch of BTH, from latents of width 256; labels and centres of S5VH. Reading features, and BTH's pass over
all videos for their latents, are not counted. Memory is the process's own less what it had before, the features included,
mean-pooled as SSVH and S5VH take them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from wsch_core.data.features import Features
from wsch_core.methods.method import Context
from wsch_core.methods.parts.neighbours import Neighbours, find_anchors, nearest_anchors
from wsch_core.methods.s5vh import RECIPES, S5VHMethod
from wsch_core.methods.ssvh import SSVHMethod
from wsch_core.training.device import autocast, peak_memory

CPU, CLUSTERS, BTH_WIDTH, BTH_ANCHORS = torch.device("cpu"), 239, 256, 2000


def features(videos: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CLUSTERS, size, generator=generator)
    found = torch.randn(videos, size, generator=generator)
    return found.add_(centres[torch.randint(CLUSTERS, (videos,), generator=generator)])


def ssvh(videos: int, size: int) -> Callable[[], str]:
    """What is timed; it tells what came out."""
    means = Features(features(videos, size).unsqueeze(1))
    context = Context(means, CPU, autocast(CPU, "float32"))

    def prepare() -> str:
        kept = SSVHMethod(SSVHMethod.Settings(), videos, 25, size).prepare(context, torch.Generator())
        return f"{len(kept['similar']) / videos:.0f} similar videos each"

    return prepare


def s5vh(videos: int, size: int) -> Callable[[], str]:
    means = Features(features(videos, size).unsqueeze(1))
    context = Context(means, CPU, autocast(CPU, "float32"))

    def prepare() -> str:
        method = S5VHMethod(S5VHMethod.Settings(**RECIPES["fcvid"]), videos, 25, size)
        kept = method.prepare(context, torch.Generator().manual_seed(1))
        return f"{kept['labels'].shape[1]} clusters"

    return prepare


def bth(videos: int, size: int) -> Callable[[], str]:
    latents, generator = features(videos, BTH_WIDTH), torch.Generator().manual_seed(1)

    def prepare() -> str:
        anchors = find_anchors(latents, BTH_ANCHORS, generator)
        neighbours = Neighbours(*nearest_anchors(latents, anchors), len(anchors))
        start = time.perf_counter()
        neighbours.partners(torch.rand(videos, generator=generator) < 0.5, generator)
        return f"{len(anchors)} anchors; partners of an epoch {time.perf_counter() - start:.1f} s of it"

    return prepare


METHODS = {"ssvh": ssvh, "bth": bth, "s5vh": s5vh}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=45_585)
    parser.add_argument("--feature-size", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--method", choices=METHODS, help="this one alone, in this process")
    given = parser.parse_args()
    if given.method:
        print(json.dumps(measure(given)))
        return
    print("| method | seconds | seconds of all threads | memory | |\n|---|---|---|---|---|")
    for name in METHODS:
        done = subprocess.run([sys.executable, *sys.argv, "--method", name], capture_output=True, text=True, check=True)
        wall, used, memory, words = json.loads(done.stdout.splitlines()[-1])
        print(f"| {name} | {wall:.0f} | {used:.0f} | {memory / 1e9:.1f} GB | {words} |", flush=True)


def measure(given: argparse.Namespace) -> tuple[float, float, int, str]:
    torch.set_num_threads(given.threads)
    before = peak_memory(CPU)
    prepare = METHODS[given.method](given.videos, given.feature_size)
    wall, used = time.perf_counter(), time.process_time()
    words = prepare()
    return time.perf_counter() - wall, time.process_time() - used, peak_memory(CPU) - before, words


if __name__ == "__main__":
    main()
