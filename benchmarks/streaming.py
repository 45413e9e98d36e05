"""Train on features that stay on disk, under a memory limit that is enforced, and compare with features in memory.

python benchmarks/streaming.py [--gigabytes 10] [--limit 2.4] [--precision auto]

Writes a data set of YFCC's shape (25 x 4,096, in nine files) into a temporary folder and trains one pre-training and one
contrast epoch on it, at the published sizes, three times: from memory; from disk, with the files in the page cache; and
from disk in a process whose memory is limited, page cache included, after the page cache was emptied. The limit is a
control group's where one can be made (as root); else RLIMIT_DATA, which limits what is the process's own. Prints one table
and the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import psutil

FRAMES, SIZE, FILES = 25, 4096, 9
DEFINITION = """
title = "generated, YFCC's shape"
frames = {frames}
feature_size = {size}
classes = 80
[train]
features = [{train}]
[database]
features = ["small.h5"]
[query]
same_as = "database"
"""
SPEEDS = ("pretraining", "contrast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10, help="size of the training features")
    parser.add_argument("--limit", type=float, default=2.4, help="GB of memory that the limited process may use")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--train", choices=("disk", "memory"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train:
        train(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        videos = write_data(Path(folder), given.gigabytes)
        rows = {hold: run(folder, hold, hold, given) for hold in ("memory", "disk")}
        rows["disk, limited"] = run_limited(folder, given)
    report(given, videos, rows)


def write_data(folder: Path, gigabytes: float) -> int:
    """Nine training files of random features; returns how many videos they hold."""
    (folder / "generated").mkdir()
    random = np.random.default_rng(0)
    some = random.normal(size=(64, FRAMES, SIZE)).astype(np.float32)
    in_file = round(gigabytes * 1e9 / some[0].nbytes / FILES)
    names = [f"train_{number}.h5" for number in range(FILES)]
    for name, videos in [*((name, in_file) for name in names), ("small.h5", 64)]:
        with h5py.File(folder / "generated" / name, "w") as file:
            data = file.create_dataset("feats", (videos, FRAMES, SIZE), "f4")
            for start in range(0, videos, 64):
                data[start : start + 64] = np.roll(some, random.integers(SIZE), axis=2)[: videos - start]
    text = DEFINITION.format(frames=FRAMES, size=SIZE, train=", ".join(f'"{name}"' for name in names))
    (folder / "generated.toml").write_text(text)
    return in_file * FILES


def run(folder: str, name: str, hold: str, given: argparse.Namespace, prepare=None) -> dict:
    """Train in a process of its own, in which `prepare` is called first."""
    command = [sys.executable, __file__, "--train", hold, "--precision", given.precision]
    places = {"WSCH_DATA": folder, "WSCH_OUTPUTS": f"{folder}/out-{name}", "WSCH_CACHE": f"{folder}/cache-{name}"}
    done = subprocess.run(
        command, env=os.environ | places, stdout=subprocess.PIPE, text=True, check=True, preexec_fn=prepare
    )
    return json.loads(done.stdout.splitlines()[-1])


def run_limited(folder: str, given: argparse.Namespace) -> dict:
    limit = int(given.limit * 1e9)
    group = control_group(limit)
    if group is None:
        found = run(folder, "limited", "disk", given, lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)))
        return found | {"limited_by": "RLIMIT_DATA"}
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    try:
        found = run(folder, "limited", "disk", given, lambda: (group / "cgroup.procs").write_text(str(os.getpid())))
        return found | {"limited_by": "control group, page cache included"}
    finally:
        group.rmdir()


def control_group(limit: int) -> Path | None:
    """A new control group with a memory limit, of version 1 or 2; None where none can be made."""
    root = Path("/sys/fs/cgroup")
    version_1 = (root / "memory").is_dir()
    group = (root / "memory" if version_1 else root) / f"streaming-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if version_1 else "memory.max")).write_text(str(limit))
    except OSError:
        if group.is_dir():
            group.rmdir()
        return None
    return group


def train(given: argparse.Namespace) -> None:
    """In the child process: train, and print what it took."""
    import torch

    from wsch_core import fit, load_dataset, settings_for

    peak, stop = [0], threading.Event()
    threading.Thread(target=watch, args=(peak, stop), daemon=True).start()
    dataset = load_dataset("generated", given.train)
    settings = settings_for(
        dataset, pretrain_epochs=1, epochs=1, cycle="contrast", device="cpu", precision=given.precision
    )
    start = time.perf_counter()
    dataset.train.features.gather_sums(torch.tensor([0]))  # makes them all
    prepared = time.perf_counter() - start
    run = fit(settings, dataset, callbacks=[])
    stop.set()
    speeds = {name: entry["videos_per_second"] for name, entry in zip(SPEEDS, run.history, strict=True)}
    result = {"precision": run.record["precision"], "prepared_seconds": prepared, "videos_per_second": speeds}
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result | {"peak_anonymous_bytes": peak[0], "peak_resident_bytes": resident}))


def watch(peak: list[int], stop: threading.Event) -> None:
    """Note the largest anonymous memory: what could not be given back by dropping pages of files."""
    process = psutil.Process()
    while not stop.wait(0.05):
        memory = process.memory_info()
        peak[0] = max(peak[0], memory.rss - memory.shared)


def report(given: argparse.Namespace, videos: int, rows: dict[str, dict]) -> None:
    nbytes = videos * FRAMES * SIZE * 4
    print(f"{videos:,} videos of {FRAMES} x {SIZE:,} in {FILES} files: {nbytes / 1e9:.1f} GB")
    print(f"{rows['disk']['precision']}, batches of 128, width 1,024, {os.cpu_count()} cores")
    print(f"limit of the last row: {given.limit} GB ({rows['disk, limited']['limited_by']}), ", end="")
    print(f"of which the features are {nbytes / given.limit / 1e9:.1f} times\n")
    columns = ("held", "anonymous GB", "resident GB", "prepared in s", *(f"{name} videos/s" for name in SPEEDS))
    print("  ".join(column.rjust(13) for column in columns))
    for name, row in rows.items():
        numbers = (row["peak_anonymous_bytes"] / 1e9, row["peak_resident_bytes"] / 1e9, row["prepared_seconds"])
        numbers += tuple(row["videos_per_second"].values())
        cells = (name, *(f"{number:.2f}" for number in numbers[:2]), *(f"{number:.0f}" for number in numbers[2:]))
        print("  ".join(cell.rjust(max(13, len(column))) for cell, column in zip(cells, columns, strict=True)))
    speed = {hold: rows[hold]["videos_per_second"] for hold in ("disk", "memory")}
    ratios = {name: speed["disk"][name] / speed["memory"][name] for name in SPEEDS}
    print("\ndisk : memory  " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    print(json.dumps({"bytes": nbytes, "limit_bytes": given.limit * 1e9, "rows": rows, "ratios": ratios}))


if __name__ == "__main__":
    main()
