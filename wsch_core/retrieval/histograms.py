"""How many database items lie at each Hamming distance of a query, and how many of them are relevant to it.

All that tie-aware metrics need of a search (see `metrics`). All items have to be looked at, but relevant ones are few: they
are listed by class, so that labels are never compared pair by pair.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .codes import pack_checked
from .search import distance_chunks, query_chunks


def item_histograms(queries: Tensor, database: Tensor, excluded: np.ndarray) -> np.ndarray:
    """How many database items lie at each distance of every query: (queries, bits + 1) int64.

    queries: (queries, bits) int8 of ±1; database: (items, bits) int8 of ±1, on the same device
    excluded: (queries,) int64 database index that is not counted for each query, -1 for none
    """
    if queries.device.type == "cpu":
        return _count_packed(queries, database, excluded)
    bins = queries.shape[1] + 2  # distances 0..bits, and one for the item that is left out
    counts = []
    for _, distances in distance_chunks(queries, database, torch.from_numpy(excluded).to(queries.device)):
        bin_of_pair = distances.add_(torch.arange(len(distances), device=queries.device)[:, None] * bins)
        counts.append(
            torch.bincount(bin_of_pair.view(-1), minlength=len(distances) * bins).view(-1, bins)[:, :-1].cpu()
        )
    return torch.cat(counts).numpy()


def relevant_histograms(
    queries: Tensor, database: Tensor, query_labels, database_labels, excluded: np.ndarray, neighbours: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How many relevant items lie at each distance of every query, and which of its neighbours are relevant.

    query_labels: (queries, classes), database_labels: (items, classes), scipy.sparse of bool
    neighbours: (queries, k) database indices
    returns: (queries, bits + 1) int64 and (queries, k) bool
    """
    bins, items = queries.shape[1] + 1, len(database)
    query_words, words, by_class = as_words(queries), as_words(database), database_labels.T.tocsr()
    counts, found = [], np.empty(neighbours.shape, dtype=bool)
    chunks = list(query_chunks(len(queries), items, bytes_per_pair=12))
    relevant = np.zeros((chunks[0].stop, items), dtype=bool)
    for rows in chunks:
        pairs = (query_labels[rows] @ by_class).tocoo()
        kept = pairs.col != excluded[rows][pairs.row]
        row, item = pairs.row[kept], pairs.col[kept]
        of_chunk = pairs.shape[0]
        distances = _distances(query_words, rows.start + row, words, item)
        counts.append(np.bincount(row * bins + distances, minlength=of_chunk * bins).reshape(-1, bins))
        relevant[row, item] = True
        found[rows] = np.take_along_axis(relevant[:of_chunk], neighbours[rows], axis=1)
        relevant[row, item] = False
    return np.concatenate(counts), found


def as_words(codes: Tensor) -> np.ndarray:
    """Codes (videos, bits) as 64 bits to a word, filled up with zeros: (words, videos) uint64."""
    packed = pack_checked(codes).cpu().numpy()
    padded = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))
    return np.ascontiguousarray(padded.view(np.uint64).T)


def _count_packed(queries: Tensor, database: Tensor, excluded: np.ndarray) -> np.ndarray:
    """`item_histograms` by counting the bits that differ, one query at a time, so that all stays in the CPU's cache."""
    bits, items = queries.shape[1], len(database)
    query_words, words = as_words(queries), as_words(database)
    differing = np.empty(items, dtype=np.uint64)
    # Counted as numbers of 16 bits. Short codes have distances of 8 bits, two of which are counted in one go, which halves
    # the time: the first in the lower byte, the second in the higher one.
    paired = bits < 128
    distances = np.zeros(items + items % 2, dtype=np.uint8 if paired else np.int16)
    values = torch.from_numpy(distances.view(np.int16))
    counts = np.empty((len(queries), bits + 1), dtype=np.int64)
    for row in range(len(queries)):
        for place, word in enumerate(words):
            np.bitwise_xor(word, query_words[place, row], out=differing)
            if place == 0:
                np.bitwise_count(differing, out=distances[:items])
            else:
                distances[:items] += np.bitwise_count(differing)
        if paired:
            both = torch.bincount(values, minlength=256 * (bits + 1)).numpy().reshape(-1, 256)[:, : bits + 1]
            counts[row] = both.sum(axis=0) + both.sum(axis=1)
        else:
            counts[row] = torch.bincount(values, minlength=bits + 1)
    counts[:, 0] -= items % 2  # what filled up the last pair
    own = np.flatnonzero(excluded >= 0)
    counts[own, _distances(query_words, own, words, excluded[own])] -= 1
    return counts


def _distances(query_words: np.ndarray, queries: np.ndarray, words: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Between pairs of words as `as_words` makes them, by number: queries (n,), items (n,) -> (n,) int64."""
    differing = (query[queries] ^ word[items] for query, word in zip(query_words, words, strict=True))
    return sum(np.bitwise_count(bits).astype(np.int64) for bits in differing)
