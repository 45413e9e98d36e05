import math

import numpy as np
import pytest

from wsch_core.compare import is_more_than_noise, mean_interval, paired_difference


def test_an_interval_of_students_t():
    """Three values 1, 2, 3: standard error 1 / sqrt(3), t of two degrees of freedom at 97.5 % is 4.302653."""
    assert mean_interval([1, 2, 3]) == pytest.approx((2, 4.302653 / math.sqrt(3)), rel=1e-6)
    assert mean_interval([5, 5, 5, 5]) == (5, 0)


def test_it_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = [abs(mean - 1) <= half for mean, half in (mean_interval(random.normal(1, 2, 4)) for _ in range(2000))]
    assert 0.93 < np.mean(covered) < 0.97


def test_one_value_has_no_interval_and_none_has_no_mean():
    mean, half = mean_interval([0.4])
    assert mean == 0.4
    assert math.isnan(half)
    assert not is_more_than_noise(mean, half)
    with pytest.raises(ValueError, match="found no values"):
        mean_interval([])


def test_pairs_are_of_the_same_seed():
    ours, theirs = {1: 0.5, 2: 0.9, 7: 3.0}, {2: 0.8, 1: 0.4, 9: -1.0}
    mean, half = paired_difference(ours, theirs)
    assert mean == pytest.approx(0.1)
    assert half == pytest.approx(0, abs=1e-12)
    assert is_more_than_noise(mean, half)
    assert all(map(math.isnan, paired_difference({1: 1.0}, {2: 1.0})))
