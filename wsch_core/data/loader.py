"""What a pass sees of the videos: batches of frames on the computing device, read ahead where they have to be fetched."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from .disk import DiskFeatures
from .features import Features

AHEAD = 2  # batches being read while one is computed


class Drawn(NamedTuple):
    """What a pass looks at: n examples in their order, each some frames of some videos, in V views."""

    videos: (
        Tensor  # (V, n) rows of the training set, or (1, n) for all views; (V, n, visible): each frame of its own video
    )
    frames: Tensor  # (V, n, visible) frame numbers
    wanted: str = ""  # "sums", "hidden" or both: the sum of all frames' directions, the frames that are not seen
    more: Mapping[str, Tensor] = MappingProxyType({})  # what else was drawn for each example: by name, (n, ...)


class Batch(NamedTuple):
    """What a step sees of some examples; what was not wanted is None."""

    videos: Tensor  # as in `Drawn`
    visible: Tensor  # (V, batch, visible, D)
    seen: Tensor  # (V, batch, visible) their frame numbers
    sums: Tensor | None = None  # (V or 1, batch, D), the sum of the directions of all frames of each video
    unseen: Tensor | None = None  # (V, batch, hidden) the other frame numbers
    hidden: Tensor | None = None  # (V, batch, hidden, D)
    more: Mapping[str, Tensor] = MappingProxyType({})  # by name, (batch, ...)


def visible_batches(
    features: Features | DiskFeatures, drawn: Drawn, batch_size: int, device: torch.device
) -> Iterator[Batch]:
    """The frames that were drawn, batch by batch, on the computing device.

    Where the features are held changes nothing of what is yielded, nor its order.
    """
    all_videos, all_frames = drawn.videos.to(features.device), drawn.frames.to(features.device)
    more = {name: value.to(features.device) for name, value in drawn.more.items()}
    views = len(all_frames)

    def frames(videos: Tensor, chosen: Tensor) -> Tensor:
        if videos.ndim == 3:  # frame by frame
            return features.gather(videos.flatten(), chosen.reshape(-1, 1)).view(*chosen.shape, -1)
        return features.gather(videos.expand(views, -1).flatten(), chosen.flatten(0, 1)).unflatten(0, (views, -1))

    def read(place: int) -> Batch:
        here = slice(place, place + batch_size)
        videos, seen = all_videos[:, here], all_frames[:, here]
        batch = Batch(videos, frames(videos, seen), seen, more={name: value[here] for name, value in more.items()})
        if "sums" in drawn.wanted:
            batch = batch._replace(sums=features.gather_sums(videos.flatten()).unflatten(0, videos.shape))
        if "hidden" in drawn.wanted:
            unseen = hidden_frames(seen, features.frames)
            batch = batch._replace(unseen=unseen, hidden=frames(videos, unseen))
        return batch

    places = range(0, all_frames.shape[1], batch_size)
    if isinstance(features, Features) and features.device == device:
        yield from map(read, places)
    else:
        yield from _ahead(read, places, device)


def _ahead(read: Callable[[int], Batch], places: range, device: torch.device) -> Iterator[Batch]:
    """What `read` gives for each place, moved to the device, while a thread reads on."""

    def fetch(place: int) -> Batch:
        # From pinned memory the copy to a GPU runs beside its computing.
        batch = read(place)
        return _mapped(batch, Tensor.pin_memory) if device.type == "cuda" else batch

    thread = ThreadPoolExecutor(1)
    try:
        waiting = deque(thread.submit(fetch, place) for place in places[:AHEAD])
        for place in range(len(places)):
            fetched = waiting.popleft().result()
            if place + AHEAD < len(places):
                waiting.append(thread.submit(fetch, places[place + AHEAD]))
            yield _mapped(fetched, lambda part: part.to(device, non_blocking=True))
    finally:
        thread.shutdown(cancel_futures=True)


def _mapped(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """A batch of which every tensor is changed."""
    parts = {name: None if part is None else change(part) for name, part in batch._asdict().items() if name != "more"}
    return Batch(**parts, more={name: change(part) for name, part in batch.more.items()})


def hidden_frames(views: Tensor, frames: int) -> Tensor:
    """The frames that views do not show: (..., visible) frame numbers -> (..., frames - visible), ascending."""
    shows = torch.zeros(*views.shape[:-1], frames, dtype=torch.int8, device=views.device).scatter_(-1, views, 1)
    return shows.argsort(dim=-1, stable=True)[..., : frames - views.shape[-1]]
