"""A finished set's files: features, labels, and last of all the definition, which names them.

Every writing has file names of its own, so until the definition is replaced the former set is whole, and from then on the
new one is.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from ..data.definition import SPLITS, Definition, read_definition
from ..storage.files import TEMPORARY, one_line, write_whole
from .definition_text import update_definition, write_definition
from .extractors.extract import Extractor
from .labels import Labels
from .stored import Row, made_by, read_rows, write_rows

OURS = re.compile(rf"(?:{'|'.join(SPLITS)})(?:-\d+)?(?:_labels\.mat|\.h5)")
FEW = 500  # training videos of which many resemble one another: measured, a larger share of false negatives then helps
ALL_PUBLISHED = 5000  # training videos from which the published settings are the default
STEPS = 145  # of each learning pass, in all turns of the cycle together; measured on real videos, more do not help
MOST_EPOCHS = 80


@dataclass(frozen=True)
class Plan:
    """What the finished set shall be."""

    name: str
    rows: dict[str, list[Row]]  # by split, in the order of ids; a split without any is another one, see `same_as`
    labels: Labels
    extractor: Extractor
    frames: int
    shares: tuple[float, ...]
    source: str  # name of the folder the videos come from

    @property
    def classes(self) -> list[str]:
        return self.labels.classes([row.id for rows in self.rows.values() for row in rows])

    @property
    def digest(self) -> str:
        """Equal for plans that give the same set."""
        content = [
            {name: [(row.id, row.bytes, row.modified, self.labels.of(row.id).labels) for row in rows]
             for name, rows in self.rows.items()},
            self.shares, made_by(self.extractor, self.frames),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def same_as(rows: Mapping[str, Sequence[Row]]) -> dict[str, str]:
    """Splits without videos of their own, and the split that stands in for each."""
    stand_in = {"database": "train", "query": "database"}
    return {name: stand_in[name] for name in stand_in if not rows[name]}


def write_set(plan: Plan, folder: Path, definition: Path, former: Definition | None) -> None:
    """Write the set's files and then its definition; remove those of the former set.

    Raises OSError, naming the file, where there is no room; the former set is then still whole.
    """
    used = {path.name for path in folder.iterdir() if OURS.fullmatch(path.name)}
    number = next(
        n for n in range(1, len(used) + 2) if not any(name.startswith(f"train{_number(n)}.") for name in used)
    )
    made = made_by(plan.extractor, plan.frames) | {
        "extractor": plan.extractor.name, "plan": plan.digest, "shares": list(plan.shares),
    }  # fmt: skip
    classes = plan.classes
    files: dict[str, Any] = {name: {"same_as": other} for name, other in same_as(plan.rows).items()}
    for name in plan.rows.keys() - files.keys():
        files[name] = {"features": [f"{name}{_number(number)}.h5"]}
        if classes:
            files[name]["labels"] = [f"{name}{_number(number)}_labels.mat"]
    text = _definition(plan, classes, files, former, definition.read_text(encoding="utf-8") if former else "")
    _check_text(definition, text)
    for name, rows in plan.rows.items():
        if rows:
            write_rows(folder / files[name]["features"][0], made, rows)
            if classes:
                _write_labels(folder / files[name]["labels"][0], plan.labels, rows, classes)
    write_whole(definition, lambda draft: draft.write_text(text, encoding="utf-8"))
    clean(folder, {name for entry in files.values() for key in ("features", "labels") for name in entry.get(key, ())})


def clean(folder: Path, kept: set[str]) -> None:
    """Remove what a killed import has left, and the files of former sets."""
    for path in folder.iterdir():
        if path.name.startswith(TEMPORARY) or (OURS.fullmatch(path.name) and path.name not in kept):
            path.unlink(missing_ok=True)


def _number(number: int) -> str:
    return "" if number == 1 else f"-{number}"


def _write_labels(path: Path, labels: Labels, rows: Sequence[Row], classes: Sequence[str]) -> None:
    column = {name: place for place, name in enumerate(classes)}
    matrix = np.zeros((len(rows), len(classes)), np.uint8)
    for place, row in enumerate(rows):
        matrix[place, [column[label] for label in labels.of(row.id).labels]] = 1

    def write(draft: Path) -> None:
        with open(draft, "wb") as file:  # given a path, SciPy would append .mat
            scipy.io.savemat(file, {"labels": matrix}, do_compression=True)

    write_whole(path, write)


# The definition


def default_settings(train: int) -> dict[str, Any]:
    """Settings that suit the number of training videos, as measured on real ones; or none: the published ones."""
    if train >= ALL_PUBLISHED:
        return {}
    batch_size = min(64, train)
    steps = -(-train // batch_size)
    epochs = max(1, min(MOST_EPOCHS, round(STEPS / steps)))
    return {
        "encoder_width": 256, "decoder_width": 256, "centers": max(2, round(train**0.5)),
        "pretrain_epochs": 0, "epochs": epochs,
        "batch_size": batch_size, "learning_rate": 1e-3, "learning_rate_schedule": "cosine",
        "tau_plus": 0.2 if train < FEW else 0.1,
    }  # fmt: skip


def _definition(
    plan: Plan, classes: Sequence[str], files: Mapping[str, Any], former: Definition | None, text: str
) -> str:
    """text: of the former definition"""
    settings = default_settings(len(plan.rows["train"]))
    if former is not None and former.settings != default_settings(_count(former)):
        settings = former.settings  # somebody has chosen them
    videos = sum(map(len, plan.rows.values()))
    head = {
        "about": f"{videos:,} videos of the folder {plan.source}; features: {plan.extractor.name}.",
        "frames": plan.frames,
        "feature_size": plan.extractor.feature_size,
        "classes": list(classes),
        "recipe": former.recipe if former else "plus",
    }
    tables = {name: files[name] for name in SPLITS}
    tables["extractor"] = {"name": plan.extractor.name, "version": plan.extractor.version}
    if settings:
        tables["settings"] = settings
    return update_definition(text, head, tables) if former else write_definition({"title": plan.name} | head, tables)


def _check_text(definition: Path, text: str) -> None:
    """Refuse a definition that could not be read back, before anything is written (ValueError)."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / definition.name
        draft.write_text(text, encoding="utf-8")
        try:
            read_definition(draft)
        except (OSError, ValueError) as error:
            reason = one_line(error).removeprefix(f"{draft}").lstrip(": ")
            raise ValueError(
                f"{definition} could not be read with these labels ({reason}) The set is left as it was: give fewer or "
                "shorter labels."
            ) from error


def _count(definition: Definition) -> int:
    return len(read_rows(definition.folder / definition.splits["train"].features[0])[0])
