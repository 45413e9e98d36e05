"""Features in memory and on disk: the same answers, whatever the files look like."""

import os
import shutil

import h5py
import numpy as np
import pytest
import torch
from conftest import FRAMES, SIZE, TINY, VIDEOS, write_split

from wsch_core import Settings, evaluate_run, fit
from wsch_core.data import holding, load_dataset
from wsch_core.data.disk import DiskFeatures, cache_folder
from wsch_core.data.features import Features
from wsch_core.data.loader import Drawn, visible_batches
from wsch_core.methods.wsch.views import draw_views
from wsch_core.storage.hdf5 import find
from wsch_core.storage.tensors import read_tensors

LAYOUTS = {
    "contiguous": {},
    "chunked": {"chunks": (4, FRAMES, SIZE)},
    "chunked across frames": {"chunks": (3, 4, 5)},
    "compressed": {"compression": "gzip"},
    "16 bits": {"dtype": "f2"},
    "64 bits": {"dtype": "f8"},
    "other byte order": {"dtype": ">f4"},
}


def store(path, **options):
    """Store a file's features again, in another layout."""
    with h5py.File(path, "r+") as file:
        values = file["feats"][()]
        del file["feats"]
        file.create_dataset("feats", data=values, **options)


@pytest.fixture
def parts(tiny_folder):
    """The tiny set with its training split in three files."""
    names = []
    for part, videos in enumerate((9, 1, 11)):
        write_split(tiny_folder, f"part{part}", videos, seed=20 + part)
        names.append(f"part{part}")
    definition = tiny_folder.parent / "tiny.toml"
    text = definition.read_text().replace('"train.h5"', ", ".join(f'"{name}.h5"' for name in names))
    definition.write_text(text.replace('"train.mat"', ", ".join(f'"{name}.mat"' for name in names)))
    return [tiny_folder / f"{name}.h5" for name in names]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wanted", ["", "sums", "hidden"])
def test_disk_gives_what_memory_gives(parts, layout, wanted):
    store(parts[0], **LAYOUTS[layout])
    store(parts[2], **LAYOUTS[layout])
    memory, disk = (load_dataset("tiny", hold).train.features for hold in ("memory", "disk"))
    assert isinstance(memory, Features)
    assert isinstance(disk, DiskFeatures)
    assert (len(memory), memory.frames, memory.size, memory.nbytes) == (len(disk), disk.frames, disk.size, disk.nbytes)
    order = torch.randperm(len(memory))
    views = draw_views(len(memory), FRAMES, 6, torch.Generator().manual_seed(0))
    drawn = order.unsqueeze(0), views, wanted
    for batches in zip(
        *(visible_batches(f, Drawn(*drawn), 4, torch.device("cpu")) for f in (memory, disk)), strict=True
    ):
        for ours, theirs in zip(*(batch[:-1] for batch in batches), strict=True):
            assert ours is theirs is None or torch.equal(ours, theirs)
    for ours, theirs in zip(memory.batches(5), disk.batches(5), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(memory.mean_pooled(), disk.mean_pooled())
    assert torch.equal(memory.mean_pooled(most=4), disk.mean_pooled(most=4))
    assert torch.equal(memory.read([20, 0, 9]), disk.read([20, 0, 9]))
    assert torch.equal(disk.to("cpu").tensor, memory.tensor)


@pytest.mark.parametrize("layout", ["contiguous", "compressed"])
def test_a_run_ends_bitwise_the_same(parts, layout):
    store(parts[1], **LAYOUTS[layout])
    ends, metrics = [], []
    for hold in ("memory", "disk"):
        dataset = load_dataset("tiny", hold)
        run = fit(Settings(**TINY | {"bits": 8}), dataset, name=hold, callbacks=[])
        ends.append(read_tensors(run.folder / "weights.safetensors"))
        metrics.append(evaluate_run(run, dataset).as_dict())
        assert run.record["features_held"] == {"memory": "in memory", "disk": "on disk"}[hold]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())
    assert metrics[0] == metrics[1]


def test_only_visible_frames_are_read(parts, monkeypatch):
    features = load_dataset("tiny", "disk").train.features
    features.gather_sums(torch.arange(3))  # made in one pass over everything, before
    read = []
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *given: read.append(preadv(*given)) or read[-1])
    drawn = Drawn(torch.arange(21).unsqueeze(0), torch.zeros(2, 21, 2).long(), "sums")
    list(visible_batches(features, drawn, 8, torch.device("cpu")))
    assert sum(read) == 4 * SIZE * (2 * 21 * 2 + 21)


def test_what_was_prepared_is_used_again_until_the_file_changes(parts):
    store(parts[0], compression="gzip")
    folder = cache_folder(load_dataset("tiny").definition)

    def prepare():
        features = load_dataset("tiny", "disk").train.features
        features.gather_sums(torch.tensor([0]))
        return features, {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")}

    _, first = prepare()
    assert sorted(name.split("-")[0] for name in first) == ["part0", "train"]
    assert prepare()[1] == first
    with h5py.File(parts[0], "r+") as file:
        file["feats"][3] = 7
    features, second = prepare()
    assert set(first) < set(second)
    assert (features.read([3]) == 7).all()


@pytest.mark.parametrize("cache", ["", "shared"])
@pytest.mark.parametrize("same", ["name", "name and folder"])
def test_two_files_of_one_name_size_and_time_are_not_taken_for_each_other(tmp_path, monkeypatch, cache, same):
    if cache:
        monkeypatch.setenv("WSCH_CACHE", str(tmp_path / cache))
    monkeypatch.setenv("WSCH_DATA", str(tmp_path / "data"))
    read = []
    for place in ("a", "b"):
        folder = tmp_path / "data" / "tiny" if same == "name" else tmp_path / f"data-{place}" / "tiny"
        monkeypatch.setenv("WSCH_DATA", str(folder.parent))
        path = folder / (place if same == "name" else "a") / "train.h5"
        path.parent.mkdir(parents=True)
        frames = np.full((21, FRAMES, SIZE), 0.5, np.float32)
        frames[10 if place == "a" else 11] = 2
        with h5py.File(path, "w") as file:
            file.create_dataset("feats", data=frames, chunks=(21, FRAMES, SIZE))
        os.utime(path, (1, 1))
        (folder.parent / "tiny.toml").write_text(
            f'frames = {FRAMES}\nfeature_size = {SIZE}\nclasses = []\n[train]\nfeatures = ["{path.parent.name}/train.h5"]\n'
            '[database]\nsame_as = "train"\n[query]\nsame_as = "database"\n'
        )
        read.append(load_dataset("tiny", "disk").train.features.read(range(21))[:, 0, 0])
    assert read[0].argmax() == 10
    assert read[1].argmax() == 11


def test_the_cache_may_be_elsewhere(parts, tmp_path, monkeypatch):
    monkeypatch.setenv("WSCH_CACHE", str(tmp_path / "fast"))
    store(parts[0], compression="gzip")
    assert len(load_dataset("tiny", "disk").train) == VIDEOS["train"]
    load_dataset("tiny", "disk").train.features.gather_sums(torch.tensor([0]))
    assert len(list((tmp_path / "fast" / "tiny").glob("*.npy"))) == 2
    assert not (parts[0].parent / ".cache").exists()


class TestRefused:
    def test_a_disk_without_room(self, parts, monkeypatch):
        store(parts[0], compression="gzip")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
        with pytest.raises(OSError, match=r"copying part0.h5 \(gzip\).* takes 0.0 MB .* set WSCH_CACHE to a folder"):
            _ = load_dataset("tiny", "disk").train.features

    def test_features_that_are_not_finite(self, parts):
        with h5py.File(parts[2], "r+") as file:
            file["feats"][4, 2, 0] = np.nan
        for hold, row in (
            ("memory", "part2.h5: 1 of 11 videos .*rows 4, counted"),
            ("disk", "part2.h5: 1 of 21 .*rows 14,"),
        ):
            dataset = load_dataset("tiny", hold)
            with pytest.raises(ValueError, match=row):
                fit(Settings(**TINY), dataset, name=hold, callbacks=[])
        assert not list(cache_folder(dataset.definition).glob("*.npy*[!k]"))

    def test_a_file_that_shrinks_while_it_is_used(self, parts):
        features = load_dataset("tiny", "disk").train.features
        os.truncate(parts[2], os.path.getsize(parts[2]) - 4 * SIZE)
        with pytest.raises(OSError, match=r"part2.h5 has become shorter while it was in use"):
            features.read([20])
        with pytest.raises(OSError, match=r"part2.h5 has become shorter while it was in use"):
            list(features.batches(8))

    def test_what_does_not_fit(self, tiny_folder, monkeypatch):
        monkeypatch.setattr(holding, "available_memory", lambda: 1000)
        with pytest.raises(ValueError, match=r'hold is "memory", but the features of tiny, train split take 0.0 MB'):
            _ = load_dataset("tiny", "memory").train.features
        assert load_dataset("tiny").train.features.held == "on disk"

    def test_a_gpu_that_is_not_computed_on(self, tiny_folder):
        with pytest.raises(ValueError, match='hold is "gpu", but the run computes on cpu'):
            fit(Settings(**TINY), load_dataset("tiny", "gpu"), callbacks=[])

    def test_an_unknown_way(self, tiny_folder):
        with pytest.raises(ValueError, match="hold is 'ram': it must be one of auto, gpu, memory, disk"):
            load_dataset("tiny", "ram")


class TestMemoryLimit:
    def test_a_control_group_counts(self, tmp_path, monkeypatch):
        monkeypatch.setattr(holding, "CONTROL_GROUP", tmp_path)
        monkeypatch.setattr(holding, "Path", lambda path: _FakePath(path, "0::/job\n"))
        (tmp_path / "job").mkdir()
        for name, text in (
            ("max", "5000"),
            ("current", "3000"),
            ("stat", "anon 2000\ninactive_file 600\nactive_file 100\n"),
        ):
            (tmp_path / "job" / f"memory.{name}").write_text(text)
        assert holding.available_memory() == 2700
        (tmp_path / "job" / "memory.max").write_text("max")
        assert holding.available_memory() > 1e6


class _FakePath:
    def __init__(self, path, text):
        self.text = text
        assert path == "/proc/self/cgroup"

    def read_text(self):
        return self.text


class TestOtherFiles:
    """A file must not decide which other files are read."""

    @pytest.fixture
    def outside(self, tmp_path):
        path = tmp_path / "outside.h5"
        with h5py.File(path, "w") as file:
            file["feats"] = np.ones((VIDEOS["query"], FRAMES, SIZE), np.float32)
        return path

    def query(self, tiny_folder, change):
        with h5py.File(tiny_folder / "query.h5", "w") as file:
            change(file)
        return load_dataset("tiny").query

    def test_an_external_link(self, tiny_folder, outside):
        query = self.query(tiny_folder, lambda file: file.update(feats=h5py.ExternalLink(outside, "feats")))
        with pytest.raises(
            ValueError, match=r"query.h5: 'feats' is an external link that reads from the file '.*outside"
        ):
            _ = query.features

    def test_a_link_to_an_external_link(self, tiny_folder, outside):
        def change(file):
            file["a/b"] = h5py.ExternalLink(outside, "/")
            file["feats"] = h5py.SoftLink("/a/b/feats")

        with pytest.raises(ValueError, match=r"query.h5: 'feats' is an external link"):
            _ = self.query(tiny_folder, change).features

    def test_a_virtual_data_set(self, tiny_folder, outside):
        def change(file):
            shape = (VIDEOS["query"], FRAMES, SIZE)
            layout = h5py.VirtualLayout(shape, "f4")
            layout[:] = h5py.VirtualSource(outside, "feats", shape)
            file.create_virtual_dataset("feats", layout)

        with pytest.raises(ValueError, match=r"query.h5: 'feats' is a virtual data set that reads from the file"):
            _ = self.query(tiny_folder, change).features

    def test_external_storage(self, tiny_folder, outside):
        def change(file):
            shape = (VIDEOS["query"], FRAMES, SIZE)
            file.create_dataset("feats", shape, "f4", external=[(str(outside), 0, h5py.h5f.UNLIMITED)])

        with pytest.raises(ValueError, match=r"query.h5: 'feats' is external storage that reads from the file"):
            _ = self.query(tiny_folder, change).features

    def test_links_within_the_file_and_circles(self, tiny_folder):
        with h5py.File(tiny_folder / "links.h5", "w") as file:
            file["real/feats"] = np.arange(3.0)
            file["soft"] = h5py.SoftLink("real")
            file["circle"] = h5py.SoftLink("/circle")
            file["lost"] = h5py.SoftLink("/nowhere")
            assert find(file, "soft/feats")[2] == 2
            assert find(file, "/real/feats").shape == (3,)
            for key in ("circle", "lost", "none", "real/feats/deeper"):
                assert find(file, key) is None
