import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

from wsch_core.retrieval.histograms import item_histograms, relevant_histograms


@pytest.mark.parametrize("bits", [1, 8, 63, 64, 65, 127, 128, 256, 300])
@pytest.mark.parametrize("items", [1, 6, 7])
def test_histograms_count_pairs(bits, items):
    """Bits on both sides of a word, of a byte's highest number, and of the codes that are counted two at a time."""
    draw = np.random.default_rng(bits)
    queries, database = (torch.from_numpy(draw.choice([-1, 1], (n, bits)).astype(np.int8)) for n in (4, items))
    queries[0], database[0] = 1, -1  # as far apart as can be
    excluded = np.array([-1, 0, items - 1, -1])
    labels = [scipy.sparse.csr_array(draw.random((n, 3)) < 0.5) for n in (4, items)]
    neighbours = draw.integers(items, size=(4, 5))

    expected, relevant = np.zeros((2, 4, bits + 1), dtype=int)
    is_relevant = np.zeros((4, items), dtype=bool)
    for q in range(4):
        for i in range(items):
            if i == excluded[q]:
                continue
            distance = int((queries[q] != database[i]).sum())
            expected[q, distance] += 1
            if (labels[0].toarray()[q] & labels[1].toarray()[i]).any():
                relevant[q, distance] += 1
                is_relevant[q, i] = True
    np.testing.assert_array_equal(item_histograms(queries, database, excluded), expected)
    found = relevant_histograms(queries, database, *labels, excluded, neighbours)
    np.testing.assert_array_equal(found[0], relevant)
    np.testing.assert_array_equal(found[1], np.take_along_axis(is_relevant, neighbours, axis=1))


@given(st.integers(1, 200), st.integers(1, 9), st.integers(1, 30), st.integers(0, 2**20))
def test_every_item_is_counted_once(bits, queries, items, seed):
    draw = np.random.default_rng(seed)
    codes = [torch.from_numpy(draw.choice([-1, 1], (n, bits)).astype(np.int8)) for n in (queries, items)]
    counts = item_histograms(*codes, np.full(queries, -1))
    assert (counts.sum(axis=1) == items).all()
    assert (counts >= 0).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_counts_the_same():
    draw = np.random.default_rng(0)
    codes = [torch.from_numpy(draw.choice([-1, 1], (n, 64)).astype(np.int8)) for n in (50, 70)]
    excluded = np.arange(50) - 1
    on_gpu = item_histograms(*(c.cuda() for c in codes), excluded)
    np.testing.assert_array_equal(on_gpu, item_histograms(*codes, excluded))
