"""The official splits of UCF101 and HMDB51, from the lists that their makers publish beside the videos.

UCF101: trainlist01.txt ("Archery/v_Archery_g08_c01.avi 3"), testlist01.txt (the same without a number), classInd.txt
HMDB51: brush_hair_test_split1.txt ("name.avi 1") for each class, with 1 for training, 2 for testing, 0 for neither

The training clips are the database too, and the test clips are the queries, as in every paper on these sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..storage.files import read_text
from .labels import Described

SPLITS = (1, 2, 3)
SIZES = {"UCF101": (13_320, 101), "HMDB51": (6_766, 51)}  # clips and classes
HMDB_USE = {"1": "train", "2": "query", "0": ""}
HMDB_NAME = "_test_split"
MOST_BYTES = 2**24

Key = tuple[str, str]  # class and file name without its extension, both in lower case


@dataclass(frozen=True)
class _Line:
    """What a list says of one clip."""

    label: str
    split: str  # "train", "query", or "" for neither
    name: str  # of the clip's file
    where: str  # file and line

    @property
    def key(self) -> Key:
        return self.label.lower(), PurePosixPath(self.name).stem.lower()


@dataclass
class Official:
    """The clips of a folder as an official split has them."""

    archive: str
    split: int
    listed: int  # clips that the lists name
    classes: int  # in the lists
    present: int = 0  # classes of which the folder has a clip
    described: dict[str, Described] = field(default_factory=dict)  # by id, of the clips that are trained on or asked
    unused: int = 0  # clips that are in neither part
    foreign: list[str] = field(default_factory=list)  # ids that the lists do not name
    missing: list[str] = field(default_factory=list)  # clips that the lists name and the folder has not

    def summary(self) -> list[str]:
        """What is there and what is missing, a line each."""
        there = self.listed - len(self.missing)
        lines = [
            f"official split {self.split} of {self.archive}: {there:,} of {self.listed:,} clips are there, of "
            f"{self.present} of {self.classes} classes"
        ]
        clips, classes = SIZES[self.archive]
        if (self.listed, self.classes) != (clips, classes):
            lines.append(
                f"the lists name {self.listed:,} clips in {self.classes:,} classes, and {self.archive} has {clips:,} in "
                f"{classes}: get them whole"
            )
        if self.missing:
            by_class = Counter(clip.split("/")[0] for clip in self.missing)
            most = ", ".join(f"{name} {count:,}" for name, count in by_class.most_common(5))
            more = f" and {len(by_class) - 5:,} more classes" if len(by_class) > 5 else ""
            lines.append(f"{len(self.missing):,} are missing, such as {self.missing[0]}; by class: {most}{more}")
        if self.unused:
            lines.append(f"{self.unused:,} clips are in neither part of the split, and not read")
        return lines


def read_official(folder: Path | str, split: int, videos: Sequence[str]) -> Official:
    """Which videos, by id, are in which part of an official split.

    folder: that holds the lists, or whose only sub-folder with lists does
    split: 1 to 3
    A clip is found by the folder it lies in and its name, whatever lies above and however letters and extension are
    written; without such a folder, by its name.
    Raises ValueError or OSError with one sentence that names the file, the line and what is wrong.
    """
    if type(split) is not int or split not in SPLITS:
        raise ValueError(f"split is {split!r}: it must be 1, 2 or 3, the number of an official split.")
    archive, lines = _read_lists(Path(folder).expanduser(), split)
    by_key: dict[Key, _Line] = {}
    for line in lines:
        other = by_key.setdefault(line.key, line)
        if other is not line:
            raise ValueError(f"{line.where} names {line.name}, which {other.where} names too: get the lists again.")
    result = Official(archive, split, len(by_key), len({label for label, _ in by_key}))
    stems = Counter(stem for _, stem in by_key)
    alone = {key[1]: key for key in by_key if stems[key[1]] == 1}
    left, present = dict(by_key), set()
    for video in videos:
        path = PurePosixPath(video)
        stem = path.stem.lower()
        key = (path.parent.name.lower(), stem)
        line = left.pop(key if key in by_key else alone.get(stem), None)
        if line is not None:
            present.add(line.label)
        if line is None:  # also of a second file of one clip
            result.foreign.append(video)
        elif line.split:
            result.described[video] = Described((line.label,), line.split)
        else:
            result.unused += 1
    result.present = len(present)
    result.missing = sorted(f"{line.label}/{line.name}" for line in left.values())
    if not any(clip.split == "train" for clip in result.described.values()):
        raise ValueError(
            f"none of the {len(videos):,} videos is a training clip of {archive}'s official split {split}: give the folder "
            f"of {archive} as videos, or the lists that belong to the videos as splits."
        )
    return result


def _read_lists(folder: Path, split: int) -> tuple[str, list[_Line]]:
    if not folder.is_dir():
        raise ValueError(
            f"splits is {str(folder)!r}, which is no folder: give the folder that holds the official lists."
        )
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        ucf = [place / f"{part}list0{split}.txt" for part in ("train", "test")]
        hmdb = sorted(place.glob(f"*{HMDB_NAME}{split}.txt"))
        if any(path.is_file() for path in ucf):
            return "UCF101", list(_ucf(place, *ucf))
        if hmdb:
            return "HMDB51", [line for path in hmdb for line in _hmdb(path)]
    raise ValueError(
        f"{folder} holds no lists of split {split}: neither trainlist0{split}.txt and testlist0{split}.txt (UCF101) nor "
        f"*{HMDB_NAME}{split}.txt (HMDB51): give the folder into which the makers' lists were unpacked."
    )


def _ucf(folder: Path, train: Path, test: Path) -> Iterator[_Line]:
    numbers = {}
    if (names := folder / "classInd.txt").is_file():
        numbers = {fields[1]: fields[0] for _, fields in _fields(names, (2,), "'1 ApplyEyeMakeup'")}
    example = "'Archery/v_Archery_g08_c01.avi 3'"
    for path, split in ((train, "train"), (test, "query")):
        for where, (clip, *number) in _fields(path, (1, 2), example):
            label, _, name = clip.replace("\\", "/").rpartition("/")
            if not label:
                raise ValueError(f"{where} is {clip!r}, without a class: it must be like {example}.")
            if numbers and (label not in numbers or (number and number[0] != numbers[label])):
                known = f"has the number {numbers[label]}" if label in numbers else "is not"
                raise ValueError(f"{where}: {' '.join([label, *number])} disagrees with {names}, where it {known}.")
            yield _Line(label, split, name, where)


def _hmdb(path: Path) -> Iterator[_Line]:
    label = path.name.rpartition(HMDB_NAME)[0]
    for where, (name, use) in _fields(path, (2,), "'name.avi 1'"):
        if use not in HMDB_USE:
            raise ValueError(f"{where} ends in {use!r}: it must be 1 for training, 2 for testing or 0 for neither.")
        yield _Line(label, HMDB_USE[use], name, where)


def _fields(path: Path, numbers: Sequence[int], example: str) -> Iterator[tuple[str, list[str]]]:
    """The fields of each line that is not empty, and where it stands."""
    for number, text in enumerate(read_text(path, "get the lists again", most=MOST_BYTES).splitlines(), start=1):
        fields = text.split()
        if fields and len(fields) not in numbers:
            raise ValueError(f"{path}, line {number} is {text.strip()[:100]!r}: it must be like {example}.")
        if fields:
            yield f"{path}, line {number},", fields
