"""The built-in demo set: handwritten digits that move, made on first use and small enough for a laptop.

A video is 25 small grey pictures in which one of scikit-learn's 1,797 real handwritten digits travels over a changing
background. The digits are dealt out before any video is made, so train, database and query never show the same digit
image; a fourth share belongs to the feature extractor alone. The motions come in pairs that differ only in the
direction of time: an average over the frames cannot tell them apart, a model of the sequence can.
"""

import math
import os
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..storage.hdf5 import hdf5_image

BUILDER_VERSION = 1  # raise it with every change that alters a pixel or a feature
FRAMES = 25
SIDE = 32  # a frame is SIDE x SIDE pixels
FEATURE_SIZE = 128
DIGIT_CLASSES = tuple("0123456789")
# Each odd motion is the one before it, played backwards.
MOTIONS = ("right", "left", "down", "up", "clockwise", "anticlockwise")
DIGIT_AND_MOTION_CLASSES = tuple(f"{digit} {motion}" for digit in DIGIT_CLASSES for motion in MOTIONS)

SPLITS = ("train", "database", "query")
PER_CLASS = {"train": 40, "database": 20, "query": 5}  # videos of each digit and motion: 2400, 1200 and 300 in all
SHARES = {"train": 0.40, "database": 0.24, "query": 0.10, "extractor": 0.26}  # of the digit images
EXTRACTOR_FRAMES = 40_000  # seen once each
BATCH = 100
PLACE_WEIGHT = 1.0  # of the extractor's loss on where the digit is, beside which digit it is
CLOUD = 0.5  # brightest background
NOISE = 0.04  # standard deviation of a pixel
HIDDEN = 0.25  # share of frames in which a card hides part of the digit
INTRUDER = 0.15  # share of frames in which another digit flashes up
GREYS = 32  # grey levels kept: the eye sees no loss, and the pictures pack into half the space


def build_demo(folder: Path, seed: int = 0, report: Callable[[str], None] = print) -> None:
    """Make the demo set in `folder`, which appears only when complete; a complete one is left as it is.

    `folder` then holds, for train, database and query, `{split}.h5` (feats, keyframes, ids, digit_image) and
    `{split}_labels.mat` (digit, digit_and_motion). The same seed gives the same set on the same machine.
    """
    folder = Path(folder)
    if _refuse_or_complete(folder):
        return
    scratch = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    try:
        scratch.mkdir(parents=True)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            f"Cannot make the demo set in {folder} ({reason}): set WSCH_DATA to a writable folder."
        ) from error
    try:
        report(f"Making the demo set in {folder}: moving handwritten digits, about 20 s, once.")
        started = time.perf_counter()
        _write_all(scratch, seed)
        if _move_into_place(scratch, folder):
            report(f"The demo set is ready after {time.perf_counter() - started:.0f} s.")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_complete(folder: Path) -> bool:
    return all((folder / f"{split}{ending}").is_file() for split in SPLITS for ending in (".h5", "_labels.mat"))


def _refuse_or_complete(folder: Path) -> bool:
    """True where the set is already there; a folder that holds something else is refused before any work is done."""
    if _is_complete(folder):
        return True
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OSError(
            f"{folder} exists but is not a complete demo set: move it away, or set the environment variable WSCH_DATA "
            "to another folder."
        )
    return False


def _move_into_place(scratch: Path, folder: Path) -> bool:
    """Rename the finished set; False where another process was faster, whose set then stays."""
    try:
        os.rename(scratch, folder)
    except OSError:
        if not _is_complete(folder):
            raise
        return False
    return True


def _write_all(folder: Path, seed: int) -> None:
    """Deal the digits, train the extractor, then render, describe and write each split."""
    pictures, digits = _load_digits()
    shares = _deal(digits, seed)
    with _reproducible(seed):
        extractor = _train_extractor(pictures, digits, shares["extractor"])
        for split in SPLITS:
            digit_image, motion = _plan(digits, shares[split], PER_CLASS[split])
            frames = _render_videos(pictures, shares[split], digit_image, motion)
            feats = _extract(extractor, frames)
            _write_split(folder, split, seed, feats, frames, digit_image, digits[digit_image].numpy(), motion.numpy())


def train_extractor(seed: int = 0) -> "Extractor":
    """The feature extractor that made the demo set of this seed, trained anew in some seconds."""
    pictures, digits = _load_digits()
    with _reproducible(seed):
        return _train_extractor(pictures, digits, _deal(digits, seed)["extractor"])


@contextmanager
def _reproducible(seed: int):
    """Seeded, and in one thread: sums over several are rounded otherwise. The caller's random state stays as it was."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


# Which digits, which motions


def _load_digits() -> tuple[Tensor, Tensor]:
    """pictures: (1797, 1, 24, 24) float in 0..1, smoothly enlarged and with an empty margin; digits: (1797,) int64."""
    from sklearn.datasets import load_digits

    small = load_digits()
    pictures = torch.from_numpy(small.images).float()[:, None] / 16
    pictures = F.interpolate(F.pad(pictures, (1, 1, 1, 1)), size=30, mode="bicubic", align_corners=False)
    # A steeper slope turns the soft enlargement back into pen strokes.
    return ((pictures - 0.1) * 1.5).clamp(0, 1), torch.from_numpy(small.target).long()


def _deal(digits: Tensor, seed: int) -> dict[str, Tensor]:
    """Share out the digit images, each to one owner, in the same proportion for every class: indices per owner."""
    generator = np.random.default_rng(seed)
    dealt = {owner: [] for owner in SHARES}
    ends = np.cumsum(list(SHARES.values()))
    for digit in range(len(DIGIT_CLASSES)):
        mine = generator.permutation(np.flatnonzero(digits.numpy() == digit))
        for owner, part in zip(SHARES, np.split(mine, np.round(ends[:-1] * len(mine)).astype(int)), strict=True):
            dealt[owner].append(part)
    return {owner: torch.from_numpy(np.sort(np.concatenate(parts))) for owner, parts in dealt.items()}


def _plan(digits: Tensor, share: Tensor, per_class: int) -> tuple[Tensor, Tensor]:
    """digit_image, motion: (videos,) each; every digit with every motion `per_class` times, in mixed order."""
    images, motions = [], []
    count = per_class * len(MOTIONS)
    for digit in range(len(DIGIT_CLASSES)):
        mine = share[digits[share] == digit]
        # Every image in turn, so that none is shown much more often than another.
        rounds = [mine[torch.randperm(len(mine))] for _ in range(math.ceil(count / len(mine)))]
        images.append(torch.cat(rounds)[:count])
        motions.append(torch.arange(count) % len(MOTIONS))
    order = torch.randperm(count * len(DIGIT_CLASSES))
    return torch.cat(images)[order], torch.cat(motions)[order]


# Rendering: positions run from -1 (left, top) to 1 (right, bottom)


def _uniform(low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(shape) * (high - low) + low


def _paths(motion: Tensor) -> Tensor:
    """Where the digit's centre is: motion (videos,) -> (videos, FRAMES, 2) as x, y."""
    videos = len(motion)
    clock = torch.linspace(-0.5, 0.5, FRAMES)
    middle = _uniform(-0.08, 0.08, videos, 1)
    along = middle + clock * _uniform(0.7, 1.1, videos, 1)
    across = (_uniform(-0.4, 0.4, videos, 1) + clock * _uniform(-0.15, 0.15, videos, 1)).expand_as(along)
    # On the screen y grows downwards, so a growing angle runs clockwise.
    angle = _uniform(0, 2 * math.pi, videos, 1) + clock * 2 * math.pi * _uniform(0.6, 1.1, videos, 1)
    radius, centre = _uniform(0.28, 0.48, videos, 1), _uniform(-0.1, 0.1, 2, videos, 1)
    forward = torch.stack(
        [
            torch.stack([along, across], dim=-1),
            torch.stack([across, along], dim=-1),
            torch.stack([centre[0] + radius * angle.cos(), centre[1] + radius * angle.sin()], dim=-1),
        ]
    )
    path = forward[motion // 2, torch.arange(videos)]
    path = torch.where((motion % 2 == 1)[:, None, None], path.flip(1), path)
    return path + 0.02 * torch.randn(videos, FRAMES, 2)


def _place(pictures: Tensor, centre: Tensor, size: Tensor, turn: Tensor) -> Tensor:
    """Pictures on an empty frame: (n, 1, h, w), (n, 2), (n,), (n,) radians -> (n, SIDE, SIDE)."""
    cos, sin = turn.cos() / size, turn.sin() / size
    rows = torch.stack([torch.stack([cos, sin], dim=-1), torch.stack([-sin, cos], dim=-1)], dim=1)
    affine = torch.cat([rows, -rows @ centre[:, :, None]], dim=2)
    grid = F.affine_grid(affine, [len(centre), 1, SIDE, SIDE], align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)[:, 0]


def _backgrounds(videos: int, frames: int) -> Tensor:
    """A drifting, slowly changing cloud per video: (videos, frames, SIDE, SIDE) in about 0..0.6."""
    first, second = F.interpolate(torch.rand(2 * videos, 1, 9, 9), size=64, mode="bicubic").clamp(0, 1).chunk(2)
    clock = torch.linspace(0, 1, frames)[None, :, None]
    start, drift = _uniform(-0.45, 0.45, videos, 1, 2), _uniform(-0.45, 0.45, videos, 1, 2)
    window = (start + (drift - start) * clock).flatten(0, 1)
    identity = torch.eye(2).expand(len(window), 2, 2) * 0.5
    affine = torch.cat([identity, window[:, :, None]], dim=2)
    grid = F.affine_grid(affine, [len(window), 1, SIDE, SIDE], align_corners=False)
    grid = grid.view(videos, frames * SIDE, SIDE, 2)
    clouds = [F.grid_sample(c, grid, align_corners=False).view(videos, frames, SIDE, SIDE) for c in (first, second)]
    phase = _uniform(0, 2 * math.pi, videos, 1) + clock[..., 0] * _uniform(2, 6, videos, 1)
    mix = (0.5 + 0.5 * phase.sin())[..., None, None]
    return CLOUD * (mix * clouds[0] + (1 - mix) * clouds[1])


def _render(pictures: Tensor, intruders: Tensor, centre: Tensor, size: Tensor, turn: Tensor, ink: Tensor) -> Tensor:
    """Frames as an eye sees them: n videos of f frames.

    pictures: (n, 1, h, w); intruders: (n, f, 1, h, w), another digit that flashes up in some frames;
    centre: (n, f, 2); size, turn, ink: (n, f) -> (n, f, SIDE, SIDE) uint8
    """
    (videos, frames), flat = size.shape, size.numel()
    canvas = _backgrounds(videos, frames).flatten(0, 1)
    shown = pictures[:, None].expand(-1, frames, -1, -1, -1).flatten(0, 1)
    digit = _place(shown, centre.flatten(0, 1), size.flatten(), turn.flatten())
    flash = (torch.rand(flat) < INTRUDER) * _uniform(0.3, 0.9, flat)
    other = _place(intruders.flatten(0, 1), _uniform(-0.6, 0.6, flat, 2), _uniform(0.3, 0.5, flat), torch.zeros(flat))
    canvas = _over(canvas, other, flash)
    canvas = _over(canvas, digit, ink.flatten())
    canvas = _hide(canvas, centre.flatten(0, 1))
    canvas = canvas * _uniform(0.85, 1.1, flat, 1, 1) + NOISE * torch.randn(flat, SIDE, SIDE)
    levels = (canvas.clamp(0, 1) * (GREYS - 1)).round() * (255 / (GREYS - 1))
    return levels.round().to(torch.uint8).view(videos, frames, SIDE, SIDE)


def _over(canvas: Tensor, stroke: Tensor, ink: Tensor) -> Tensor:
    """Paint white strokes over the canvas: (n, h, w), (n, h, w), (n,) -> (n, h, w)."""
    cover = stroke * ink[:, None, None]
    return canvas * (1 - cover) + cover


def _hide(canvas: Tensor, centre: Tensor) -> Tensor:
    """Put a grey card over part of the digit in some frames: (n, SIDE, SIDE), (n, 2) -> (n, SIDE, SIDE)."""
    count, place = len(canvas), torch.linspace(-1, 1, SIDE)
    card = centre + _uniform(-0.35, 0.35, count, 2)
    half = _uniform(0.2, 0.4, count, 2)
    inside = [(place[None] - card[:, [axis]]).abs() < half[:, [axis]] for axis in (0, 1)]
    mask = inside[1][:, :, None] & inside[0][:, None, :] & (torch.rand(count) < HIDDEN)[:, None, None]
    return torch.where(mask, _uniform(0, 0.8, count, 1, 1), canvas)


def _render_videos(pictures: Tensor, share: Tensor, digit_image: Tensor, motion: Tensor) -> Tensor:
    """All videos of a split: digit_image (videos,), motion (videos,) -> (videos, FRAMES, SIDE, SIDE) uint8."""
    frames = []
    for image, moved in zip(digit_image.split(BATCH), motion.split(BATCH), strict=True):
        videos = len(image)
        intruders = pictures[share[torch.randint(len(share), (videos, FRAMES))]]
        clock = torch.linspace(-1, 1, FRAMES)
        size = _uniform(0.48, 0.6, videos, 1) + 0.05 * (clock * 3 + _uniform(0, 6, videos, 1)).sin()
        turn = _uniform(-0.15, 0.15, videos, 1) + 0.15 * (clock * 3 + _uniform(0, 6, videos, 1)).sin()
        ink = _uniform(0.75, 1.0, videos, 1).expand(videos, FRAMES)
        frames.append(_render(pictures[image], intruders, _paths(moved), size, turn, ink))
    return torch.cat(frames)


# Features


class Extractor(nn.Module):
    """A small network that knows which digit it sees and where: its last hidden layer is the feature."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * (SIDE // 8) ** 2, FEATURE_SIZE),
            nn.ReLU(),
        )
        self.digit = nn.Linear(FEATURE_SIZE, len(DIGIT_CLASSES))
        self.place = nn.Linear(FEATURE_SIZE, 2)

    def forward(self, frames: Tensor) -> Tensor:
        """frames: (n, SIDE, SIDE) uint8 -> (n, FEATURE_SIZE) float32, none negative"""
        return self.features(frames[:, None].float() / 128 - 1)


def _train_extractor(pictures: Tensor, digits: Tensor, share: Tensor) -> Extractor:
    """Teach the extractor digit and place on single frames of the digits that no video shows."""
    extractor, steps = Extractor(), EXTRACTOR_FRAMES // BATCH
    optimizer = torch.optim.AdamW(extractor.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for _ in range(steps):
        image = share[torch.randint(len(share), (BATCH,))]
        centre = _uniform(-0.65, 0.65, BATCH, 1, 2)
        size, turn, ink = (_uniform(*span, BATCH, 1) for span in ((0.43, 0.65), (-0.3, 0.3), (0.75, 1.0)))
        intruders = pictures[share[torch.randint(len(share), (BATCH, 1))]]
        feats = extractor(_render(pictures[image], intruders, centre, size, turn, ink)[:, 0])
        place = F.mse_loss(extractor.place(feats), centre[:, 0])
        loss = F.cross_entropy(extractor.digit(feats), digits[image]) + PLACE_WEIGHT * place
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return extractor.eval()


@torch.no_grad()
def _extract(extractor: Extractor, frames: Tensor) -> np.ndarray:
    """frames: (videos, FRAMES, SIDE, SIDE) uint8 -> (videos, FRAMES, FEATURE_SIZE) float32"""
    feats = [extractor(part.flatten(0, 1)) for part in frames.split(BATCH)]
    return torch.cat(feats).view(-1, FRAMES, FEATURE_SIZE).numpy()


# Files


def _write_split(folder: Path, split: str, seed: int, feats, frames, digit_image, digit, motion) -> None:
    """One split's features and pictures, and its labels beside them as multi-hot uint8."""

    def fill(file: h5py.File) -> None:
        file.attrs.update(builder="wsch_core.data.demo", builder_version=BUILDER_VERSION, seed=seed)
        file["feats"], file["digit_image"] = feats, digit_image.numpy()
        chunks = (1, *frames.shape[1:])
        file.create_dataset("keyframes", data=frames, chunks=chunks, compression="gzip", compression_opts=1)
        file["ids"] = [f"{split}/{number:04d}" for number in range(len(feats))]

    (folder / f"{split}.h5").write_bytes(hdf5_image(fill))
    labels = {
        "digit": np.eye(len(DIGIT_CLASSES), dtype=np.uint8)[digit],
        "digit_and_motion": np.eye(len(DIGIT_AND_MOTION_CLASSES), dtype=np.uint8)[digit * len(MOTIONS) + motion],
    }
    scipy.io.savemat(folder / f"{split}_labels.mat", labels)
