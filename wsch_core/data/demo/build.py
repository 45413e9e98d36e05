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
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import torch

from ...storage.hdf5 import hdf5_image, open_hdf5, read_attribute
from ...storage.words import one_line
from .frames import DIGIT_CLASSES, FRAMES, MOTIONS, Draws, deal, draw_videos, load_digits
from .network import FEATURE_SIZE, load_network, scaled

BUILDER_VERSION = 2  # raise it with every change that alters a pixel or a feature
DIGIT_AND_MOTION_CLASSES = tuple(f"{digit} {motion}" for digit in DIGIT_CLASSES for motion in MOTIONS)

SPLITS = ("train", "database", "query")
PER_CLASS = {"train": 40, "database": 20, "query": 5}  # videos of each digit and motion: 2400, 1200 and 300 in all
BATCH = 100  # frames that the network sees at a time
SPACE = "110 MB"
STEP = 2**-12  # features are multiples of it


def build_demo(folder: Path, report: Callable[[str], None] = print) -> None:
    """Make the demo set in `folder`, which appears only when complete; a complete one is left as it is.

    `folder` then holds, for train, database and query, `{split}.h5` (feats, keyframes, ids, digit_image) and
    `{split}_labels.mat` (digit, digit_and_motion). It is the same on every machine. Raises OSError for a folder that holds
    anything else, or that cannot be written.
    """
    folder = Path(folder)
    if _refuse_or_complete(folder):
        return
    scratch = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    try:
        scratch.mkdir(parents=True)
        report(f"Making the demo set in {folder}: moving handwritten digits, about 20 s, once.")
        started = time.perf_counter()
        _write_all(scratch)
        if _move_into_place(scratch, folder):
            report(f"The demo set is ready after {time.perf_counter() - started:.0f} s.")
    except OSError as error:
        raise OSError(
            f"Cannot make the demo set in {folder} ({error.strerror or error}): set WSCH_DATA to a writable folder with "
            f"{SPACE} free."
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_complete(folder: Path) -> bool:
    return all((folder / f"{split}{ending}").is_file() for split in SPLITS for ending in (".h5", "_labels.mat"))


def _refuse_or_complete(folder: Path) -> bool:
    """True where the set is already there; a folder that holds something else is refused before any work is done."""
    if _is_complete(folder):
        with open_hdf5(folder / "train.h5") as file:
            version = read_attribute(file, "builder_version")
        if not np.array_equal(version, BUILDER_VERSION):
            raise OSError(
                f"{folder} holds version {one_line(version)} of the demo set, and this is version {BUILDER_VERSION}, with "
                "other videos: remove the folder, and it is made anew."
            )
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


def _write_all(folder: Path) -> None:
    """Draw, describe and write each split."""
    for split in SPLITS:
        frames, digit_image, digit, motion = make_videos(split)
        _write_split(folder, split, extract(frames), frames, digit_image, digit, motion)


def make_videos(split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Frames of a split (videos, FRAMES, SIDE, SIDE) uint8; digit image, digit and motion of each, (videos,)."""
    pictures, digits = load_digits()
    share, draws = deal(digits, Draws(0, 0))[split], Draws(0, 1 + SPLITS.index(split))
    digit_image, motion = _plan(digits, share, PER_CLASS[split], draws)
    return draw_videos(draws, pictures, share, digit_image, motion), digit_image, digits[digit_image], motion


def _plan(digits: np.ndarray, share: np.ndarray, per_class: int, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """digit_image, motion: (videos,) each; every digit with every motion `per_class` times, in mixed order."""
    images, motions = [], []
    count = per_class * len(MOTIONS)
    for digit in range(len(DIGIT_CLASSES)):
        mine = share[digits[share] == digit]
        # Every image in turn, so that none is shown much more often than another.
        rounds = [mine[draws.order(len(mine))] for _ in range(math.ceil(count / len(mine)))]
        images.append(np.concatenate(rounds)[:count])
        motions.append(np.arange(count) % len(MOTIONS))
    order = draws.order(count * len(DIGIT_CLASSES))
    return np.concatenate(images)[order], np.concatenate(motions)[order]


@torch.inference_mode()
def extract(frames: np.ndarray) -> np.ndarray:
    """Features of frames: (videos, FRAMES, SIDE, SIDE) uint8 -> (videos, FRAMES, FEATURE_SIZE) float32.

    Sums differ between machines by less than 1e-12 in double precision, and rounding then leaves the same features but
    for one in many millions.
    """
    network = load_network().double()
    parts = torch.from_numpy(frames).flatten(0, 1).split(BATCH)
    feats = torch.cat([network(scaled(part).double()) for part in parts])
    return ((feats / STEP).round() * STEP).float().view(-1, FRAMES, FEATURE_SIZE).numpy()


# Files


def _write_split(folder: Path, split: str, feats, frames, digit_image, digit, motion) -> None:
    """One split's features and pictures, and its labels beside them as multi-hot uint8."""

    def fill(file: h5py.File) -> None:
        file.attrs.update(builder="wsch_core.data.demo", builder_version=BUILDER_VERSION)
        file["feats"], file["digit_image"] = feats, digit_image
        chunks = (1, *frames.shape[1:])
        file.create_dataset("keyframes", data=frames, chunks=chunks, compression="gzip", compression_opts=1)
        file["ids"] = [f"{split}/{number:04d}" for number in range(len(feats))]

    (folder / f"{split}.h5").write_bytes(hdf5_image(fill))
    labels = {
        "digit": np.eye(len(DIGIT_CLASSES), dtype=np.uint8)[digit],
        "digit_and_motion": np.eye(len(DIGIT_AND_MOTION_CLASSES), dtype=np.uint8)[digit * len(MOTIONS) + motion],
    }
    scipy.io.savemat(folder / f"{split}_labels.mat", labels)
