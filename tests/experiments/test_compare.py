import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from wsch_core.experiments.compare import compare_with, excludes_zero, holm, mean_interval, p_value, paired_difference


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


def test_variants_are_compared_with_the_reference_only():
    random = np.random.default_rng(2)
    base = {seed: 0.4 + 0.05 * random.normal() for seed in range(5)}
    values = {
        "base": base,
        "up": {seed: value + 0.05 + 0.005 * random.normal() for seed, value in base.items()},
        "down": {seed: value - 0.05 + 0.005 * random.normal() for seed, value in base.items()},
        "same": {seed: value + 0.01 * (-1) ** seed for seed, value in base.items()},
        "once": {0: 0.9},
        "never": {},
        "elsewhere": {17: 0.5, 18: 0.5},
    }
    compared = {one.name: one for one in compare_with("base", values)}
    assert list(compared) == list(values)
    verdicts = [one.verdict for name, one in compared.items() if name != "base"]
    assert verdicts == ["better", "worse", "within noise", "too few seeds", "no result", "no common seed"]
    assert compared["up"].difference == pytest.approx(np.mean(compared["up"].differences))
    assert compared["up"].p == pytest.approx(3 * p_value(compared["up"].differences))  # of three that could be tested
    assert compared["once"].mean == 0.9
    assert math.isnan(compared["base"].difference)


def test_a_difference_that_does_not_outlast_the_correction_is_told():
    ours, base = {1: 0.500, 2: 0.527, 3: 0.555}, {1: 0.470, 2: 0.505, 3: 0.520}
    assert compare_with("base", {"base": base, "ours": ours})[1].verdict == "better"
    noise = {f"noise {n}": {1: 0.47 + 0.01 * n, 2: 0.505, 3: 0.52 - 0.01 * n} for n in range(1, 9)}
    assert compare_with("base", {"base": base, "ours": ours, **noise})[1].verdict == "better, not after correction"
