"""A video file's frames, spread evenly over its time and upright; decoded with PyAV.

A first walk over the packets, which decodes nothing, tells when each frame is shown. The second decodes once, from front to
back, turns only the chosen frames into pictures, and jumps to a later key frame where that saves many frames. So memory
does not grow with a video's length.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from threading import Condition
from typing import Any

try:
    import av
    from av.sidedata.sidedata import SideDataContainer
except ImportError as error:
    raise ImportError(f"reading videos needs PyAV ({error}): install wsch-core[videos], as the README says.") from error
from PIL import Image

from .mp4_index import check_frames

DECODING_VERSION = 2  # raise it with every change that alters which frames are chosen, or a pixel of them
EXTENSIONS = (
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4",
    ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv",
)  # fmt: skip
# Only containers that hold their frames themselves: a playlist could name other files, and a picture is no video.
CONTAINERS = "3gp,asf,avi,dv,flv,matroska,mov,mp4,mpeg,mpegts,mpegvideo,mxf,ogg,webm"
JUMP = 50  # frames that a jump must save; it empties the decoder, which costs about as much as some frames
LARGEST = (8192, 4320)
MOST_PIXELS = LARGEST[0] * LARGEST[1]  # of a frame; also of the frames of all videos that are decoded at the same time
LONGEST_SIDE, MOST_ASPECT = 16384, 16  # pixels; times longer than the other side
LEAST_ROOM = 1920 * 1088  # pixels; a video may grow to this size on its way
ATTACHED_PICTURE = av.stream.Disposition.attached_pic

# How a frame must be turned so that it is upright, by the signs of the display matrix (a, b, c, d): a point (x, y) of the
# frame is shown at (ax + cy, bx + dy), with y growing downwards.
UPRIGHT = {
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}


class _Room:
    """So many pixels may be decoded at the same time, by all threads together; who needs more than is free waits."""

    def __init__(self, pixels: int):
        self.free, self.changed = pixels, Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: self.free >= pixels)
            self.free -= pixels
        try:
            yield
        finally:
            with self.changed:
                self.free += pixels
                self.changed.notify_all()


ROOM = _Room(MOST_PIXELS)


@dataclass(frozen=True)
class Clip:
    """What was made of a video's chosen frames, in the order of time."""

    pictures: list[Any]
    repeated: int  # of them equal the one before, because the video shows fewer different frames


@dataclass(frozen=True)
class _Timing:
    """When frames are shown, in the stream's time base, sorted."""

    times: list[int]
    keys: list[int]  # times of the key frames
    counted: bool  # frames do not tell their times, or not truly: each takes the next of `times`

    def targets(self, frames: int) -> list[float]:
        """The middles of equal parts of the video's time."""
        gaps = sorted(later - time for time, later in zip(self.times, self.times[1:], strict=False))
        length = self.times[-1] - self.times[0] + (gaps[len(gaps) // 2] if gaps else 1)
        return [self.times[0] + (part + 0.5) * length / frames for part in range(frames)]

    def frames_between(self, begin: float, end: float) -> int:
        return bisect_right(self.times, end) - bisect_right(self.times, begin)


class _Inexact(Exception):
    """A jump ended behind the frame that was looked for: the file's index is wrong."""


class _Backwards(Exception):
    """A frame is said to be shown before the one that it follows, as in AVI files whose packets hold two frames."""


def read_clip(path: Path, frames: int, look: Callable[[Image.Image], Any], threads: int = 1) -> Clip:
    """Choose `frames` frames evenly by time, each the one shown in the middle of its part of the video.

    look: given each chosen frame once, upright, with square pixels, RGB; what it returns is kept instead of the frame
    threads: that one video is decoded with; 0 lets the decoder choose
    Raises OSError or ValueError with one sentence that names the file and why it cannot be decoded.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a pipe would be waited for without end
        raise ValueError(f"{path} is not a regular file: give a video file.")
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes): copy it again.")
    if path.is_file():
        check_frames(path)
    try:
        timing = _read_timing(path)
        try:
            return _choose(path, timing, frames, look, threads, jump=not timing.counted)
        except _Inexact:
            return _choose(path, timing, frames, look, threads, jump=False)
        except _Backwards:
            return _choose(path, replace(timing, counted=True), frames, look, threads, jump=False)
    except av.ArgumentError as error:
        raise ValueError(
            f"{path} is no video in a container that is read: replace it, or convert it to MP4."
        ) from error
    except av.FFmpegError as error:
        reason = (error.strerror or str(error)).lower()
        if isinstance(error, OSError):
            raise OSError(f"{path} cannot be read ({reason}): check the file and its permissions.") from error
        raise ValueError(f"{path} is damaged or no video ({reason}): replace it, or convert it anew.") from error


def _open(path: Path) -> av.container.InputContainer:
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    limit = {"max_pixels": str(_padded(*LARGEST))}  # some frames are decoded already while a file is opened
    return av.open(f"file:{path.absolute()}", options=limit, container_options=options, metadata_errors="replace")


def _padded(width: int, height: int) -> int:
    """Pixels of a frame, with those that codecs add at its sides."""
    return (width + 256) * (height + 256)


def _check_shape(path: Path, width: int, height: int, pixel: float) -> None:
    """Refuse frames that are no pictures of a video, before they are turned into pictures (ValueError).

    width, height: in pixels as they are stored; pixel: how many times wider than high one of them is shown
    """
    shown = max(1, round(width * pixel))
    found = f"{path} has frames of {width:,} x {height:,} pixels" + f", shown {shown:,} wide" * (shown != width)
    if min(width, height) < 1:
        raise ValueError(
            f"{path} has frames of more than {MOST_PIXELS:,} pixels, or of no known size: convert it anew."
        )
    if max(width, shown, height) > LONGEST_SIDE or max(width, shown) * height > MOST_PIXELS:
        raise ValueError(f"{found}, but at most {MOST_PIXELS:,} pixels are read: make it smaller.")
    if max(shown, height) > MOST_ASPECT * min(shown, height):
        raise ValueError(f"{found}, more than {MOST_ASPECT} times longer than the other side: cut out a part of it.")


def _video_stream(path: Path, container: av.container.InputContainer) -> av.video.stream.VideoStream:
    streams = [stream for stream in container.streams.video if not stream.disposition & ATTACHED_PICTURE]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise ValueError(f"{path} holds no video stream (it holds: {kinds}): take it out of the folder.")
    if streams[0].codec_context is None:
        raise ValueError(f"{path} is coded in a way that this PyAV cannot decode: convert it, for example to H.264.")
    return streams[0]


def _read_timing(path: Path) -> _Timing:
    with _open(path) as container:
        stream = _video_stream(path, container)
        packets = [
            (packet.pts, packet.dts, packet.is_keyframe)
            for packet in container.demux(stream)
            if packet.size and not packet.is_discard
        ]
    if not packets:
        raise ValueError(f"{path} holds a video stream without any frame: replace it.")
    for kind in (0, 1):  # by presentation; where the container tells only the order of decoding, by that
        if all(packet[kind] is not None for packet in packets):
            times = sorted(packet[kind] for packet in packets)
            return _Timing(times, sorted(packet[kind] for packet in packets if packet[2]), counted=False)
    return _Timing(list(range(len(packets))), [], counted=True)


def _choose(path: Path, timing: _Timing, frames: int, look: Callable, threads: int, jump: bool) -> Clip:
    pictures, former, repeated, turn = [], None, 0, None
    with _open(path) as container:
        stream = _video_stream(path, container)
        pixel = float(stream.sample_aspect_ratio or 1)
        width, height = stream.codec_context.width, stream.codec_context.height
        _check_shape(path, width, height, pixel)
        room = min(MOST_PIXELS, max(LEAST_ROOM, width * height))
        stream.codec_context.options = {"max_pixels": str(_padded(width, max(height, -(-room // width))))}
        stream.codec_context.thread_count = threads if room == LEAST_ROOM else 1  # each thread holds frames
        stream.thread_type = "AUTO"
        with ROOM.taken(room), closing(_Decoder(path, container, stream, timing)) as source:
            for frame in _shown(path, source, timing, timing.targets(frames), jump):
                if former is None:
                    turn = _turn(frame)  # the file's own, so one frame tells
                if frame is former:
                    repeated += 1
                    pictures.append(pictures[-1])
                else:
                    _check_shape(path, frame.width, frame.height, pixel)
                    pictures.append(look(_upright(frame, pixel, turn)))
                former = frame
    return Clip(pictures, repeated)


def _shown(path: Path, source: _Decoder, timing: _Timing, targets: list[float], jump: bool) -> Iterator[av.VideoFrame]:
    """The frame that is shown at each of some times, which grow: the last one that does not begin later."""
    shown, following, begins = None, None, timing.times[0] - 1  # `following` begins at `begins`
    jumped = ended = False
    for target in targets:
        keys = bisect_right(timing.keys, target) if jump and not ended else 0
        if keys and timing.frames_between(begins, timing.keys[keys - 1]) > JUMP:
            source.jump(timing.keys[keys - 1])
            shown, following, jumped = None, None, True
        while not ended and (following is None or begins <= target):
            shown = following or shown
            following, begins = source.next(begins)
            ended = following is None
        if shown is None and jumped:
            raise _Inexact
        shown = shown or following
        if shown is None:
            raise ValueError(f"{path}: not one frame can be decoded: replace it, or convert it anew.")
        yield shown


class _Decoder:
    """Frames in the order in which they are shown.

    What is refused before the first frame is passed over: a recording may begin in the middle of what it was cut from.
    """

    def __init__(self, path: Path, container, stream, timing: _Timing):
        self.path, self.container, self.stream, self.timing = path, container, stream, timing
        self.frames, self.former = 0, -inf
        self.waiting = self._decode()

    def jump(self, time: int) -> None:
        self.container.seek(time, stream=self.stream)
        self.former = -inf
        self.waiting = self._decode()

    def next(self, former: float) -> tuple[av.VideoFrame | None, float]:
        """The next frame and when it begins; (None, `former`) at the end of the video."""
        frame = next(self.waiting, None)
        if frame is None:
            return None, former
        self.frames += 1
        if self.timing.counted or frame.pts is None:
            time = self.timing.times[min(self.frames, len(self.timing.times)) - 1]
        else:
            time = frame.pts
        if time < self.former:
            raise _Backwards
        self.former = time
        return frame, max(time, former)  # behind `former` only after a jump that went too far back

    def close(self) -> None:
        """Let go of the decoded frames: what still waits refers back to this decoder, so that only Python's collector of
        cycles would free them, tens of videos later."""
        self.waiting.close()

    def _decode(self) -> Iterator[av.VideoFrame]:
        for packet in self.container.demux(self.stream):
            try:
                yield from packet.decode()
            except (av.ArgumentError, MemoryError):
                raise ValueError(
                    f"{self.path} cannot be decoded {self._place(packet)} (its frames grow, or are damaged)."
                ) from None
            except av.InvalidDataError:
                if self.frames:
                    raise ValueError(
                        f"{self.path} is damaged {self._place(packet)}: replace it, or convert it anew."
                    ) from None

    def _place(self, packet: av.Packet) -> str:
        if packet.pts is None:
            return f"after {self.frames:,} frames"
        return f"at {float((packet.pts - (self.stream.start_time or 0)) * self.stream.time_base):.1f} s"


def _turn(frame: av.VideoFrame) -> Image.Transpose | None:
    """What makes a video upright, by its orientation tag; turns by other than right angles are left aside."""
    # `frame.side_data` would be kept by the frame it refers to: a cycle, and the frame in memory for longer
    for data in SideDataContainer(frame):
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
            return UPRIGHT.get(tuple((value > 0) - (value < 0) for value in (a, b, c, d)))
    return None


def _upright(frame: av.VideoFrame, pixel: float, turn: Image.Transpose | None) -> Image.Image:
    """A frame as a picture, its pixels made square and turned as its orientation tag says."""
    image = frame.to_image()
    if pixel != 1:
        image = image.resize((max(1, round(image.width * pixel)), image.height), Image.Resampling.BICUBIC)
    return image if turn is None else image.transpose(turn)
