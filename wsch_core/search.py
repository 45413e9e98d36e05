"""Exact Hamming search by brute force.

For codes of -1 and +1 the Hamming distance is (bits - inner product) / 2, so all distances come from one matrix product,
exact in float32. Work goes through the queries in chunks of about `WORK_SPACE_BYTES`, so memory does not grow with the
number of queries. Everything runs on the device that holds the codes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from wsch_core.codes import as_codes

WORK_SPACE_BYTES = 32 * 2**20


def hamming_distances(queries, database) -> Tensor:
    """All distances at once.

    queries: (queries, bits) of -1 and +1; database: (items, bits) of -1 and +1
    returns: (queries, items) int16 in [0, bits]
    """
    queries, database = as_code_pair(queries, database)
    return _distances(queries.float(), database.float().T).to(torch.int16)


def nearest(queries, database, k: int, exclude=None) -> tuple[Tensor, Tensor]:
    """The k nearest database items of every query, by distance, and by database index among equal distances.

    queries: (queries, bits) of -1 and +1; database: (items, bits) of -1 and +1
    exclude: (queries,) int64, the database index to leave out for each query, -1 for none
    returns: indices (queries, k) int64 and distances (queries, k) int16, nearest first
    Raises ValueError if k is less than 1 or more than a query can be given.
    """
    queries, database = as_code_pair(queries, database)
    excluded = None if exclude is None else _as_excluded(exclude, len(queries), len(database)).to(queries.device)
    available = len(database) - int(excluded is not None and bool((excluded >= 0).any()))
    if not 1 <= k <= available:
        raise ValueError(
            f"found k = {k}, expected 1 to {available}, the number of database items every query can be given"
        )

    indices = torch.empty(len(queries), k, dtype=torch.int64, device=queries.device)
    distances = torch.empty(len(queries), k, dtype=torch.int16, device=queries.device)
    for rows, chunk in distance_chunks(queries, database, excluded):
        indices[rows], distances[rows] = first_neighbours_in_place(chunk, k)
    return indices, distances


def as_code_pair(queries, database) -> tuple[Tensor, Tensor]:
    """Both sets of codes as int8, checked to have the same number of bits."""
    queries, database = as_codes(queries), as_codes(database)
    if queries.shape[1] != database.shape[1]:
        raise ValueError(
            f"found queries of {queries.shape[1]} bits and a database of {database.shape[1]} bits, expected the same "
            "number; encode both with the same model"
        )
    return queries, database


def query_chunks(queries: int, items: int, bytes_per_pair: int) -> Iterator[slice]:
    """Consecutive slices of the queries whose pairs with all items fit in `WORK_SPACE_BYTES`, at least one query each."""
    rows = max(1, WORK_SPACE_BYTES // (max(items, 1) * bytes_per_pair))
    for start in range(0, queries, rows):
        yield slice(start, min(start + rows, queries))


def distance_chunks(
    queries: Tensor, database: Tensor, excluded: Tensor | None = None
) -> Iterator[tuple[slice, Tensor]]:
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
    # All chunks share these two buffers: fresh memory of this size costs more time, in page faults, than the product.
    products = torch.empty(largest, items, device=queries.device)
    distances = torch.empty(largest, items, dtype=torch.int64, device=queries.device)
    for rows in chunks:
        chunk = queries[rows].float()
        in_chunk = distances[: len(chunk)]
        in_chunk.copy_(_distances(chunk, columns, out=products[: len(chunk)]))
        if excluded is not None:
            row = (excluded[rows] >= 0).nonzero()[:, 0]
            in_chunk[row, excluded[rows][row]] = bits + 1
        yield rows, in_chunk


def first_neighbours_in_place(distances: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest entries of every row, equal ones by column; overwrites `distances`.

    distances: (rows, items) int64
    returns: columns (rows, k) int64 and their distances (rows, k) int64
    """
    items = distances.shape[1]
    # One number that sorts by distance first and by column second, and never ties.
    keys = distances.mul_(items).add_(torch.arange(items, device=distances.device))
    first = keys.topk(k, largest=False, sorted=True).values
    return first % items, first // items


def _distances(queries: Tensor, columns: Tensor, out: Tensor | None = None) -> Tensor:
    half_of_the_bits = columns.new_full((1,), columns.shape[0] / 2)
    return torch.addmm(half_of_the_bits, queries, columns, alpha=-0.5, out=out)


def _as_excluded(exclude, queries: int, items: int) -> Tensor:
    exclude = torch.as_tensor(exclude)
    if exclude.shape != (queries,) or exclude.dtype != torch.int64:
        raise ValueError(
            f"found exclude of shape {tuple(exclude.shape)} and type {exclude.dtype}, expected ({queries},) of "
            "torch.int64: one database index for each query, -1 for none"
        )
    if queries and not -1 <= int(exclude.min()) <= int(exclude.max()) < items:
        raise ValueError(
            f"found indices from {int(exclude.min())} to {int(exclude.max())} in exclude, expected -1 (none) to {items - 1}"
        )
    return exclude
