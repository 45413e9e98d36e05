"""How far a run is said to be, with passes that take what the test says they take."""

from itertools import pairwise

import pytest

from wsch_core import Settings
from wsch_core.methods.wsch.method import WSCHMethod
from wsch_core.training.clock import Clock

TOOK = {"pretraining": 3.5, ("centers",): 1.0, ("cluster",): 7.3, ("contrast",): 7.3}  # seconds, as measured once


def seconds_of(current):
    return TOOK.get(current.stage) or TOOK[current.tasks]


@pytest.fixture
def method():
    return WSCHMethod(Settings(pretrain_epochs=20, epochs=10), 2_000, 25, 128)


def told(method, monkeypatch, history=0, seconds_of=seconds_of):
    """(time, share, seconds left) at four places of every pass."""
    now = [0.0]
    monkeypatch.setattr("wsch_core.training.clock.perf_counter", lambda: now[0])
    schedule = method.passes()
    done = [{"seconds": seconds_of(current)} for current in schedule[:history]]
    clock, found = Clock(schedule, done, method.effort), []
    for current in schedule[history:]:
        clock.start()
        for part in (0.25, 0.5, 0.75, 1.0):
            now[0] += seconds_of(current) / 4
            if part == 1.0:
                clock.record(current, seconds_of(current))
            found.append((now[0], *clock.estimate(current, part)))
    return found


def test_what_is_left_is_foreseen_before_each_kind_was_met(method, monkeypatch):
    found = told(method, monkeypatch)
    whole = found[-1][0]
    for time, share, left in found:
        assert left == pytest.approx(whole - time, rel=0.15, abs=1e-6)
        assert share == pytest.approx(time / whole, abs=0.1)


def test_the_share_never_falls_and_ends_at_one(method, monkeypatch):
    """Also where a kind takes twenty times what was expected, and where the machine gets slower."""
    found = told(method, monkeypatch, seconds_of=lambda p: (1 + p.number / 5) * (20 if "cluster" in p.tasks else 1))
    shares = [share for _, share, _ in found]
    assert all(later >= before for before, later in pairwise(shares))
    assert shares[0] > 0
    assert shares[-1] == pytest.approx(1)
    assert found[-1][2] == pytest.approx(0, abs=1e-6)


def test_a_resumed_run_begins_where_it_was(method, monkeypatch):
    whole, resumed = told(method, monkeypatch), told(method, monkeypatch, history=35)
    assert resumed[0][1] == pytest.approx(whole[4 * 35][1], abs=0.05)
    assert resumed[0][2] == pytest.approx(whole[4 * 35][2])
