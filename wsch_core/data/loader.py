"""Batches of visible frames on the computing device, read ahead where they have to be fetched."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from .disk import DiskFeatures
from .features import Features

AHEAD = 2  # batches being read while one is computed


def visible_batches(
    features: Features | DiskFeatures, order: Tensor, views: Tensor, batch_size: int, device: torch.device, sums: bool
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The visible frames of all videos, batch by batch: (2, batch, visible, D), and their direction sums (batch, D).

    order: (videos,), the order in which videos are taken; views: (2, videos, visible), frame numbers in that order
    sums: whether direction sums are wanted; without, None stands in their place

    Where the features are held changes nothing of what is yielded, nor its order.
    """
    order, views = order.to(features.device), views.to(features.device)

    def read(place: int) -> tuple[Tensor, Tensor | None]:
        videos, seen = order[place : place + batch_size], views[:, place : place + batch_size]
        visible = features.gather(videos.repeat(2), seen.flatten(0, 1)).unflatten(0, (2, -1))
        return visible, features.gather_sums(videos) if sums else None

    places = range(0, len(order), batch_size)
    if isinstance(features, Features) and features.device == device:
        yield from map(read, places)
    else:
        yield from _ahead(read, places, device)


def _ahead(read, places: range, device: torch.device) -> Iterator[tuple[Tensor, Tensor | None]]:
    """What `read` gives for each place, moved to the device, while a thread reads on."""

    def fetch(place: int) -> tuple[Tensor | None, ...]:
        # From pinned memory the copy to a GPU runs beside its computing.
        return tuple(part.pin_memory() if part is not None and device.type == "cuda" else part for part in read(place))

    thread = ThreadPoolExecutor(1)
    try:
        waiting = deque(thread.submit(fetch, place) for place in places[:AHEAD])
        for place in range(len(places)):
            fetched = waiting.popleft().result()
            if place + AHEAD < len(places):
                waiting.append(thread.submit(fetch, places[place + AHEAD]))
            yield tuple(part if part is None else part.to(device, non_blocking=True) for part in fetched)
    finally:
        thread.shutdown(cancel_futures=True)
