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


@pytest.mark.parametrize(("speed_up", "expected"), [(1.0, "float32"), (1.6, "float32"), (3.0, "bfloat16")])
def test_auto_precision_follows_the_measured_speed(monkeypatch, speed_up, expected):
    monkeypatch.setattr(device, "_speed_up", lambda name: speed_up)
    assert resolve_precision("auto", CPU) == expected
    assert resolve_precision("float32", CPU) == "float32"
    assert resolve_precision("bfloat16", CPU) == "bfloat16"


@pytest.mark.parametrize(("in_bfloat16", "expected"), [(0.4, "bfloat16"), (1.0, "float32")])
def test_busy_moments_do_not_change_the_precision(monkeypatch, in_bfloat16, expected):
    """All but one of the products of each kind are disturbed, each of another."""
    busy = iter([9, 1, 1, 9, *[9, 9] * 6])
    kinds = iter([1, in_bfloat16] * 8)
    multiplied = []

    def seconds(compute, name):
        multiplied.append(compute().dtype)
        return next(busy) * next(kinds)

    monkeypatch.setattr(device, "_seconds", seconds)
    monkeypatch.setattr(device, "SIZES", {"cpu": 2})
    device._speed_up.cache_clear()
    try:
        assert resolve_precision("auto", CPU) == expected
    finally:
        device._speed_up.cache_clear()
    assert multiplied == [torch.float32, torch.bfloat16] * 8
