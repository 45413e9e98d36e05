import pytest
import torch

from wsch_core.training import device
from wsch_core.training.device import resolve_device, resolve_precision

CPU = torch.device("cpu")


def test_auto_takes_what_is_there():
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu", "meta", "mps", "cuda:99", ""])
def test_what_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match=f"device is {name!r}"):
        resolve_device(name)


@pytest.mark.parametrize(("speed_up", "expected"), [(1.0, "float32"), (1.7, "float32"), (4.0, "bfloat16")])
def test_auto_precision_follows_the_measured_speed(monkeypatch, speed_up, expected):
    monkeypatch.setattr(device, "_speed_up", lambda name: speed_up)
    assert resolve_precision("auto", CPU) == expected
    assert resolve_precision("float32", CPU) == "float32"
    assert resolve_precision("bfloat16", CPU) == "bfloat16"


def test_auto_precision_is_the_same_every_time():
    first = resolve_precision("auto", CPU)
    for _ in range(3):
        device._speed_up.cache_clear()
        assert resolve_precision("auto", CPU) == first
