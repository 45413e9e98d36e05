"""How long maps take on a set of FCVID's size, and how large they are.

python benchmarks/maps.py [--videos 45600]

The generated set of `benchmarks/gallery.py`: maps of its 64-bit codes and of its mean features, trustworthiness, figure,
and what the interactive view sends to the browser.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from gallery import codes, generate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=45_600)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"WSCH_DATA": folder, "WSCH_OUTPUTS": f"{folder}/outputs"}
        measure(generate(Path(folder), given.videos))


def measure(classes) -> None:
    import torch

    from wsch_core import Settings, load_dataset
    from wsch_core.runs.outputs import create_run
    from wsch_core.show.maps import maps
    from wsch_core.show.maps.figures import map_figure, nearness
    from wsch_core.show.maps.groups import groups_by
    from wsch_core.show.maps.view import MapView
    from wsch_core.show.style import save
    from wsch_core.training.device import peak_memory

    data = load_dataset("generated")
    settings = Settings(dataset="generated").as_dict()
    described = {"name": "generated", "feature_size": 64, "frames": data.frames, "train_videos": len(data.train)}
    run = create_run("generated", {"settings": settings, "dataset": described})
    made = codes(classes, 64)
    setup = maps.Setup(data, data.database)
    seconds = {}

    def timed(name, act):
        start = time.perf_counter()
        made = act()
        seconds[name] = time.perf_counter() - start
        return made

    pair = [
        timed("map of codes, compiling included", lambda: maps.code_map(run, setup, made)),
        timed("map of features", lambda: maps.feature_map(run, setup)),
    ]
    timed("map of codes, read again", lambda: maps.code_map(run, setup, made))
    groups = groups_by("class", setup, made, pair[0])
    numbers = timed("shares of common labels", lambda: nearness(pair, setup.labels))
    timed("figure", lambda: save(map_figure(pair, groups, numbers), run.folder / "map.png"))
    view = timed("interactive view", lambda: MapView(pair, groups, setup, run.folder))
    for name, value in seconds.items():
        print(f"{name:<34}{value:>8.1f} s")
    sent = len(view.points.points) + len(view.points.groups)
    peak = peak_memory(torch.device("cpu"))
    print(f"sent to the browser {sent / 1e3:.0f} kB, figure {(run.folder / 'map.png').stat().st_size / 1e3:.0f} kB")
    print("\n".join(f"{found.title}: {found.line()}" for found in numbers))
    print(json.dumps({"seconds": seconds, "sent_bytes": sent, "peak_memory_bytes": peak}))


if __name__ == "__main__":
    main()
