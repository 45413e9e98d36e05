"""A folder of videos becomes a data set: find, decode, extract, keep each video, then write the set whole.

    <data>/<name>.toml                   the definition
    <data>/<name>/train.h5 ...           features, keyframes and ids of a split, train_labels.mat ... its labels
    <data>/<name>/.parts/<hash>.h5       a video that is done, until the set is written

An import that was stopped goes on from the parts; a later one reads only what is new or changed.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from ..data.definition import SPLITS, Definition, list_definitions, read_definition
from ..runs.folder import LOCK
from ..storage.files import locked, made_folder, make_folder
from ..storage.lines import counted
from ..storage.paths import data_folder
from .assemble import Plan, clean, same_as, write_set
from .describe import Seen, see
from .extractors.extract import DEFAULT, Extractor, check_same, load_extractor
from .folder import Found, LeftOut, VideoFile, find_videos, identical_files
from .labels import FOLDERS, SHARES, SMALL, Labels, parse_shares, read_labels, split_of
from .official import Official, read_official
from .stored import PARTS, Row, made_by, part_path, read_part, read_set, write_part

FRAMES = 25
MOST_DECODERS = 8  # videos decoded at the same time
MOST_WAITING = 2**29  # bytes of decoded videos that wait
AHEAD = 2  # decoded videos that wait for the extractor


@dataclass
class Import:
    """What an import found and did."""

    name: str
    folder: Path
    extractor: str
    videos: int = 0  # in the set
    new: int = 0
    redone: int = 0  # changed since they were imported
    kept: int = 0
    resumed: int = 0  # of the new and redone ones, read before by an import that was stopped
    removed: list[str] = field(default_factory=list)  # ids that were in the set and are no longer in the folder
    left_out: list[LeftOut] = field(default_factory=list)
    repeated: dict[str, int] = field(default_factory=dict)  # by id: frames that repeat the one before
    splits: dict[str, int] = field(default_factory=dict)  # videos
    same_as: dict[str, str] = field(default_factory=dict)
    classes: int = 0
    unlabelled: int = 0
    unused: list[str] = field(default_factory=list)  # of the label file: no videos of the folder
    official: Official | None = None
    copies: list[tuple[str, str]] = field(default_factory=list)  # ids of identical files that are in different splits

    def summary(self, most: int = 20) -> str:
        """What there is to know, a line for each; of the files left out, at most so many are listed."""
        counts = [f"{name} {n:,}" for name, n in self.splits.items()]
        counts += [f"{name} = {other}" for name, other in self.same_as.items()]
        done = {"new": self.new, "changed and redone": self.redone, "kept": self.kept, "removed": len(self.removed)}
        videos, classes = _count_of(self.videos, "video", "videos"), _count_of(self.classes, "class", "classes")
        lines = [
            f"{self.name}: {videos} ({', '.join(counts)}), {classes}, by {self.extractor}",
            " · ".join(f"{n:,} {what}" for what, n in done.items() if n) or "nothing to do",
        ]
        if self.official:
            lines += self.official.summary()
        if self.resumed:
            lines.append(f"{self.resumed:,} were read before by an import that was stopped")
        if self.removed:
            place = "split" if self.official else "folder"
            lines.append(f"no longer in the {place}, so removed: {_some(self.removed)}")
        if self.repeated:
            frames = sum(self.repeated.values())
            lines.append(f"{len(self.repeated):,} videos show fewer different frames: {frames:,} are repeated")
        if self.classes and self.unlabelled:
            lines.append(f"{self.unlabelled:,} videos have no label")
        if self.unused:
            lines.append(f"{len(self.unused):,} rows of the label file are no video of the set: {_some(self.unused)}")
        if self.copies:
            pairs = [f"{one} = {other}" for one, other in self.copies]
            many = _count_of(len(pairs), "pair", "pairs")
            lines.append(
                f"{many} of identical files are in different splits, which flatters every method: {_some(pairs)}"
            )
        lines.append(
            _count_of(len(self.left_out), "file", "files") + " left out" + (":" if self.left_out and most else "")
        )
        lines += [f"  {item.id}: {item.reason}" for item in self.left_out[:most]]
        if 0 < most < len(self.left_out):
            lines.append(f"  and {len(self.left_out) - most:,} more")
        return "\n".join(lines)


def _count_of(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def import_videos(
    folder: Path | str, name: str, labels: str = FOLDERS, extractor: str = DEFAULT, frames: int = FRAMES, shares: str = "",
    device: str = "auto", splits: Path | str = "", split: int = 1,
) -> Import:  # fmt: skip
    """Make a data set of a folder's videos, or bring one up to date; `load_dataset(name)` then loads it.

    labels: "folders" (the topmost sub-folder is a video's label), "none", or a CSV file with the columns file and, as
        there are, label (several), split and group
    extractor: "efficientnet-lite0", a Hugging Face image model, by name or local folder, or "demo"
    frames: taken of each video, spread evenly over its time
    shares: of train, database and query, as "0.5, 0.4, 0.1"; "" keeps those of the set, and a new one of fewer than 200
        videos is train, database and query at once
    splits, split: the folder of UCF101's or HMDB51's official lists, and which split, 1 to 3: the training clips are the
        database too, the test clips the queries; labels and shares are left as they are then

    A video that cannot be decoded is left out, and listed in the result with the reason. Killed at any moment, an import
    leaves the former set or the new one, and goes on from where it was. Raises ValueError, OSError or RuntimeError with one
    sentence for everything else.
    """
    if type(frames) is not int or frames < 2:
        raise ValueError(f"frames is {frames!r}: it must be a whole number of at least 2.")
    chosen_shares = parse_shares(shares)
    _former(name)  # before anything is made
    found = find_videos(folder)
    official = None
    if splits:
        if labels != FOLDERS or chosen_shares:
            raise ValueError(
                f'splits brings its own labels and shares: leave labels at "{FOLDERS}" and shares at "", or splits at "".'
            )
        official = _choose_official(found, splits, split)
        described = Labels(official.described)
    else:
        described = read_labels(labels, [video.id for video in found.videos])
    network = load_extractor(extractor, device)
    target = data_folder() / name
    with _locked(target):
        former = _former(name)
        job = _Job(target, found.videos, network, frames)
        kept, attributes = _read_former(former, network, frames, found.videos)
        result = Import(name, target, network.name, left_out=found.left_out, unused=described.unused, official=official)
        rows = job.rows(kept, result)
        if not rows:
            raise ValueError(
                f"no video of {folder} can be decoded (first: {result.left_out[0].id}: {result.left_out[0].reason}) Bring "
                "videos, or give another folder."
            )
        share = chosen_shares or attributes.get("shares") or (SHARES if len(rows) >= SMALL else (1.0, 0.0, 0.0))
        by_split = _deal(rows, described, share)
        source = Path(folder).expanduser().resolve().name
        if official:
            source += f", official split {split} of {official.archive}"
        plan = Plan(name, by_split, described, network, frames, tuple(share), source)
        if plan.digest != attributes.get("plan"):
            write_set(plan, target, data_folder() / f"{name}.toml", former)
        shutil.rmtree(target / PARTS)
        _count(result, plan)
    files = {video.id: video for video in found.videos}
    pairs = identical_files({name: [files[row.id] for row in rows] for name, rows in plan.rows.items()})
    result.copies = [(one.id, other.id) for one, other in pairs]
    return result


def _choose_official(found: Found, splits: Path | str, split: int) -> Official:
    """Keep the videos of an official split in `found`; those that it does not name are left out."""
    official = read_official(splits, split, [video.id for video in found.videos])
    reason = f"official split {split} of {official.archive} does not name it, or names it once and it is there twice."
    found.left_out += [LeftOut(video, reason) for video in official.foreign]
    found.videos = [video for video in found.videos if video.id in official.described]
    return official


def _former(name: str) -> Definition | None:
    """The definition of this name, if there is one; another than an imported one is refused (ValueError)."""
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.+-]{0,99}", name):
        raise ValueError(f"dataset is {name!r}: use up to 100 letters, digits, '.', '_', '-' and '+'.")
    path, folder = list_definitions().get(name), data_folder() / name
    if path is None:
        # Of an import that was stopped, the parts are there.
        if folder.exists() and not (folder / PARTS).is_dir() and not (folder.is_dir() and _empty(folder)):
            raise ValueError(
                f"{folder} holds files, but there is no definition {name}.toml: choose another name, or move them away."
            )
        return None
    definition = read_definition(path)
    own = all(len(split.features) == 1 for split in definition.splits.values() if not split.same_as)
    if definition.extractor is None or not own or path.parent != data_folder() or definition.folder.name != name:
        raise ValueError(
            f"{path} was not made from videos, and is left as it is: choose another name for the data set."
        )
    return definition


def _empty(folder: Path) -> bool:
    return not any(path.name != LOCK for path in folder.iterdir())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    make_folder(made_folder(folder), PARTS)
    with locked(folder / LOCK, f"videos are being imported into {folder} by another process: wait for it."):
        yield


def _read_former(
    former: Definition | None, extractor: Extractor, frames: int, videos: Sequence[VideoFile]
) -> tuple[dict[str, Row], dict]:
    """The videos of the set as it is, with its attributes; one that cannot be added to is refused (ValueError)."""
    if former is None:
        return {}, {}
    check_same(former.name, former.extractor, extractor)
    if former.frames != frames:
        raise ValueError(
            f"{former.name} holds {former.frames} frames of each video, and frames is {frames}: give frames = "
            f"{former.frames}, or import the videos under another name."
        )
    rows, attributes = read_set(former)
    clean(former.folder, {file for split in former.splits.values() for file in (*split.features, *split.labels)})
    if not rows.keys() & {video.id for video in videos}:
        raise ValueError(
            f"{former.name} was made from a folder with other videos (such as {next(iter(rows))}): choose another name."
        )
    if not made_by(extractor, frames).items() <= attributes.items():
        rows = {key: _outdated(row) for key, row in rows.items()}
    return rows, attributes


def _outdated(row: Row) -> Row:
    """A row that is of no file any more: frames are chosen in another way now."""
    return Row(row.id, -1, -1, row.repeated, row.path, row.row)


class _Job:
    """Bringing each video of a folder into a file."""

    def __init__(self, folder: Path, videos: Sequence[VideoFile], extractor: Extractor, frames: int):
        self.folder, self.videos, self.extractor, self.frames = folder, videos, extractor, frames
        self.made = made_by(extractor, frames)

    def rows(self, former: dict[str, Row], result: Import) -> dict[str, Row]:
        """A row for each video that can be decoded, by id; what was done is counted in `result`."""
        rows, todo = {}, []
        for video in self.videos:
            row = former.get(video.id)
            if row is not None and row.is_of(video):
                result.kept += 1
            elif (row := read_part(self.folder, self.made, video)) is not None:
                result.resumed += 1
            if row is None:
                todo.append(video)
            else:
                rows[video.id] = row
        for video, seen in self._read(todo):
            if isinstance(seen, LeftOut):
                result.left_out.append(seen)
            elif (row := self._keep(video, seen)) is None:
                result.left_out.append(LeftOut(video.id, "its features are not finite: choose another extractor."))
            else:
                rows[video.id] = row
        result.redone = sum(video in former and rows[video].path.parent.name == PARTS for video in rows)
        result.new = len(rows) - result.kept - result.redone
        result.removed = sorted(former.keys() - {video.id for video in self.videos})
        result.left_out.sort(key=lambda item: item.id)
        return dict(sorted(rows.items()))

    def _read(self, todo: Sequence[VideoFile]) -> Iterator[tuple[VideoFile, Seen | LeftOut]]:
        """Decode videos in threads, some ahead of what is asked for, and hand them over in order."""
        bar, waiting, left = counted("reading videos", len(todo)), deque(), iter(todo)
        waiting_bytes = 3 * self.frames * math.prod(self.extractor.preparation.size)
        workers = min(
            MOST_DECODERS,
            max(1, MOST_WAITING // waiting_bytes - AHEAD),
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        )
        pool = ThreadPoolExecutor(workers)
        try:
            while True:
                for video in islice(left, workers + AHEAD - len(waiting)):
                    waiting.append((video, pool.submit(self._see, video)))
                if not waiting:
                    return
                video, future = waiting.popleft()
                yield video, future.result()
                bar.update(1)
        finally:
            bar.close()
            pool.shutdown(cancel_futures=True)

    def _see(self, video: VideoFile) -> Seen | LeftOut:
        try:
            return see(video.path, self.extractor, self.frames)
        except Exception as error:  # whatever a file makes the decoder raise must not stop the others
            reason = str(error).removeprefix(f"{video.path} ") or type(error).__name__
            return LeftOut(video.id, reason)

    def _keep(self, video: VideoFile, seen: Seen) -> Row | None:
        features = self.extractor(seen.prepared)
        if not np.isfinite(features).all():
            return None
        path = part_path(self.folder, video.id)
        write_part(path, self.made, video, seen.repeated, features, seen.keyframes)
        return Row(video.id, video.bytes, video.modified, seen.repeated, path, 0)


def _deal(rows: dict[str, Row], labels: Labels, shares: Sequence[float]) -> dict[str, list[Row]]:
    """Rows by split, in the order of ids. Raises ValueError where nothing is left to train on."""
    dealt: dict[str, list[Row]] = {name: [] for name in SPLITS}
    for video, row in rows.items():
        dealt[split_of(video, labels.of(video), shares)].append(row)
    if not dealt["train"]:
        raise ValueError(
            f"none of the {len(rows):,} videos is in the train split: give it a larger share, or name it in the label file."
        )
    return dealt


def _count(result: Import, plan: Plan) -> None:
    rows = [row for split in plan.rows.values() for row in split]
    result.videos, result.classes = len(rows), len(plan.classes)
    result.splits = {name: len(split) for name, split in plan.rows.items() if split}
    result.same_as = same_as(plan.rows)
    result.repeated = {row.id: row.repeated for row in rows if row.repeated}
    result.unlabelled = sum(not plan.labels.of(row.id).labels for row in rows)
