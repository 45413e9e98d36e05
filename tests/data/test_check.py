"""What is found in a data set's files before it is trusted."""

import h5py
import numpy as np
import pytest
import scipy.io
from conftest import FRAMES, SIZE, VIDEOS
from shared import replace_definition, rewrite

from wsch_core.data import load_dataset
from wsch_core.data.check import check_dataset, highest_map
from wsch_core.data.definition import METRIC_DEPTHS
from wsch_core.show.figures import check as shown


def test_a_good_set_is_ready(tiny):
    check = check_dataset(tiny)
    assert check.ready
    first, *notes = check.verdict().splitlines()
    assert first == "Ready: one can train and evaluate on this data set."
    assert len(notes) == 1  # it is small
    assert {name: (found.videos, found.looked_at) for name, found in check.splits.items()} == {
        name: (videos, videos) for name, videos in VIDEOS.items()
    }
    frames = tiny.query.features.tensor.double()
    found = check.splits["query"]
    assert found.mean == pytest.approx(frames.mean().item())
    assert found.deviation == pytest.approx(frames.std(correction=0).item())
    assert (found.minimum, found.maximum) == (frames.min().item(), frames.max().item())


def test_every_kind_of_doubtful_video_is_counted(tiny_folder):
    def spoil(features):
        features[0, 3, 1] = np.nan
        features[1] = 0
        features[2, 4] = 0
        features[3, 6] = features[3, 5]
        features[5] = features[4]
        return features

    rewrite(tiny_folder / "train.h5", "feats", spoil)
    with h5py.File(tiny_folder / "train.h5") as train:
        shared = train["feats"][7:9]

    def share(features):
        features[:2] = shared
        return features

    rewrite(tiny_folder / "database.h5", "feats", share)
    labels = np.eye(3)[np.arange(VIDEOS["database"]) % 2]
    labels[3:5] = 0
    scipy.io.savemat(tiny_folder / "database.mat", {"labels": labels})
    check = check_dataset(load_dataset("tiny"))
    train = check.splits["train"]
    assert (train.not_finite, train.zero, train.with_zero_frames, train.with_repeated_frames) == (1, 1, 2, 1)
    assert train.duplicates == 1
    assert np.isfinite([train.mean, train.deviation, train.minimum, train.maximum]).all()
    assert check.shared == {("train", "database"): 2}
    assert not check.ready
    verdict = check.verdict()
    for sentence in (
        "✗ train: 1 videos hold NaN or infinite features", "• train: 1 of 21 videos are all zero",
        "train: 1 of 21 videos have some frames of zeros", "train: 1 of 21 videos repeat a frame",
        "train: 1 of 21 videos are exact copies of another", "2 different videos are in both train and database",
        "database: 2 of 14 videos have no label",
    ):  # fmt: skip
        assert sentence in verdict


def test_what_cannot_be_read_is_a_problem_not_a_crash(tiny_folder):
    (tiny_folder / "query.mat").unlink()
    rewrite(tiny_folder / "train.h5", "feats", np.zeros_like)
    check = check_dataset(load_dataset("tiny"))
    assert set(check.splits) == {"train", "database"}
    assert len(check.problems) == 2
    assert any("query.mat is missing" in text for text in check.problems)
    assert any("train: 21 of 21 videos are all zero: extract them again" in text for text in check.problems)


def test_a_set_without_labels_is_ready_with_a_note(tiny_folder):
    replace_definition(tiny_folder, 'features = ["query.h5"]\nlabels = ["query.mat"]', 'features = ["query.h5"]')
    check = check_dataset(load_dataset("tiny"))
    assert check.ready
    assert "query: no labels, so one can train and search, but not measure" in check.verdict()
    shown.labels_per_video(check)


def test_what_limits_map_is_said(tiny_folder):
    tiny = load_dataset("tiny")
    queries, database = (np.asarray(s.labels.todense()) for s in (tiny.query, tiny.database))
    relevant = ((queries @ database.T) > 0).sum(axis=1)
    assert highest_map(tiny) == pytest.approx({k: np.minimum(relevant, k).mean() / k for k in METRIC_DEPTHS})
    verdict = check_dataset(tiny).verdict()
    assert f"mAP@K cannot exceed {highest_map(tiny)[5]:.3f} at K = 5, since it divides by K" in verdict
    assert "at K = 20" not in verdict
    assert "K beyond the 14 videos of the database says nothing" in verdict


def test_a_part_of_a_large_set(tiny_folder, monkeypatch):
    monkeypatch.setattr("wsch_core.data.features.CHUNK_BYTES", 3 * 4 * FRAMES * SIZE)
    check = check_dataset(load_dataset("tiny"), most=6)
    assert check.splits["train"].looked_at == 6
    assert check.splits["train"].videos == VIDEOS["train"]
    assert "Only a part of the videos was looked at" in check.verdict()


def test_tables_and_pictures(tiny_folder):
    replace_definition(tiny_folder, '"ant"', '"<img src=x>"')
    tiny = load_dataset("tiny")
    check = check_dataset(tiny)
    assert "in memory" in shown.videos_table(check).to_html()
    assert "standard deviation" in shown.features_table(check).to_html()
    for figure in (shown.labels_per_video(check), shown.colour_strips(tiny.query)):
        assert figure._repr_png_()[:4] == b"\x89PNG"


def test_files_that_are_not_there_yet(tiny_folder):
    for path in tiny_folder.glob("*.h5"):
        path.unlink()
    check = check_dataset(load_dataset("tiny"))
    assert check.verdict().startswith("Not ready: 3 problems.\n✗ ")
    assert check.verdict().count("is missing: put the file there") == 3
    for table in (shown.videos_table(check), shown.features_table(check)):
        assert table.to_html()
    assert shown.labels_per_video(check)._repr_png_()
