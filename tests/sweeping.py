"""A sweep over the tiny set in a process of its own: python sweeping.py [scheduler address]"""

import signal
import sys
from pathlib import Path

from wsch_core import load_dataset
from wsch_core.experiments.sweep import plan, run_sweep
from wsch_core.storage.paths import outputs_folder

COMMON = {
    "bits": 8, "encoder_width": 64, "decoder_width": 32, "centers": 4, "device": "cpu", "precision": "float32",
    "pretrain_epochs": 900, "epochs": 1, "learning_rate": 1e-3,
}  # fmt: skip


def main(scheduler: str = "") -> None:
    dataset = load_dataset("tiny")
    planned = plan({"published": {}, "joint": {"cycle": "centers, cluster+contrast"}}, [1], dataset, **COMMON)
    for one in run_sweep(planned, Path(outputs_folder()) / "sweep", workers=2, scheduler=scheduler):
        print(one.planned.variant, one.state, one.error)


if __name__ == "__main__":  # workers are spawned, and read this file again
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs the tests in the background
    main(*sys.argv[1:])
