"""Train on generated files in the exact published layout: names, counts, shapes, labels.

python benchmarks/full_size.py activitynet|fcvid|yfcc [--folder FOLDER] [--steps 300] [--evaluate]

Features are random, around a mean of their class; labels are as many as the real ones. Of a set that does not fit on the
disk, most videos are holes in a sparse file, which read as zeros. Trains at the published sizes, pre-training for so many
steps and as many of the cycle's contrast pass, and prints what it took; with --evaluate, codes and mAP@K as well.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import scipy.io

COUNTS = {  # videos in each file, in the definition's order
    "activitynet": {"train": [9722], "database": [3758], "query": [1000]},
    "fcvid": {"train": [45585], "database": [45600]},
    "yfcc": {"train": [45532] * 8 + [45532], "database": [50628, 50628], "query": [1000]},
}
ROOM = 0.3  # of the free disk may be filled with real numbers
REAL_RUN = 128  # videos written together where most are holes


class EnoughError(Exception):
    """Raised by the callback that stops training after some steps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=COUNTS)
    parser.add_argument("--folder", type=Path, help="where to generate; a temporary folder without one")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--hold", default="auto")
    parser.add_argument("--evaluate", action="store_true")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    os.environ |= {"WSCH_DATA": str(folder), "WSCH_OUTPUTS": str(folder / "outputs")}
    try:
        generate(given.dataset)
        train(given)
    finally:
        if given.folder is None:
            shutil.rmtree(folder)


def generate(name: str) -> None:
    """Write the files that the definition names, unless they are there."""
    from wsch_core.data import load_definition

    definition = load_definition(name)
    definition.folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    shape = (definition.frames, definition.feature_size)
    means = random.normal(size=(len(definition.classes), shape[1])).astype(np.float32)
    wanted = 4 * shape[0] * shape[1] * sum(map(sum, COUNTS[name].values()))
    share = min(1.0, ROOM * shutil.disk_usage(definition.folder).free / wanted)
    for split, counts in COUNTS[name].items():
        files = definition.splits[split]
        for place, (file, videos) in enumerate(zip(files.features, counts, strict=True)):
            classes = random.integers(len(definition.classes), size=videos)
            if not (definition.folder / file).exists():
                write_features(definition.folder / file, means[classes], shape, share, random)
            if files.labels:
                labels = np.eye(len(definition.classes), dtype=np.uint8)[classes]
                scipy.io.savemat(definition.folder / files.labels[place], {files.labels_key: labels})
        print(f"{split}: {sum(counts):,} videos in {len(counts)} files, {share:.0%} of them real numbers", flush=True)


def write_features(path: Path, means: np.ndarray, shape: tuple[int, int], share: float, random) -> None:
    noise = random.normal(size=(REAL_RUN, *shape)).astype(np.float32)
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # the whole extent is there at once, as holes
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((len(means), *shape))
        data = h5py.Dataset(h5py.h5d.create(file.id, b"feats", h5py.h5t.IEEE_F32LE, space, layout))
        for start in range(0, len(means), int(REAL_RUN / share)):
            some = means[start : start + REAL_RUN, None]
            data[start : start + len(some)] = some + np.roll(noise, random.integers(shape[1]), axis=2)[: len(some)]


def train(given: argparse.Namespace) -> None:
    from wsch_core import evaluate_run, fit, load_dataset, settings_for
    from wsch_core.training.device import peak_memory

    data = load_dataset(given.dataset, given.hold)
    start = time.perf_counter()
    features = data.train.features
    print(f"train: {len(features):,} videos held {features.held} after {time.perf_counter() - start:.0f} s", flush=True)
    run = None
    for stage, epochs in (("pre-training", (1, 0)), ("contrast", (0, 1))):
        chosen = {"pretrain_epochs": epochs[0], "epochs": epochs[1], "cycle": "contrast", "bits": 64}
        settings = settings_for(data, **chosen)
        last = {}

        def watch(progress, last=last):
            steps = progress.share * len(features) / settings.batch_size  # noqa: B023 (called within the turn)
            last.update(steps=round(steps), losses=progress.losses, speed=progress.videos_per_second)
            if steps >= given.steps and progress.entry is None:
                raise EnoughError

        start = time.perf_counter()
        with contextlib.suppress(EnoughError):
            run = fit(settings, data, f"{given.dataset}-{stage}-{time.time_ns()}", [watch])
        seconds = time.perf_counter() - start
        print(json.dumps({"stage": stage, "seconds": seconds, **last}), flush=True)
    if given.evaluate and run:
        start = time.perf_counter()
        results = evaluate_run(run, data)
        print(json.dumps({"evaluation_seconds": time.perf_counter() - start}))
        print({name: values.round(3).tolist() for name, values in results.table().items()})
    import torch

    print(f"peak memory {peak_memory(torch.device('cpu')) / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
