"""What a run is: every choice that changes a number, with the published value as its default.

The published values are those the authors give for ActivityNet, the only ones they give. A data set's definition may
bring other defaults of its own, and a recipe goes before both; what the user sets always wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..settings import MOST_BITS, MOST_PASSES, PRECISIONS, CheckedSettings
from .cycle import PUBLISHED_CYCLE, parse_cycle

CHOICES = {
    "encoder_blocks": ("ssd+attention", "ssd", "attention"),
    "decoder_positions": ("none", "sinusoidal"),
    "cluster_targets": ("own", "swapped"),
    "learning_rate_schedule": ("constant", "cosine"),
    "precision": PRECISIONS,
}
POSITIVE_INTEGERS = (
    "bits", "centers", "centers_every", "batch_size", "encoder_width", "decoder_width", "attention_heads",
    "ssd_head_width", "state_size",
)  # fmt: skip
COUNTS = ("seed", "pretrain_epochs", "epochs", "neighbours")
POSITIVE_NUMBERS = ("cluster_temperature", "contrast_temperature", "learning_rate")
WEIGHTS = ("weight_reconstruction", "weight_cluster", "weight_contrast", "weight_similarity")
NETWORK_SETTINGS = (
    "bits", "encoder_width", "decoder_width", "attention_heads", "ssd_head_width", "state_size", "encoder_blocks",
    "decoder_positions",
)  # fmt: skip
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
        "neighbours": 10,
        "weight_similarity": 5.0,
    },
}


@dataclass(frozen=True)
class Settings(CheckedSettings):
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

    neighbours: int = 0  # nearest training videos whose frames may stand for a video's own, as far as they are trusted
    weight_similarity: float = 0.0  # of the codes' similarities to the features', as far as neighbours are trusted

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
        self.check_types()
        self.check_choices(CHOICES)
        for name in POSITIVE_INTEGERS:
            self.require(name, 1 <= getattr(self, name) < 2**31, "a whole number of at least 1, and below 2^31")
        for name in COUNTS:
            self.require(name, 0 <= getattr(self, name) < 2**63, "a whole number of at least 0")
        for name in POSITIVE_NUMBERS:
            self.require(name, getattr(self, name) > 0, "a number above 0")
        for name in WEIGHTS:
            self.require(name, getattr(self, name) >= 0, "a number of at least 0")
        for name in MASKING_RATIOS:
            self.require(name, 0 < getattr(self, name) < 1, "a number between 0 and 1")
        self.require("bits", self.bits <= MOST_BITS, f"at most {MOST_BITS}")
        self.require("tau_plus", 0 <= self.tau_plus < 1, "a number from 0 to below 1")
        self.require("views", 2 <= self.views < 2**31, "a whole number of at least 2, and below 2^31")
        self.require("bits", self.bits > 1, "at least 2: the hash layer normalises over them")
        check_heads(self.encoder_width, self.decoder_width, self.attention_heads, self.ssd_head_width)
        self._check_schedule()

    def _check_schedule(self) -> None:
        turn = parse_cycle(self.cycle)
        self.require("pretrain_epochs", self.pretrain_epochs <= MOST_PASSES, f"at most {MOST_PASSES:,} passes")
        passes = self.pretrain_epochs + self.epochs * len(turn)
        self.require("epochs", passes <= MOST_PASSES, f"such that a run has at most {MOST_PASSES:,} passes")
        if self.epochs == 0:
            return
        for tasks in turn:
            weights = [self.weight_reconstruction, *(getattr(self, f"weight_{t}") for t in tasks if t != "centers")]
            if tasks != ("centers",) and not any(weights):
                raise ValueError(
                    f"the pass {'+'.join(tasks)!r} of cycle {self.cycle!r} has only losses of weight 0 and would learn "
                    "nothing: give one of them a weight above 0, or leave the pass out."
                )


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
