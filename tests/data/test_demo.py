import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from wsch_core.data import load_dataset
from wsch_core.data.demo import build as demo
from wsch_core.data.demo import frames as demo_frames
from wsch_core.data.demo import network as demo_network
from wsch_core.retrieval.metrics import evaluate_cosine
from wsch_core.storage.tensors import read_tensors


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The whole demo set, made once."""
    data = tmp_path_factory.mktemp("data")
    demo.build_demo(data / "demo", report=lambda text: None)
    return data


@pytest.fixture
def small(monkeypatch):
    """As few videos as go through every step."""
    monkeypatch.setattr(demo, "PER_CLASS", {"train": 1, "database": 1, "query": 1})


def build(folder):
    told = []
    demo.build_demo(folder, report=told.append)
    return told


def checksum(frames):
    return hashlib.sha256(frames.tobytes()).hexdigest()


CHECKSUMS = {
    "train": "f214a212dea36944b5cd78297b94448135005daaf971046c210e29de32c89c3f",
    "database": "40cdcb66bd285546ba02e7ef817fa4842d729f67aac8f06a974e9c62c8ca74b7",
    "query": "2d6f0e62c174690abb617855c1b855d189d86504a3e033ed5b6df95be9f78f01",
}


def test_every_machine_draws_the_same_frames_and_sees_the_same_in_them():
    frames = demo.make_videos("query")[0]
    assert checksum(frames) == CHECKSUMS["query"]
    stored = np.load(Path(__file__).parents[1] / "fixtures" / "demo_features.npy")
    assert np.allclose(demo.extract(frames[: len(stored)])[:, ::12], stored, rtol=0, atol=demo.STEP)


def test_draws_are_even():
    draws = demo_frames.Draws(3)
    assert (np.bincount(draws.below(3, 30_000)) - 10_000).max() < 500
    between, normal = draws.between(-0.5, 1.5, 100, 100), draws.normal(0.25, 100, 100)
    assert abs(between.mean() / demo_frames.ONE - 0.5) < 0.02
    assert (between.min() / demo_frames.ONE, between.max() / demo_frames.ONE) == pytest.approx((-0.5, 1.5), abs=0.01)
    assert (normal.mean() / demo_frames.ONE, normal.std() / demo_frames.ONE) == pytest.approx((0, 0.25), abs=0.01)
    assert np.array_equal(np.sort(draws.order(50)), np.arange(50))


def test_backward_motions_are_forward_ones_reversed():
    for forward in range(0, len(demo.MOTIONS), 2):
        one, other = (demo_frames.paths(demo_frames.Draws(3), np.full(50, forward + back)) for back in (0, 1))
        jitter = 12 * 0.02 * demo_frames.ONE  # which is not played backwards
        assert np.abs(one - other[:, ::-1]).max() < jitter
        assert np.abs(one - other).max() > 0.5 * demo_frames.ONE


def test_digit_images_are_dealt_once_and_evenly():
    _, digits = demo_frames.load_digits()
    shares = demo_frames.deal(digits, demo_frames.Draws(0, 0))
    everything = np.concatenate(list(shares.values()))
    assert len(everything) == len(np.unique(everything)) == 1797
    for owner, share in shares.items():
        counts = np.bincount(digits[share], minlength=10) / np.bincount(digits)
        assert np.abs(counts - demo_frames.SHARES[owner] / 100).max() < 0.01


def test_frames_are_small_pictures(small):
    frames, image, digit, motion = demo.make_videos("train")
    assert frames.shape == (60, demo.FRAMES, demo_frames.SIDE, demo_frames.SIDE)
    assert frames.dtype == np.uint8
    assert len(np.unique(frames)) == demo_frames.GREYS
    assert frames.max() == 255
    assert frames.mean() < 128
    assert (frames[:, 0] != frames[:, -1]).any(axis=(1, 2)).all()
    assert len(set(zip(digit.tolist(), motion.tolist(), strict=True))) == 60
    assert np.array_equal(demo_frames.load_digits()[1][image], digit)


def test_a_digit_is_where_it_should_be_and_as_large():
    pictures, _ = demo_frames.load_digits()
    one, count = demo_frames.ONE, 100
    centre = np.stack([np.full(count, 0.25 * one), np.full(count, -0.5 * one)], axis=-1).astype(np.int32)
    canvas = demo_frames._place(
        pictures, np.arange(count), centre, np.full(count, one // 2, np.int32), np.zeros(count, np.int32)
    ).mean(axis=0)
    x, y = ((canvas.sum(axis=axis) * demo_frames.PIXELS).sum() / canvas.sum() / one for axis in (0, 1))
    assert (x, y) == pytest.approx((0.25, -0.5), abs=0.03)  # digits' ink lies around their middle
    assert np.flatnonzero(canvas.any(axis=0))[[0, -1]].tolist() == pytest.approx([12, 27], abs=2)


def test_the_script_that_made_the_weights_still_makes_such(monkeypatch, tmp_path):
    monkeypatch.setattr(demo_network, "TRAINING_FRAMES", 200)
    monkeypatch.setattr(demo_network, "WEIGHTS", tmp_path / "weights.safetensors")
    stored = read_tensors(Path(demo_network.__file__).with_name("network.safetensors"))
    with torch.random.fork_rng(devices=[]):
        demo_network.main()
    made = read_tensors(tmp_path / "weights.safetensors")
    assert {name: (t.shape, t.dtype) for name, t in made.items()} == {n: (t.shape, t.dtype) for n, t in stored.items()}
    assert demo.extract(np.zeros((1, demo.FRAMES, demo_frames.SIDE, demo_frames.SIDE), np.uint8)).shape == (1, 25, 128)


def test_the_same_set_is_made_again(small, tmp_path):
    state = torch.random.get_rng_state()
    told = build(tmp_path / "one")
    build(tmp_path / "other")
    assert torch.equal(state, torch.random.get_rng_state())
    assert len(told) == 2
    for split in demo.SPLITS:
        with h5py.File(tmp_path / "one" / f"{split}.h5") as one, h5py.File(tmp_path / "other" / f"{split}.h5") as other:
            assert len(one["feats"]) == 60
            for name in one:
                assert np.array_equal(one[name], other[name]), name


def test_a_complete_set_is_left_as_it_is_and_others_are_refused(small, tmp_path):
    build(tmp_path / "demo")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").iterdir()}
    assert build(tmp_path / "demo") == []
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").iterdir()}
    with h5py.File(tmp_path / "demo" / "train.h5", "r+") as file:
        file.attrs["builder_version"] = 1
    with pytest.raises(OSError, match="holds version 1 of the demo set, and this is version 2"):
        build(tmp_path / "demo")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(OSError, match="exists but is not a complete demo set"):
        build(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_failure_leaves_nothing_behind(small, tmp_path, monkeypatch):
    def fail(*given):
        raise OSError("disk full")

    monkeypatch.setattr(demo, "_write_split", fail)
    with pytest.raises(OSError, match="disk full"):
        build(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


def test_the_slower_of_two_builders_keeps_the_faster_ones_set(small, tmp_path, monkeypatch):
    build(tmp_path / "theirs")
    write = demo._write_all

    def overtaken(folder):
        write(folder)
        (tmp_path / "theirs").rename(tmp_path / "demo")

    monkeypatch.setattr(demo, "_write_all", overtaken)
    assert len(build(tmp_path / "demo")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Cannot make the demo set in .*WSCH_DATA"):
        build(tmp_path / "file" / "demo")


@pytest.mark.slow
def test_the_set_is_what_it_says(built, monkeypatch):
    monkeypatch.setenv("WSCH_DATA", str(built))
    data, motion = load_dataset("demo"), load_dataset("demo-motion")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 2400, "database": 1200, "query": 300}
    ids = [i for split in data.splits.values() for i in split.ids]
    assert len(set(ids)) == 3900
    images = []
    for name, split in data.splits.items():
        digits, both = split.labels.toarray(), motion.splits[name].labels.toarray()
        assert (digits.sum(axis=1) == 1).all()
        assert np.array_equal(both.reshape(len(both), 10, -1).sum(axis=2), digits)
        assert set(both.sum(axis=0)) == {demo.PER_CLASS[name]}
        assert checksum(split.keyframes(range(len(split)))) == CHECKSUMS[name]
        assert split.keyframes([0, 5]).shape == (2, 25, demo_frames.SIDE, demo_frames.SIDE)
        with h5py.File(built / "demo" / f"{name}.h5") as file:
            images.append(set(file["digit_image"][:].tolist()))
    assert len(set.union(*images)) == sum(map(len, images))
    assert motion.definition.classes == demo.DIGIT_AND_MOTION_CLASSES
    assert data.definition.classes == demo.DIGIT_CLASSES


@pytest.mark.slow
def test_the_set_is_neither_trivial_nor_hopeless(built, monkeypatch):
    """Mean-pooled features find digits fairly well, and can hardly tell motions apart."""
    monkeypatch.setenv("WSCH_DATA", str(built))
    reached = {}
    for name in ("demo", "demo-motion"):
        data = load_dataset(name)
        pooled = [split.features.mean_pooled() for split in (data.query, data.database)]
        reached[name] = evaluate_cosine(*pooled, data.query.labels, data.database.labels, ks=(20,))[0]
    assert 0.35 < reached["demo"] < 0.75
    assert reached["demo-motion"] < 0.2
