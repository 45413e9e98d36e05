"""The demo set's digits and frames, drawn with whole numbers only: every machine draws the same pixels.

Positions run from -1 (left, top) to 1 (right, bottom). They, sizes, shares and brightness are fixed-point numbers, int32
in which ONE stands for 1; of an angle ONE is a full turn.
"""

import math
from functools import cache
from statistics import NormalDist

import numpy as np

FRAMES = 25
SIDE = 32  # a frame is SIDE x SIDE pixels
DIGIT_CLASSES = tuple("0123456789")
# Each odd motion is the one before it, played backwards.
MOTIONS = ("right", "left", "down", "up", "clockwise", "anticlockwise")

SHARES = {"train": 40, "database": 24, "query": 10, "extractor": 26}  # of the digit images, percent
TOGETHER = 20  # videos drawn at a time, few enough for a processor's cache
NOISE = 0.04  # standard deviation of a pixel
HIDDEN = 25  # percent of frames in which a card hides part of the digit
INTRUDER = 15  # percent of frames in which another digit flashes up
GREYS = 32  # grey levels kept: the eye sees no loss, and the pictures pack into half the space

BITS = 12
ONE = 1 << BITS
SINE = np.array([round(ONE * math.sin(2 * math.pi * step / ONE)) for step in range(ONE)], np.int32)
PIXELS = ((2 * np.arange(SIDE) + 1 - SIDE) * (ONE // SIDE)).astype(np.int32)  # their middles
# brightness -> byte
GREY = np.array([((GREYS - 1) * value + ONE // 2 >> BITS) * 255 // (GREYS - 1) for value in range(ONE + 1)], np.uint8)
PICTURE = 30  # pixels of an enlarged digit's side
ROW = PICTURE + 3  # with its empty margin: one before, two behind


class Draws:
    """Random whole numbers: NumPy promises the bits of PCG64 for ever, but not what a Generator makes of them."""

    def __init__(self, *seed: int):
        self._source = np.random.PCG64(seed)

    def below(self, count: int, *shape: int) -> np.ndarray:
        """Whole numbers from 0 to count - 1."""
        words = self._source.random_raw(math.prod(shape)) >> np.uint64(32)
        return (words * np.uint64(count) >> np.uint64(32)).astype(np.int32).reshape(shape)

    def between(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Fixed-point numbers, evenly spread."""
        first, last = round(low * ONE), round(high * ONE)
        return first + self.below(last - first, *shape)

    def normal(self, deviation: float, *shape: int) -> np.ndarray:
        """Fixed-point numbers, normally distributed around 0, of 256 different values."""
        count = math.prod(shape)
        words = self._source.random_raw(-(-count // 8)).astype("<u8")
        return _quantiles(deviation)[words.view(np.uint8)[:count]].reshape(shape)

    def order(self, count: int) -> np.ndarray:
        """The numbers from 0 to count - 1, shuffled."""
        return self._source.random_raw(count).argsort(kind="stable")


@cache
def _quantiles(deviation: float) -> np.ndarray:
    normal = NormalDist(0, deviation * ONE)
    return np.array([round(normal.inv_cdf((step + 0.5) / 256)) for step in range(256)], np.int32)


# The digits


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """pictures (1797, ROW, ROW), smoothly enlarged and with an empty margin; digits (1797,) int64."""
    from sklearn.datasets import load_digits

    small = load_digits()
    pictures = np.pad(small.images.astype(np.int32) * (ONE // 16), [(0, 0), (1, 1), (1, 1)])
    pictures = _enlarge(pictures, PICTURE)
    # A steeper slope turns the soft enlargement back into pen strokes.
    pictures = ((pictures - ONE // 10) * 3 // 2).clip(0, ONE)
    return np.pad(pictures, [(0, 0), (1, 2), (1, 2)]), small.target.astype(np.int64)


def deal(digits: np.ndarray, draws: Draws) -> dict[str, np.ndarray]:
    """Share out the digit images, each to one owner, in the same proportion for every class: indices per owner."""
    dealt = {owner: [] for owner in SHARES}
    percents = np.cumsum(list(SHARES.values()))[:-1]
    for digit in range(len(DIGIT_CLASSES)):
        mine = np.flatnonzero(digits == digit)
        mine = mine[draws.order(len(mine))]
        for owner, part in zip(SHARES, np.split(mine, (percents * len(mine) + 50) // 100), strict=True):
            dealt[owner].append(part)
    return {owner: np.sort(np.concatenate(parts)) for owner, parts in dealt.items()}


def _enlarge(pictures: np.ndarray, size: int) -> np.ndarray:
    """Squares (..., n, n) -> (..., size, size), by cubic interpolation."""
    weights = _cubic_weights(pictures.shape[-1], size)
    return (weights @ pictures >> BITS) @ weights.T >> BITS


@cache
def _cubic_weights(count: int, size: int) -> np.ndarray:
    """(size, count): what each of `size` points between `count` points takes of them (Keys 1981, with a = -0.75)."""
    weights = np.zeros((size, count), np.int32)
    for point in range(size):
        place = (2 * point + 1) * count / (2 * size) - 0.5
        for neighbour in range(math.floor(place) - 1, math.floor(place) + 3):
            far = abs(place - neighbour)
            near = (1.25 * far - 2.25) * far * far + 1
            beyond = ((-0.75 * far + 3.75) * far - 6) * far + 3
            weights[point, min(max(neighbour, 0), count - 1)] += round(ONE * (near if far <= 1 else beyond))
    return weights


# Frames


def draw_videos(
    draws: Draws, pictures: np.ndarray, share: np.ndarray, image: np.ndarray, motion: np.ndarray
) -> np.ndarray:
    """All videos of a split: digit images and motions, (videos,) each -> (videos, FRAMES, SIDE, SIDE) uint8.

    share: the digit images that may flash up
    """
    return np.concatenate(
        [
            _draw_some(draws, pictures, share, image[first : first + TOGETHER], motion[first : first + TOGETHER])
            for first in range(0, len(image), TOGETHER)
        ]
    )


def _draw_some(draws, pictures, share, image, motion) -> np.ndarray:
    videos, clock = len(image), np.arange(FRAMES, dtype=np.int32)
    swing = [SINE[draws.below(ONE, videos, 1) + clock * (ONE // FRAMES) & ONE - 1] for _ in range(2)]
    size = draws.between(0.48, 0.6, videos, 1) + swing[0] // 20
    turn = draws.between(-0.024, 0.024, videos, 1) + swing[1] // 42
    ink = draws.between(0.75, 1.0, videos, 1).repeat(FRAMES, axis=1)
    return draw(draws, pictures, share, image, paths(draws, motion), size, turn, ink)


def draw(draws, pictures, share, image, centre, size, turn, ink) -> np.ndarray:
    """Frames as an eye sees them: n videos of f frames.

    image: (n,); centre: (n, f, 2); size, turn, ink: (n, f) -> (n, f, SIDE, SIDE) uint8
    """
    (videos, frames), count = size.shape, size.size
    centre = centre.reshape(count, 2)
    canvas = _backgrounds(draws, videos, frames)
    _flash(draws, canvas, pictures, share)
    strokes = _place(pictures, image.repeat(frames), centre, size.reshape(count), turn.reshape(count))
    canvas = _over(canvas, strokes, ink.reshape(count))
    _hide(draws, canvas, centre)
    canvas = canvas * draws.between(0.85, 1.1, count, 1, 1) >> BITS
    canvas += draws.normal(NOISE, count, SIDE, SIDE)
    return GREY[canvas.clip(0, ONE)].reshape(videos, frames, SIDE, SIDE)


def paths(draws: Draws, motion: np.ndarray) -> np.ndarray:
    """Where the digit's centre is: motion (videos,) -> (videos, FRAMES, 2) as x, y."""
    videos = len(motion)
    clock = (2 * np.arange(FRAMES, dtype=np.int32) + 1 - FRAMES) * ONE // (2 * FRAMES - 2)  # from -1/2 to 1/2
    along = draws.between(-0.08, 0.08, videos, 1) + (clock * draws.between(0.7, 1.1, videos, 1) >> BITS)
    across = draws.between(-0.4, 0.4, videos, 1) + (clock * draws.between(-0.15, 0.15, videos, 1) >> BITS)
    # On the screen y grows downwards, so a growing angle runs clockwise.
    angle = draws.below(ONE, videos, 1) + (clock * draws.between(0.6, 1.1, videos, 1) >> BITS)
    radius, centre = draws.between(0.28, 0.48, videos, 1), draws.between(-0.1, 0.1, 2, videos, 1)
    circle = [centre[axis] + (radius * SINE[angle + quarter & ONE - 1] >> BITS) for axis, quarter in QUARTERS]
    forward = np.stack([np.stack(both, axis=-1) for both in ((along, across), (across, along), circle)])
    path = forward[motion // 2, np.arange(videos)]
    path = np.where((motion % 2 == 1)[:, None, None], path[:, ::-1], path)
    return path + draws.normal(0.02, videos, FRAMES, 2)


QUARTERS = ((0, ONE // 4), (1, 0))  # of a turn by which x and y of a circle are ahead of the sine


def _backgrounds(draws: Draws, videos: int, frames: int) -> np.ndarray:
    """A drifting, slowly changing cloud per video: (videos * frames, SIDE, SIDE), from 0 to a half."""
    clouds = _enlarge(draws.below(ONE, videos, 2, 9, 9), 2 * SIDE).clip(0, ONE)
    start, end = draws.between(-0.45, 0.45, videos, 1, 2), draws.between(-0.45, 0.45, videos, 1, 2)
    clock = np.arange(frames, dtype=np.int32)[:, None]
    window = start + (end - start) * clock // max(frames - 1, 1)
    first = (SIDE // 2 * ONE + SIDE * window).reshape(-1, 2, 1)  # the cloud's pixel at the frame's first corner
    columns, rows = ((first[:, axis] >> BITS) + np.arange(SIDE + 1) for axis in (0, 1))
    phase = draws.below(ONE, videos, 1, 1) + clock * draws.between(0.32, 0.95, videos, 1, 1) // FRAMES
    share = (ONE + SINE[phase & ONE - 1]).reshape(-1, 1, 1) // 2
    video = np.arange(videos).repeat(frames)[:, None, None]
    one, other = (clouds[video, cloud, rows[:, :, None], columns[:, None, :]] for cloud in (0, 1))
    seen = _between(one, other, share)
    seen = _between(seen[:, :-1], seen[:, 1:], first[:, 1:] & ONE - 1)
    return _between(seen[:, :, :-1], seen[:, :, 1:], first[:, :1] & ONE - 1) // 2


def _flash(draws: Draws, canvas: np.ndarray, pictures: np.ndarray, share: np.ndarray) -> None:
    """Let another digit flash up in some frames (n, SIDE, SIDE)."""
    frames = np.flatnonzero(draws.below(100, len(canvas)) < INTRUDER)
    count = len(frames)
    image, centre = share[draws.below(len(share), count)], draws.between(-0.6, 0.6, count, 2)
    strokes = _place(pictures, image, centre, draws.between(0.3, 0.5, count), np.zeros(count, np.int32))
    canvas[frames] = _over(canvas[frames], strokes, draws.between(0.3, 0.9, count))


def _hide(draws: Draws, canvas: np.ndarray, centre: np.ndarray) -> None:
    """Put a grey card over part of the digit in some frames: (n, SIDE, SIDE), (n, 2)."""
    frames = np.flatnonzero(draws.below(100, len(canvas)) < HIDDEN)
    count = len(frames)
    card, half = centre[frames] + draws.between(-0.35, 0.35, count, 2), draws.between(0.2, 0.4, count, 2)
    columns, rows = (np.abs(PIXELS - card[:, [axis]]) < half[:, [axis]] for axis in (0, 1))
    covered = rows[:, :, None] & columns[:, None, :]
    canvas[frames] = np.where(covered, draws.between(0, 0.8, count, 1, 1), canvas[frames])


def _place(pictures: np.ndarray, image: np.ndarray, centre, size, turn) -> np.ndarray:
    """Digits on an empty frame: image (n,), centre (n, 2), size (n,), turn (n,) -> (n, SIDE, SIDE)."""
    cosine, sine = (SINE[turn + quarter & ONE - 1] * ONE // size for _, quarter in QUARTERS)
    cosine, sine = cosine[:, None, None], sine[:, None, None]
    x, y = (PIXELS - centre[:, :1])[:, None, :], (PIXELS - centre[:, 1:])[:, :, None]
    column, row = (
        (half * PICTURE // 2 + (PICTURE + 1) * ONE // 2).clip(0, (PICTURE + 1) * ONE)
        for half in (cosine * x + sine * y >> BITS, cosine * y - sine * x >> BITS)
    )
    at = image[:, None, None] * ROW**2 + (row >> BITS) * ROW + (column >> BITS)
    upper, lower = (
        _between(pictures.take(at + below), pictures.take(at + below + 1), column & ONE - 1) for below in (0, ROW)
    )
    return _between(upper, lower, row & ONE - 1)


def _over(canvas: np.ndarray, strokes: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """Paint white strokes over the canvas: (n, SIDE, SIDE), (n, SIDE, SIDE), (n,) -> (n, SIDE, SIDE)."""
    return _between(canvas, ONE, strokes * ink[:, None, None] >> BITS)


def _between(one, other, share) -> np.ndarray:
    """From `one` at a share of 0 to `other` at a share of ONE."""
    return one + ((other - one) * share >> BITS)
