"""What was found in a data set's files, as tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from pandas.io.formats.style import Styler

from ...data import Split
from ...data.check import DatasetCheck
from ...data.holding import gigabytes
from ..frames import Pictures, frame_strips
from ..style import BLUE, WIDTH, Picture, empty, picture, style
from ..tables import plain

if TYPE_CHECKING:
    from ...videos.folder import LeftOut

MOST_LABELS = 12  # more labels on a video are drawn together


def videos_table(check: DatasetCheck) -> Styler:
    """A row per split: its size and how it is held, labels, and videos that are not as they should be."""
    rows = [
        {
            "split": found.name,
            "videos": f"{found.videos:,}",
            "size": gigabytes(found.nbytes),
            "held": found.hold,
            "looked at": f"{found.looked_at:,}",
            "NaN or infinite": f"{found.not_finite:,}",
            "all zero": f"{found.zero:,}",
            "with zero frames": f"{found.with_zero_frames:,}",
            "with repeated frames": f"{found.with_repeated_frames:,}",
            "copies": f"{found.duplicates:,}",
            "without label": "no labels" if found.unlabelled is None else f"{found.unlabelled:,}",
        }
        for found in check.splits.values()
    ]
    return plain(pd.DataFrame(rows), left=["split", "held"])


def left_out_table(left_out: Sequence[LeftOut]) -> Styler:
    """A row per file that an import has left out, and the reason."""
    rows = [{"file": item.id, "left out, because": item.reason} for item in left_out]
    return plain(pd.DataFrame(rows, columns=["file", "left out, because"]), left=["file", "left out, because"])


def features_table(check: DatasetCheck) -> Styler:
    """A row per split: the range, mean and spread of its features, and how many are 0."""
    rows = [
        {
            "split": found.name,
            "smallest": f"{found.minimum:.3g}",
            "mean": f"{found.mean:.3g}",
            "standard deviation": f"{found.deviation:.3g}",
            "largest": f"{found.maximum:.3g}",
            "share of zeros": f"{found.zero_share:.0%}",
        }
        for found in check.splits.values()
    ]
    return plain(pd.DataFrame(rows), left=["split"])


def labels_per_video(check: DatasetCheck) -> Picture:
    """How many labels videos have, a panel per labelled split."""
    counted = {
        name: found.labels_per_video for name, found in check.splits.items() if found.labels_per_video is not None
    }
    if not counted:
        return empty("No labelled videos.")
    most = min(max(int(counts.max(initial=1)) for counts in counted.values()), MOST_LABELS)
    with style():
        figure = picture(WIDTH, 2.3, layout="constrained")
        panels = figure.subplots(1, len(counted), squeeze=False)[0]
        for axes, (name, counts) in zip(panels, counted.items(), strict=True):
            kept = np.minimum(counts, most)
            sns.histplot(kept, ax=axes, discrete=True, binrange=(0, most), shrink=0.7, color=BLUE, alpha=1, lw=0)
            axes.bar_label(axes.containers[0], fmt=lambda n: f"{n:,.0f}" if n else "", padding=2, fontsize=8)
            axes.margins(y=0.16)
            names = [str(count) for count in range(most + 1)]
            axes.set_xticks(range(most + 1), [*names[:-1], f"{most}+" if counts.max(initial=0) > most else names[-1]])
            axes.set(title=name, xlabel="labels of a video", ylabel="videos")
    return figure


def colour_strips(split: Split, videos: int = 5) -> Picture:
    """Some videos as their features show them: each frame a colour, made of three principal components of the features."""
    chosen = np.linspace(0, len(split) - 1, min(videos, len(split))).astype(int).tolist()
    colours = Pictures(split).colours(split.features.read(chosen))
    return frame_strips(colours, [split.ids[v] for v in chosen], [split.label_names(v) for v in chosen])
