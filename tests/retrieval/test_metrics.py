"""Every number is checked against counting through all orders of ties, with fractions."""

import functools
import itertools
import json
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

from wsch_core.retrieval import search
from wsch_core.retrieval.metrics import (
    NORMALISATIONS,
    audit,
    average_precision,
    evaluate,
    evaluate_cosine,
    tie_aware_average_precision,
)

EXACT = {"rtol": 1e-12, "atol": 1e-14}


def slow_average_precision(order, k, total, normalisation):
    """From the definition, rank by rank; order: relevance by rank."""
    hits, sum_of_precisions = 0, Fraction(0)
    for rank, relevant in enumerate(order[:k], start=1):
        hits += relevant
        sum_of_precisions += Fraction(relevant * hits, rank)
    divisor = {"k": k, "hits": hits, "min(k,relevant)": min(k, total), "relevant": total}[normalisation]
    return sum_of_precisions / divisor if divisor else Fraction(0)


@functools.cache
def all_orders(buckets):
    """All relevance orders, each as often as it occurs, of buckets (items, relevant), nearest first."""
    arrangements = [list(itertools.permutations([1] * m + [0] * (n - m))) for n, m in buckets]
    return [tuple(itertools.chain(*parts)) for parts in itertools.product(*arrangements)]


def enumerate_average_precision(buckets, k, normalisation):
    """Expected, lowest, highest."""
    total = sum(m for _, m in buckets)
    orders = all_orders(buckets)
    value = functools.cache(lambda order: slow_average_precision(order, k, total, normalisation))
    values = [value(order) for order in orders]
    return sum(values) / len(orders), min(values), max(values)


def score(buckets, ks, normalisation="k"):
    """Expected, lowest, highest: one array (len(ks),) each."""
    items, relevant = np.array(buckets).reshape(1, -1, 2).transpose(2, 0, 1)
    return [values[0] for values in tie_aware_average_precision(items, relevant, ks, normalisation)]


def random_codes(videos: int, bits: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, (videos, bits), generator=torch.Generator().manual_seed(seed), dtype=torch.int8) * 2 - 1


def random_case(queries=9, items=30, bits=4, classes=5, seed=0):
    """Codes and labels of queries and database; multi-hot, some videos without a label."""
    random = np.random.default_rng(seed)
    labels = [scipy.sparse.csr_array(random.random((n, classes)) < 0.25) for n in (queries, items)]
    return random_codes(queries, bits, seed), random_codes(items, bits, seed + 1), *labels


def buckets_of(query, database, query_labels, database_labels, left_out=None):
    """(items, relevant) at every distance, by comparing one pair after the other."""
    counts = [[0, 0] for _ in range(len(query) + 1)]
    for index, (item, labels) in enumerate(zip(database.tolist(), database_labels.toarray(), strict=True)):
        if index != left_out:
            distance = sum(a != b for a, b in zip(query.tolist(), item, strict=True))
            counts[distance][0] += 1
            counts[distance][1] += bool((labels & query_labels).any())
    return tuple(tuple(pair) for pair in counts)


def assert_same(found, expected, fields=("expected", "lower", "upper", "precision", "recall", "tie_rate")):
    for field in (*fields, "precision_by_radius", "recall_by_radius"):
        np.testing.assert_allclose(getattr(found, field), getattr(expected, field), **EXACT, err_msg=field)


# --- scores of a known ranking


def test_concrete_rankings_written_out():
    relevant = [[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    ks, total = (1, 3, 5), [4, 2, 6]
    written_out = {
        "k": [[1, (1 + 2 / 3) / 3, (1 + 2 / 3) / 5], [0, 0, 0], [1, 1, 1]],
        "hits": [[1, (1 + 2 / 3) / 2, (1 + 2 / 3) / 2], [0, 0, 0], [1, 1, 1]],
        "min(k,relevant)": [[1, (1 + 2 / 3) / 3, (1 + 2 / 3) / 4], [0, 0, 0], [1, 1, 1]],
        "relevant": [[1 / 4, (1 + 2 / 3) / 4, (1 + 2 / 3) / 4], [0, 0, 0], [1 / 6, 3 / 6, 5 / 6]],
    }
    for normalisation, expected in written_out.items():
        np.testing.assert_allclose(average_precision(relevant, ks, total, normalisation), expected, **EXACT)


def test_ranks_behind_the_end_add_nothing():
    np.testing.assert_allclose(average_precision([[1, 1]], (2, 4), [2]), [[1, 1 / 2]], **EXACT)
    np.testing.assert_allclose(average_precision([[1, 1]], (2, 4), [2], "min(k,relevant)"), [[1, 1]], **EXACT)


def test_published_example_a():
    buckets = ((1, 1), (3, 1), (2, 1))
    expected, lower, upper = score(buckets, (1, 2, 3, 4, 5, 6))
    np.testing.assert_allclose(
        np.diff(expected * np.arange(1, 7), prepend=0), [1, 1 / 3, 2 / 9, 1 / 6, 3 / 10, 1 / 4], **EXACT
    )
    np.testing.assert_allclose(expected[[2, 4, 5]], [14 / 27, 91 / 225, 409 / 1080], **EXACT)
    np.testing.assert_allclose(lower[[2, 4, 5]], [1 / 3, 0.30, 1 / 3], **EXACT)
    np.testing.assert_allclose(upper[[2, 4, 5]], [2 / 3, 0.52, 13 / 30], **EXACT)


def test_published_example_b():
    np.testing.assert_allclose(np.ravel(score(((6, 2),), (4,))), [37 / 180, 0, 1 / 2], **EXACT)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_expectation_and_bounds_equal_enumeration(normalisation):
    random = np.random.default_rng(0)
    for _ in range(60):
        sizes = random.integers(0, 5, size=random.integers(1, 4))
        buckets = tuple((int(n), int(random.integers(0, n + 1))) for n in sizes)
        ks = tuple(range(1, sum(sizes) + 3))
        found = np.transpose(score(buckets, ks, normalisation))
        expected = [[float(v) for v in enumerate_average_precision(buckets, k, normalisation)] for k in ks]
        np.testing.assert_allclose(found, expected, **EXACT, err_msg=str(buckets))


def test_best_by_hits_may_have_few_hits():
    """One early hit, and a late bucket whose hits can only lower the mean precision."""
    buckets = ((1, 1), (3, 0), (3, 2))
    expected, lower, upper = score(buckets, (5,), "hits")
    assert upper[0] == 1
    np.testing.assert_allclose(lower, (1 + 2 / 5) / 2, **EXACT)
    np.testing.assert_allclose(expected, 1 / 3 + 2 / 3 * (1 + 2 / 5) / 2, **EXACT)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_large_buckets_equal_sampling(normalisation):
    """Too many orders to count: the mean over random ones lies within its standard error."""
    random = np.random.default_rng(1)
    n, m, k = 45_600, 1_900, 100
    ranks = np.argsort(random.random((20_000, 400)), axis=1)[:, :k]
    orders = ranks < 400 * m // n  # any 100 of 400 positions of which 16 are hits
    expected, lower, upper = (v[0] for v in score(((400, 400 * m // n), (n, m)), (k,), normalisation))
    sampled = average_precision(orders, (k,), np.full(len(orders), 400 * m // n + m), normalisation)[:, 0]
    assert abs(sampled.mean() - expected) < 5 * sampled.std() / np.sqrt(len(sampled))
    assert lower <= sampled.min() <= sampled.max() <= upper


def test_hypergeometric_weights_keep_their_digits_in_huge_buckets():
    """All of the divisor's terms against exact fractions, for a bucket of a whole database."""
    n, m, k = 45_600, 1_900, 20
    harmonic = [sum(Fraction(1, r) for r in range(1, i + 1)) for i in range(k + 1)]
    exact = Fraction(0)
    for h in range(1, k + 1):
        probability = Fraction(math.comb(m, h) * math.comb(n - m, k - h), math.comb(n, k))
        later = Fraction(h - 1, k - 1) * (k - harmonic[k])
        exact += probability * Fraction(h, k) * (harmonic[k] + later) / h
    np.testing.assert_allclose(score(((n, m),), (k,), "hits")[0], float(exact), rtol=1e-13)


@given(
    buckets=st.lists(st.integers(0, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=1),
    normalisation=st.sampled_from(NORMALISATIONS),
)
def test_bounds_hold(buckets, normalisation):
    expected, lower, upper = score(buckets, (1, 5, 20, 100), normalisation)
    assert (lower >= 0).all()
    assert (lower <= expected).all()
    assert (expected <= upper).all()
    assert (upper <= 1 + 1e-12).all()


# --- codes and labels


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("self_match", ["included", "excluded"])
def test_evaluate_equals_counting_pairs(normalisation, self_match):
    codes, _, labels, _ = random_case(queries=8, bits=3)
    ids, ks = [f"v{i}" for i in range(8)], (1, 2, 5, 9)
    found = evaluate(
        codes, codes, labels, labels, ks=ks, query_ids=ids, database_ids=ids, self_match=self_match,
        normalisation=normalisation,
    )  # fmt: skip
    dense = labels.toarray()
    left_out = [index if self_match == "excluded" else None for index in range(8)]
    buckets = [buckets_of(codes[i], codes, dense[i], labels, left_out[i]) for i in range(8)]
    rows = [[enumerate_average_precision(b, k, normalisation) for k in ks] for b in buckets]
    for position, name in enumerate(("expected", "lower", "upper")):
        values = np.array([[float(cell[position]) for cell in row] for row in rows])
        np.testing.assert_allclose(getattr(found, name), values.mean(axis=0), **EXACT)
        if name == "expected":
            np.testing.assert_allclose(found.per_query_expected, values, **EXACT)

    by_index, precision, recall = [], [], []
    for index, (query, counted) in enumerate(zip(codes, buckets, strict=True)):
        distances = (query != codes).sum(dim=1).tolist()
        order = sorted((distance, item) for item, distance in enumerate(distances) if item != left_out[index])
        relevance = [int((dense[item] & dense[index]).any()) for _, item in order]
        total = sum(relevance)
        by_index.append([float(slow_average_precision(relevance, k, total, normalisation)) for k in ks])
        hits = [np.mean([sum(o[:k]) for o in all_orders(counted)]) for k in ks]
        precision.append(np.array(hits) / ks)
        recall += [np.array(hits) / total] if total else []
    np.testing.assert_allclose(found.by_index, np.mean(by_index, axis=0), **EXACT)
    np.testing.assert_allclose(found.precision, np.mean(precision, axis=0), **EXACT)
    np.testing.assert_allclose(found.recall, np.mean(recall, axis=0), **EXACT)
    assert found.queries_without_relevant == 8 - len(recall)
    assert found.self_matches_removed == (8 if self_match == "excluded" else 0)


def test_radius_curves_equal_their_definition():
    queries, database, query_labels, database_labels = random_case()
    found = evaluate(queries, database, query_labels, database_labels)
    distances = (queries[:, None] != database).sum(dim=2).numpy()
    relevant = (query_labels.astype(int) @ database_labels.astype(int).T).toarray() > 0
    for radius in range(5):
        within = distances <= radius
        hits = (within & relevant).sum(axis=1)
        precision = [h / w if w else 0 for h, w in zip(hits, within.sum(axis=1), strict=True)]
        recall = [h / r for h, r in zip(hits, relevant.sum(axis=1), strict=True) if r]
        assert found.precision_by_radius[radius] == pytest.approx(np.mean(precision))
        assert found.recall_by_radius[radius] == pytest.approx(np.mean(recall))


def test_tie_rate_counts_ranks_that_share_their_distance():
    """Distances 0, 1, 1, 2 and 0, 2, 2, 2."""
    database = torch.tensor([[1, 1, 1, 1], [-1, 1, 1, 1], [1, -1, 1, 1], [1, 1, -1, -1]])
    labels = np.ones((4, 1))
    one = evaluate(database[:1], database, labels[:1], labels, ks=(3,))
    assert one.tie_rate == pytest.approx(2 / 3)
    assert evaluate(database[:1], database, labels[:1], labels, ks=(4,)).tie_rate == pytest.approx(2 / 4)
    other = torch.tensor([[1, 1, 1, 1], [1, 1, -1, -1], [1, 1, -1, -1], [1, 1, -1, -1]])
    both = evaluate(torch.ones(1, 4), other, labels[:1], labels, ks=(100,))
    assert both.tie_rate == pytest.approx(3 / 4)


def test_invariances():
    queries, database, query_labels, database_labels = random_case(queries=12, items=60, bits=6)
    reference = evaluate(queries, database, query_labels, database_labels)
    order = np.random.default_rng(0).permutation(60)
    assert_same(evaluate(queries, database[order], query_labels, database_labels[order]), reference)
    bits = [3, 1, 5, 0, 2, 4]
    assert_same(evaluate(queries[:, bits], database[:, bits], query_labels, database_labels), reference)
    mask = torch.tensor([1, -1, -1, 1, 1, -1], dtype=torch.int8)
    assert_same(evaluate(queries * mask, database * mask, query_labels, database_labels), reference)
    classes = [4, 2, 0, 1, 3]
    assert_same(evaluate(queries, database, query_labels[:, classes], database_labels[:, classes]), reference)


def test_a_doubled_database_keeps_its_curves():
    queries, database, query_labels, database_labels = random_case()
    once = evaluate(queries, database, query_labels, database_labels, ks=(1, 30))
    twice = evaluate(
        queries, torch.cat([database] * 2), query_labels, scipy.sparse.vstack([database_labels] * 2), ks=(1, 60)
    )
    assert_same(twice, once, fields=())
    assert twice.precision[0] == pytest.approx(once.precision[0])
    assert twice.recall[1] == pytest.approx(1)
    assert twice.tie_rate == 1


def test_constant_codes_retrieve_by_chance():
    _, _, query_labels, database_labels = random_case()
    found = evaluate(torch.ones(9, 4), torch.ones(30, 4), query_labels, database_labels, ks=(5, 30))
    relevant = (query_labels.astype(int) @ database_labels.astype(int).T).toarray() > 0
    np.testing.assert_allclose(found.precision, relevant.mean(), **EXACT)
    assert found.tie_rate == 1


@given(
    bits=st.integers(1, 5), queries=st.integers(1, 6), items=st.integers(1, 40), classes=st.integers(1, 4),
    seed=st.integers(0, 2**20), normalisation=st.sampled_from(NORMALISATIONS),
)  # fmt: skip
def test_any_codes_stay_within_bounds(bits, queries, items, classes, seed, normalisation):
    case = random_case(queries, items, bits, classes, seed)
    found = evaluate(*case, ks=(1, 3, 10, 50), normalisation=normalisation)
    assert (found.lower <= found.expected).all()
    assert (found.expected <= found.upper).all()
    assert (found.lower - 1e-12 <= found.by_index).all()
    assert (found.by_index <= found.upper + 1e-12).all()
    assert (np.diff(found.recall_by_radius) >= -1e-12).all()


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_chunks_change_nothing(monkeypatch, normalisation):
    codes, _, labels, _ = random_case(queries=31, bits=4)
    options = {"query_ids": range(31), "database_ids": range(31), "self_match": "excluded", "ks": (1, 7, 40)}
    whole = evaluate(codes, codes, labels, labels, normalisation=normalisation, **options)
    features = random_codes(31, 16).float()  # whose similarities are exact
    whole_cosine = evaluate_cosine(features, features, labels, labels, normalisation=normalisation, **options)
    for work_space in (1, 3 * 12 * 31, 16 * 12 * 31):
        monkeypatch.setattr(search, "WORK_SPACE_BYTES", work_space)
        parts = evaluate(codes, codes, labels, labels, normalisation=normalisation, **options)
        assert parts.as_dict() == whole.as_dict()
        assert np.array_equal(parts.per_query_expected, whole.per_query_expected)
        by_parts = evaluate_cosine(features, features, labels, labels, normalisation=normalisation, **options)
        np.testing.assert_allclose(by_parts, whole_cosine, **EXACT)


# --- protocol


def test_self_is_excluded_by_id_among_equal_codes():
    """A relevant twin with the same code stays, wherever the query itself stands in the database."""
    database, labels = torch.ones(3, 4), np.array([[1, 0], [0, 1], [1, 0]])
    options = {"ks": (1, 2), "database_ids": ["a", "b", "c"], "self_match": "excluded"}
    found = evaluate(database[:1], database, labels[:1], labels, query_ids=["a"], **options)
    np.testing.assert_allclose(found.expected, [1 / 2, (1 / 2 + (1 / 2) / 2) / 2], **EXACT)
    np.testing.assert_allclose(found.by_index, [0, 1 / 4], **EXACT)  # b, then c
    assert found.recall[1] == 1
    assert (found.self_matches_removed, found.database_size) == (1, 3)

    stranger = evaluate(database[:1], database, labels[:1], labels, query_ids=["z"], **options)
    included = evaluate(database[:1], database, labels[:1], labels, ks=(1, 2))
    np.testing.assert_array_equal(stranger.expected, included.expected)
    assert stranger.self_matches_removed == 0


@pytest.mark.parametrize("k", [1, 2, 3, 4, 9])
def test_queries_of_which_only_some_are_in_the_database_are_asked_to_its_end(k):
    """Without ties all orders are one: each query ranks all items but itself."""
    database = torch.tensor([[1, 1, 1, 1], [1, 1, 1, -1], [1, 1, -1, -1], [1, -1, -1, -1]])
    labels, ids = np.array([[1, 0], [0, 1], [0, 1], [1, 0]]), ["a", "b", "c", "d"]
    queries, query_labels = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1]]), np.array([[1, 0], [1, 0]])
    found = evaluate(
        queries, database, query_labels, labels, ks=(k,), query_ids=["a", "z"], database_ids=ids, self_match="excluded",
    )  # fmt: skip
    assert found.lower == found.upper
    np.testing.assert_allclose(found.by_index, found.expected, **EXACT)
    both = [slow_average_precision(order, k, sum(order), "k") for order in ([0, 0, 1], [1, 0, 0, 1])]
    np.testing.assert_allclose(found.by_index, float(sum(both)) / 2, **EXACT)


def test_included_self_is_worth_about_one_kth():
    codes, labels = random_codes(40, 32), np.eye(40)
    ids = torch.arange(40)
    included = evaluate(codes, codes, labels, labels, ks=(5,))
    excluded = evaluate(codes, codes, labels, labels, ks=(5,), query_ids=ids, database_ids=ids, self_match="excluded")
    assert included.expected[0] == pytest.approx(1 / 5)
    assert excluded.expected[0] == 0
    assert excluded.queries_without_relevant == 40
    assert excluded.recall.tolist() == [0]


def test_one_query_one_item_that_is_itself():
    found = evaluate(
        torch.ones(1, 2), torch.ones(1, 2), [[1]], [[1]], query_ids=["a"], database_ids=["a"], self_match="excluded",
        normalisation="hits",
    )  # fmt: skip
    assert found.expected.tolist() == found.lower.tolist() == found.upper.tolist() == found.by_index.tolist() == [0] * 6
    assert found.tie_rate == 0


def test_one_query_and_one_class():
    found = evaluate([[1, 1]], [[1, -1], [1, 1], [-1, -1]], [[1]], [[1], [1], [1]], ks=(1, 3, 6))
    np.testing.assert_allclose(found.expected, [1, 1, 1 / 2], **EXACT)  # K beyond the database
    np.testing.assert_allclose(found.precision, [1, 1, 1 / 2], **EXACT)
    np.testing.assert_allclose(found.recall, [1 / 3, 1, 1], **EXACT)


def test_queries_without_relevant_items_count_as_zero_but_not_in_recall():
    labels = np.array([[1, 0], [1, 0]])
    found = evaluate(torch.ones(2, 2), torch.ones(2, 2), np.array([[1, 0], [0, 1]]), labels, ks=(2,))
    np.testing.assert_allclose(found.per_query_expected, [[1], [0]], **EXACT)
    assert found.expected.tolist() == [0.5]
    assert found.recall.tolist() == [1]
    assert found.queries_without_relevant == 1


def test_labels_in_any_form():
    queries, database, query_labels, database_labels = random_case()
    reference = evaluate(queries, database, query_labels, database_labels).as_dict()
    dense = query_labels.toarray().astype(np.float32), database_labels.toarray().astype(np.uint8)
    assert evaluate(queries, database, *dense).as_dict() == reference
    assert evaluate(queries, database, *map(torch.from_numpy, dense)).as_dict() == reference
    explicit_zeros = database_labels.astype(np.int64)
    explicit_zeros.data[:3] = 0
    assert evaluate(queries, database, query_labels, explicit_zeros).as_dict() == (
        evaluate(queries, database, query_labels, explicit_zeros.toarray()).as_dict()
    )
    assert evaluate(queries.numpy(), database.float(), query_labels, database_labels.tocoo()).as_dict() == reference


def test_as_dict_is_json():
    case = random_case()
    found = evaluate(*case, ks=np.array([1, 5]), query_ids=range(9), database_ids=range(30), self_match="excluded")
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False)) == found.as_dict()
    assert "per_query_expected" not in found.as_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ks": ()}, r"found ks \[\]"),
        ({"ks": (0, 5)}, "rising whole numbers"),
        ({"ks": (5, 5)}, "rising whole numbers"),
        ({"ks": (1.5,)}, "rising whole numbers"),
        ({"normalisation": "R"}, "found normalisation 'R', expected one of"),
        ({"self_match": "no"}, "found self_match 'no'"),
        ({"self_match": "excluded"}, "found None query_ids and None database_ids, expected 9 and 30"),
        ({"self_match": "excluded", "query_ids": range(8), "database_ids": range(30)}, "found 8 query_ids"),
        ({"self_match": "excluded", "query_ids": range(9), "database_ids": [0] * 30}, "only 1 differ"),
        ({"query_labels": np.ones((9, 6))}, "6 classes in the query labels and 5 in the database labels"),
        ({"query_labels": np.ones((8, 5))}, r"labels of shape \(8, 5\) for 9 videos"),
        ({"query_labels": np.arange(9)}, r"labels of shape \(1, 9\) for 9 videos"),
        ({"database_labels": np.full((30, 5), 2)}, r"values \[2\], expected a multi-hot row"),
        ({"database_labels": np.full((30, 5), np.nan)}, "expected a multi-hot row"),
        ({"query_codes": torch.ones(9, 5)}, "queries of 5 bits and a database of 4 bits"),
        ({"query_codes": torch.zeros(9, 4)}, "not a bit"),
        ({"query_codes": torch.ones(0, 4), "query_labels": np.ones((0, 5))}, "at least one video"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    names = ("query_codes", "database_codes", "query_labels", "database_labels")
    with pytest.raises(ValueError, match=message):
        evaluate(**(dict(zip(names, random_case(), strict=True)) | changes))


# --- features


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_cosine_equals_sorting_with_ties_by_index(normalisation):
    random = np.random.default_rng(0)
    # norms that are powers of two: all similarities are multiples of a quarter, exact ties many, and two rows are zero
    signs = random.choice([-1, 1], size=(25, 4))
    features = np.where(np.arange(25)[:, None] % 3 == 0, np.eye(4)[np.arange(25) % 4], 1) * signs
    features = features * random.choice([0.5, 1, 2], size=(25, 1))
    features[[4, 9]] = 0
    labels, ks, ids = random.random((25, 4)) < 0.3, (1, 4, 24, 30), list("abcdefghijklmnopqrstuvwxy")
    found = evaluate_cosine(
        features, features, labels, labels, ks=ks, query_ids=ids, database_ids=ids, self_match="excluded",
        normalisation=normalisation,
    )  # fmt: skip
    values = []
    for query in range(25):
        norms = np.maximum(np.linalg.norm(features, axis=1), 1e-30)
        similarities = np.round(features @ features[query] / norms / norms[query], 5)
        order = sorted((item for item in range(25) if item != query), key=lambda item: (-similarities[item], item))
        relevance = [int((labels[item] & labels[query]).any()) for item in order]
        values.append([float(slow_average_precision(relevance, k, sum(relevance), normalisation)) for k in ks])
    np.testing.assert_allclose(found, np.mean(values, axis=0), **EXACT)


def test_cosine_of_codes_is_their_hamming_ranking():
    """With a power of four of bits, similarities of codes are exact."""
    queries, database, query_labels, database_labels = random_case(bits=16)
    found = evaluate_cosine(queries, database, query_labels, database_labels)
    expected = evaluate(queries, database, query_labels, database_labels)
    np.testing.assert_allclose(found, expected.by_index, **EXACT)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_broken_features_are_refused(broken):
    features = torch.ones(3, 4)
    features[1, 2] = broken
    for pair in ((features, torch.ones(3, 4)), (torch.ones(3, 4), features)):
        with pytest.raises(ValueError, match="NaN or infinite features"):
            evaluate_cosine(*pair, np.ones((3, 1)), np.ones((3, 1)))
    with pytest.raises(ValueError, match=r"shapes \(3, 4\) and \(3, 5\)"):
        evaluate_cosine(torch.ones(3, 4), torch.ones(3, 5), np.ones((3, 1)), np.ones((3, 1)))


# --- audit

KS = (5, 20, 40, 60, 80, 100)


@pytest.mark.parametrize(
    "row",
    ["558/424/384/362/345/328", "311/195/120/085/066/053", "386/253/151/106/081/065", "256/175/137/111/090/076"],
)
def test_published_rows_pass_the_audit(row):
    assert audit(KS, [int(value) / 1000 for value in row.split("/")]) == []


def test_audit_names_each_contradiction():
    falling = audit(KS, [0.5, 0.4, 0.1, 0.1, 0.1, 0.1])
    assert falling == ["K * mAP@K falls from 8.000 at K = 20 to 4.000 at K = 40."]
    found = audit((5, 10), [0.9, 0.6], mean_relevant=5.5)
    assert found == ["K * mAP@K is 6.000 at K = 10, more than the mean number of relevant items, 5.500."]
    assert audit((5, 10), [0.9, 0.6], mean_relevant=6) == []


def test_audit_allows_for_rounding():
    values = [0.3004, 0.15]
    assert audit((50, 100), values, tolerance=0.0005) == []
    assert len(audit((50, 100), values, tolerance=0)) == 1
    assert audit((50, 100), [0.3, 0.15], tolerance=0, mean_relevant=15) == []


def test_audit_passes_every_evaluation():
    for seed in range(5):
        case = random_case(seed=seed)
        relevant = (case[2].astype(int) @ case[3].astype(int).T).toarray() > 0
        found = evaluate(*case)
        for values in (found.expected, found.lower, found.upper, found.by_index):
            assert audit(found.ks, values, relevant.sum(axis=1).mean(), tolerance=0) == []


def test_audit_refuses_what_is_no_map():
    with pytest.raises(ValueError, match="expected one mAP in"):
        audit(KS, [0.5])
    with pytest.raises(ValueError, match="expected one mAP in"):
        audit((5,), [55.8])


# --- size

FULL_SIZE = """
import resource, sys
import numpy as np, scipy.sparse, torch
from wsch_core.retrieval.metrics import evaluate
videos, classes = 45_600, 239
random = np.random.default_rng(0)
of_video = random.integers(classes, size=videos)
labels = scipy.sparse.csr_array((np.ones(videos), (np.arange(videos), of_video)), shape=(videos, classes))
centres = random.normal(size=(classes, 64))
codes = torch.from_numpy(np.where(centres[of_video] + random.normal(size=(videos, 64)) > 0, 1, -1).astype(np.int8))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
evaluate(codes, codes, labels, labels, query_ids=range(videos), database_ids=range(videos), self_match="excluded")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_memory_at_the_size_of_fcvid():
    """An array of all pairs would need 2 GB at one byte each."""
    finished = subprocess.run([sys.executable, "-c", FULL_SIZE], capture_output=True, text=True, check=True)
    assert int(finished.stdout) < 1e6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_on_cuda():
    queries, database, *labels = random_case(queries=200, items=3000, bits=32)
    on_cpu, on_cuda = evaluate(queries, database, *labels), evaluate(queries.cuda(), database.cuda(), *labels)
    assert on_cuda.as_dict() == on_cpu.as_dict()
    features = torch.randn(200, 8), torch.randn(3000, 8)
    np.testing.assert_allclose(
        evaluate_cosine(*(part.cuda() for part in features), *labels), evaluate_cosine(*features, *labels), atol=1e-4
    )
