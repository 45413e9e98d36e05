import h5py
import numpy as np
import pytest
import torch

from wsch_core.data import demo, load_dataset
from wsch_core.retrieval.metrics import evaluate_cosine


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The whole demo set, made once."""
    data = tmp_path_factory.mktemp("data")
    demo.build_demo(data / "demo", report=lambda text: None)
    return data


@pytest.fixture
def small(monkeypatch):
    """As few videos and extractor frames as go through every step."""
    monkeypatch.setattr(demo, "PER_CLASS", {"train": 1, "database": 1, "query": 1})
    monkeypatch.setattr(demo, "EXTRACTOR_FRAMES", 200)


def build(folder):
    told = []
    demo.build_demo(folder, report=told.append)
    return told


def test_backward_motions_are_forward_ones_reversed():
    for forward in range(0, len(demo.MOTIONS), 2):
        paths = []
        for motion in (forward, forward + 1):
            torch.manual_seed(3)
            paths.append(demo._paths(torch.full((50,), motion)))
        jitter = 12 * 0.02  # both paths tremble on their own
        assert (paths[0] - paths[1].flip(1)).abs().max() < jitter
        assert (paths[0] - paths[1]).abs().max() > 0.5


def test_digit_images_are_dealt_once_and_evenly():
    _, digits = demo._load_digits()
    shares = demo._deal(digits, seed=0)
    everything = torch.cat(list(shares.values()))
    assert len(everything) == len(everything.unique()) == 1797
    for owner, share in shares.items():
        counts = torch.bincount(digits[share], minlength=10) / torch.bincount(digits)
        assert (counts - demo.SHARES[owner]).abs().max() < 0.01


def test_frames_are_small_pictures():
    torch.manual_seed(0)
    pictures, _ = demo._load_digits()
    frames = demo._render_videos(pictures, torch.arange(100), torch.arange(3), torch.tensor([0, 3, 5]))
    assert frames.shape == (3, demo.FRAMES, demo.SIDE, demo.SIDE)
    assert frames.dtype == torch.uint8
    assert frames.max() > 200
    assert frames.float().mean() < 128
    assert not torch.equal(frames[:, 0], frames[:, -1])


def test_the_same_seed_makes_the_same_set(small, tmp_path):
    state = torch.random.get_rng_state()
    told = build(tmp_path / "one")
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)  # more threads, the same set
    try:
        build(tmp_path / "other")
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
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

    def overtaken(folder, seed):
        write(folder, seed)
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
        assert split.keyframes([0, 5]).shape == (2, 25, demo.SIDE, demo.SIDE)
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
