"""Trains a run and is killed again and again: called by tests/test_resume.py in a process of its own.

    python killed.py NAME KILLS SEED SETTINGS_JSON

Every child resumes the run and is killed with SIGKILL after a random time, wherever it is then; every third while it writes
a file, if it does within ten seconds. The children are forked
from a process that has imported everything and computed nothing, so that a kill costs no start-up.
"""

import json
import math
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from wsch_core import Settings, fit, load_dataset
from wsch_core.runs.folder import Run
from wsch_core.runs.outputs import load_run
from wsch_core.storage.paths import outputs_folder
from wsch_core.storage.tensors import read_tensors
from wsch_core.training import checkpoint

torch.set_num_threads(1)


def train(name: str, settings: Settings) -> Run:
    started = (outputs_folder() / name / "settings.json").exists()
    return fit(settings, load_dataset("tiny"), name=name, callbacks=[], resume=started)


def start(name: str, settings: Settings, often: bool = False) -> int:
    """often: write a checkpoint after every pass, whatever it costs, and each so slowly that a kill can strike it"""
    child = os.fork()
    if child == 0:
        status = 1
        if often:
            checkpoint.LARGEST_SHARE = math.inf
            flush = os.fsync
            os.fsync = lambda file: (time.sleep(0.05), flush(file))  # as on a slow disk
        try:
            train(name, settings)
            status = 0
        finally:
            os._exit(status)
    return child


def wait_for_a_write(folder: Path, seconds: float = 10.0) -> None:
    """Until a file is being written, so that some kills strike just then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not any(folder.glob(".writing-*")):
        time.sleep(0.0002)


def main(name: str, kills: int, seed: int, settings: Settings) -> None:
    draw, killed, while_writing = random.Random(seed), 0, 0
    while killed < kills:
        in_a_write = killed % 3 == 2
        child = start(name, settings, often=in_a_write)
        time.sleep(draw.uniform(0.02, 0.3))
        if in_a_write:
            wait_for_a_write(outputs_folder() / name)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(f"the run ended ({status}) after {killed} kills: give it more epochs")
        killed += 1
        run = load_run(name)
        while_writing += any(run.folder.glob(".writing-*"))
        for path in run.checkpoints():
            read_tensors(path)  # whole, whatever was going on
    os.waitpid(start(name, settings), 0)
    print(json.dumps({"killed": killed, "while_writing": while_writing, "finished": load_run(name).finished}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Settings(**json.loads(sys.argv[4])))
