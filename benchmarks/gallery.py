"""How fast the gallery answers on a set of FCVID's size.

python benchmarks/gallery.py [--videos 45600] [--clicks 50]

Generated: as many videos as asked for, 25 frames of 64 features, 239 classes, codes of 64 and of 16 bits near a code of the
class, the queries being the database. Clicks go to random results, with both methods side by side, 20 results each. Timed
is what the kernel does from the message of a click until the new content has been handed to the widget: search, ranks,
relevance, ties and pictures of all cards.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import psutil
import scipy.io

FRAMES, SIZE, CLASSES = 25, 64, 239
DEFINITION = f"""
title = "generated, FCVID's size"
frames = {FRAMES}
feature_size = {SIZE}
classes = {CLASSES}
[train]
features = ["test.h5"]
labels = ["test.mat"]
[database]
same_as = "train"
[query]
same_as = "database"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=45_600)
    parser.add_argument("--clicks", type=int, default=50)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WSCH_DATA"] = folder
        classes = generate(Path(folder), given.videos)
        measure(given, classes, Path(folder))


def generate(folder: Path, videos: int) -> np.ndarray:
    random = np.random.default_rng(0)
    classes = random.integers(CLASSES, size=videos)
    (folder / "generated").mkdir()
    with h5py.File(folder / "generated" / "test.h5", "w") as file:
        file["feats"] = random.normal(size=(videos, FRAMES, SIZE)).astype(np.float32)
    scipy.io.savemat(folder / "generated" / "test.mat", {"labels": np.eye(CLASSES, dtype=np.uint8)[classes]})
    (folder / "generated.toml").write_text(DEFINITION)
    return classes


def codes(classes: np.ndarray, bits: int):
    """Codes that differ from one of their class in a tenth of the bits."""
    import torch

    random = np.random.default_rng(bits)
    centers = np.where(random.random((CLASSES, bits)) < 0.5, 1, -1)
    flips = np.where(random.random((len(classes), bits)) < 0.1, -1, 1)
    return torch.from_numpy(centers[classes] * flips).to(torch.int8)


def measure(given: argparse.Namespace, classes: np.ndarray, folder: Path) -> None:
    from wsch_core import load_dataset
    from wsch_core.show.gallery.gallery import Gallery, Method
    from wsch_core.show.gallery.view import GalleryView

    methods = [Method(f"{bits} bits", codes(classes, bits), codes(classes, bits), None) for bits in (64, 16)]
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    gallery = Gallery(load_dataset("generated"), methods, k=20)
    view = GalleryView(gallery, folder)
    first = time.perf_counter() - start
    seconds, random = [], np.random.default_rng(1)
    for _ in range(given.clicks):
        panel = view.cards.content["panels"][random.integers(2)]
        row = panel["cards"][random.integers(len(panel["cards"]))]["row"]
        start = time.perf_counter()
        view._on_message(None, {"query": row}, None)
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    gallery.order("worst first")
    worst = time.perf_counter() - start
    result = {
        "videos": given.videos,
        "first_view_seconds": first,
        "click_ms_median": 1000 * float(np.median(seconds)),
        "click_ms_largest": 1000 * max(seconds),
        "worst_first_seconds": worst,
        "content_kB": len(json.dumps(view.cards.content)) / 1e3,
        "memory_grown_MB": (psutil.Process().memory_info().rss - before) / 1e6,
    }
    for name, value in result.items():
        print(f"{name:<20}{value:>12,.1f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
