"""What the benchmarks measure against computes the same as what is measured; recipes are compared seed by seed."""

import json

import h5py
import numpy as np
import peer
import peers
import plus
import plus_sets
import pytest
import real
import recipe_rows
import retrieval
import torch
from videos import shades, write_video

from wsch_core import settings_for
from wsch_core.data import load_dataset
from wsch_core.data.features import Features
from wsch_core.data.loader import Drawn, visible_batches
from wsch_core.methods import method_of
from wsch_core.methods.method import State
from wsch_core.methods.wsch.method import WSCHMethod
from wsch_core.methods.wsch.model import WSCH
from wsch_core.methods.wsch.settings import RECIPES, Settings
from wsch_core.retrieval.metrics import evaluate
from wsch_core.training.device import autocast

WEIGHTS = {"reconstruction": 1.0, "cluster": 0.02, "contrast": 1.0}


@pytest.mark.parametrize("hidden", [3, 6, 9])
def test_the_literal_training_step_has_the_same_losses_and_gradients(hidden):
    torch.manual_seed(5)
    settings = Settings()
    model = WSCH(feature_size=12, bits=16, encoder_width=128, decoder_width=32).double()
    torch.nn.init.normal_(model.decoder.mask_token)
    features = Features(torch.randn(7, 10, 12, dtype=torch.float64))
    centers = torch.randn(40, 16, dtype=torch.float64).sign()  # so many that some are equally near
    videos, masks = next(iter(peer.loader(features.tensor, hidden, batch_size=7)))
    order = (videos[:, None] == features.tensor).flatten(2).all(dim=2).long().argmax(dim=1)  # the loader shuffles
    views = (~masks).nonzero()[:, 2].view(7, 2, 10 - hidden).transpose(0, 1)

    drawn = Drawn(order.unsqueeze(0), views, "sums")
    batch = next(visible_batches(features, drawn, 7, torch.device("cpu")))
    state = State(model, None, None, {"centers": centers})
    method = WSCHMethod(settings, 400, 10, 12)
    fast, _ = method.losses(batch, WEIGHTS, state, autocast(torch.device("cpu"), "float32"))
    slow = peer.losses(model, videos, masks, centers, settings, WEIGHTS)
    gradients = []
    for losses in (fast, slow):
        model.zero_grad()
        sum(weight * losses[task] for task, weight in WEIGHTS.items()).backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for task in WEIGHTS:
        torch.testing.assert_close(fast[task], slow[task])
    torch.testing.assert_close(*gradients)


def test_the_usual_evaluation_lies_within_our_bounds():
    """It breaks ties at will, so it may be anywhere between the worst and the best order."""
    codes, labels = retrieval.made_up(300, 16, 5, 1)
    queries, query_labels = retrieval.made_up(20, 16, 5, 2)
    usual = np.array(retrieval.usual_map(queries, codes, query_labels, labels))
    found = evaluate(queries, codes, query_labels, labels)
    assert (found.lower - 1e-6 <= usual).all()
    assert (usual <= found.upper + 1e-6).all()
    assert (found.upper - found.lower).max() < 0.5  # bounds that say something


def row(variant, seed, *values, name="noisy"):
    return {"set": name, "bits": 64, "seed": seed, "variant": variant, "map": list(values), "seconds": 1.0}


class TestRecipes:
    ROWS = (
        row("published", 1, 0.4, 0.2, 0.1), row("published", 2, 0.6, 0.3, 0.1), row("published", 9, 0.9, 0.9, 0.9),
        row("plus", 1, 0.5, 0.25, 0.1), row("plus", 2, 0.8, 0.35, 0.1), row("plus", 1, 0.9, 0.9, 0.9, name="other"),
    )  # fmt: skip

    def test_are_compared_over_the_seeds_both_have(self):
        # differences .1 and .2 of a mean of .5: +30 %, and t(1) = 12.706 times a standard error of .05
        shown = plus.table(self.ROWS, ["noisy"], [64], "plus").splitlines()
        assert shown[0].count("|") == shown[1].count("|") == shown[2].count("|") == 13
        assert shown[2].startswith(
            "| noisy | 64 | 2 | 0.500 | 0.650 | +30.0% ± 127.1% | 0.250 | 0.300 | +20.0% ± 0.0% |"
        )

    def test_what_was_measured_is_not_trained_again(self):
        jobs = list(recipe_rows.missing(self.ROWS, ["noisy"], [64], [1, 2, 3], ["published", "plus"]))
        assert jobs == [("noisy", 64, 3, "published"), ("noisy", 64, 3, "plus")]
        assert list(recipe_rows.missing(self.ROWS, ["noisy"], [64, 16], [1], ["plus"])) == [("noisy", 16, 1, "plus")]

    def test_variants_lie_between_published_and_plus(self):
        whole = RECIPES["plus"]
        assert all(changes.items() <= whole.items() for name, changes in plus.VARIANTS.items() if name != "plus")
        assert recipe_rows.WITHOUT_NEIGHBOURS.items() <= whole.items()


@pytest.mark.parametrize("name", list(plus_sets.GENERATED))
def test_generated_sets_are_what_their_character_says(name, tmp_path, monkeypatch):
    monkeypatch.setenv("WSCH_DATA", str(tmp_path))
    plus_sets.generate(tmp_path, name)
    kind, data = plus_sets.GENERATED[name], load_dataset(name)
    assert (len(data.train), len(data.database), len(data.query)) == kind.videos
    labels = data.database.labels.sum(axis=1)
    assert labels.min() == 1
    assert labels.max() == kind.most_labels
    pooled = data.train.features.mean_pooled()
    plus_sets.generate(tmp_path, name)
    assert load_dataset(name).train.features.mean_pooled().equal(pooled)


def test_of_two_reversed_classes_one_is_the_other_played_backwards(tmp_path, monkeypatch):
    kind = plus_sets.Character("", 2, 1.0, 0.0, 0.0, reversed_pairs=True, videos=(8, 8, 8))
    monkeypatch.setitem(plus_sets.GENERATED, "pair", kind)
    plus_sets.generate(tmp_path, "pair")
    with h5py.File(tmp_path / "pair" / "train.h5") as file:
        videos = file["feats"][:]
    kinds = np.unique(videos.round(5), axis=0)
    assert len(kinds) == 2
    assert np.allclose(kinds[0], kinds[1][::-1], atol=1e-5)


def test_the_script_trains_reads_and_goes_on(tmp_path, monkeypatch, capsys):
    small = plus_sets.Character("", 3, 1.0, 0.5, 0.5, videos=(60, 40, 10))
    monkeypatch.setitem(plus_sets.GENERATED, "small", small)
    monkeypatch.setattr(plus_sets, "SETTINGS", SMALL_SETTINGS)
    monkeypatch.setattr(recipe_rows, "ProcessPoolExecutor", Here)
    for name in ("WSCH_DATA", "WSCH_OUTPUTS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # what the script sets is put back
    threads = torch.get_num_threads()
    arguments = ["plus.py", "--sets", "small", "--bits", "16", "--seeds", "1,2", "--out", str(tmp_path)]
    for _ in range(2):
        monkeypatch.setattr("sys.argv", arguments)
        plus.main()
    torch.set_num_threads(threads)
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [(found["seed"], found["variant"]) for found in rows] == [
        (s, v) for s in (1, 2) for v in ("published", "plus")
    ]
    assert capsys.readouterr().out.count("| small | 16 | 2 | ") == 2


SMALL_SETTINGS = """
[settings]
encoder_width = 64
decoder_width = 32
centers = 5
pretrain_epochs = 1
epochs = 1
batch_size = 32
"""


class Here:
    """Stands for a pool of processes."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    map = staticmethod(map)


class TestRealVideos:
    def test_a_file_of_features_becomes_a_set_without_identical_files(self, tmp_path, monkeypatch):
        uses = ["train", "test", "train", "", "test", "train"]
        with h5py.File(tmp_path / "few.h5", "w") as file:
            file["feats_uint8"] = np.arange(6 * 3 * 4, dtype=np.uint8).reshape(6, 3, 4)
            file["feats_uint8"].attrs["scale"] = 0.5
            file["ids"], file["classes"], file["labels"] = [*"abcdef"], ["one", "two"], [0, 1, 1, 0, 0, 1]
            file["file_sha1"], file["official"] = [*"pqrsts"], uses  # the last is the fourth, but for its split
        assert real.write_set(tmp_path / "few.h5", "official", tmp_path / "data") == "few-official"
        monkeypatch.setenv("WSCH_DATA", str(tmp_path / "data"))
        data = load_dataset("few-official")
        assert data.train.ids == ["a", "c"]
        assert data.query.ids == ["b", "e"]
        assert data.database is data.train
        assert data.query.features.tensor[1].flatten().tolist() == [value / 2 for value in range(48, 60)]
        assert data.query.labels.toarray().tolist() == [[0, 1], [1, 0]]
        assert data.definition.settings["tau_plus"] == 0.2

    def test_the_last_variant_is_set_against_every_row(self):
        beside = {name: [0.4, 0.2, 0.1] for name in real.BESIDE}
        rows = [
            row("published", 1, 0.2, 0.2, 0.2) | {"beside": beside},
            row("plus", 1, 0.5, 0.3, 0.1) | {"beside": beside}, row("plus", 2, 0.5, 0.2, 0.1) | {"beside": beside},
        ]  # fmt: skip
        shown = real.table(rows, "noisy", 64, ["published", "plus"]).splitlines()
        assert len({line.count("|") for line in shown}) == 1
        # against ITQ's 0.2, the differences of the seeds are 0.1 and 0: t(1) = 12.706 times a standard error of 0.05
        assert shown[2] == "| ITQ | 2 | 0.400 | 0.200 | 0.100 | +25.0% ± 0.0% | +25.0% ± 317.7% | +0.0% ± 0.0% |"
        assert shown[5] == "| published | 1 | 0.200 | 0.200 | 0.200 | +150.0% | +50.0% | -50.0% |"
        assert shown[6] == "| plus | 2 | 0.500 | 0.250 ± 0.635 | 0.100 |  |  |  |"


@pytest.mark.slow
def test_parts_of_clips_share_no_frame_between_splits(tmp_path, monkeypatch):
    monkeypatch.setenv("WSCH_DATA", str(tmp_path))
    (tmp_path / "clips").mkdir()
    for name in ("a_1.mp4", "a_2.MP4", "b.mp4"):
        write_video(tmp_path / "clips" / name, shades(60, step=4))
    (tmp_path / "clips" / "c.mp4").write_text("no video")
    plus_sets.cut_clips(tmp_path / "data", tmp_path / "clips")
    monkeypatch.setenv("WSCH_DATA", str(tmp_path / "data"))
    data = load_dataset("clips")
    assert data.database.labels.shape == (80, 2)
    frames = [split.features.tensor.flatten(0, 1).numpy() for split in data.splits.values()]
    train, database, query = ({frame.tobytes() for frame in some} for some in frames)
    assert not train & (database | query)
    assert not database & query
    with pytest.raises(ValueError, match="holds 0 clips of at least 40 frames"):
        plus_sets.cut_clips(tmp_path / "data", tmp_path / "data")


class TestPeers:
    @pytest.mark.parametrize("name", peers.TRAINED)
    def test_a_method_has_settings_on_every_set(self, tiny, name):
        chosen = peers.chosen_for(name)
        settings = settings_for(tiny, chosen.pop("recipe", None), chosen.pop("method", None), **chosen)
        assert method_of(settings) == name.split()[0]
        assert settings.learning_rate > 1e-4 or name == peers.WSCH

    def test_a_table_compares_with_wsch_by_seed(self):
        rows = [
            {
                "set": "s",
                "bits": 64,
                "seed": seed,
                "variant": name,
                "map": [value, value / 2, value / 4],
                "seconds": 30.0,
            }
            | ({} if name in peers.BESIDE else {"epochs": "2 + 3"})
            for name, values in {"ITQ": (0.5, 0.5), "wsch": (0.5, 0.25), "bth": (0.75, 0.5)}.items()
            for seed, value in enumerate(values)
        ]
        lines = peers.table(rows, "s", 64, ["ITQ", "wsch", "bth", "ssvh"]).splitlines()
        assert len(lines) == 5
        assert lines[2].startswith("| ITQ | 2 | 0.500 | 0.250 | 0.125 | +33.3%")
        assert lines[3].endswith("|  |  | 2 + 3 | 30 |")
        assert lines[4].split(" | ")[5].startswith("+66.7% ± 0.0%")
