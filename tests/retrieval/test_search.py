import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wsch_core.retrieval import search
from wsch_core.retrieval.search import hamming_distances, nearest, positions_by_id


def random_codes(videos: int, bits: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, (videos, bits), generator=torch.Generator().manual_seed(seed), dtype=torch.int8) * 2 - 1


def slow_nearest(queries, database, k, exclude=None):
    """Counting differing bits, sorting pairs of distance and index."""
    found = []
    for row, query in enumerate(queries.tolist()):
        left_out = -1 if exclude is None else exclude[row]
        pairs = sorted(
            (sum(a != b for a, b in zip(query, item, strict=True)), index)
            for index, item in enumerate(database.tolist())
            if index != left_out
        )
        found.append(pairs[:k])
    indices = [[index for _, index in pairs] for pairs in found]
    distances = [[distance for distance, _ in pairs] for pairs in found]
    return indices, distances


@pytest.mark.parametrize("bits", [1, 2, 7, 16, 64, 129])
def test_distances_count_differing_bits(bits):
    queries, database = random_codes(5, bits, 1), random_codes(8, bits, 2)
    found = hamming_distances(queries, database.numpy())
    assert found.dtype == torch.int16
    assert torch.equal(found.long(), (queries[:, None] != database).sum(dim=2))
    assert hamming_distances(queries, -queries).diagonal().tolist() == [bits] * 5


@given(
    bits=st.integers(1, 5), queries=st.integers(1, 5), items=st.integers(1, 12),
    seed=st.integers(0, 2**20), with_exclude=st.booleans(), data=st.data(),
)  # fmt: skip
def test_nearest_equals_sorting(bits, queries, items, seed, with_exclude, data):
    """Few bits, so that nearly everything ties."""
    query_codes, database = random_codes(queries, bits, seed), random_codes(items, bits, seed + 1)
    exclude = None
    if with_exclude and items > 1:
        exclude = data.draw(st.lists(st.integers(-1, items - 1), min_size=queries, max_size=queries))
    k = data.draw(st.integers(1, items - (exclude is not None)))
    indices, distances = nearest(query_codes, database, k, None if exclude is None else torch.tensor(exclude))
    assert (indices.dtype, distances.dtype) == (torch.int64, torch.int16)
    assert (indices.tolist(), distances.tolist()) == slow_nearest(query_codes, database, k, exclude)


@pytest.mark.parametrize("bits", [3, 8, 64])
def test_both_ways_of_faiss_keep_the_order_of_the_database(bits, monkeypatch):
    """Nearly everything ties, at the last rank as well."""
    queries, database = random_codes(50, bits, 1), random_codes(3000, bits, 2)
    exclude = torch.arange(50) - 1
    found = []
    for many_times in (0, 3000):  # always by a heap, always by counting
        monkeypatch.setattr(search, "MANY_TIMES", many_times)
        found.append([nearest(queries, database, k, exclude) for k in (1, 10, 100)])
    assert all(torch.equal(*pair) for ways in zip(*found, strict=True) for pair in zip(*ways, strict=True))
    order = search.hamming_distances(queries, database).long() * 3000 + torch.arange(3000)
    order[torch.arange(1, 50), exclude[1:]] = 3000 * 100
    assert torch.equal(found[0][2][0], order.argsort(dim=1)[:, :100])


def test_an_index_is_searched_again_and_again():
    queries, database = random_codes(9, 16, 1), random_codes(40, 16, 2)
    index = search.Index(database)
    for k in (1, 7, 40):
        for found, expected in zip(index.nearest(queries, k), nearest(queries, database, k), strict=True):
            assert torch.equal(found, expected)
    with pytest.raises(ValueError, match="found queries of 8 bits and a database of 16 bits"):
        index.nearest(random_codes(3, 8), 1)


def test_chunks_change_nothing(monkeypatch):
    queries, database = random_codes(23, 8, 1), random_codes(40, 8, 2)
    exclude = torch.arange(23) - 1
    whole = nearest(queries, database, 39, exclude)
    for rows in (1, 2, 7, 22):
        monkeypatch.setattr(search, "WORK_SPACE_BYTES", rows * 12 * 40)
        assert len(list(search.query_chunks(23, 40, 12))) == -(-23 // rows)
        for found, expected in zip(nearest(queries, database, 39, exclude), whole, strict=True):
            assert torch.equal(found, expected)


def test_itself_is_excluded_by_position_and_not_its_twin():
    codes = torch.ones(3, 4, dtype=torch.int8)
    indices, distances = nearest(codes, codes, 2, torch.arange(3))
    assert indices.tolist() == [[1, 2], [0, 2], [0, 1]]
    assert distances.tolist() == [[0, 0]] * 3


def test_no_queries_find_nothing():
    indices, distances = nearest(torch.empty(0, 4), torch.ones(3, 4), 2)
    assert indices.shape == distances.shape == (0, 2)


def test_what_cannot_be_answered_is_refused():
    codes = random_codes(4, 8)
    with pytest.raises(ValueError, match="found k = 5, expected 1 to 4"):
        nearest(codes, codes, 5)
    with pytest.raises(ValueError, match="found k = 4, expected 1 to 3"):
        nearest(codes, codes, 4, torch.tensor([-1, -1, 2, -1]))
    assert nearest(codes, codes, 4, torch.full((4,), -1))[0].shape == (4, 4)
    with pytest.raises(ValueError, match="found k = 0"):
        nearest(codes, codes, 0)
    with pytest.raises(ValueError, match="queries of 8 bits and a database of 7 bits"):
        nearest(codes, codes[:, 1:], 1)
    with pytest.raises(ValueError, match="queries of 8 bits and a database of 7 bits"):
        hamming_distances(codes, codes[:, 1:])
    with pytest.raises(ValueError, match=r"exclude of shape \(3,\)"):
        nearest(codes, codes, 1, torch.arange(3))
    with pytest.raises(ValueError, match=r"type torch\.float32"):
        nearest(codes, codes, 1, torch.zeros(4))
    with pytest.raises(ValueError, match="indices from 1 to 4"):
        nearest(codes, codes, 1, torch.arange(1, 5))


def test_positions_by_id():
    assert positions_by_id(["b", "x", "a", "b"], ["a", "b", "c"]).tolist() == [1, -1, 0, 1]
    assert positions_by_id(torch.tensor([7, 5]), np.array([5, 6])).tolist() == [-1, 0]
    with pytest.raises(ValueError, match="3 database ids of which only 2 differ"):
        positions_by_id(["a"], ["a", "b", "a"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_on_cuda():
    queries, database, exclude = random_codes(300, 64, 1), random_codes(5000, 64, 2), torch.arange(300)
    on_cpu, on_cuda = nearest(queries, database, 50, exclude), nearest(queries.cuda(), database.cuda(), 50, exclude)
    for found, expected in zip(on_cuda, on_cpu, strict=True):
        assert found.is_cuda
        assert torch.equal(found.cpu(), expected)
