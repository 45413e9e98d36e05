"""Imports a folder of videos and is killed again and again: called by tests/test_videos_import.py in a process of its own.

    python killed_import.py FOLDER NAME KILLS SEED

Every child goes on with the import and is killed with SIGKILL after a random time, wherever it is then. After each kill the
data set is loaded: it must be whole, the former one or the new one.
"""

import json
import os
import random
import signal
import sys
import time

import torch

from wsch_core import load_dataset
from wsch_core.data import list_definitions
from wsch_core.videos import import_videos

torch.set_num_threads(1)


def start(folder: str, name: str) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            import_videos(folder, name, extractor="demo", frames=5, device="cpu")
            status = 0
        finally:
            os._exit(status)
    return child


def videos_in(name: str) -> int:
    """How many videos the set holds, all of it read; 0 while there is none."""
    if name not in list_definitions():
        return 0
    dataset = load_dataset(name)
    different = {split.name: split for split in dataset.splits.values()}.values()
    for split in different:
        assert len(split.ids) == len(split.features) == split.labels.shape[0]
        split.keyframes(range(len(split)))
    return sum(map(len, different))


def main(folder: str, name: str, kills: int, seed: int) -> None:
    draw, held, killed = random.Random(seed), [], 0
    for _ in range(kills):
        child = start(folder, name)
        time.sleep(draw.uniform(0.002, 0.12))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        held.append(videos_in(name))
    _, status = os.waitpid(start(folder, name), 0)
    print(json.dumps({"killed": killed, "held": held, "finished": status == 0, "videos": videos_in(name)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
