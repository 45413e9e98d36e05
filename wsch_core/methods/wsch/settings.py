"""What a run is: every choice that changes a number, with the published value as its default.

The published values are those the authors give for ActivityNet, the only ones they give. A data set's definition may
bring other defaults of its own, and a recipe goes before both; what the user sets always wins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ...storage.words import shortened, unknown_name
from .cycle import PUBLISHED_CYCLE, parse_cycle

CHOICES = {
    "encoder_blocks": ("ssd+attention", "ssd", "attention"),
    "decoder_positions": ("none", "sinusoidal"),
    "cluster_targets": ("own", "swapped"),
    "learning_rate_schedule": ("constant", "cosine"),
    "precision": ("auto", "float32", "bfloat16"),
}
POSITIVE_INTEGERS = (
    "bits", "centers", "centers_every", "batch_size", "encoder_width", "decoder_width", "attention_heads",
    "ssd_head_width", "state_size",
)  # fmt: skip
COUNTS = ("seed", "pretrain_epochs", "epochs")
POSITIVE_NUMBERS = ("cluster_temperature", "contrast_temperature", "learning_rate")
WEIGHTS = ("weight_reconstruction", "weight_cluster", "weight_contrast")
MASKING_RATIOS = ("pretrain_masking_ratio", "masking_ratio")
# What is changed of the published method, by name. "plus" is what docs/plus.md measures.
RECIPES: dict[str, dict[str, Any]] = {
    "published": {},
    "plus": {
        "cycle": "centers, cluster+contrast, cluster+contrast",
        "masking_ratio": 0.8,
        "views": 4,
        "weight_reconstruction": 0.1,
        "learning_rate": 1e-3,
        "learning_rate_schedule": "cosine",
    },
}
MOST_BITS = 4096
MOST_PASSES = 200_000  # the published schedule has 1,000
MOST_FLOAT = 2**1000  # of a whole number that stands for a fraction


@dataclass(frozen=True)
class Settings:
    """The settings of one run. Unknown names and bad values are refused by name (ValueError)."""

    dataset: str = "demo"
    bits: int = 64  # b, length of the hash code
    seed: int = 3346

    cycle: str = PUBLISHED_CYCLE  # a comma means "then", a plus "in the same pass"
    pretrain_epochs: int = 100  # reconstruction alone
    epochs: int = 300  # turns of the cycle
    pretrain_masking_ratio: float = 0.9  # p in pre-training and in the centers pass
    masking_ratio: float = 0.6  # p in the cycle's other passes
    views: int = 2  # of each video, in the cycle's learning passes; two in all other passes

    weight_reconstruction: float = 1.0  # in the cycle; pre-training learns reconstruction alone
    weight_cluster: float = 0.02
    weight_contrast: float = 1.0
    centers: int = 800  # K, cluster centres
    centers_every: int = 1  # turns of the cycle from one centers pass to the next
    cluster_targets: str = "own"  # "own": each view's nearest centre; "swapped": another view's
    cluster_temperature: float = 0.2
    contrast_temperature: float = 0.5
    tau_plus: float = 0.1  # assumed share of false negatives in the contrastive loss

    learning_rate: float = 1e-4
    learning_rate_schedule: str = "constant"  # or "cosine", with a short warm-up
    batch_size: int = 128

    encoder_width: int = 1024  # H
    decoder_width: int = 1024  # H_d
    attention_heads: int = 4
    ssd_head_width: int = 128
    state_size: int = 64
    encoder_blocks: str = "ssd+attention"  # or one of them alone
    decoder_positions: str = "none"  # "sinusoidal": each hidden frame is reconstructed on its own

    device: str = "auto"  # "auto": the GPU if there is one; else "cpu", "cuda", "cuda:1"
    precision: str = "auto"  # "auto": bfloat16 where the device computes it faster

    def __post_init__(self) -> None:
        self._check_types()
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {shortened(getattr(self, name))}: it must be one of {', '.join(allowed)}.")
        for name in POSITIVE_INTEGERS:
            self._require(name, 1 <= getattr(self, name) < 2**31, "a whole number of at least 1, and below 2^31")
        for name in COUNTS:
            self._require(name, 0 <= getattr(self, name) < 2**63, "a whole number of at least 0")
        for name in POSITIVE_NUMBERS:
            self._require(name, getattr(self, name) > 0, "a number above 0")
        for name in WEIGHTS:
            self._require(name, getattr(self, name) >= 0, "a number of at least 0")
        for name in MASKING_RATIOS:
            self._require(name, 0 < getattr(self, name) < 1, "a number between 0 and 1")
        self._require("bits", self.bits <= MOST_BITS, f"at most {MOST_BITS}")
        self._require("tau_plus", 0 <= self.tau_plus < 1, "a number from 0 to below 1")
        self._require("views", 2 <= self.views < 2**31, "a whole number of at least 2, and below 2^31")
        self._require("bits", self.bits > 1, "at least 2: the hash layer normalises over them")
        check_heads(self.encoder_width, self.decoder_width, self.attention_heads, self.ssd_head_width)
        self._check_schedule()

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ValueError(f"{name} is {shortened(getattr(self, name))}: it must be {expected}.")

    def _check_types(self) -> None:
        for field in fields(self):
            value, wanted = getattr(self, field.name), type(field.default)
            if wanted is float and type(value) is int and abs(value) < MOST_FLOAT:
                object.__setattr__(self, field.name, float(value))
            elif type(value) is not wanted:
                word = {int: "a whole number", float: "a number", str: "text"}[wanted]
                raise ValueError(f"{field.name} is {shortened(value)}: it must be {word}.")
            elif wanted is float and not math.isfinite(value):
                raise ValueError(f"{field.name} is {value!r}: it must be a finite number.")

    def _check_schedule(self) -> None:
        turn = parse_cycle(self.cycle)
        self._require("pretrain_epochs", self.pretrain_epochs <= MOST_PASSES, f"at most {MOST_PASSES:,} passes")
        passes = self.pretrain_epochs + self.epochs * len(turn)
        self._require("epochs", passes <= MOST_PASSES, f"such that a run has at most {MOST_PASSES:,} passes")
        if self.epochs == 0:
            return
        for tasks in turn:
            weights = [self.weight_reconstruction, *(getattr(self, f"weight_{t}") for t in tasks if t != "centers")]
            if tasks != ("centers",) and not any(weights):
                raise ValueError(
                    f"the pass {'+'.join(tasks)!r} of cycle {self.cycle!r} has only losses of weight 0 and would learn "
                    "nothing: give one of them a weight above 0, or leave the pass out."
                )

    @classmethod
    def create(cls, chosen: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Settings:
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
        return asdict(self)


def recipe_settings(name: str | None) -> dict[str, Any]:
    """What a recipe changes of the published method; None is the published one. Raises ValueError for an unknown name."""
    name = "published" if name is None else name
    if not isinstance(name, str) or name not in RECIPES:
        raise ValueError(unknown_name("recipe", name, list(RECIPES)))
    return dict(RECIPES[name])


def recipe_of(settings: Settings) -> str:
    """The recipe that settings follow in all it changes; "published" if no other."""
    values = settings.as_dict()
    followed = [name for name, changes in RECIPES.items() if changes and changes.items() <= values.items()]
    return followed[0] if followed else "published"


def check_heads(encoder_width: int, decoder_width: int, attention_heads: int, ssd_head_width: int) -> None:
    """Refuse, by name, widths that the heads do not divide (ValueError)."""
    for name, width in (("encoder_width", encoder_width), ("decoder_width", decoder_width)):
        if width % attention_heads:
            raise ValueError(
                f"{name} is {width}, which attention_heads = {attention_heads} does not divide: "
                f"choose a multiple of {attention_heads}."
            )
    if 2 * encoder_width % ssd_head_width:
        raise ValueError(
            f"ssd_head_width is {ssd_head_width}, which does not divide twice the encoder_width "
            f"(2 x {encoder_width} = {2 * encoder_width}): choose one that does."
        )
