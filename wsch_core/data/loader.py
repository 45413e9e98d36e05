"""Batches of visible frames on the computing device, read ahead where they have to be fetched."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from ..methods.wsch.views import hidden_frames
from .disk import DiskFeatures
from .features import Features

AHEAD = 2  # batches being read while one is computed


class Batch(NamedTuple):
    """What a step sees of some videos, in V views; what was not wanted is None."""

    visible: Tensor  # (V, batch, visible, D)
    seen: Tensor  # (V, batch, visible) their frame numbers
    sums: Tensor | None = None  # (batch, D), the sum of the directions of all frames of each video
    unseen: Tensor | None = None  # (V, batch, hidden) the other frame numbers
    hidden: Tensor | None = None  # (V, batch, hidden, D)


def visible_batches(
    features: Features | DiskFeatures,
    order: Tensor,
    views: Tensor,
    batch_size: int,
    device: torch.device,
    wanted: str = "",
) -> Iterator[Batch]:
    """The visible frames of all videos, batch by batch, on the computing device.

    order: (videos,), the order in which videos are taken; views: (V, videos, visible), frame numbers in that order
    wanted: "sums" or "hidden", to reconstruct hidden frames from their directions' sum or one by one; "" for neither

    Where the features are held changes nothing of what is yielded, nor its order.
    """
    order, views = order.to(features.device), views.to(features.device)

    def frames(videos: Tensor, chosen: Tensor) -> Tensor:
        return features.gather(videos.repeat(len(views)), chosen.flatten(0, 1)).unflatten(0, (len(views), -1))

    def read(place: int) -> Batch:
        videos, seen = order[place : place + batch_size], views[:, place : place + batch_size]
        batch = Batch(frames(videos, seen), seen)
        if wanted == "sums":
            return batch._replace(sums=features.gather_sums(videos))
        if wanted == "hidden":
            unseen = hidden_frames(seen, features.frames)
            return batch._replace(unseen=unseen, hidden=frames(videos, unseen))
        return batch

    places = range(0, len(order), batch_size)
    if isinstance(features, Features) and features.device == device:
        yield from map(read, places)
    else:
        yield from _ahead(read, places, device)


def _ahead(read: Callable[[int], Batch], places: range, device: torch.device) -> Iterator[Batch]:
    """What `read` gives for each place, moved to the device, while a thread reads on."""

    def fetch(place: int) -> Batch:
        # From pinned memory the copy to a GPU runs beside its computing.
        pinned = (part.pin_memory() if part is not None and device.type == "cuda" else part for part in read(place))
        return Batch(*pinned)

    thread = ThreadPoolExecutor(1)
    try:
        waiting = deque(thread.submit(fetch, place) for place in places[:AHEAD])
        for place in range(len(places)):
            fetched = waiting.popleft().result()
            if place + AHEAD < len(places):
                waiting.append(thread.submit(fetch, places[place + AHEAD]))
            yield Batch(*(part if part is None else part.to(device, non_blocking=True) for part in fetched))
    finally:
        thread.shutdown(cancel_futures=True)
