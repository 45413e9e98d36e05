"""Sets of odd sizes and names of odd lengths: each does the sensible thing, or says why not."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from conftest import FRAMES, SIZE, TINY
from PIL import Image
from shared import replace_definition

from wsch_core import Settings, evaluate_run, fit, load_dataset
from wsch_core.data.check import check_dataset
from wsch_core.experiments import report
from wsch_core.retrieval.search import nearest
from wsch_core.show import tables
from wsch_core.show.figures import curves, retrieval
from wsch_core.show.figures import run as figures
from wsch_core.show.gallery.gallery import Gallery, methods_for
from wsch_core.show.gallery.page import some_queries, write_page
from wsch_core.show.style import save

SETTINGS = Settings(**TINY | {"bits": 8})


def resize(folder, name, videos=None, frames=FRAMES, classes=3):
    """A split made anew with other numbers of videos, frames and classes."""
    random = np.random.default_rng(len(name))
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file["feats"] = random.normal(size=(videos, frames, SIZE)).astype(np.float32)
    scipy.io.savemat(folder / f"{name}.mat", {"labels": np.eye(classes, dtype=np.uint8)[np.arange(videos) % classes]})


def everything(dataset, folder, settings=SETTINGS, **evaluation):
    """Train, evaluate, and draw all that the notebooks draw; returns run and results."""
    run = fit(settings, dataset, callbacks=[])
    results = evaluate_run(run, dataset, **evaluation)
    health = results.health
    ours = results.methods["WSCH"]
    pictures = [
        figures.loss_curves(run.history), curves.map_curves(results.curves()),
        curves.radius_curves(ours.precision_by_radius, ours.recall_by_radius),
        figures.code_health_figure(health.bit_balance, health.bit_correlation, health.distinct, health.videos),
        figures.class_histogram(dataset.label_counts(), dataset.definition.classes),
        retrieval.retrieved(results.codes, dataset, queries=6, neighbours=8),
    ]  # fmt: skip
    for number, figure in enumerate(pictures):
        with Image.open(save(figure, folder / f"{number}.png")) as image:
            assert 300 < image.width < 4000
            assert image.height < 8000
    gallery = Gallery(dataset, methods_for(run, dataset), k=12)
    page = write_page(gallery, some_queries(gallery, 3), folder / "gallery.html", run.name)
    assert page.read_text().count('class="row"') == min(3, len(dataset.query))
    html = tables.data_table(dataset).to_html() + tables.settings_table(run.settings).to_html()
    assert dataset.name[:20] in html
    report.main([run.name])
    assert check_dataset(dataset).ready
    return run, results


def test_one_class(tiny_folder, tmp_path):
    replace_definition(tiny_folder, '["ant", "bee", "cat"]', '["only"]')
    for name, videos in (("train", 21), ("database", 14), ("query", 5)):
        resize(tiny_folder, name, videos, classes=1)
    _, results = everything(load_dataset("tiny"), tmp_path)
    assert results.methods["WSCH"].expected[0] == pytest.approx(1.0)  # everything is relevant


def test_one_query(tiny_folder, tmp_path):
    resize(tiny_folder, "query", 1)
    _, results = everything(load_dataset("tiny"), tmp_path)
    assert len(results.codes["query"]) == 1


def test_one_video_in_the_database(tiny_folder, tmp_path):
    resize(tiny_folder, "database", 1)
    _, results = everything(load_dataset("tiny"), tmp_path)
    assert results.methods["WSCH"].expected[-1] <= 1 / 100  # divided by K, of which one place can be right


def test_fewer_videos_than_k(tiny, tmp_path):
    _, results = everything(tiny, tmp_path, ks=(5, 20, 1000))
    assert results.ks == (5, 20, 1000)
    assert results.methods["WSCH"].expected[2] <= 14 / 1000


def test_k_greater_than_the_database_is_refused_by_search():
    codes = torch.ones(5, 8, dtype=torch.int8)
    with pytest.raises(ValueError, match="found k = 6, expected 1 to 5, the number of database items"):
        nearest(codes, codes, 6)


def test_fewer_videos_than_centres(tiny):
    with pytest.raises(ValueError, match="centers is 43, but tiny has 21 training videos, which give 42 codes"):
        fit(replace(SETTINGS, centers=43), tiny, callbacks=[])
    assert fit(replace(SETTINGS, centers=42), tiny, callbacks=[]).finished


@pytest.mark.parametrize("videos", [1, 9, 17])
def test_a_batch_of_one_video_at_the_end(tiny_folder, videos):
    """Batches of 8: the last has one video."""
    resize(tiny_folder, "train", videos)
    run = fit(Settings(**TINY | {"bits": 8, "centers": 2}), load_dataset("tiny"), callbacks=[])
    losses = [value for entry in run.history for value in entry["losses"].values()]
    assert np.isfinite(losses).all()


def test_videos_of_one_frame(tiny_folder):
    replace_definition(tiny_folder, f"frames = {FRAMES}", "frames = 1")
    for name, videos in (("train", 21), ("database", 14), ("query", 5)):
        resize(tiny_folder, name, videos, frames=1)
    with pytest.raises(ValueError, match="videos of one frame cannot be trained on, because masking hides some"):
        fit(SETTINGS, load_dataset("tiny"), callbacks=[])


def test_videos_of_two_frames(tiny_folder, tmp_path):
    replace_definition(tiny_folder, f"frames = {FRAMES}", "frames = 2")
    for name, videos in (("train", 21), ("database", 14), ("query", 5)):
        resize(tiny_folder, name, videos, frames=2)
    everything(load_dataset("tiny"), tmp_path, replace(SETTINGS, pretrain_masking_ratio=0.5))


def test_long_names(tiny_folder, tmp_path):
    """Of the data set, its classes, its title and the videos."""
    name, word = "d" * 200, "a very long name " * 20
    for split, videos in (("train", 21), ("database", 14), ("query", 5)):
        with h5py.File(tiny_folder / f"{split}.h5", "r+") as file:
            file["ids"] = [f"{split} {word} {row}" for row in range(videos)]
    text = (tiny_folder.parent / "tiny.toml").read_text()
    text = text.replace('"ant"', f'"ant {word}"').replace('"bee"', '"' + "b" * 400 + '"')
    (tiny_folder.parent / f"{name}.toml").write_text('folder = "tiny"\n' + text.replace('"Tiny"', f'"{word}"'))
    everything(load_dataset(name), tmp_path, replace(SETTINGS, dataset=name))
