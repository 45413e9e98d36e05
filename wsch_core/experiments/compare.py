"""Statistics over seeds: is a difference more than noise?

A value measured with several seeds is given as its mean and the half width of the 95 % interval around it (Student's t
over the seeds). Two methods measured with the same seeds are compared seed by seed: what a seed does to both cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import sem
from scipy.stats import t as student_t

CONFIDENCE = 0.95


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean of values, one per seed, and the half width of its 95 % interval.

    The half width is nan for a single value, which says nothing of its own spread; both are nan for none.
    """
    values = np.asarray(values, dtype=float)
    if not len(values):
        return math.nan, math.nan
    if len(values) == 1:
        return float(values[0]), math.nan
    quantile = student_t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    return float(values.mean()), float(quantile * sem(values))


def paired_difference(ours: Mapping[Hashable, float], theirs: Mapping[Hashable, float]) -> tuple[float, float]:
    """The mean of ours less theirs over the seeds both have, and the half width of its 95 % interval.

    ours, theirs: seed -> value. Nothing in common gives nan and nan, one seed in common no half width (nan).
    """
    return mean_interval(differences(ours, theirs))


def differences(ours: Mapping[Hashable, float], theirs: Mapping[Hashable, float]) -> list[float]:
    """Ours less theirs for every seed both have, in the order of ours."""
    return [value - theirs[seed] for seed, value in ours.items() if seed in theirs]


def excludes_zero(mean: float, half_width: float) -> bool:
    """Whether a difference is more than noise: its 95 % interval does not reach 0. Without an interval it is not."""
    return bool(abs(mean) > half_width)  # comparing with nan is False


def p_value(values: Sequence[float]) -> float:
    """Two-sided p of Student's t test that differences have the mean 0; nan for fewer than two.

    It is below 0.05 exactly where the 95 % interval excludes 0.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return math.nan
    error = sem(values)
    if error == 0:
        return 1.0 if values.mean() == 0 else 0.0
    return float(2 * student_t.sf(abs(values.mean()) / error, len(values) - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for having made all these comparisons (Holm 1979); nan stays nan and counts for none.

    The chance that even one of them falls below 0.05 while nothing differs is then at most 5 %.
    """
    p_values = np.asarray(p_values, dtype=float)
    corrected = np.full(len(p_values), math.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    least = 0.0
    for place, index in enumerate(known[np.argsort(p_values[known], kind="stable")]):
        least = max(least, min(1.0, (len(known) - place) * p_values[index]))  # never below that of a smaller p
        corrected[index] = least
    return corrected.tolist()


@dataclass(frozen=True)
class Comparison:
    """One variant beside the reference: interval over its seeds, and paired difference over the seeds both have."""

    name: str
    values: Mapping[Hashable, float]  # by seed
    mean: float
    half_width: float
    differences: Sequence[float]  # to the reference, seed by seed
    difference: float  # their mean
    difference_half_width: float
    p: float  # corrected for all comparisons made (Holm)

    @property
    def more_than_noise(self) -> bool:
        return excludes_zero(self.difference, self.difference_half_width)

    @property
    def verdict(self) -> str:
        """In words; whether a difference also outlasts the correction is told where it does not."""
        if not self.values:
            return "no result"
        if len(self.differences) < 2:
            return "too few seeds" if self.differences else "no common seed"
        if not self.more_than_noise:
            return "within noise"
        word = "better" if self.difference > 0 else "worse"
        return word if self.p < 1 - CONFIDENCE else f"{word}, not after correction"


def compare_with(reference: str, values: Mapping[str, Mapping[Hashable, float]]) -> list[Comparison]:
    """Every variant beside the reference, in the given order; of the reference itself only the interval counts.

    values: variant -> seed -> value; a reference or a variant without values has means of nan
    """
    theirs = values.get(reference, {})
    paired = {name: differences(ours, theirs) if name != reference else [] for name, ours in values.items()}
    corrected = dict(zip(paired, holm([p_value(found) for found in paired.values()]), strict=True))
    return [
        Comparison(
            name, ours, *mean_interval([*ours.values()]), paired[name], *mean_interval(paired[name]), corrected[name]
        )
        for name, ours in values.items()
    ]
