"""Gives a run more epochs, encodes and evaluates it, and is killed again and again; called by runs/test_provenance.py.

    python killed_results.py KILLS SEED SETTINGS

After each kill, what the run says of itself is held against what its network gives.
"""

import json
import math
import os
import random
import signal
import sys
import time
from dataclasses import replace

import torch

from wsch_core import Settings, encode, evaluate_run, fit, load_dataset, load_run
from wsch_core.experiments.evaluation import evaluate_codes, is_evaluated, run_codes
from wsch_core.experiments.repeat import complete_run
from wsch_core.retrieval.metrics import KS
from wsch_core.training import checkpoint

torch.set_num_threads(1)
checkpoint.LARGEST_SHARE = math.inf


def work(epochs: int, settings: Settings) -> None:
    data = load_dataset("tiny")
    run = fit(replace(settings, epochs=epochs), data, name="r", callbacks=[], resume=True)
    run_codes(run, data.train)
    evaluate_run(run, data, baselines=())


def check() -> None:
    """Nothing that a run calls its own may come from another network than its own."""
    data, run = load_dataset("tiny"), load_run("r")
    for split in data.splits.values():
        stored = run.stored_codes(split)
        assert stored is None or torch.equal(stored, encode(run.model(), split.features)), split.name
    assert run.finished == (not run.unfinished)
    assert not run.finished or len(run.history) == len(run.schedule)
    if is_evaluated(run, data):
        codes = {name: encode(run.model(), data.splits[name].features) for name in ("database", "query")}
        assert run.metrics["methods"]["WSCH"] == evaluate_codes(codes, data, normalisation="k", ks=KS).as_dict()


def main(kills: int, seed: int, settings: Settings) -> None:
    draw, killed, epochs = random.Random(seed), 0, settings.epochs
    fit(settings, load_dataset("tiny"), name="r", callbacks=[])
    while killed < kills:
        epochs += 1
        child = os.fork()
        if child == 0:
            work(epochs, settings)
            os._exit(0)
        if killed % 4 < 3:  # the others end, so that there are results that can become stale
            time.sleep(draw.uniform(0.01, 0.4))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or load_run("r").evaluated
        killed += 1
        check()
    run, _ = complete_run(replace(settings, epochs=load_run("r").settings.epochs), load_dataset("tiny"), callbacks=[])
    check()
    left = [path.name for path in run.folder.glob(".writing-*")]
    print(json.dumps({"killed": killed, "finished": run.finished, "left": left}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Settings(**json.loads(sys.argv[3])))
