"""Search over shards gives what one index over all codes gives, ties included, or an error; never a part of the answer."""

import os
import signal

import numpy as np
import pytest
import torch

from wsch_core.corpus.search import Lists, open_search, recall
from wsch_core.corpus.shards import Corpus, Head, Queries, make_corpus, write_shard
from wsch_core.retrieval.codes import pack
from wsch_core.retrieval.search import nearest

VIDEOS, BITS, K = 500, 12, 40  # so few bits that most distances tie
HEAD = Head(BITS, "0123456789abcdef", "one")


def codes_of(videos: int, seed: int) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(0, 2, (videos, BITS), dtype=np.int8) * 2 - 1)


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    """Seven shards of different sizes, their ids in no order."""
    corpus = make_corpus(tmp_path / "corpus", HEAD)
    order = np.random.default_rng(1).permutation(VIDEOS)
    for shard, rows in enumerate(np.split(order, [3, 60, 61, 200, 350, 400])):
        ids = [f"video {row:03}" for row in rows]
        write_shard(corpus.folder / f"{shard}.parquet", HEAD, ids, pack(codes_of(VIDEOS, 2)[rows.tolist()]))
    return corpus


@pytest.fixture
def queries() -> Queries:
    return Queries.of(codes_of(30, 3), HEAD)


def check(found) -> None:
    indices, distances = nearest(codes_of(30, 3), codes_of(VIDEOS, 2), K)
    assert found.ids == [[f"video {row:03}" for row in rows] for rows in indices.tolist()]
    assert found.distances.tolist() == distances.tolist()


def test_shards_answer_as_one_index(corpus, queries):
    with open_search(corpus, workers=0) as search:
        check(search.nearest(queries, K))
        everything = search.nearest(queries, VIDEOS)
        assert all(sorted(ids) == ids_of_all(corpus) for ids in everything.ids)


def ids_of_all(corpus: Corpus) -> list[str]:
    return corpus.rows().ids.to_pylist()


@pytest.mark.slow
def test_workers_answer_as_one_index_also_when_one_is_lost(corpus, queries):
    with open_search(corpus, workers=3) as search:
        check(search.nearest(queries, K))
        victim = next(iter(search._client.run(os.getpid).values()))
        os.kill(victim, signal.SIGKILL)
        check(search.nearest(queries, K))
        for shard in corpus.shards():  # gone when they must be read again: no part of an answer is given
            shard.unlink()
        for pid in search._client.run(os.getpid).values():
            os.kill(pid, signal.SIGKILL)
        with pytest.raises((OSError, RuntimeError), match=r"is missing|no complete answer"):
            search.nearest(queries, K)


def test_approximate_search_says_what_it_misses(corpus, queries):
    with open_search(corpus, workers=0) as search:
        exact = search.nearest(queries, K)
    with open_search(corpus, workers=0, approximate=Lists(8, 8)) as search:
        assert recall(search.nearest(queries, K), exact) == 1
    with open_search(corpus, workers=0, approximate=Lists(8, 1)) as search:
        some = search.nearest(queries, K)
        assert all(len(set(ids)) == K for ids in some.ids)
        assert 0 < recall(some, exact) < 1


def test_more_than_the_lists_hold_is_found_in_others(corpus, queries):
    with open_search(corpus, workers=0, approximate=Lists(8, 1)) as search:
        assert all(sorted(ids) == ids_of_all(corpus) for ids in search.nearest(queries, VIDEOS).ids)


@pytest.mark.parametrize(
    ("head", "k", "complaint"),
    [
        (Head(16, HEAD.weights, "other"), 1, "have 12: encode the query with the corpus's run"),
        (Head(BITS, "fedcba9876543210", "other"), 1, "codes of two networks cannot be compared"),
        (HEAD, 0, "k is 0, but the corpus holds 500 videos"),
        (HEAD, VIDEOS + 1, "k is 501"),
    ],
)
def test_what_cannot_be_answered_is_refused(corpus, head, k, complaint):
    with open_search(corpus, workers=0) as search, pytest.raises(ValueError, match=complaint):
        search.nearest(Queries.of(np.ones((1, head.bits), np.int8), head), k)


def test_ids_that_stand_twice_and_damaged_shards_are_refused(corpus):
    write_shard(corpus.folder / "again.parquet", HEAD, ["video 007"], pack(codes_of(1, 0)))
    with pytest.raises(ValueError, match="the id 'video 007' stands twice"), open_search(corpus, workers=0):
        pass
    (corpus.folder / "again.parquet").write_bytes(b"PAR1")
    with pytest.raises(OSError, match=r"again\.parquet is damaged"), open_search(corpus, workers=0):
        pass
