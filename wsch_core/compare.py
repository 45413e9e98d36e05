"""Results of several runs held against each other: means over seeds with intervals, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats

CONFIDENCE = 0.95


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % confidence interval (Student's t); the latter is NaN for a single value.

    Raises ValueError for no values.
    """
    if not len(values):
        raise ValueError("found no values, expected at least one to take the mean of")
    values = np.asarray(values, dtype=float)
    if len(values) == 1:
        return float(values[0]), math.nan
    factor = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    return float(values.mean()), float(factor * values.std(ddof=1) / math.sqrt(len(values)))


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> tuple[float, float]:
    """The mean of ours - theirs over the seeds that both have, and half the width of its 95 % interval.

    ours, theirs: a value for each seed; pairing takes out what a seed does to both. Both NaN if they share no seed.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    return mean_interval([ours[seed] - theirs[seed] for seed in seeds]) if seeds else (math.nan, math.nan)


def is_more_than_noise(difference: float, half_width: float) -> bool:
    """Whether an interval leaves 0 out; never where there is no interval."""
    return abs(difference) > half_width
