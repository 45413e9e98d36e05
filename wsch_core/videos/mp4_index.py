"""How many frames an MP4 or QuickTime file claims to hold, judged before FFmpeg makes an index of them.

A few bytes may claim a thousand million frames, for each of which FFmpeg takes about 90 bytes. The layout is that of
ISO/IEC 14496-12: a file is boxes of a size, a type and a content, which for some types is boxes again. FFmpeg reads them
wherever they lie, so they are looked for by their types in everything but the frames themselves.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MOST_FRAMES = 2**21  # 19 hours at 30 frames a second; some 190 MB
MOST_BOXES = 200_000  # side by side
MOST_INDEX = 2**27  # bytes of one box
FIRST = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx", b"junk", b"uuid")
COUNTED = re.compile(b"trak|hdlr|stsz|stz2|stts|ctts|trun|cmov")


def check_frames(path: Path) -> None:
    """Refuse an MP4 file that claims more frames than are read (ValueError); other files are let pass."""
    with open(path, "rb") as file:
        if file.read(8)[4:] not in FIRST:
            return
        fragments = most = 0
        for number, box in enumerate(_boxes(path, file)):
            if number > MOST_BOXES:
                raise ValueError(f"{path} has an index in more than {MOST_BOXES:,} parts: convert it anew.")
            tracks = re.split(b"(?=trak)", box)
            most = max(most, *map(_frames, tracks))
            fragments += sum(_number(box, found.end() + 4) for found in COUNTED.finditer(box) if found[0] == b"trun")
            if b"cmov" in box:
                raise ValueError(f"{path} has an index that is compressed: convert it anew.")
    if max(most, fragments) > MOST_FRAMES:
        raise ValueError(
            f"{path} claims to hold {max(most, fragments):,} frames or parts of sound, at most {MOST_FRAMES:,} are read: "
            "cut it into parts."
        )


def _frames(track: bytes) -> int:
    """The most frames that the tables of a track claim."""
    most, sound, even = 0, False, False
    for found in COUNTED.finditer(track):
        place = found.end()
        if found[0] == b"hdlr":
            sound = sound or track[place + 8 : place + 12] == b"soun"
        elif found[0] in (b"stsz", b"stz2"):
            most = max(most, _number(track, place + 8))
        elif found[0] in (b"stts", b"ctts"):
            rows = min(_number(track, place + 4), (len(track) - place - 8) // 8)
            counts = struct.unpack_from(">" + "I4x" * rows, track, place + 8)
            most = max(most, sum(counts))
            even = even or (found[0] == b"stts" and rows == 1 and _number(track, place + 12) == 1)
    return 0 if sound and even else most  # plain sound, a frame for each number, is read in larger parts


def _number(content: bytes, place: int) -> int:
    return int.from_bytes(content[place : place + 4], "big")


def _boxes(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """The content of the outermost boxes but those that hold frames."""
    start, end = 0, path.stat().st_size
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        size, kind = _number(head, 0), head[4:8]
        size = {0: end - start, 1: int.from_bytes(head[8:16], "big")}.get(size, size)
        if size < 8:
            return
        if kind not in (b"mdat", b"free", b"skip"):
            if min(size, end - start) > MOST_INDEX:
                raise ValueError(
                    f"{path} has an index of {size:,} bytes, at most {MOST_INDEX:,} are read: convert it anew."
                )
            file.seek(start)
            yield file.read(min(size, end - start))
        start += size
