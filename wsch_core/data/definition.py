"""A data set's definition: one small TOML file that says which files hold what.

    title = "My videos"
    frames = 25
    feature_size = 4096
    classes = 239                    # or a list of their names; [] for a set without labels
    [train]
    features = ["train.h5"]          # HDF5, dataset "feats": (videos, frames, feature_size)
    [database]
    features = ["test.h5"]
    labels = ["test_labels.mat"]     # variable "labels": one multi-hot row per video
    [query]
    same_as = "database"             # or files of its own
    [extractor]                      # of sets made from videos
    name = "efficientnet-lite0"
    version = "0123456789ab"

Files are looked for below WSCH_DATA (or data/) in a folder of the definition's name, or in `folder`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..storage.files import read_text
from ..storage.paths import data_folder, definition_folders
from ..storage.words import shortened, unknown_name

SPLITS = ("train", "database", "query")
METRIC_DEPTHS = (5, 20, 40, 60, 80, 100)
MOST_SIZE, MOST_CLASSES = 10**6, 10**5
MOST_NAME = 250  # bytes of a file's name
MOST_BYTES, MOST_DOTS = 2**20, 1000
TEXTS = re.compile(  # and comments; what is not closed goes to the end of the line, or of the file
    r'"""(?:\\.|[^\\])*?(?:""""{0,2}|\Z)'
    r"|'''.*?(?:''''{0,2}|\Z)"
    r'|"(?:\\.|[^"\\\n])*"?'
    r"|'[^'\n]*'?"
    r"|\#[^\n]*",
    re.DOTALL,
)


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split, in order; `same_as` names another split instead."""

    features: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    features_key: str = "feats"
    labels_key: str = "labels"
    labels_drop_columns: tuple[int, ...] = ()  # surplus columns of the label files, counted from 0
    same_as: str = ""


@dataclass(frozen=True)
class ExtractorRecord:
    """What made a data set's features."""

    name: str  # "efficientnet-lite0", "demo", or a Hugging Face image model, by name or local folder
    version: str  # hash of its weights and of how pictures are prepared for it


@dataclass(frozen=True)
class Definition:
    name: str
    title: str
    frames: int  # L
    feature_size: int  # D
    classes: tuple[str, ...]
    splits: dict[str, SplitFiles]
    folder: Path
    about: str = ""
    builder: str = ""  # "demo": made on first use
    settings: dict[str, Any] = field(default_factory=dict)  # this set's own defaults, checked by `methods.settings_for`
    extractor: ExtractorRecord | None = None  # of sets made from videos
    recipe: str = ""  # this set's own default, checked by `methods.settings_for`; "" is the published method
    path: Path | None = None  # the definition's file
    published: tuple[dict[str, Any], ...] = ()  # rows of method, bits, map (at 5/20/40/60/80/100), source

    @property
    def queries_are_database(self) -> bool:
        return self.splits["query"].same_as == "database"

    def published_at(self, bits: int) -> dict[str, list[float]]:
        """Published mAP@K rows at a number of bits, by method."""
        return {row["method"]: row["map"] for row in self.published if row["bits"] == bits}


def list_definitions() -> dict[str, Path]:
    """Every known data set by name, with its definition file."""
    found: dict[str, Path] = {}
    for folder in definition_folders():
        for path in sorted(path for path in folder.glob("*.toml") if path.is_file()):
            found.setdefault(path.stem, path)
    return found


def load_definition(name: str) -> Definition:
    """Read the definition of a data set by name.

    Raises ValueError for an unknown name (listing the known) and for a definition that does not hold together.
    """
    known = list_definitions()
    if not isinstance(name, str) or name not in known:
        raise ValueError(unknown_name("data set", str(name), list(known)))
    return read_definition(known[name])


def read_definition(path: Path) -> Definition:
    """Read one definition file; every complaint names the file and the field (ValueError)."""
    try:
        text = read_text(path, "write the definition again", most=MOST_BYTES)
        _check_dots(text)
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a TOML file: {str(error)[:200]}.") from error
    known = [f.name for f in fields(Definition) if f.name not in ("name", "splits")]
    for key in table:
        if key not in (*known, *SPLITS):
            raise ValueError(f"{path}: {unknown_name('field', key, [*known, *SPLITS])}")
    folder = _check_name(path, "folder", table.get("folder", path.stem))
    splits = _read_splits(path, table)
    return Definition(
        name=path.stem,
        title=_take(path, table, "title", str, path.stem),
        frames=_take_size(path, table, "frames"),
        feature_size=_take_size(path, table, "feature_size"),
        classes=_read_classes(path, table, labelled=any(files.labels for files in splits.values())),
        splits=splits,
        folder=data_folder() / folder,
        about=_take(path, table, "about", str, ""),
        builder=_read_builder(path, table),
        settings=_take(path, table, "settings", dict, {}),
        extractor=_read_extractor(path, table),
        recipe=_take(path, table, "recipe", str, ""),
        path=path,
        published=_read_published(path, table),
    )


def mask_texts(text: str) -> str:
    """TOML in which every letter of a text is an x and every letter of a comment a space: what is left is its structure."""
    return TEXTS.sub(lambda found: (" " if found[0][0] == "#" else "x") * len(found[0]), text)


def _check_dots(text: str) -> None:
    """Refuse names of very many parts, for which Python's reader takes time that grows with their square."""
    if any(part.count(".") > MOST_DOTS for part in re.split(r"[=,\n]", mask_texts(text))):
        raise ValueError(f"a name of more than {MOST_DOTS:,} parts")


def _read_builder(path: Path, table: Mapping[str, Any]) -> str:
    builder = _take(path, table, "builder", str, "")
    if builder not in ("", "demo"):
        raise ValueError(f"{path}: builder is {shortened(builder)}: the only built-in builder is 'demo'.")
    return builder


def _take(path: Path, table: Mapping[str, Any], key: str, kind: type, default: Any = None) -> Any:
    value = table.get(key, default)
    if type(value) is not kind:
        word = {str: "text", int: "a whole number", dict: "a table", list: "a list"}[kind]
        found = "is missing" if value is None else f"is {shortened(value)}"
        raise ValueError(f"{path}: {key} {found}: it must be {word}.")
    return value


def _take_size(path: Path, table: Mapping[str, Any], key: str) -> int:
    value = _take(path, table, key, int)
    if not 1 <= value <= MOST_SIZE:
        raise ValueError(f"{path}: {key} is {shortened(value)}: it must be at least 1, and at most {MOST_SIZE:,}.")
    return value


def _read_classes(path: Path, table: Mapping[str, Any], labelled: bool) -> tuple[str, ...]:
    classes = table.get("classes")
    if type(classes) is int and 1 <= classes <= MOST_CLASSES:
        return tuple(str(number) for number in range(classes))
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if named and len(set(classes)) == len(classes) <= MOST_CLASSES and (classes or not labelled):
        return tuple(classes)
    raise ValueError(
        f"{path}: classes is {shortened(classes)}: it must be their number, or a list of different names, "
        f"and at most {MOST_CLASSES:,}."
    )


def _read_splits(path: Path, table: Mapping[str, Any]) -> dict[str, SplitFiles]:
    splits = {}
    for name in SPLITS:
        entry = dict(_take(path, table, name, dict))
        known = [f.name for f in fields(SplitFiles)]
        for key in entry:
            if key not in known:
                raise ValueError(f"{path}: [{name}] {unknown_name('field', key, known)}")
        for key in ("features", "labels"):
            files = entry.get(key, [])
            files = [files] if isinstance(files, str) else files
            if not isinstance(files, list):
                raise ValueError(
                    f"{path}: [{name}] {key} is {shortened(files)}: it must be a file name or a list of them."
                )
            entry[key] = tuple(_check_name(path, f"[{name}] {key}", file) for file in files)
        for key in ("features_key", "labels_key", "same_as"):
            _take(path, entry, key, str, "")
        columns = entry.get("labels_drop_columns", [])
        if not isinstance(columns, list) or not all(type(column) is int and column >= 0 for column in columns):
            raise ValueError(
                f"{path}: [{name}] labels_drop_columns is {shortened(columns)}: it must be a list of column numbers "
                "from 0."
            )
        entry["labels_drop_columns"] = tuple(columns)
        splits[name] = SplitFiles(**entry)
    for name, files in splits.items():
        _check_split(path, name, files, splits)
    return splits


def _check_split(path: Path, name: str, files: SplitFiles, splits: Mapping[str, SplitFiles]) -> None:
    if files.same_as:
        allowed = {"database": ("train",), "query": ("database",)}.get(name, ())
        if files.same_as not in allowed or files.features or files.labels:
            raise ValueError(
                f"{path}: [{name}] same_as is {shortened(files.same_as)}: the database may be the train split and the "
                "queries the database, and such a split names no files of its own."
            )
    elif not files.features:
        raise ValueError(f"{path}: [{name}] names no feature files: give features = [...] or same_as.")
    elif files.labels and len(files.labels) != len(files.features):
        raise ValueError(
            f"{path}: [{name}] names {len(files.features)} feature files and {len(files.labels)} label files: "
            "give one label file for each feature file."
        )


def _read_extractor(path: Path, table: Mapping[str, Any]) -> ExtractorRecord | None:
    if "extractor" not in table:
        return None
    entry = _take(path, table, "extractor", dict)
    known = [f.name for f in fields(ExtractorRecord)]
    if set(entry) != set(known) or not all(isinstance(value, str) and value for value in entry.values()):
        raise ValueError(
            f"{path}: [extractor] is {entry!r}: it must hold {' and '.join(known)}, as text, and nothing else."
        )
    return ExtractorRecord(**entry)


def _read_published(path: Path, table: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    rows = _take(path, table, "published", list, [])
    for row in rows:
        if not isinstance(row, dict) or set(row) != {"method", "bits", "map", "source"}:
            raise ValueError(
                f"{path}: each [[published]] entry needs method, bits, map and source; found {shortened(row)}."
            )
        for key, kind in (("method", str), ("bits", int), ("source", str)):
            _take(path, row, key, kind)
        values = row["map"] if isinstance(row["map"], list) else []
        if len(values) != len(METRIC_DEPTHS) or not all(type(value) is float and 0 <= value <= 1 for value in values):
            raise ValueError(
                f"{path}: [[published]] {shortened(row['method'])} at {shortened(row['bits'])} bits has map = "
                f"{shortened(row['map'])}: give six values, mAP@{'/'.join(map(str, METRIC_DEPTHS))}, from 0.0 to 1.0."
            )
    return tuple(rows)


def _check_name(path: Path, field_name: str, name: Any) -> str:
    """A file or folder below the data folder: no absolute path and no way up."""
    below = isinstance(name, str) and name.isprintable() and name and ".." not in Path(name).parts
    if not below or Path(name).is_absolute() or len(name.encode()) > MOST_NAME:
        raise ValueError(
            f"{path}: {field_name} is {shortened(name)}: it must be a path below the data folder, without '..'."
        )
    return name
