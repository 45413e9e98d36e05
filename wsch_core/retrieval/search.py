"""Exact search by brute force: Hamming distance for codes, cosine similarity for features.

On the CPU, the nearest items are found over packed codes by faiss. Elsewhere, and where all distances are wanted, they come
from one matrix product, exact in float32: for codes of -1 and +1 the Hamming distance is (bits - inner product) / 2. Work
goes through the queries in chunks of about `WORK_SPACE_BYTES`, so memory does not grow with the number of queries.
Everything runs on the device that holds the codes or features.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .codes import as_codes, as_tensor, pack_checked

WORK_SPACE_BYTES = 32 * 2**20
MANY_TIMES = 2000


def hamming_distances(queries, database) -> Tensor:
    """All distances at once.

    queries: (queries, bits) of -1 and +1; database: (items, bits) of -1 and +1
    returns: (queries, items) int16 in [0, bits]
    """
    queries, database = as_code_pair(queries, database)
    return _distances(queries.float(), database.float().T).to(torch.int16)


def nearest(queries, database, k: int, exclude=None) -> tuple[Tensor, Tensor]:
    """The k nearest database items of every query, by distance, and by database index among equal distances.

    queries: (queries, bits) of -1 and +1; database: (items, bits) of -1 and +1, on the same device
    exclude: (queries,) int64, the database index to leave out for each query, -1 for none; see `positions_by_id`
    returns: indices (queries, k) int64 and distances (queries, k) int16, nearest first
    Raises ValueError if k is less than 1, or more than the items that every query can be given.
    """
    return Index(database).nearest(queries, k, exclude)


def nearest_others(queries: Tensor, database: Tensor, most: int, own: np.ndarray) -> np.ndarray:
    """(queries, most, or as many as the database holds) database indices, nearest first; a query's own entry, if it is
    left out, comes behind all others, where it is not relevant."""
    depth = min(most, len(database))
    neighbours = np.repeat(own[:, None], depth, axis=1)
    for rows, k in ((own < 0, depth), (own >= 0, min(depth, len(database) - 1))):
        if k and rows.any():
            found, _ = nearest(queries[torch.from_numpy(rows).to(queries.device)], database, k, own[rows])
            neighbours[rows, :k] = found.cpu().numpy()
    return neighbours


class Index:
    """A database of codes, (items, bits) of -1 and +1, checked and packed once and searched as often as wanted."""

    def __init__(self, database):
        self.codes = as_codes(database)
        self.packed = None
        if self.codes.device.type == "cpu":
            import faiss  # only here: most of the core does without

            packed = pack_checked(self.codes).numpy()
            self.packed = faiss.IndexBinaryFlat(8 * packed.shape[1])
            self.packed.add(packed)

    def nearest(self, queries, k: int, exclude=None) -> tuple[Tensor, Tensor]:
        """As the function `nearest`."""
        queries, database = as_codes(queries), self.codes
        _check_bits(queries, database)
        excluded = _as_excluded(exclude, len(queries), len(database)).to(queries.device)
        available = len(database) - int((excluded >= 0).any())
        if not 1 <= k <= available:
            raise ValueError(
                f"found k = {k}, expected 1 to {available}, the number of database items that every query can be given; "
                "ask for fewer neighbours"
            )
        if self.packed:
            return self._nearest_packed(queries, k, excluded)
        indices = torch.empty(len(queries), k, dtype=torch.int64, device=queries.device)
        distances = torch.empty(len(queries), k, dtype=torch.int16, device=queries.device)
        for rows, chunk in distance_chunks(queries, database, excluded):
            indices[rows], distances[rows] = nearest_in_place(chunk, k)
        return indices, distances

    def _nearest_packed(self, queries: Tensor, k: int, excluded: Tensor) -> tuple[Tensor, Tensor]:
        """By faiss, which counts differing bits where a matrix product would multiply them."""
        one_more = min(k + int((excluded >= 0).any()), len(self.codes))
        # Both ways keep the first of equally near items, in their order; a heap is faster where few of many are wanted.
        self.packed.use_heap = one_more * MANY_TIMES <= len(self.codes)
        found = self.packed.search(pack_checked(queries).numpy(), one_more)
        distances, indices = map(torch.from_numpy, found)
        # Of one more than asked for, the excluded item goes, or else the last.
        kept = indices != excluded.unsqueeze(1)
        kept &= kept.cumsum(dim=1) <= k
        return indices[kept].view(-1, k), distances[kept].view(-1, k).to(torch.int16)


def positions_by_id(query_ids: Sequence, database_ids: Sequence) -> np.ndarray:
    """Where each query itself stands in the database: the `exclude` of `nearest`.

    returns: (queries,) int64 database index of the item with the query's id, -1 if there is none
    Raises ValueError if an id is in the database twice.
    """
    query_ids, database_ids = (
        ids.tolist() if hasattr(ids, "tolist") else list(ids) for ids in (query_ids, database_ids)
    )
    position = {video: index for index, video in enumerate(database_ids)}
    if len(position) != len(database_ids):
        raise ValueError(
            f"found {len(database_ids)} database ids of which only {len(position)} differ, expected unique ones; "
            "give each video its own id"
        )
    return np.array([position.get(video, -1) for video in query_ids], dtype=np.int64)


def as_code_pair(queries, database) -> tuple[Tensor, Tensor]:
    """Both sets of codes as int8, checked to have the same number of bits."""
    queries, database = as_codes(queries), as_codes(database)
    _check_bits(queries, database)
    return queries, database


def _check_bits(queries: Tensor, database: Tensor) -> None:
    if queries.shape[1] != database.shape[1]:
        raise ValueError(
            f"found queries of {queries.shape[1]} bits and a database of {database.shape[1]} bits, expected the same "
            "number; encode both with the same model"
        )


def query_chunks(queries: int, items: int, bytes_per_pair: int) -> Iterator[slice]:
    """Consecutive slices of the queries whose pairs with all items fit in `WORK_SPACE_BYTES`, one query at least."""
    rows = max(1, WORK_SPACE_BYTES // (max(items, 1) * bytes_per_pair))
    for start in range(0, queries, rows):
        yield slice(start, min(start + rows, queries))


def distance_chunks(queries: Tensor, database: Tensor, excluded: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Distances of one chunk of queries after the other to the whole database.

    queries: (queries, bits) int8; database: (items, bits) int8
    excluded: (queries,) int64 database index that is put at distance bits + 1, behind all others; -1 for none
    yields: rows, a slice of the queries, and distances (rows, items) int64, valid until the next step and free to be
    overwritten
    """
    items, bits = database.shape
    columns = database.float().T
    chunks = list(query_chunks(len(queries), items, bytes_per_pair=12))
    largest = chunks[0].stop if chunks else 0
    # All chunks share these buffers: fresh memory of this size costs more time, in page faults, than the product.
    products = torch.empty(largest, items, device=queries.device)
    distances = torch.empty(largest, items, dtype=torch.int64, device=queries.device)
    for rows in chunks:
        chunk = queries[rows].float()
        in_chunk = distances[: len(chunk)]
        in_chunk.copy_(_distances(chunk, columns, out=products[: len(chunk)]))
        row = (excluded[rows] >= 0).nonzero()[:, 0]
        in_chunk[row, excluded[rows][row]] = bits + 1
        yield rows, in_chunk


def nearest_in_place(distances: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest entries of every row, equal ones by column; overwrites `distances`.

    distances: (rows, items) int64, not negative
    returns: columns (rows, k) int64 and their distances (rows, k) int64
    """
    items = distances.shape[1]
    # One number that sorts by distance first and by column second, and never ties.
    keys = distances.mul_(items).add_(torch.arange(items, device=distances.device))
    first = keys.topk(k, largest=False, sorted=True).values
    return first % items, first // items


def cosine_chunks(queries: Tensor, database: Tensor, excluded: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """What `distance_chunks` is for codes, for real-valued features.

    queries: (queries, size), database: (items, size), finite float32
    excluded: (queries,) int64 database index that is put at similarity -inf; -1 for none
    yields: rows, a slice of the queries, and cosine similarities (rows, items); 0 for an all-zero feature
    """
    if queries.ndim != 2 or database.ndim != 2 or queries.shape[1] != database.shape[1]:
        raise ValueError(
            f"found features of shapes {tuple(queries.shape)} and {tuple(database.shape)}, expected (videos, size) of "
            "one size; pool the frames of each video first"
        )
    query_norms, norms = (torch.linalg.vector_norm(features, dim=1) for features in (queries, database))
    if not (query_norms.isfinite().all() and norms.isfinite().all()):
        raise ValueError("found NaN or infinite features, expected finite ones; repair or drop these videos")
    smallest = torch.finfo(norms.dtype).tiny
    query_norms, norms = query_norms.clamp(min=smallest)[:, None], norms.clamp(min=smallest)
    for rows in query_chunks(len(queries), len(database), bytes_per_pair=12):
        similarities = (queries[rows] / query_norms[rows]) @ database.T / norms
        row = (excluded[rows] >= 0).nonzero()[:, 0]
        similarities[row, excluded[rows][row]] = -torch.inf
        yield rows, similarities


def most_similar(similarities: Tensor, k: int) -> Tensor:
    """Columns (rows, k) int64 of the k highest values of every row, equal ones by column."""
    # topk orders equal values at will, so it only gives the threshold.
    threshold = similarities.topk(k).values[:, -1:]
    row, column = (similarities >= threshold).nonzero(as_tuple=True)
    similarity, row, column = (values.cpu().numpy() for values in (similarities[row, column], row, column))
    order = np.lexsort((column, -similarity, row))
    starts = np.searchsorted(row, np.arange(len(similarities)))
    return torch.from_numpy(column[order][starts[:, None] + np.arange(k)]).to(similarities.device)


def _distances(queries: Tensor, columns: Tensor, out: Tensor | None = None) -> Tensor:
    half_of_the_bits = columns.new_full((1,), columns.shape[0] / 2)
    return torch.addmm(half_of_the_bits, queries, columns, alpha=-0.5, out=out)


def _as_excluded(exclude, queries: int, items: int) -> Tensor:
    exclude = torch.full((queries,), -1) if exclude is None else as_tensor(exclude)
    if exclude.shape != (queries,) or exclude.dtype != torch.int64:
        raise ValueError(
            f"found exclude of shape {tuple(exclude.shape)} and type {exclude.dtype}, expected ({queries},) of "
            "torch.int64: one database index for each query, -1 for none"
        )
    if ((exclude < -1) | (exclude >= items)).any():
        raise ValueError(
            f"found indices from {int(exclude.min())} to {int(exclude.max())} in exclude, expected -1 (none) to "
            f"{items - 1}; give positions in the database, not ids"
        )
    return exclude
