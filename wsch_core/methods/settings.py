"""How the settings of a method are checked: by name, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Self

from ..storage.words import shortened, unknown_name

COMMON = (
    "dataset",
    "bits",
    "seed",
    "batch_size",
    "learning_rate",
    "device",
    "precision",
)  # settings that all methods have
PRECISIONS = ("auto", "float32", "bfloat16")
MOST_BITS = 4096
MOST_PASSES = 200_000  # the published schedule of WSCH has 1,000
MOST_FLOAT = 2**1000  # of a whole number that stands for a fraction


class CheckedSettings:
    """What the settings of all methods can do; a method adds a frozen dataclass of fields with `COMMON` among them."""

    def check_types(self) -> None:
        """Every value has the type of its default; a whole number may stand for a fraction (ValueError)."""
        for field in fields(self):
            value, wanted = getattr(self, field.name), type(field.default)
            if wanted is float and type(value) is int and abs(value) < MOST_FLOAT:
                object.__setattr__(self, field.name, float(value))
            elif type(value) is not wanted:
                word = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}[wanted]
                raise ValueError(f"{field.name} is {shortened(value)}: it must be {word}.")
            elif wanted is float and not math.isfinite(value):
                raise ValueError(f"{field.name} is {value!r}: it must be a finite number.")

    def check_choices(self, choices: Mapping[str, tuple[str, ...]]) -> None:
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {shortened(getattr(self, name))}: it must be one of {', '.join(allowed)}.")

    def require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ValueError(f"{name} is {shortened(getattr(self, name))}: it must be {expected}.")

    def check_common(self) -> None:
        """Types, and the ranges of the settings that all methods have, `epochs` among them (ValueError)."""
        self.check_types()
        self.check_choices({"precision": PRECISIONS})
        self.check_whole("bits", "batch_size")
        self.require("bits", 1 < self.bits <= MOST_BITS, f"at least 2, and at most {MOST_BITS}")
        self.require("seed", 0 <= self.seed < 2**63, "a whole number of at least 0, and below 2^63")
        self.require("epochs", 0 <= self.epochs <= MOST_PASSES, f"a whole number from 0 to {MOST_PASSES:,}")
        self.check_positive("learning_rate")

    def check_whole(self, *names: str) -> None:
        for name in names:
            self.require(name, 1 <= getattr(self, name) < 2**31, "a whole number of at least 1, and below 2^31")

    def check_positive(self, *names: str) -> None:
        for name in names:
            self.require(name, getattr(self, name) > 0, "a number above 0")

    def check_not_negative(self, *names: str) -> None:
        for name in names:
            self.require(name, getattr(self, name) >= 0, "a number of at least 0")

    @classmethod
    def create(cls, chosen: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Self:
        """Settings from names and values; None leaves a choice to `defaults` (a data set's own), then to the class.

        Raises ValueError for an unknown name, with the closest known one.
        """
        known = [field.name for field in fields(cls)]
        for name in [*chosen, *(defaults or {})]:
            if name not in known:
                raise ValueError(unknown_name("setting", name, known))
        given = {name: value for name, value in chosen.items() if value is not None}
        return cls(**{**(defaults or {}), **given})

    def as_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # many times quicker than asdict
