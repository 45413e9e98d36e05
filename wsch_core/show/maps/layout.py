"""From codes or features to a layout in the plane: exact neighbours from our own search, then UMAP.

Codes tie massively, and which of many equally near videos become neighbours would else be a matter of their place in the
file: here equal distances are drawn by lot, with the seed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ...retrieval.search import cosine_chunks, distance_chunks
from ...storage.threads import torch_threads_kept
from ...training.device import resolve_device

TURNS = 30  # of the search for the two directions in which the features vary most


def exact_neighbours(values: Tensor, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Each video itself and its k nearest others; among equal Hamming distances those that the lot falls on.

    values: (n, bits) int8 codes, or (n, size) float32 features, compared by cosine
    returns: indices (n, 1 + k) int32 and distances (n, 1 + k) float32, each row beginning with the video itself
    """
    lots = torch.Generator().manual_seed(seed)
    indices, distances = (torch.empty(len(values), k + 1, dtype=kind) for kind in (torch.int32, torch.float32))
    for rows, chunk in distance_rows(values, np.arange(len(values))):
        if values.dtype == torch.int8:  # whole numbers, which half a unit at most cannot reorder
            chunk += torch.rand(chunk.shape, generator=lots) / 2
        chunk[torch.arange(len(chunk)), torch.arange(rows.start, rows.stop)] = -1
        nearest = chunk.topk(k + 1, largest=False)
        found = nearest.values.floor() if values.dtype == torch.int8 else nearest.values
        indices[rows], distances[rows] = nearest.indices.int(), found.clamp(min=0)
    return indices.numpy(), distances.numpy()


def distance_rows(values: Tensor, rows: np.ndarray) -> Iterator[tuple[slice, Tensor]]:
    """Distances of chosen videos to all: slices of `rows`, and (chunk, n) float32 on the CPU, free to be overwritten."""
    if values.dtype == torch.int8:
        for part, chunk in distance_chunks(values[rows], values, torch.full((len(rows),), -1)):
            yield part, chunk.float()
        return
    values = values.to(resolve_device("auto"))
    for part, chunk in cosine_chunks(values[rows], values, torch.full((len(rows),), -1, device=values.device)):
        yield part, chunk.neg_().add_(1).cpu()


@torch_threads_kept()
def lay_out(
    values: Tensor, neighbours: np.ndarray, distances: np.ndarray, pooled: Tensor, min_dist: float, seed: int
) -> np.ndarray:
    """UMAP's coordinates, (n, 2) float32.

    neighbours, distances: from `exact_neighbours`; pooled: (n, feature size), from which points start
    """
    with warnings.catch_warnings():
        # umap tells everyone without TensorFlow, on import, that one class of it is not there.
        warnings.filterwarnings("ignore", message="Tensorflow not installed", category=ImportWarning)
        from umap.umap_ import find_ab_params, fuzzy_simplicial_set, simplicial_set_embedding

    # UMAP's two steps, called one by one: its class would warn of what it cannot do with given neighbours.
    lots = np.random.RandomState(seed % 2**32)
    graph, _, _ = fuzzy_simplicial_set(
        values, neighbours.shape[1], lots, "euclidean", knn_indices=neighbours, knn_dists=distances
    )
    spread = 1.0  # UMAP's own: the unit of min_dist
    a, b = find_ab_params(spread, min_dist)
    coordinates, _ = simplicial_set_embedding(
        None, graph, n_components=2, initial_alpha=1.0, a=a, b=b, gamma=1.0, negative_sample_rate=5, n_epochs=None,
        init=_start(pooled, lots), random_state=lots, metric="euclidean", metric_kwds={}, densmap=False,
        densmap_kwds={}, output_dens=False,
    )  # fmt: skip
    return coordinates.astype(np.float32)


def _start(pooled: Tensor, lots: np.random.RandomState) -> np.ndarray:
    """Where the points of every map begin, (n, 2): the first two principal components of the mean features.

    One start for all makes maps of different codes comparable. It puts nothing on a map that the codes do not hold: from
    here random codes end as the same even cloud, with neighbours no better than by chance (`tests/test_maps.py`).
    """
    values = torch.nn.functional.normalize(pooled)
    values = values - values.mean(dim=0)
    directions = torch.from_numpy(lots.normal(size=(values.shape[1], 2))).float()
    for _ in range(TURNS):  # subspace iteration: features can be 4,096 wide, and a start need not be exact
        directions, _ = torch.linalg.qr(values.T @ (values @ directions))
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    start = (values @ (directions * largest.sign())).numpy()  # an eigenvector has no sign of its own
    if start.shape[1] == 1:  # features of size 1
        start = np.hstack([start, np.zeros_like(start)])
    start = start * 10 / max(np.abs(start).max(), 1e-12)
    return (start + lots.normal(scale=1e-3, size=start.shape)).astype(np.float32)  # equal videos part
