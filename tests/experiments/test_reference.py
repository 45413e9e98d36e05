import itertools
import os
import pickle

import h5py
import numpy as np
import pytest
import torch
from shared import PARITY

from wsch_core import encode, load_run
from wsch_core.data import load_dataset
from wsch_core.data.features import Features
from wsch_core.experiments.reference import (
    _four_bits,
    evaluate_ternary,
    import_checkpoint,
    load_checkpoint,
    ternary_codes,
)
from wsch_core.experiments.repeat import complete_all
from wsch_core.experiments.results import grouped
from wsch_core.methods.wsch.model import WSCH
from wsch_core.retrieval.metrics import tie_aware_average_precision
from wsch_core.retrieval.search import hamming_distances


@pytest.fixture
def weights():
    with np.load(PARITY) as file:
        return {n.removeprefix("param."): torch.from_numpy(file[n]) for n in file.files if n.startswith("param.")}


@pytest.fixture
def checkpoint(tmp_path, weights):
    """A file in the authors' layout."""
    path = tmp_path / "published.pth"
    optimizer = {"state": {}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": list(range(34))}]}
    torch.save({"berthash": weights, "optimizer": optimizer, "epoch": 300}, path)
    return path


def test_all_sizes_come_from_the_shapes(checkpoint):
    loaded = load_checkpoint(checkpoint)
    expected = {"bits": 16, "encoder_width": 128, "decoder_width": 64, "ssd_head_width": 128, "state_size": 64}
    assert loaded.sizes == expected
    assert loaded.epoch == 300
    assert loaded.centers.shape == (5, 16)


def test_an_imported_run_opens_like_any_other(checkpoint, tiny_folder):
    path = tiny_folder.parent / "tiny.toml"
    path.write_text(path.read_text().replace("feature_size = 12", "feature_size = 48"))
    run = import_checkpoint(checkpoint, load_dataset("tiny"), "published")
    assert run.finished
    assert (run.settings.bits, run.settings.epochs, run.settings.learning_rate) == (16, 300, 1e-4)
    with np.load(PARITY) as file:
        frames, pooled = torch.from_numpy(file["x"]), torch.from_numpy(file["pooled_full"])
    codes = encode(load_run("published").model(), Features(frames))
    decided = pooled != 0
    assert torch.equal(codes[decided].float(), pooled.sign()[decided])


def test_a_data_set_of_another_feature_size_is_refused(checkpoint, tiny):
    with pytest.raises(ValueError, match="features of size 48, but those of tiny have size 12"):
        import_checkpoint(checkpoint, tiny, "published")


class TestAdam:
    def file(self, path, weights, state):
        torch.save({"berthash": weights, "optimizer": {"state": state, "param_groups": []}, "epoch": 1}, path)
        return path

    def state(self, weights):
        names = [name for name in weights if name != "cluster_centers"]
        return {
            place: {"step": torch.tensor(7.0), "exp_avg": weights[name] * 2, "exp_avg_sq": weights[name] ** 2}
            for place, name in enumerate(names)
        }

    def test_comes_by_our_names(self, tmp_path, weights):
        loaded = load_checkpoint(self.file(tmp_path / "a.pth", weights, self.state(weights)))
        ours = dict(loaded.model.named_parameters())
        assert loaded.adam.keys() == ours.keys()
        for name, values in loaded.adam.items():
            assert values["step"] == 7
            torch.testing.assert_close(values["exp_avg"], ours[name].detach() * 2)
            torch.testing.assert_close(values["exp_avg_sq"], ours[name].detach() ** 2)

    def test_goes_on_in_our_optimizer(self, tmp_path, weights):
        loaded = load_checkpoint(self.file(tmp_path / "a.pth", weights, self.state(weights)))
        optimizer = torch.optim.Adam(loaded.model.parameters(), lr=1e-4)
        for name, parameter in loaded.model.named_parameters():
            optimizer.state[parameter] = loaded.adam[name]
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        assert all(values["step"] == 8 for values in loaded.adam.values())

    def test_may_be_missing(self, checkpoint):
        assert load_checkpoint(checkpoint).adam == {}

    @pytest.mark.parametrize(
        ("spoil", "sentence"),
        [
            (lambda state: state.update({99: state[0]}), "does not number the 34 weights"),
            (lambda state: state[3].pop("exp_avg"), r"En\.\S+ lacks step, exp_avg or exp_avg_sq"),
            (lambda state: state[3].update(exp_avg=torch.zeros(2, 9)), "does not have its shape"),
        ],
    )
    def test_that_does_not_fit_is_named(self, tmp_path, weights, spoil, sentence):
        state = self.state(weights)
        spoil(state)
        with pytest.raises(ValueError, match=rf"a\.pth: .*{sentence}"):
            load_checkpoint(self.file(tmp_path / "a.pth", weights, state))


class TestTernary:
    def test_codes_have_zeros_where_frames_are_split(self, checkpoint):
        with np.load(PARITY) as file:
            frames, pooled = torch.from_numpy(file["x"]), torch.from_numpy(file["pooled_full"])
        codes = ternary_codes(load_checkpoint(checkpoint).model, Features(frames))
        assert torch.equal(codes.float(), pooled.sign())
        assert (codes == 0).any()

    def test_four_bits_rank_as_scalar_products_do(self):
        codes = torch.tensor(list(itertools.product((-1, 0, 1), repeat=3)), dtype=torch.int8)
        products = codes.int() @ codes.T.int()
        distances = hamming_distances(_four_bits(codes, [0, 1]), _four_bits(codes, [0, 2]))
        assert torch.equal(distances.int(), 2 * (3 - products))

    def test_evaluation_equals_one_written_out(self, tiny):
        torch.manual_seed(0)
        model = WSCH(feature_size=12, bits=3, encoder_width=64, decoder_width=32)
        result = evaluate_ternary(model, tiny, ks=(1, 5, 14))
        query, database = (ternary_codes(model, split.features).int() for split in (tiny.query, tiny.database))
        labels = [torch.tensor(split.labels.toarray()) for split in (tiny.query, tiny.database)]
        products, relevant = query @ database.T, labels[0] @ labels[1].T > 0
        expected = np.zeros((len(query), 3))
        for row, (product, is_relevant) in enumerate(zip(products, relevant, strict=True)):
            levels = product.unique().flip(0)
            items = [[int((product == level).sum()) for level in levels]]
            hits = [[int(is_relevant[product == level].sum()) for level in levels]]
            expected[row] = tie_aware_average_precision(items, hits, (1, 5, 14))[0]
        assert result.expected == pytest.approx(expected.mean(axis=0))


def change(weights, **replaced):
    changed = dict(weights)
    for name, value in replaced.items():
        key = name.replace("__", ".")
        if value is None:
            del changed[key]
        else:
            changed[key] = value
    return changed


FAULTS = {
    "missing": ({"hash__ln__bias": None}, r"missing are hash\.ln\.bias"),
    "unknown": ({"extra": torch.zeros(1)}, "unknown are extra"),
    "shape": (
        {"hash__linear__weight": torch.zeros(17, 128)},
        r"hash\.linear\.weight has the shape \(17, 128\).* \(16, 128\)",
    ),
    "rank": (
        {"En__in_proj__weight": torch.zeros(6)},
        r"En\.in_proj\.weight has the shape \(6,\), but it must be a matrix",
    ),
    "heads": ({"En__ssm__D": torch.zeros(3)}, r"En\.ssm\.D has 3 values"),
    "NaN": ({"En__norm1__bias": torch.full((128,), torch.nan)}, r"En\.norm1\.bias is not a tensor of finite"),
    "no tensor": ({"En__norm1__bias": 7}, r"En\.norm1\.bias is not a tensor"),
    "centres": ({"cluster_centers": torch.zeros(5, 17)}, "cluster_centers has the shape"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_weights_are_named(tmp_path, weights, fault):
    replaced, complaint = FAULTS[fault]
    path = tmp_path / "faulty.pth"
    torch.save({"berthash": change(weights, **replaced)}, path)
    with pytest.raises(ValueError, match=rf"faulty\.pth: .*{complaint}"):
        load_checkpoint(path)


class Command:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_nothing_in_a_file_is_executed(tmp_path, weights, write):
    path = tmp_path / "hostile.pth"
    write({"berthash": weights, "epoch": Command(tmp_path / "executed")}, path)
    with pytest.raises((ValueError, OSError), match=r"hostile\.pth"):
        load_checkpoint(path)
    assert not (tmp_path / "executed").exists()


def test_other_files_are_refused(tmp_path, checkpoint):
    whole = checkpoint.read_bytes()
    for content in (b"", b"hello", whole[:50], whole[: len(whole) // 2], whole[:-20]):
        (tmp_path / "broken.pth").write_bytes(content)
        with pytest.raises((ValueError, OSError), match=r"broken\.pth") as caught:
            load_checkpoint(tmp_path / "broken.pth")
        assert "\n" not in str(caught.value)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="no weights under 'berthash'; it holds list"):
        load_checkpoint(tmp_path / "list.pth")
    with pytest.raises(FileNotFoundError, match=r"none\.pth is missing"):
        load_checkpoint(tmp_path / "none.pth")


def test_a_checkpoint_is_imported_once_and_evaluated(checkpoint, tiny_folder):
    path = tiny_folder.parent / "tiny.toml"
    path.write_text(path.read_text().replace("feature_size = 12", "feature_size = 48"))
    for name in ("train", "database", "query"):
        with h5py.File(tiny_folder / f"{name}.h5", "r+") as file:
            features = np.tile(file["feats"][()], 4)
            del file["feats"]
            file["feats"] = features
    dataset = load_dataset("tiny")
    (run,), done = zip(*complete_all(dataset, [], [], {}, checkpoints=[str(checkpoint)]).items(), strict=True)
    assert done == ("imported",)
    (group,) = grouped([run])
    assert (group.method, group.bits) == ("checkpoint published.pth", 16)
    assert list(complete_all(dataset, [], [], {}, checkpoints=[str(checkpoint)]).values()) == ["found"]
    with pytest.raises(FileNotFoundError, match=r"other\.pth is missing"):
        complete_all(dataset, [], [], {}, checkpoints=["other.pth"])
