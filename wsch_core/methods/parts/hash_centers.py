"""Hash centres: K words of b bits that lie far apart, from the semantic hash centres of S5VH's code.

They start as rows of a Hadamard matrix, which are as far apart as words can be; where these are too few, or b is no power
of two, a sweep moves one centre after another away from the others, by the alternating directions method of multipliers.
Its objective looks at what the clusters mean, but its value does not depend on it: cos(h_i, h_j) = 1 - 2 d_ij / b, so
that all of it is a sum of distances.
"""

from __future__ import annotations

import math
import random

import numpy as np
import scipy

SEED = 80  # of the published code, for Python and NumPy
REDRAWN = 10  # times that its rows beyond the Hadamard matrix are drawn
PATIENCE = 5  # sweeps without a better objective
INNER_ROUNDS, SCORINGS = 10, 100  # of an update
FIRST_PENALTY, LAST_PENALTY, GROWTH = 5e-5, 1e9, 1.07
DUAL_STEP = (1 + math.sqrt(5)) / 2
CLOSE = 1e-3  # of a relaxed centre's squared norm to b


def start_centers(count: int, bits: int, numbers: np.random.RandomState) -> np.ndarray:
    """Centres (K, b) of ±1, float64: Hadamard rows and their opposites, then rows with half of their bits set; random
    ones where b is no power of two."""
    if bits & (bits - 1):
        return np.sign(2 * numbers.rand(count, bits) - 1)
    rows = scipy.linalg.hadamard(bits).astype(np.float64)
    rows = np.concatenate([rows, -rows])[:count]
    more, draws = np.ones((count - len(rows), bits)), random.Random(SEED)
    for _ in range(REDRAWN):
        more[:] = 1
        for row in more:
            row[draws.sample(range(bits), bits // 2)] = -1
    return np.concatenate([rows, more])


def enough_rows(count: int, bits: int) -> bool:
    """Whether all centres are Hadamard rows, which sweeps do not spread any farther."""
    return not bits & (bits - 1) and count <= 2 * bits


def least_distance(count: int, bits: int) -> int:
    """d_max: how far apart `count` words of `bits` bits can be (the Gilbert-Varshamov bound)."""
    words = 0
    for distance in range(1, bits + 1):
        words += math.comb(bits, distance - 1)
        if words >= 2**bits / count:
            return distance
    return bits


def objective(centers: np.ndarray, meanings: np.ndarray) -> float:
    """E of centres (K, b) of ±1 for what they mean, unit vectors (K, d): to be as large as can be."""
    above = np.triu_indices(len(centers), 1)
    products = (centers @ centers.T)[above]
    bits = centers.shape[1]
    distances = ((bits - products) / 2).sum()
    return distances / len(centers) ** 2 - (products / bits - (meanings @ meanings.T)[above]).sum()


def spread_centers(
    meanings: np.ndarray, bits: int, sweeps: int, numbers: np.random.RandomState | None = None
) -> tuple[np.ndarray, list[np.ndarray], list[float]]:
    """Centres (K, b) of ±1, float64, for clusters with these means, unit vectors (K, d).

    Returns those of the greatest objective after at most `sweeps` sweeps, and the centres and objective after each.
    """
    numbers = np.random.RandomState(SEED) if numbers is None else numbers
    centers = start_centers(len(meanings), bits, numbers)
    best, greatest, since, history, values = centers, -math.inf, 0, [], []
    while len(values) < sweeps and since < PATIENCE:
        centers = centers.copy()
        for place in range(len(centers)):
            centers[place] = _update(centers, meanings, place, numbers)
        history.append(centers)
        values.append(objective(centers, meanings))
        since += 1
        if values[-1] > greatest:
            best, greatest, since = centers, values[-1], 0
    return best, history, values


def _update(centers: np.ndarray, meanings: np.ndarray, place: int, numbers: np.random.RandomState) -> np.ndarray:
    """A place for one centre that is farther from the others, or the one it has: (b,)."""
    (count, bits), own = centers.shape, centers[place]
    others = np.delete(centers, place, axis=0)
    reach = bits - 2 * least_distance(count, bits)  # no product with another centre should be above this
    alike = np.delete(meanings, place, axis=0) @ meanings[place]
    wanted = -bits + 2 * bits * (alike - alike.min()) / (np.ptp(alike) or 1)
    lengths, axes = np.linalg.eigh(others.T @ others)
    constant = 2 * others.T @ wanted - others.mean(axis=0)
    # copies of the centre: one stays in the box of -1 to 1, one on the ball of squared norm b; and what reach leaves
    copies, slack = np.stack([own, own]), reach - others @ own
    dual, dual_slack = numbers.rand(2, bits), numbers.rand(count - 1)
    best, score, scored, penalty = own, _score(own, others), 0, FIRST_PENALTY
    while scored < SCORINGS:
        scale = 1 / (2 * penalty + (penalty + 2) * lengths)
        for _ in range(INNER_ROUNDS):
            pulled = constant + (penalty * copies - dual).sum(axis=0)
            pulled += (penalty * (reach - slack) - dual_slack) @ others
            relaxed = axes @ (scale * (pulled @ axes))
            missing = reach - others @ relaxed
            copies = relaxed + dual / penalty
            slack = missing - dual_slack / penalty
            square = copies[1] @ copies[1]
            inside = abs(square - bits) <= CLOSE and slack.min() >= 0
            if not inside:
                np.minimum(np.maximum(copies[0], -1, out=copies[0]), 1, out=copies[0])
                copies[1] *= math.sqrt(bits / square)
                np.maximum(slack, 0, out=slack)
            dual += DUAL_STEP * penalty * (relaxed - copies)
            dual_slack += DUAL_STEP * penalty * (slack - missing)
            if inside:
                break
        penalty = min(GROWTH * penalty, LAST_PENALTY)
        if penalty == LAST_PENALTY:
            scored += 1
            found = np.sign(relaxed)
            if _score(found, others) > score:
                best, score = found, _score(found, others)
    return best


def _score(center: np.ndarray, others: np.ndarray) -> float:
    distances = (others.shape[1] - others @ center) / 2
    return distances.mean() + distances.min()
