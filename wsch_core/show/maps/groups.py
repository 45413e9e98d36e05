"""Which points of a map share a colour: by class, by how well their neighbours agree, or by how many share a code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from matplotlib import colormaps
from matplotlib.colors import to_hex

from ...retrieval.codes import pack
from ...storage.words import unknown_name
from ..style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION
from .maps import Map, Setup
from .nearness import label_share

COLOUR_BY = ("class", "agreement", "duplicates")
GREY = "#C4C4C4"
# A colour and a marker for each: the house's six, then four that stay apart from them, and from grey, also under protan,
# deutan and tritan vision (CIELAB distance of at least 26 between each of the four and any other, Machado's matrices).
CLASS_MARKS = (
    (BLUE, "o"), (VERMILION, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "v"), (SKY, "P"),
    ("#222222", "X"), ("#72260C", "<"), ("#260CA5", ">"), ("#8C59F2", "*"),
)  # fmt: skip
SCALE = "osD^v"  # markers of groups that have an order
FIFTHS = ("under 20 %", "20 to 40 %", "40 to 60 %", "60 to 80 %", "80 % and more")
COPIES = ("one of a kind", "2 videos", "3 to 9 videos", "10 to 99 videos", "100 videos and more")


@dataclass(frozen=True, eq=False)
class Groups:
    """The points of a map, sorted into groups; a group of `other` is grey and drawn beneath."""

    title: str  # what the colours tell
    names: list[str]
    marks: list[tuple[str, str]]  # colour and matplotlib marker of each group
    of: np.ndarray  # (n,) int64: which group each point is in
    grey: int | None = None  # the group of all that is not shown in colour
    named: bool = False  # whether names are written on the map as well

    @property
    def counts(self) -> np.ndarray:
        return np.bincount(self.of, minlength=len(self.names))


def groups_by(colour_by: str, setup: Setup, codes: np.ndarray, of_codes: Map, classes: Sequence[str] = ()) -> Groups:
    """How the points of all maps are coloured.

    colour_by: "class", the most frequent ones; "agreement", each video's share of nearest codes with a common label; or
    "duplicates", how many videos have the very same code
    codes: (n, bits) of ±1; of_codes: their map
    classes: to be coloured, by name, instead of the most frequent ones
    Raises ValueError for "agreement" where there are no labels, for unknown classes and for more than there are colours.
    """
    if colour_by == "duplicates":
        return by_duplicates(codes)
    if setup.labels is None:
        if colour_by == "agreement":
            raise ValueError(
                f"colour_by is 'agreement', but {setup.dataset.name}'s {setup.split.name} split has no labels: choose "
                "'class' or 'duplicates'."
            )
        return Groups("no labels known", ["videos"], [(GREY, "o")], np.zeros(len(setup.ids), np.int64), 0)
    if colour_by == "agreement":
        return by_agreement(setup.labels, of_codes.neighbours)
    return by_class(setup.labels, setup.dataset.definition.classes, classes)


def by_class(labels: scipy.sparse.csr_array, classes: Sequence[str], chosen: Sequence[str] = ()) -> Groups:
    """The chosen classes, else the ten most frequent; a video with several is counted as the first of its own."""
    frequent = np.asarray(labels.sum(axis=0)).ravel()
    order = np.argsort(-frequent, kind="stable")
    shown = _places(chosen, classes) or [c for c in order[: len(CLASS_MARKS)] if frequent[c] > 0]
    of = np.full(labels.shape[0], len(shown))
    for rank in reversed(range(len(shown))):  # the first has the last word
        of[labels[:, [shown[rank]]].nonzero()[0]] = rank
    names, marks = [classes[c] for c in shown], list(CLASS_MARKS[: len(shown)])
    title = "class" if chosen or (frequent > 0).sum() == len(shown) else f"the {len(shown)} most frequent classes"
    if (of == len(shown)).any():
        names, marks = [*names, "other or no class"], [*marks, (GREY, ".")]
    return Groups(title, names, marks, of, len(shown) if len(names) > len(shown) else None, named=True)


def _places(chosen: Sequence[str], classes: Sequence[str]) -> list[int]:
    chosen, known = list(dict.fromkeys(chosen)), list(classes)
    for name in chosen:
        if name not in known:
            raise ValueError(unknown_name("class", name, known))
    if len(chosen) > len(CLASS_MARKS):
        raise ValueError(
            f"classes names {len(chosen)} classes: there are colours for {len(CLASS_MARKS)}, name as many."
        )
    return [known.index(name) for name in chosen]


def by_agreement(labels: scipy.sparse.csr_array, neighbours: np.ndarray) -> Groups:
    share = label_share(labels, neighbours)
    of = np.where(np.isnan(share), len(FIFTHS), np.minimum(np.nan_to_num(share) * 5, 4)).astype(np.int64)
    names, marks = list(FIFTHS), _scale(len(FIFTHS))
    unlabelled = bool((of == len(FIFTHS)).any())
    if unlabelled:
        names, marks = [*names, "no label"], [*marks, (GREY, ".")]
    title = f"share of the {neighbours.shape[1]} nearest codes that have a common label"
    return Groups(title, names, marks, of, len(FIFTHS) if unlabelled else None)


def by_duplicates(codes: np.ndarray) -> Groups:
    _, of_code, copies = np.unique(pack(codes).numpy(), axis=0, return_inverse=True, return_counts=True)
    of = np.searchsorted([1, 2, 9, 99], copies[of_code.ravel()], side="left")
    last = int(of.max()) + 1
    return Groups("videos that have the very same code", list(COPIES[:last]), _scale(len(COPIES))[:last], of)


def _scale(steps: int) -> list[tuple[str, str]]:
    colours = colormaps["viridis"](np.linspace(0.0, 0.92, steps))
    return [(to_hex(colour), marker) for colour, marker in zip(colours, SCALE, strict=True)]
