"""What the records of a run must hold before anything is drawn or counted of them."""

from __future__ import annotations

from typing import Any

from ..methods import Method

HEALTH = ("videos", "distinct", "constant_bits", "mean_absolute_balance", "mean_absolute_correlation")
LARGEST = 1e300  # of a number that figures can draw


def is_entry(entry: Any, number: int, method: type[Method]) -> bool:
    """Whether a line of the history holds what is drawn and counted of it."""
    return (
        isinstance(entry, dict)
        and entry.get("pass") == number
        and entry.get("stage") in method.stages
        and isinstance(entry.get("tasks"), list)
        and all(task in method.tasks for task in entry["tasks"])
        and isinstance(entry.get("losses"), dict)
        and all(map(_is_number, [*entry["losses"].values(), entry.get("seconds"), entry.get("inertia", 0)]))
    )


def is_evaluation(method: Any) -> bool:
    """Whether an entry of metrics.json holds mAP@K and its bounds."""
    ks = method.get("ks") if isinstance(method, dict) else None
    if not isinstance(ks, list) or not ks or not all(type(k) is int and k >= 1 for k in ks):
        return False
    told = all(isinstance(method.get(name), str) for name in ("self_match", "normalisation"))
    return told and all(are_shares(method.get(name), len(ks)) for name in ("expected", "lower", "upper"))


def is_health(found: Any) -> bool:
    """Whether an entry of metrics.json says how well bits are used."""
    return isinstance(found, dict) and all(_is_number(found.get(name)) for name in HEALTH) and found["videos"] >= 1


def are_shares(values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(_is_number(v) and 0 <= v <= 1 for v in values)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < LARGEST
