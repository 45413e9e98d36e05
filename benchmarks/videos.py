"""How fast videos are imported and asked for, and whether memory stays where it is over ten thousand of them.

python benchmarks/videos.py [--clips FOLDER] [--links 10000]

Without --clips, eight videos are generated: 320 x 240, three seconds, H.264. They are imported with EfficientNet-Lite0, by
ONNX Runtime and by torch, with the demo set's network, and with a ResNet-50 of full size and random weights; then, with the
demo set's, as often as --links says, through symbolic links. Timed is also a query by video: decode, extract, encode and
search, once the network is loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import psutil

PREPROCESSOR = {
    "feature_extractor_type": "ConvNextFeatureExtractor", "size": 224, "crop_pct": 0.875, "resample": 3,
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="a folder of videos, instead of generated ones")
    parser.add_argument("--links", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ |= {
            "WSCH_DATA": f"{folder}/data",
            "WSCH_OUTPUTS": f"{folder}/outputs",
            "WSCH_CACHE": f"{folder}/cache",
        }
        clips = given.clips or generate(folder / "clips")
        result = {"cores": len(os.sched_getaffinity(0))}
        result |= measure("lite0", clips, "efficientnet-lite0")
        with without_onnx_runtime():
            result |= measure("lite0_torch", clips, "efficientnet-lite0")
        result |= measure("small", clips, "demo")
        result |= measure("resnet50", clips, write_resnet(folder / "resnet-50"))
        result |= measure_links(clips, folder / "many", given.links) if given.links else {}
    for name, value in result.items():
        print(f"{name:<32}{value:>12,.2f}")
    print(json.dumps(result))


def generate(folder: Path) -> Path:
    """Bright discs that move over noise."""
    import av

    folder.mkdir()
    random, (rows, columns) = np.random.default_rng(0), np.mgrid[:240, :320]
    for video in range(8):
        with av.open(str(folder / f"{video}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            background = random.integers(0, 120, (60, 80, 3), np.uint8).repeat(4, 0).repeat(4, 1)
            for frame in range(75):
                picture = background.copy()
                near = (rows - 120) ** 2 + (columns - 40 - 3 * frame) ** 2 < (20 + 4 * video) ** 2
                picture[near] = 255 - 20 * video
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    return folder


def write_resnet(folder: Path) -> str:
    from transformers import ResNetConfig, ResNetModel

    ResNetModel(ResNetConfig()).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return str(folder)


@contextmanager
def without_onnx_runtime() -> Iterator[None]:
    """As on a machine where it is not installed."""
    from wsch_core.videos.extractors import extract, runtime

    extract._load.cache_clear()
    with patch.object(runtime, "find_spec", lambda name: None):
        yield
    extract._load.cache_clear()


def measure(name: str, clips: Path, extractor: str) -> dict[str, float]:
    from wsch_core import fit, load_dataset, settings_for
    from wsch_core.show.gallery.gallery import Gallery, methods_for
    from wsch_core.videos import import_videos
    from wsch_core.videos.extractors.extract import load_extractor

    start = time.perf_counter()
    load_extractor(extractor)
    loaded = time.perf_counter() - start
    start, work = time.perf_counter(), time.process_time()
    report = import_videos(clips, name, extractor=extractor)
    seconds, work = time.perf_counter() - start, time.process_time() - work
    print(f"{name}: {report.videos} videos in {seconds:.1f} s", flush=True)
    data = load_dataset(name)
    run = fit(settings_for(data, bits=32, pretrain_epochs=1, epochs=1), data, name, callbacks=[])
    gallery = Gallery(data, methods_for(run, data), k=min(12, len(data.database)))
    asked, asked_work = [], time.process_time()
    for video in data.database.ids[:: max(1, len(data.database) // 8)][:8]:
        start = time.perf_counter()
        gallery.bring(clips / video)
        gallery.results(next(iter(gallery.methods)))
        asked.append(time.perf_counter() - start)
    asked_work = (time.process_time() - asked_work) / len(asked)
    return {
        f"{name}_load_seconds": loaded,
        f"{name}_videos_per_second": report.videos / seconds,
        f"{name}_processor_seconds_per_video": work / report.videos,  # feels other work less
        f"{name}_query_processor_seconds": asked_work,
        f"{name}_query_seconds_median": float(np.median(asked)),
        f"{name}_query_seconds_most": max(asked),
    }


def measure_links(clips: Path, folder: Path, links: int) -> dict[str, float]:
    """Import links to a few files, and watch the resident memory meanwhile."""
    from wsch_core.videos import import_videos

    folder.mkdir()
    files = sorted(path for path in clips.iterdir() if path.is_file())[:8]
    originals = [folder / f"original {path.name}" for path in files]
    for path, copy in zip(files, originals, strict=True):
        copy.write_bytes(path.read_bytes())
    for number in range(links):
        (folder / f"link {number:05}{files[number % len(files)].suffix}").symlink_to(
            originals[number % len(files)].name
        )
    memory, done = [], threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            memory.append(psutil.Process().memory_info().rss / 1e6)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    report = import_videos(folder, "many", extractor="demo", labels="none")
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    start = time.perf_counter()
    import_videos(folder, "many", extractor="demo", labels="none")
    again = time.perf_counter() - start
    tenth = max(1, len(memory) // 10)
    return {
        "links": report.videos,
        "links_videos_per_second": report.videos / seconds,
        "links_memory_MB_first_tenth": float(np.median(memory[:tenth])),
        "links_memory_MB_middle": float(np.median(memory[4 * tenth : 6 * tenth])),
        "links_memory_MB_last_tenth": float(np.median(memory[-tenth:])),
        "links_memory_MB_most": max(memory),
        "links_again_seconds": again,
    }


if __name__ == "__main__":
    main()
