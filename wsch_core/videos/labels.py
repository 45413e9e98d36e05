"""Labels of videos, and the split each belongs to: from folder names, from a CSV file, and by hash."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..data.definition import SPLITS
from ..storage.words import unknown_name

COLUMNS = ("file", "label", "split", "group")
FOLDERS, NONE = "folders", "none"
SMALL = 200  # videos; of fewer, no part is kept aside: all of them are trained on, searched, and asked
SHARES = (0.5, 0.4, 0.1)
# Of clips that were cut from one source: v_Archery_g05_c04.avi, or a name, what is seen of the body, the camera's motion,
# the number of people, its direction and the quality, as in April_09_brush_hair_u_nm_np1_ba_goo_0.avi.
SOURCES = (re.compile(r"(v_.+_g\d+)_c\d+\."), re.compile(r"(.+)_[fhlu]_[a-z]{2}_np\d_[a-z]{2}_[a-z]{3}_\d+\."))


@dataclass(frozen=True)
class Described:
    """What is known of a video beside its frames."""

    labels: tuple[str, ...] = ()
    split: str = ""  # "" leaves it to the hash
    group: str = ""  # clips of one source share a group, and so a split; "" is a group of its own


@dataclass
class Labels:
    """By id; videos that are not described have no label."""

    described: dict[str, Described] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)  # ids of a CSV file that are no videos of the folder

    def of(self, video: str) -> Described:
        return self.described.get(video, Described())

    def classes(self, videos: Sequence[str]) -> list[str]:
        """All labels of some videos, sorted."""
        return sorted({label for video in videos for label in self.of(video).labels})


def read_labels(source: str, videos: Sequence[str]) -> Labels:
    """Labels of videos by id.

    source: "folders": the name of the topmost sub-folder that a video is in; "none"; or a CSV file
    Raises ValueError or OSError with one sentence that names the file, the line and the field.
    """
    if source == NONE:
        return Labels({video: Described(group=group) for video in videos if (group := source_of(video))})
    if source == FOLDERS:
        return Labels({video: Described(tuple(video.split("/")[:-1][:1]), group=source_of(video)) for video in videos})
    path = Path(source).expanduser()
    if path.suffix.lower() != ".csv":
        raise ValueError(f'labels is {source!r}: it must be "{FOLDERS}", "{NONE}", or the path of a .csv file.')
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: put the label file there, or correct labels.")
    described = _read_csv(path)
    known = set(videos)
    _check_groups(path, described)
    return Labels(described, [video for video in described if video not in known])


def source_of(video: str) -> str:
    """The source that a clip was cut from, by its name in UCF101's or HMDB51's way; "" for other names."""
    name = video.split("/")[-1].lower()
    return next((found[1] for pattern in SOURCES if (found := pattern.match(name))), "")


def _read_csv(path: Path) -> dict[str, Described]:
    described: dict[str, Described] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, strict=True)
            columns = _read_head(path, next(rows, []))
            for row in rows:
                if not any(cell.strip() for cell in row):
                    continue
                video, entry = _read_row(path, rows.line_num, columns, row)
                if video in described:
                    raise ValueError(
                        f"{path}, line {rows.line_num}: file {video!r} is there twice: keep one of its lines."
                    )
                described[video] = entry
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8."
        ) from error
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: this is no CSV ({error}): check the quotes.") from error
    return described


def _read_head(path: Path, row: Sequence[str]) -> list[str]:
    """The kind of each column, one of `COLUMNS`; "label", "label 2", "label_b" are all labels."""
    columns = []
    for cell in row:
        name = cell.strip().lower()
        columns.append("label" if name.startswith("label") else name)
        if columns[-1] not in COLUMNS:
            raise ValueError(f"{path}, line 1: {unknown_name('column', cell, list(COLUMNS))}")
        if columns[-1] != "label" and columns.count(columns[-1]) > 1:
            raise ValueError(f"{path}, line 1: the column {cell!r} is there twice: only label may be.")
    if "file" not in columns:
        raise ValueError(
            f"{path}, line 1: there is no column 'file': begin with a line such as file,label,split,group, of which only "
            "file is needed."
        )
    return columns


def _read_row(path: Path, line: int, columns: Sequence[str], row: Sequence[str]) -> tuple[str, Described]:
    if len(row) > len(columns):
        raise ValueError(
            f"{path}, line {line}: there are {len(row)} fields, but line 1 names {len(columns)}: put text with a comma in "
            "quotes, or name the column."
        )
    cells = [(name, cell.strip()) for name, cell in zip(columns, row, strict=False)]
    one = dict(cells)
    video = one["file"].replace("\\", "/").removeprefix("./")
    if not video:
        raise ValueError(f"{path}, line {line}: file is empty: give the video's path, relative to the folder.")
    split = one.get("split", "").lower()
    if split not in ("", *SPLITS):
        raise ValueError(f"{path}, line {line}: split is {one['split']!r}: it must be {', '.join(SPLITS)}, or empty.")
    labels = dict.fromkeys(cell for name, cell in cells if name == "label" and cell)
    return video, Described(tuple(labels), split, one.get("group", ""))


def _check_groups(path: Path, described: Mapping[str, Described]) -> None:
    splits: dict[str, tuple[str, str]] = {}
    for video, entry in described.items():
        if entry.group:
            first, split = splits.setdefault(entry.group, (video, entry.split))
            if split != entry.split:
                raise ValueError(
                    f"{path}: {first!r} and {video!r} are of the group {entry.group!r}, but their split is {split!r} and "
                    f"{entry.split!r}: a group must be in one split."
                )


def parse_shares(text: str) -> tuple[float, float, float] | None:
    """ "0.5, 0.4, 0.1" -> the shares of train, database and query; None for "", which leaves them to the number of videos.

    Raises ValueError for anything else than three numbers of at least 0, the first above it.
    """
    if not text:
        return None
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) != 3 or not all(0 <= share < float("inf") for share in shares) or shares[0] == 0:
        raise ValueError(
            f'shares is {text!r}: it must be three numbers, of train, database and query, such as "0.5, 0.4, 0.1"; with a '
            "query share of 0 the queries are the database, with a database share of 0 it is the training set."
        )
    return tuple(share / sum(shares) for share in shares)


def split_of(video: str, described: Described, shares: Sequence[float]) -> str:
    """The split a video is in: the one it is described with, else by a hash of its group or, without one, of its id.

    So it stays where it is when other videos are added.
    """
    if described.split:
        return described.split
    digest = hashlib.blake2b((described.group or video).encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    for split, share in zip(SPLITS, shares, strict=True):
        if place < share:
            return split
        place -= share
    return SPLITS[0]  # what rounding leaves
