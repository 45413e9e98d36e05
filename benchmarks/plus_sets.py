"""Data sets on which recipes are compared: generated ones of different character, and parts of real clips.

Generated features are what a network's might be: 128 channels, rectified, a random map of 32 hidden ones. A video moves
from its class's beginning to its end, or through its classes one after the other, on top of a path of its own (slow, and no
part of the class) and of noise that is new in every frame.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import scipy.io

FRAMES, SIZE, HIDDEN = 25, 128, 32
SETTINGS = """
[settings]
encoder_width = 256
decoder_width = 256
centers = 100
pretrain_epochs = 20
epochs = 10
batch_size = 64
"""


@dataclass(frozen=True)
class Character:
    """What a generated set is like; strengths are standard deviations in the hidden channels."""

    title: str
    classes: int
    of_class: float  # strength of what the class's videos share
    of_video: float  # of the video's own path
    of_frame: float  # of the noise in every frame
    modes: int = 1  # a class's videos are of one of so many kinds
    zipf: float = 0.0  # class sizes fall like rank ** -zipf
    most_labels: int = 1  # a video has up to so many, one after the other
    reversed_pairs: bool = False  # each odd class is the one before it, played backwards
    videos: tuple[int, int, int] = (1200, 1000, 250)  # train, database, query


CHOSEN_ON = {
    "noisy": Character(
        "20 classes, strong frame noise, weak classes", 20, 0.55, 0.8, 2.0, videos=(1800, 1200, 300)
    ),
    "long-tail": Character(
        "120 small classes with a long tail", 120, 1.0, 1.0, 0.5, zipf=0.9, videos=(1800, 1200, 300)
    ),
    "several": Character(
        "24 labels, one to three in a video", 24, 0.8, 1.7, 1.5, most_labels=3, videos=(1800, 1200, 300)
    ),
}  # fmt: skip
CONFIRMED_ON = {
    "modes": Character("10 broad classes of 6 kinds of video each", 10, 0.9, 1.2, 1.0, modes=6),
    "order": Character(
        "20 pairs of classes that differ in the order of time alone", 40, 1.0, 1.0, 0.8, reversed_pairs=True
    ),
}  # fmt: skip
GENERATED = CHOSEN_ON | CONFIRMED_ON


def generate(folder: Path, name: str, seed: int = 0) -> None:
    """Write the data set `name` and its definition into `folder`."""
    kind = GENERATED[name]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    to_features = rng.normal(size=(HIDDEN, SIZE)) / np.sqrt(HIDDEN)
    offset = 0.3 * rng.normal(size=SIZE)
    ends = rng.normal(size=(kind.classes, kind.modes, 2, HIDDEN))
    ends *= np.sqrt(HIDDEN) / np.linalg.norm(ends, axis=-1, keepdims=True)
    if kind.reversed_pairs:
        ends[1::2] = ends[::2, :, ::-1]
    splits = {}
    for split, videos in zip(("train", "database", "query"), kind.videos, strict=True):
        labels, classes = _labels(rng, kind, videos)
        hidden = kind.of_class * _shared(rng, kind, ends, classes) + kind.of_video * _own_path(rng, videos)
        hidden += kind.of_frame * rng.normal(size=hidden.shape)
        splits[split] = np.maximum(hidden @ to_features + offset, 0).astype(np.float32), labels
    write(folder, name, kind.title, splits)


def _labels(rng, kind: Character, videos: int) -> tuple[np.ndarray, list[np.ndarray]]:
    share = np.arange(1, kind.classes + 1) ** -kind.zipf
    share /= share.sum()
    counts = rng.integers(1, kind.most_labels + 1, size=videos)
    classes = [rng.choice(kind.classes, size=count, replace=False, p=share) for count in counts]
    labels = np.zeros((videos, kind.classes), np.uint8)
    for video, of_video in enumerate(classes):
        labels[video, of_video] = 1
    return labels, classes


def _shared(rng, kind: Character, ends: np.ndarray, classes: list[np.ndarray]) -> np.ndarray:
    """(videos, FRAMES, HIDDEN): what a video has of its class; of several classes, one after the other."""
    shared = np.empty((len(classes), FRAMES, HIDDEN))
    time = np.linspace(0, 1, FRAMES)[:, None]
    for video, of_video in enumerate(classes):
        if kind.most_labels == 1:
            begin, end = ends[of_video[0], rng.integers(kind.modes)]
            shared[video] = (1 - time) * begin + time * end
        else:
            cuts = np.sort(rng.choice(np.arange(4, FRAMES - 3), len(of_video) - 1, replace=False))
            for one, part in zip(of_video, np.split(np.arange(FRAMES), cuts), strict=True):
                shared[video, part] = ends[one, 0, 0]
    return shared


def _own_path(rng, videos: int) -> np.ndarray:
    """(videos, FRAMES, HIDDEN): a constant, and straight lines between four points."""
    points, place = rng.normal(size=(videos, 4, HIDDEN)), np.linspace(0, 3, FRAMES)
    before = np.minimum(place.astype(int), 2)
    share = (place - before)[:, None]
    path = points[:, before] * (1 - share) + points[:, before + 1] * share
    return np.sqrt(0.5) * (rng.normal(size=(videos, 1, HIDDEN)) + path)


def write(folder: Path, name: str, title: str, splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Files and definition of a data set: for each split its features (videos, frames, D) and labels (videos, classes)."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    features, labels = splits["train"]
    lines = [f'title = "{title}"', f"frames = {features.shape[1]}", f"feature_size = {features.shape[2]}"]
    lines += [f"classes = {labels.shape[1]}"]
    for split, (features, labels) in splits.items():
        with h5py.File(folder / name / f"{split}.h5", "w") as file:
            file["feats"] = features
        scipy.io.savemat(folder / name / f"{split}.mat", {"labels": labels})
        lines += [f"[{split}]", f'features = ["{split}.h5"]', f'labels = ["{split}.mat"]']
    (folder / f"{name}.toml").write_text("\n".join(lines) + "\n" + SETTINGS)


PARTS = {"train": (0.0, 0.5, 60), "database": (0.5, 0.8, 40), "query": (0.8, 1.0, 10)}  # of a clip's time; of each clip
LEAST_FRAMES = 40  # of a clip, so that its parts differ
STEPS = 250  # a clip is read at so many times


def cut_clips(folder: Path, clips: Path) -> None:
    """Write the data set "clips": parts of real clips, whose class is the clip they are cut from.

    Features are the demo set's network's. A part is 25 frames, evenly over a random span of the train, database or query
    part of the clip's time. Clips whose names agree up to the first "_" are one class: copies of a scene.
    """
    from wsch_core.videos.decode import EXTENSIONS, read_clip
    from wsch_core.videos.extractors.extract import load_extractor

    extractor, rng = load_extractor("demo", "cpu"), np.random.default_rng(0)
    found: dict[str, list[np.ndarray]] = {}
    for path in sorted(path for path in clips.rglob("*") if path.suffix.lower() in EXTENSIONS):
        try:
            clip = read_clip(path, STEPS, extractor.prepare)
        except (OSError, ValueError) as error:
            print(f"left out: {error}")
            continue
        if STEPS - clip.repeated >= LEAST_FRAMES:
            found.setdefault(path.stem.split("_")[0], []).append(extractor(np.stack(clip.pictures)))
    if len(found) < 2:
        raise ValueError(
            f"{clips} holds {len(found)} clips of at least {LEAST_FRAMES} frames: give a folder with several."
        )
    splits = {}
    for split, (begin, end, count) in PARTS.items():
        features, classes = [], []
        for number, copies in enumerate(found.values()):
            for _ in range(count):
                span = rng.uniform(0.4, 1.0) * (end - begin)
                first = begin + rng.uniform(0, end - begin - span)
                steps = ((first + span * np.linspace(0, 1, FRAMES, endpoint=False)) * STEPS).astype(int)
                features.append(copies[rng.integers(len(copies))][steps])
                classes.append(number)
        splits[split] = np.stack(features), np.eye(len(found), dtype=np.uint8)[classes]
    write(folder, "clips", f"parts of {len(found)} real clips", splits)
