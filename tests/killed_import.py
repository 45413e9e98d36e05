"""Imports a folder of videos and is killed again and again: called by tests/test_videos_import.py in a process of its own.

    python killed_import.py FOLDER NAME KILLS SEED

Every child goes on with the import and is killed with SIGKILL after a random time, wherever it is then. Whenever an import
has ended, all files of the folder are marked as changed, so that the next one has the whole set to make anew. After each
kill the set is read: all of it must be the former one or all of it the new one.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from wsch_core import load_dataset
from wsch_core.data import load_definition
from wsch_core.videos import import_videos
from wsch_core.videos.stored import read_set

torch.set_num_threads(1)


def start(folder: Path, name: str) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            import_videos(folder, name, extractor="demo", frames=5, device="cpu")
            status = 0
        finally:
            os._exit(status)
    return child


def mark(folder: Path, time_of_change: int) -> None:
    for path in folder.rglob("*.m*"):
        os.utime(path, ns=(time_of_change, time_of_change))


def change_of(name: str, videos: int) -> int:
    """Which change of the files the whole set was made after."""
    split = load_dataset(name).train
    assert (
        len(split.ids) == len(split.features) == split.labels.shape[0] == len(split.keyframes(range(videos))) == videos
    )
    (change,) = {row.modified for row in read_set(load_definition(name))[0].values()}
    return change


def main(folder: Path, name: str, kills: int, seed: int) -> None:
    draw, killed, change = random.Random(seed), 0, 1
    mark(folder, change)
    begun = time.monotonic()
    os.waitpid(start(folder, name), 0)
    whole = time.monotonic() - begun  # the slower the machine, the later the kills
    videos = len(load_dataset(name).train)
    while killed < kills:
        if change_of(name, videos) == change:
            change += 1
            mark(folder, change)
        child = start(folder, name)
        time.sleep(draw.uniform(0.02, 0.7) * whole)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        assert change_of(name, videos) in (change - 1, change)
    os.waitpid(start(folder, name), 0)
    print(json.dumps({"killed": killed, "imports": change, "last": change_of(name, videos) == change}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
