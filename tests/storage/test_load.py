"""Large sets, long histories and many runs: everything still answers, in bearable time and memory."""

import json
import shutil

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from conftest import TINY
from measured import measured, taking

from wsch_core import Settings, evaluate_run, fit, load_dataset, load_run
from wsch_core.experiments import report
from wsch_core.methods.wsch.cycle import PUBLISHED_CYCLE, passes
from wsch_core.retrieval.search import hamming_distances, nearest
from wsch_core.runs.outputs import create_run

pytestmark = pytest.mark.slow
VIDEOS, CLASSES, FRAMES, SIZE = 45_600, 239, 4, 16  # FCVID's numbers of videos and classes
DEFINITION = f"""
frames = {FRAMES}
feature_size = {SIZE}
classes = {CLASSES}
[train]
features = ["all.h5"]
labels = ["all.mat"]
[database]
same_as = "train"
[query]
same_as = "database"
"""


def random_codes(videos, bits, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (videos, bits), generator=generator, dtype=torch.int8) * 2 - 1


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A data set of 45,600 videos that are their own queries, and codes near one of their class."""
    monkeypatch.setenv("WSCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WSCH_OUTPUTS", str(tmp_path / "outputs"))
    folder = tmp_path / "data" / "large"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    classes = random.integers(CLASSES, size=VIDEOS)
    with h5py.File(folder / "all.h5", "w") as file:
        file["feats"] = random.normal(size=(VIDEOS, FRAMES, SIZE)).astype(np.float32)
    scipy.io.savemat(folder / "all.mat", {"labels": np.eye(CLASSES, dtype=np.uint8)[classes]})
    (folder.parent / "large.toml").write_text(DEFINITION)
    flips = torch.from_numpy(np.where(random.random((VIDEOS, 64)) < 0.1, -1, 1).astype(np.int8))
    return load_dataset("large"), random_codes(CLASSES, 64)[torch.from_numpy(classes)] * flips


def test_a_million_codes_are_searched():
    database, queries = random_codes(10**6, 64), random_codes(200, 64, seed=1)
    with taking() as taken:
        found, distances = nearest(queries, database, 100)
    measured("load", "search: 200 queries, 1,000,000 codes of 64 bits, 100 nearest", **taken)
    every = hamming_distances(queries[:3], database).long() * 10**6 + torch.arange(10**6)
    assert torch.equal(found[:3], every.topk(100, largest=False, sorted=True).values % 10**6)
    assert (distances.diff(dim=1) >= 0).all()
    assert taken["seconds"] < 60
    assert taken["MB"] < 2000


def test_the_gallery_answers_over_45600_videos(large, tmp_path):
    from wsch_core.show.gallery.gallery import Gallery, Method
    from wsch_core.show.gallery.view import GalleryView

    data, codes = large
    with taking() as taken:
        view = GalleryView(Gallery(data, [Method("64 bits", codes, codes, None)], k=20), tmp_path)
    measured("load", "gallery: 45,600 videos, first view", **taken)
    with taking() as taken:
        for click in range(20):
            view._on_message(None, {"query": view.cards.content["panels"][0]["cards"][click % 5]["row"]}, None)
    measured("load", "gallery: 20 clicks", **taken)
    assert taken["seconds"] < 20
    with taking() as taken:
        view.gallery.order("worst first")
    measured("load", "gallery: all 45,600 queries by their AP", **taken)
    assert len(view.gallery.queries) == VIDEOS
    assert taken["MB"] < 2000


def test_maps_of_45600_videos_are_laid_out(large):
    from wsch_core.show.maps import maps
    from wsch_core.show.maps.figures import map_figure, nearness
    from wsch_core.show.maps.groups import groups_by
    from wsch_core.show.maps.view import MapView
    from wsch_core.show.style import save

    data, codes = large
    described = {"name": "large", "feature_size": SIZE, "frames": FRAMES, "train_videos": VIDEOS}
    run = create_run("large", {"settings": Settings(dataset="large").as_dict(), "dataset": described})
    setup = maps.Setup(data, data.database)
    with taking() as taken:
        made = maps.code_map(run, setup, codes)
    measured("load", "map: 45,600 codes laid out by UMAP, compiling included", **taken)
    assert np.isfinite(made.coordinates).all()
    assert taken["MB"] < 4000
    with taking() as taken:
        groups = groups_by("class", setup, codes, made)
        save(map_figure([made], groups, nearness([made], setup.labels)), run.folder / "map.png")
        view = MapView([made], groups, setup, run.folder)
    measured("load", "map: figure and interactive view", **taken)
    assert len(view.points.points) == 4 * VIDEOS
    assert taken["seconds"] < 120


@pytest.fixture
def trained(tiny, tiny_settings):
    run = fit(tiny_settings, tiny, "r", callbacks=[])
    evaluate_run(run, tiny)
    return run


def test_twenty_runs_are_compared(trained, tiny, tmp_path):
    from wsch_core.experiments.results import grouped
    from wsch_core.experiments.sweep import Progress, plan
    from wsch_core.show.figures import reproduce
    from wsch_core.show.figures.ablation import cycle, forest
    from wsch_core.show.runs import sweeps
    from wsch_core.show.style import save

    chosen = {"published": {}} | {f"{centers} centres": {"centers": centers} for centers in (5, 6, 7)}
    common = {name: value for name, value in TINY.items() if name not in ("dataset", "centers")} | {"centers": 4}
    planned = plan(chosen, range(5), tiny, **common)
    assert len(planned) == 20
    for one in planned:
        shutil.copytree(trained.folder, one.run.folder)
        one.run.save_json("settings.json", trained.record | {"settings": one.settings.as_dict()})
    progress = [Progress(one, "done") for one in planned]
    with taking() as taken:
        runs = sweeps.runs_frame(progress)
        compared = sweeps.compare_runs(runs, 20)
        html = sweeps.comparison_table(compared, 20).to_html() + sweeps.cost_table(runs).to_html()
        save(forest(compared, 20, "published"), tmp_path / "forest.png")
        histories = {name: [one.run.history for one in planned if one.variant == name] for name in chosen}
        save(cycle(histories), tmp_path / "cycle.png")
        html += reproduce.results_table(grouped([one.run for one in planned]), tiny).to_html()
    measured("load", "20 runs: tables and figures", **taken)
    assert len(runs) == 20
    assert runs["mAP@20"].notna().all()
    assert "7 centres" in html
    assert taken["seconds"] < 60


def test_ten_thousand_history_lines_are_read_and_drawn(trained, tmp_path, capsys):
    from wsch_core.show.figures.run import loss_curves
    from wsch_core.show.style import save

    entries = {tuple(entry["tasks"]): entry for entry in trained.history}
    schedule = list(passes(PUBLISHED_CYCLE, 100, 3300))
    lines = [entries[one.tasks] | {"pass": one.number, "stage": one.stage, "epoch": one.epoch} for one in schedule]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    assert len(lines) == 10_000
    (trained.folder / "history.jsonl").write_text(text)
    with taking() as taken:
        history = load_run("r").history
    measured("load", f"history of 10,000 lines ({len(text) / 1e6:.1f} MB): read", **taken)
    assert len(history) == 10_000
    assert taken["seconds"] < 10
    with taking() as taken:
        save(loss_curves(history), tmp_path / "losses.png")
    measured("load", "history of 10,000 lines: drawn", **taken)
    assert taken["seconds"] < 60
    with taking() as taken:
        report.main(["r"])
    measured("load", "report of a run with 10,000 lines", **taken)
    assert "mAP@5" in capsys.readouterr().out
