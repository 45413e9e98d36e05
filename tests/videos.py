"""Small videos for tests, made by the tests themselves."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE = (48, 64)  # height and width


def shades(frames: int, first: int = 0, step: int = 9) -> list[np.ndarray]:
    """Even grey pictures, each brighter than the one before: (height, width, 3) uint8."""
    return [np.full((*SIZE, 3), min(first + step * frame, 255), np.uint8) for frame in range(frames)]


def write_video(
    path: Path,
    pictures: list[np.ndarray],
    times: list[int] | None = None,
    codec: str = "mpeg4",
    rotation: int = 0,
    **options,
) -> Path:
    """Encode pictures, shown at `times` (in 25ths of a second; without them one after another)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=options.pop("format", None)) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        stream.bit_rate = 0 if codec == "libsvtav1" else 2_000_000  # which chooses by quality
        if rotation:
            stream.set_display_rotation(rotation)
        for place, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (times or range(len(pictures)))[place], Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """A file with a sound and nothing to see."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_with_sound(path: Path, codec: str, seconds: int = 60, rate: int = 48_000) -> Path:
    """A picture for each second, and silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        sound = container.add_stream(codec, rate=rate, layout="mono")
        for second in range(seconds):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shades(1)[0], format="rgb24")))
            kind = "s16" if codec.startswith("pcm") else "fltp"
            silence = np.zeros((1, rate), np.int16 if kind == "s16" else np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format=kind, layout="mono")
            frame.sample_rate, frame.pts = rate, second * rate
            container.mux(sound.encode(frame))
        for each in (stream, sound):
            container.mux(each.encode(None))
    return path


def write_large(path: Path, codec: str, side: int = 12_000) -> Path:
    """Two black frames of very many pixels, few bytes."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width = stream.height = side
        stream.pix_fmt = "gray" if codec == "png" else "yuvj420p"
        for number in range(2):
            frame = av.VideoFrame(side, side, stream.pix_fmt)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def brightness(picture) -> int:
    return round(float(np.asarray(picture, np.float32).mean()))
