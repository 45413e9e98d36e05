"""The videos of a folder: which files they are, and which are left out before they are even opened."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from .decode import EXTENSIONS

BEGINNING = 2**16  # bytes of a file that are compared first


@dataclass(frozen=True)
class VideoFile:
    """One file of the folder, as it was found."""

    id: str  # path relative to the folder, with /
    path: Path
    bytes: int
    modified: int  # nanoseconds since 1970


@dataclass(frozen=True)
class LeftOut:
    """A file that is not in the data set, and why."""

    id: str
    reason: str


@dataclass
class Found:
    """What is in a folder; videos in the order of their ids."""

    videos: list[VideoFile] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def find_videos(folder: Path | str) -> Found:
    """Every file below a folder that is named like a video; hidden files and folders are passed over.

    Symbolic links to files are followed as long as they stay in the folder. One that leads out of it is left out with the
    reason, and so is a link to a folder: what is in the folder is found where it lies.
    Raises ValueError where the folder is none or has no video in it.
    """
    top = Path(folder).expanduser()
    if not top.is_dir():
        raise ValueError(f"videos is {str(folder)!r}, which is no folder: give the folder that holds the videos.")
    top, found = top.resolve(), Found()
    for path in _walk(top, found):
        video = path.relative_to(top).as_posix()
        try:
            video.encode()
        except UnicodeEncodeError:
            found.left_out.append(LeftOut(_text(video), "its name is not valid UTF-8: rename it."))
            continue
        try:
            state = path.stat()
        except OSError as error:
            found.left_out.append(LeftOut(video, f"it cannot be read ({error.strerror}): check the file or the link."))
            continue
        if not path.is_file():  # a pipe would be waited for without end
            found.left_out.append(LeftOut(video, "it is not a regular file: remove it."))
            continue
        found.videos.append(VideoFile(video, path, state.st_size, state.st_mtime_ns))
    found.videos.sort(key=lambda video: video.id)
    if not found.videos:
        raise ValueError(f"{top} holds no video: looked for files that end in {', '.join(EXTENSIONS)}.")
    return found


def identical_files(splits: Mapping[str, Sequence[VideoFile]]) -> list[tuple[VideoFile, VideoFile]]:
    """Pairs of files that are the same byte for byte though their videos are in different splits.

    Of files of one size the beginnings are compared, and whole files only where those agree.
    """
    groups = [[(split, video) for split, videos in splits.items() for video in videos]]
    for same in (lambda video: video.bytes, partial(_digest, most=BEGINNING), _digest):
        finer: dict[tuple, list] = {}
        for place, group in enumerate(groups):
            for split, video in group:
                finer.setdefault((place, same(video)), []).append((split, video))
        groups = [group for group in finer.values() if len({split for split, _ in group}) > 1]
    return [(group[0][1], video) for group in groups for split, video in group if split != group[0][0]]


def _digest(video: VideoFile, most: int = -1) -> bytes:
    with open(video.path, "rb") as file:
        if most < 0:
            return hashlib.file_digest(file, "blake2b").digest()
        return hashlib.blake2b(file.read(most)).digest()


def _walk(top: Path, found: Found) -> Iterator[Path]:
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            reason = f"the folder cannot be read ({error.strerror}): check its permissions."
            found.left_out.append(LeftOut(_text(folder.relative_to(top).as_posix()) + "/", reason))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.is_symlink() and (where := _not_followed(path, top)):
                reason = f"it is a symbolic link {where}, which is not followed: copy what it names, or remove it."
                found.left_out.append(LeftOut(_text(path.relative_to(top).as_posix()), reason))
            elif path.suffix.lower() in EXTENSIONS:
                yield path


def _not_followed(link: Path, top: Path) -> str:
    """Where a link leads, if it is one that is not followed."""
    if link.is_dir():
        return "to a folder"
    if link.suffix.lower() not in EXTENSIONS:
        return ""
    try:
        return "" if link.resolve(strict=True).is_relative_to(top) else "out of the folder"
    except (OSError, RuntimeError):
        return "to nothing"


def _text(name: str) -> str:
    return name.encode(errors="surrogateescape").decode(errors="replace")
