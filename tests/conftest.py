"""A tiny data set in the published layout, and folders of its own for every test."""

import math
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import h5py
import hypothesis
import numpy as np
import pytest
import scipy.io
import torch

from wsch_core import Settings
from wsch_core.data import load_dataset

FRAMES, SIZE, CLASSES = 10, 12, 3
VIDEOS = {"train": 21, "database": 14, "query": 5}
DEFINITION = f"""
title = "Tiny"
frames = {FRAMES}
feature_size = {SIZE}
classes = ["ant", "bee", "cat"]
[train]
features = ["train.h5"]
labels = ["train.mat"]
[database]
features = "database.h5"
labels = "database.mat"
[query]
features = ["query.h5"]
labels = ["query.mat"]
"""
TINY = {
    "dataset": "tiny", "bits": 16, "encoder_width": 64, "decoder_width": 32, "centers": 4, "batch_size": 8,
    "pretrain_epochs": 1, "epochs": 2, "learning_rate": 1e-3, "device": "cpu",
    "precision": os.environ.get("WSCH_TEST_PRECISION", "float32"),
}  # fmt: skip
# A busy machine takes its time.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


def write_split(folder: Path, name: str, videos: int, seed: int) -> None:
    """Videos of one class share a direction; the frames are noisy."""
    random = np.random.default_rng(seed)
    classes = np.arange(videos) % CLASSES
    means = np.random.default_rng(0).normal(size=(CLASSES, SIZE))
    features = means[classes][:, None] + random.normal(size=(videos, FRAMES, SIZE))
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file["feats"] = features.astype(np.float32)
    scipy.io.savemat(folder / f"{name}.mat", {"labels": np.eye(CLASSES, dtype=np.uint8)[classes]})


@pytest.fixture
def tiny_folder(tmp_path, monkeypatch) -> Path:
    """WSCH_DATA with the files and the definition of the set "tiny"; WSCH_OUTPUTS beside it."""
    monkeypatch.setenv("WSCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WSCH_OUTPUTS", str(tmp_path / "outputs"))
    folder = tmp_path / "data" / "tiny"
    folder.mkdir(parents=True)
    for seed, (name, videos) in enumerate(VIDEOS.items(), start=1):
        write_split(folder, name, videos, seed)
    (folder.parent / "tiny.toml").write_text(DEFINITION)
    return folder


@pytest.fixture(autouse=True)
def a_checkpoint_after_every_pass(monkeypatch):
    """Passes over the tiny set are shorter than a write: without this, which ones are kept would depend on the disk."""
    monkeypatch.setattr("wsch_core.training.checkpoint.LARGEST_SHARE", math.inf)


@pytest.fixture
def tiny(tiny_folder):
    return load_dataset("tiny")


@pytest.fixture
def tiny_settings() -> Settings:
    return Settings(**TINY)


@pytest.fixture(autouse=True)
def threads_stay():
    """With another number of threads sums are rounded differently: nothing may change it behind the user's back."""
    threads = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == threads


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter):
    """The last line before pytest's own count says what was skipped, which nobody reads in a list of skips."""
    result = yield
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.write_line(did_not_run(report.longrepr[2] for report in skipped), yellow=True, bold=True)
    return result


def did_not_run(reasons: Iterable[str]) -> str:
    """What `skipif` gave as reasons -> one line: how many tests did not run, and what each group needs."""
    counts = Counter(reason.removeprefix("Skipped: ") for reason in reasons)
    groups = "; ".join(f"{count}: {reason}" for reason, count in counts.most_common())
    return f"Tests that did not run: {counts.total()} ({groups})"
