"""Search over the shards of a corpus: every worker holds a part, and the parts' answers are merged into one.

Exact answers are those of a single index over all codes in the order of their ids: nearest first, and by id among equal
distances. Approximate ones look into some of the lists that k-means has put the codes into.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import faiss
import numpy as np
from dask.distributed import Client, Future
from dask.distributed import TimeoutError as DaskTimeout

from ..experiments.sweep import cluster
from ..storage.words import one_line
from .shards import Corpus, Head, Queries

SECONDS = 600  # until an answer is given up
CODES_PER_LIST = 39  # that k-means needs at least; faiss warns below
MANY_TIMES = 2000  # a heap is faster where few of many are wanted


@dataclass(frozen=True)
class Found:
    """What some queries have found, nearest first."""

    ids: list[list[str]]  # for each query
    distances: np.ndarray  # (queries, k) int
    seconds: float  # for all queries together


@dataclass(frozen=True)
class Lists:
    """How approximate a search is: k-means puts the codes into `lists`, a query looks into the nearest `probes`."""

    lists: int
    probes: int


class Part:
    """Some shards of a corpus in one index, sorted by id; where it is sent elsewhere, its files are read there."""

    def __init__(self, corpus: Corpus, shards: Sequence[Path], approximate: Lists | None = None):
        self._made_of = (corpus, tuple(shards), approximate)
        rows = corpus.rows(shards)
        self.ids = rows.ids
        bits = 8 * corpus.head.width
        if approximate is None:
            self.index = faiss.IndexBinaryFlat(bits)
        else:
            lists = max(1, min(approximate.lists, len(rows) // CODES_PER_LIST))
            self._coarse = faiss.IndexBinaryFlat(bits)  # kept: faiss does not keep it
            self.index = faiss.IndexBinaryIVF(self._coarse, bits, lists)
            self.index.nprobe = approximate.probes
            self.index.train(rows.packed)
        self.index.add(rows.packed)

    def __reduce__(self):
        return Part, self._made_of

    def __len__(self) -> int:
        return len(self.ids)

    def nearest(self, packed: np.ndarray, k: int) -> tuple[list[list[str]], np.ndarray]:
        """Ids and distances of the k nearest of this part, or of all it holds, by distance and id."""
        k = min(k, len(self))
        if isinstance(self.index, faiss.IndexBinaryFlat):
            self.index.use_heap = k * MANY_TIMES <= len(self)
        distances, rows = self.index.search(packed, k)
        while (rows < 0).any():  # the lists looked into hold fewer than k codes
            self.index.nprobe *= 2
            distances, rows = self.index.search(packed, k)
        order = np.lexsort((rows, distances))
        rows, distances = (np.take_along_axis(found, order, axis=1) for found in (rows, distances))
        names = self.ids.take(rows.ravel()).to_pylist()
        return [names[start : start + k] for start in range(0, len(names), k)], distances


class Search:
    """A corpus, ready to be asked; made by `open_search`."""

    def __init__(self, corpus: Corpus, parts: Sequence[Part | Future], videos: int, client: Client | None):
        self.corpus, self.videos, self._parts, self._client = corpus, videos, parts, client

    @property
    def head(self) -> Head:
        return self.corpus.head

    def nearest(self, queries: Queries, k: int) -> Found:
        """The k nearest videos of every query.

        The answer is complete, also where a worker is lost meanwhile: another one reads its shards. Raises ValueError for
        queries of another network and a k beyond the corpus, RuntimeError where no complete answer could be had.
        """
        self.head.check_same(queries.head, "the query", "encode the query with the corpus's run")
        if not 1 <= k <= self.videos:
            raise ValueError(f"k is {k}, but the corpus holds {self.videos:,} videos: ask for 1 to so many.")
        start = time.perf_counter()
        answers = self._ask(queries.packed, k)
        ids, distances = merged(answers, k)
        return Found(ids, distances, time.perf_counter() - start)

    def _ask(self, packed: np.ndarray, k: int) -> list[tuple[list[list[str]], np.ndarray]]:
        if self._client is None:
            return [part.nearest(packed, k) for part in self._parts]
        asked = [self._client.submit(Part.nearest, part, packed, k, pure=False) for part in self._parts]
        return _gathered(self._client, asked)


@contextmanager
def open_search(
    corpus: Corpus, workers: int = 2, scheduler: str = "", approximate: Lists | None = None
) -> Iterator[Search]:
    """Read a corpus into memory and keep it there, ready to be searched, until the block ends.

    workers: processes on this machine that share the shards, or the number of parts on a cluster; 0 searches in this
    process; scheduler: the address of a Dask cluster to use instead, which must see the same files
    approximate: None is exact
    Raises OSError for a damaged shard, ValueError for an id that stands twice, within a shard or in two.
    """
    corpus.check_ids()  # those that stand twice in different parts are seen nowhere else
    shares = [share for share in shares_of(corpus, max(1, workers)) if share]
    if not (workers or scheduler):
        parts = [Part(corpus, share, approximate) for share in shares]
        yield Search(corpus, parts, sum(map(len, parts)), None)
        return
    with cluster(len(shares), scheduler) as client:
        futures = [client.submit(Part, corpus, share, approximate, pure=False) for share in shares]
        videos = sum(_gathered(client, [client.submit(len, part, pure=False) for part in futures]))
        yield Search(corpus, futures, videos, client)


def shares_of(corpus: Corpus, parts: int) -> list[list[Path]]:
    """All shards, in so many shares of nearly as many bytes: the largest first, each to the share that has least."""
    shares: list[list[Path]] = [[] for _ in range(parts)]
    sizes = [0] * parts
    for path in sorted(corpus.shards(), key=lambda path: (-path.stat().st_size, path.name)):
        least = sizes.index(min(sizes))
        shares[least].append(path)
        sizes[least] += path.stat().st_size
    return shares


def merged(answers: Sequence[tuple[list[list[str]], np.ndarray]], k: int) -> tuple[list[list[str]], np.ndarray]:
    """The parts' answers, each by distance and id, as one: the k first of all."""
    ids, distances = [], []
    for query in range(len(answers[0][0])):
        sorted_pairs = [zip(found[query].tolist(), names[query], strict=True) for names, found in answers]
        first = list(islice(heapq.merge(*sorted_pairs), k))
        ids.append([name for _, name in first])
        distances.append([distance for distance, _ in first])
    return ids, np.array(distances, dtype=np.int64)


def recall(found: Found, exact: Found) -> float:
    """The share of an approximate answer that is as near as the exact one; equally near videos count alike."""
    return float((found.distances <= exact.distances[:, -1:]).mean())


def _gathered(client: Client, futures: Sequence[Future]) -> list:
    try:
        return client.gather(futures, asynchronous=False) if _all_done(futures) else []
    except (OSError, ValueError):
        raise  # what a part refuses: a damaged shard, an id that stands twice
    except Exception as error:  # Dask's own, of many kinds: lost workers, a scheduler that has gone
        raise RuntimeError(
            f"the search found no complete answer ({type(error).__name__}: {one_line(error)}): look whether its workers "
            "still run, and open it again."
        ) from error


def _all_done(futures: Sequence[Future]) -> bool:
    end = time.monotonic() + SECONDS
    for future in futures:
        try:
            future.exception(timeout=max(0.1, end - time.monotonic()))
        except DaskTimeout:
            raise RuntimeError(f"the search found no answer in {SECONDS} seconds: look at its workers.") from None
    return True
