import os
import pickle

import numpy as np
import pytest
import torch
from test_parity import DEFAULT

from wsch_core import encode, load_run
from wsch_core.data import load_dataset
from wsch_core.data.features import Features
from wsch_core.reference import import_checkpoint, load_checkpoint


@pytest.fixture
def weights():
    with np.load(DEFAULT) as file:
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
    with np.load(DEFAULT) as file:
        frames, pooled = torch.from_numpy(file["x"]), torch.from_numpy(file["pooled_full"])
    codes = encode(load_run("published").model(), Features(frames))
    decided = pooled != 0
    assert torch.equal(codes[decided].float(), pooled.sign()[decided])


def test_a_data_set_of_another_feature_size_is_refused(checkpoint, tiny):
    with pytest.raises(ValueError, match="features of size 48, but those of tiny have size 12"):
        import_checkpoint(checkpoint, tiny, "published")


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
