"""What tests of several rooms use: changed data sets, runs compared, the parity file."""

from pathlib import Path

import h5py
import pytest
import torch

from wsch_core import fit
from wsch_core.runs.folder import Run
from wsch_core.storage.tensors import read_tensors

FIXTURES = Path(__file__).parent / "fixtures"
PARITY = FIXTURES / "parity.npz"
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


class Interrupt:
    """A callback that interrupts training at the end of a pass, as Ctrl-C would."""

    def __init__(self, after_pass: int):
        self.after_pass = after_pass

    def __call__(self, progress) -> None:
        if progress.entry is not None and progress.current.number == self.after_pass:
            raise KeyboardInterrupt


def assert_resumes(settings, dataset) -> Run:
    """A run that is stopped after any of its passes and resumed ends as the whole run, all its state to the bit."""
    whole = fit(settings, dataset, name="whole", callbacks=[])
    expected = read_tensors(whole.checkpoints()[0])
    for number in range(len(whole.history)):
        name = f"cut-{number}"
        with pytest.raises(KeyboardInterrupt):
            fit(settings, dataset, name=name, callbacks=[Interrupt(number)])
        resumed = fit(settings, dataset, name=name, callbacks=[], resume=True)
        assert_same_run(whole, resumed)
        found = read_tensors(resumed.checkpoints()[0])
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
    return whole
