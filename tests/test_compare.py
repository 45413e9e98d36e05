import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from wsch_core.compare import excludes_zero, holm, mean_interval, p_value, paired_difference


def test_interval_of_a_worked_example():
    """t of 2 degrees of freedom is 4.303: mean 0.5, standard deviation 0.1, so 4.303 x 0.1 / sqrt(3)."""
    mean, half = mean_interval([0.4, 0.5, 0.6])
    assert mean == pytest.approx(0.5)
    assert half == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)


def test_one_seed_has_no_interval_and_none_has_no_mean():
    assert mean_interval([0.3])[0] == 0.3
    assert math.isnan(mean_interval([0.3])[1])
    assert all(math.isnan(value) for value in mean_interval([]))
    assert not excludes_zero(*mean_interval([0.3]))


def test_the_interval_holds_the_mean_19_times_in_20():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        mean, half = mean_interval(random.normal(0.3, 0.05, size=4))
        held += abs(mean - 0.3) <= half
    assert 0.935 < held / 2000 < 0.965


def test_pairs_are_formed_by_seed_whatever_the_order():
    ours, theirs = {1: 0.5, 2: 0.7, 3: 0.9}, {3: 0.8, 2: 0.6, 9: 0.1}
    mean, half = paired_difference(ours, theirs)
    assert mean == pytest.approx(0.1)
    assert half == pytest.approx(0.0, abs=1e-12)  # the seeds differ much, the pairs do not
    assert all(math.isnan(value) for value in paired_difference({1: 0.5}, {2: 0.5}))


def test_p_is_below_five_percent_where_the_interval_excludes_zero():
    random = np.random.default_rng(1)
    for _ in range(200):
        values = random.normal(0.03, 0.05, size=random.integers(2, 7))
        assert p_value(values) == pytest.approx(ttest_1samp(values, 0).pvalue)
        assert excludes_zero(*mean_interval(values)) == (p_value(values) < 0.05)
    assert p_value([0.1, 0.1]) == 0
    assert p_value([0.0, 0.0]) == 1
    assert math.isnan(p_value([0.1]))


def test_holm_of_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    corrected = holm([0.02, math.nan, 0.6])
    assert corrected[0] == pytest.approx(0.04)
    assert math.isnan(corrected[1])
    assert corrected[2] == pytest.approx(0.6)
    assert holm([]) == []
