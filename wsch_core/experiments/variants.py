"""The variants of an ablation, as data: what each one changes of the settings it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..data import Dataset
from ..methods import recipe_settings, settings_for
from ..methods.wsch.settings import RECIPES, Settings
from ..storage.words import unknown_name

PUBLISHED = "published"
OF_THE_SWEEP = ("dataset", "bits", "seed")  # parameters of the sweep, no choice of a variant


@dataclass(frozen=True)
class Variant:
    """What a variant changes, and why one would look at it."""

    meaning: str
    changes: Mapping[str, Any] = field(default_factory=dict)  # setting -> value
    scales: Mapping[str, float] = field(default_factory=dict)  # setting -> factor on the value it is compared with


VARIANTS = {
    PUBLISHED: Variant("the cycle as published, with the data set's own settings; all others are compared with it"),
    "no pre-training": Variant("the cycle from random weights", {"pretrain_epochs": 0}),
    "no cluster": Variant("the contrast loss alone; half the gradient steps of the cycle", {"cycle": "contrast"}),
    "no contrast": Variant("the cluster loss alone; half the gradient steps", {"cycle": "centers, cluster"}),
    "no reconstruction": Variant("in the cycle; pre-training keeps it", {"weight_reconstruction": 0.0}),
    "joint": Variant("both losses in one pass; half the gradient steps", {"cycle": "centers, cluster+contrast"}),
    "joint twice as long": Variant(
        "both losses in one pass; as many gradient steps as published", {"cycle": "centers, cluster+contrast"},
        {"epochs": 2},
    ),
    "reversed": Variant("contrast before cluster", {"cycle": "centers, contrast, cluster"}),
    "pre-training only": Variant("no cycle at all", {"epochs": 0}),
    "centres every 5 epochs": Variant("clustering with older centres", {"centers_every": 5}),
    "half width": Variant("of encoder and decoder", scales={"encoder_width": 0.5, "decoder_width": 0.5}),
    "double width": Variant("of encoder and decoder", scales={"encoder_width": 2, "decoder_width": 2}),
    "no SSD": Variant("the encoder without its state-space block", {"encoder_blocks": "attention"}),
    "no attention": Variant("the encoder without its attention layer", {"encoder_blocks": "ssd"}),
    "decoder with positions": Variant("every hidden frame on its own", {"decoder_positions": "sinusoidal"}),
    "half the centres": Variant("coarser clusters", scales={"centers": 0.5}),
    "twice the centres": Variant("finer clusters", scales={"centers": 2}),
    "masking 0.4": Variant("more frames seen in the cycle", {"masking_ratio": 0.4}),
    "masking 0.8": Variant("fewer frames seen in the cycle", {"masking_ratio": 0.8}),
    "four short views": Variant("as many frames in all, each seen by fewer", {"masking_ratio": 0.8, "views": 4}),
    "contrast twice": Variant(
        "the contrast loss in both learning passes", {"cycle": "centers, cluster+contrast, cluster+contrast"}
    ),
    "light reconstruction": Variant("a tenth of its weight, in the cycle", {"weight_reconstruction": 0.1}),
    "plus": Variant("the recipe of docs/plus.md, all its changes together", RECIPES["plus"]),
    "neighbours": Variant(
        "frames of the nearest training videos as views, as far as they are trusted",
        {"neighbours": 10, "weight_similarity": 5.0},
    ),
    "pre-training masking 0.6": Variant("more frames seen in pre-training", {"pretrain_masking_ratio": 0.6}),
    "cluster temperature 0.1": Variant("sharper clusters", {"cluster_temperature": 0.1}),
    "contrast temperature 0.2": Variant("more weight on near negatives", {"contrast_temperature": 0.2}),
    "swapped targets": Variant("each view learns the other view's centre", {"cluster_targets": "swapped"}),
    "cosine learning rate": Variant("with a short warm-up", {"learning_rate_schedule": "cosine"}),
    "constant learning rate": Variant("as published for ActivityNet", {"learning_rate_schedule": "constant"}),
}  # fmt: skip


def choose_variants(
    names: Sequence[str], own: Mapping[str, Mapping[str, Any]], dataset: Dataset, **common: Any
) -> dict[str, dict[str, Any]]:
    """The settings that each variant changes, by name: "published", then the named ones, then the user's own.

    own: name -> setting -> value; common: settings that all variants share
    Raises ValueError for an unknown or repeated name, for settings that are unknown or have bad values, and for a variant
    that would be the same as another one.
    """
    for name in names:
        if name not in VARIANTS:
            raise ValueError(unknown_name("variant", name, list(VARIANTS)))
    for name in own:
        if name in VARIANTS or not isinstance(own[name], Mapping):
            raise ValueError(
                f"own variant {name!r}: give a name that is not built in, and its settings as a dictionary, "
                'for example {"400 centres": {"centers": 400}}.'
            )
    if "seed" in common:
        raise ValueError("seed belongs to the whole sweep: give seeds, and leave seed out of the common settings.")
    if "recipe" in common:
        raise ValueError("recipe is no common setting, because all is compared with published: name it as a variant.")
    base = settings_for(dataset, PUBLISHED, **common)
    chosen = {name: _changes(VARIANTS[name], base) for name in dict.fromkeys([PUBLISHED, *names])}
    chosen |= {name: _expanded(name, changes) for name, changes in own.items()}
    _check_different({name: variant_settings(name, changes, dataset, common) for name, changes in chosen.items()})
    return chosen


def variant_settings(name: str, changes: Mapping[str, Any], dataset: Dataset, common: Mapping[str, Any]) -> Settings:
    """The settings of one variant; an error names it."""
    try:
        for setting in OF_THE_SWEEP:
            if setting in changes:
                raise ValueError(f"{setting} belongs to the whole sweep and cannot be changed by a variant.")
        return settings_for(dataset, PUBLISHED, **{**common, **changes})
    except ValueError as error:
        raise ValueError(f"variant {name!r}: {error}") from error


def _expanded(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe among the changes as the settings it stands for, which common settings then do not override."""
    try:
        of_recipe = recipe_settings(changes.get("recipe"))
    except ValueError as error:
        raise ValueError(f"variant {name!r}: {error}") from error
    return {**of_recipe, **{setting: value for setting, value in changes.items() if setting != "recipe"}}


def _changes(variant: Variant, base: Settings) -> dict[str, Any]:
    values = base.as_dict()
    scaled = {name: type(values[name])(values[name] * factor) for name, factor in variant.scales.items()}
    return {**variant.changes, **scaled}


def _check_different(settings: Mapping[str, Settings]) -> None:
    seen: dict[Settings, str] = {}
    for name, chosen in settings.items():
        if chosen in seen:
            raise ValueError(f"variant {name!r} has the same settings as {seen[chosen]!r} here: leave one of them out.")
        seen[chosen] = name
