"""What tests of several rooms use: changed data sets, runs compared, the parity file."""

from pathlib import Path

import h5py
import torch

from wsch_core.storage.tensors import read_tensors

PARITY = Path(__file__).parent / "fixtures" / "parity.npz"
TIMINGS = ("seconds", "videos_per_second")


def replace_definition(folder, old, new):
    path = folder.parent / "tiny.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def rewrite(path, name, change):
    """Replace a dataset of an HDF5 file by what `change` makes of it."""
    with h5py.File(path, "r+") as file:
        value = change(file[name][()])
        del file[name]
        file[name] = value


def weights(run):
    return read_tensors(run.folder / "weights.safetensors")


def assert_same_run(one, other):
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(other)[name]), name
    timeless = [[{k: v for k, v in line.items() if k not in TIMINGS} for line in run.history] for run in (one, other)]
    assert timeless[0] == timeless[1]
