"""Retrieval quality of codes: mAP@K, precision and recall, exact in the presence of ties.

Two videos are relevant to each other if they share at least one label. Hamming distances of short codes tie massively, and
the order among equals is an accident, so `evaluate` reports the expected value over all orders of each group of ties, with
the best and the worst order as bounds (McSherry & Najork 2008, "Computing information retrieval performance measures
efficiently in the presence of tied scores"; He et al. 2018, "Hashing as tie-aware learning to rank"). Two histograms per
query are enough for that: database items per distance, and relevant ones among them. In the symbols used below, a bucket
(all items at one distance) holds n items, m of them relevant, behind N items and H relevant ones that are nearer; its item
at position k = 1..n has rank r = N + k and adds

    e_r = (m/n) (H + 1 + (k-1)(m-1)/(n-1)) / r

to the expected sum of rel_r * precision@r over the ranks.

AP@K is that sum over ranks r <= K, divided according to the name of the normalisation:

    "k"                K, as in every video-hashing paper
    "hits"             the relevant items within the first K ranks
    "min(k,relevant)"  K, or the number of relevant items in the database if that is smaller
    "relevant"         the number of relevant items in the database

and 0 where the divisor is 0. K may exceed the database: ranks behind its end add nothing, and the divisor K stays K.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from wsch_core.search import as_code_pair, distance_chunks, first_neighbours_in_place, query_chunks

KS = (5, 20, 40, 60, 80, 100)
NORMALISATIONS = ("k", "hits", "min(k,relevant)", "relevant")
SELF_MATCHES = ("included", "excluded")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found; curves over K have shape (len(ks),), curves over the Hamming radius (bits + 1,)."""

    ks: tuple[int, ...]
    expected: np.ndarray  # mAP@K, expected over all orders of ties
    lower: np.ndarray  # mAP@K of the worst order
    upper: np.ndarray  # mAP@K of the best order
    by_index: np.ndarray  # mAP@K with ties in the order of the database
    precision: np.ndarray  # expected share of relevant items among the first K ranks
    recall: np.ndarray  # expected share of the relevant items found in them, mean over queries that have any (else 0)
    precision_by_radius: np.ndarray  # share of relevant items within the radius; 0 for a query that retrieves nothing
    recall_by_radius: np.ndarray  # share of the relevant items within the radius, over queries that have any (else 0)
    tie_rate: float  # share of the first max(ks) ranks whose distance another database item has too
    per_query_expected: np.ndarray  # (queries, len(ks)) expected AP@K
    queries: int
    database_size: int
    queries_without_relevant: int
    self_matches_removed: int  # queries whose own entry in the database was left out
    bits: int
    self_match: str
    normalisation: str

    def as_dict(self) -> dict:
        """All but the values per query, in types that JSON knows."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "per_query_expected"}
        values["ks"] = list(self.ks)
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}


def evaluate(
    query_codes,
    database_codes,
    query_labels,
    database_labels,
    *,
    ks: Sequence[int] = KS,
    query_ids: Sequence | None = None,
    database_ids: Sequence | None = None,
    self_match: str = "included",
    normalisation: str = "k",
) -> Evaluation:
    """Search the database with every query by Hamming distance and score what is found.

    query_codes: (queries, bits) of -1 and +1; database_codes: (items, bits) of -1 and +1, on the same device
    query_labels: (queries, classes) multi-hot, scipy.sparse, array or tensor; database_labels: (items, classes)
    ks: rising cut-off ranks K
    query_ids, database_ids: what names a video, needed for self_match = "excluded"
    self_match: "included", or "excluded" to leave out of each query's search the database item with the query's own id;
        a query whose id is not in the database searches all of it
    normalisation: what AP@K is divided by, see the head of this module; precision, recall and their curves do not depend
        on it
    Memory stays bounded: no array of queries x items is made.
    Raises ValueError for inputs that do not fit each other.
    """
    queries, database = as_code_pair(query_codes, database_codes)
    ks = _checked_ks(ks, normalisation)
    query_labels, database_labels = _label_pair(query_labels, database_labels, len(queries), len(database))
    own = _own_positions(self_match, query_ids, database_ids, len(queries), len(database))

    searched = list(_search(queries, database, query_labels, database_labels, own, ks, normalisation))
    items, relevant, by_index = (np.concatenate(parts) for parts in zip(*searched, strict=True))
    expected, lower, upper = tie_aware_average_precision(items, relevant, ks, normalisation)
    hits, tie_rate = _expected_hits(items, relevant, ks), _tie_rate(items, max(ks))

    relevant_total = relevant.sum(axis=1, keepdims=True)
    has_relevant = relevant_total[:, 0] > 0
    retrieved, found = items.cumsum(axis=1), relevant.cumsum(axis=1)
    with_relevant = max(int(has_relevant.sum()), 1)
    return Evaluation(
        ks=ks,
        expected=expected.mean(axis=0),
        lower=lower.mean(axis=0),
        upper=upper.mean(axis=0),
        by_index=by_index.mean(axis=0),
        precision=(hits / np.array(ks)).mean(axis=0),
        recall=_ratio(hits, relevant_total).sum(axis=0) / with_relevant,
        precision_by_radius=_ratio(found, retrieved).mean(axis=0),
        recall_by_radius=_ratio(found, relevant_total).sum(axis=0) / with_relevant,
        tie_rate=tie_rate,
        per_query_expected=expected,
        queries=len(queries),
        database_size=len(database),
        queries_without_relevant=int((~has_relevant).sum()),
        self_matches_removed=int((own >= 0).sum()),
        bits=queries.shape[1],
        self_match=self_match,
        normalisation=normalisation,
    )


def tie_aware_average_precision(
    items: np.ndarray, relevant: np.ndarray, ks: Sequence[int], normalisation: str = "k"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AP@K over all orders of ties, from two histograms per query.

    items: (queries, distances) integers, how many database items lie at each distance, nearest first
    relevant: (queries, distances) integers, how many of them are relevant
    returns: expected, lowest and highest AP@K, each (queries, len(ks)) in [0, 1]
    """
    ks = _checked_ks(ks, normalisation)
    blocks = query_chunks(len(items), max(ks), bytes_per_pair=100)
    parts = [_score_block(items[rows], relevant[rows], ks, normalisation) for rows in blocks]
    expected, lower, upper = (np.concatenate(part) for part in zip(*parts, strict=True))
    return expected, lower, upper


def average_precision(relevant, ks: Sequence[int], relevant_total, normalisation: str = "k") -> np.ndarray:
    """AP@K of one concrete order.

    relevant: (queries, ranks) bool, nearest first; ranks behind the last column count as not relevant
    relevant_total: (queries,) number of relevant items in the whole database
    returns: (queries, len(ks)) in [0, 1]
    """
    ks = _checked_ks(ks, normalisation)
    relevant = np.asarray(relevant, dtype=bool)[:, : max(ks)]
    relevant = np.pad(relevant, ((0, 0), (0, max(ks) - relevant.shape[1])))
    hits = relevant.cumsum(axis=1)
    precision_at_hits = np.where(relevant, hits / np.arange(1, max(ks) + 1), 0)
    at_k = np.array(ks) - 1
    return _ratio(precision_at_hits.cumsum(axis=1)[:, at_k], _divisor(normalisation, ks, relevant_total, hits[:, at_k]))


def evaluate_cosine(
    query_features,
    database_features,
    query_labels,
    database_labels,
    *,
    ks: Sequence[int] = KS,
    query_ids: Sequence | None = None,
    database_ids: Sequence | None = None,
    self_match: str = "included",
    normalisation: str = "k",
) -> np.ndarray:
    """mAP@K of real-valued features by cosine similarity: the line that codes made from them are read against.

    query_features: (queries, size), database_features: (items, size), finite; the other arguments are those of `evaluate`
    returns: (len(ks),) mAP@K, equal similarities in the order of the database; an all-zero feature has similarity 0
    """
    ks = _checked_ks(ks, normalisation)
    queries, database = torch.as_tensor(query_features).float(), torch.as_tensor(database_features).float()
    if queries.ndim != 2 or database.ndim != 2 or queries.shape[1] != database.shape[1]:
        raise ValueError(
            f"found features of shape {tuple(queries.shape)} and {tuple(database.shape)}, expected (videos, size) of one "
            "size; pool the frames of each video first"
        )
    query_labels, database_labels = _label_pair(query_labels, database_labels, len(queries), len(database))
    own = _own_positions(self_match, query_ids, database_ids, len(queries), len(database))

    lengths = torch.linalg.vector_norm(database, dim=1)
    if not (lengths.isfinite().all() and torch.linalg.vector_norm(queries, dim=1).isfinite().all()):
        raise ValueError("found NaN or infinite features, expected finite ones; repair or drop these videos")
    lengths = lengths.clamp(min=torch.finfo(torch.float32).tiny)
    by_class = database_labels.T.tocsr()
    average_precisions = []
    for rows in query_chunks(len(queries), len(database), bytes_per_pair=12):
        # The length of the query is left out: it scales all its similarities alike and moves no rank.
        similarities = (queries[rows] @ database.T) / lengths
        is_relevant = _is_relevant(query_labels[rows], by_class, own[rows])
        left_out = np.flatnonzero(own[rows] >= 0)
        similarities[left_out, own[rows][left_out]] = -torch.inf
        neighbours = _most_similar(similarities, min(max(ks), len(database)))
        found = np.take_along_axis(is_relevant, neighbours, axis=1)
        average_precisions.append(average_precision(found, ks, is_relevant.sum(axis=1), normalisation))
    return np.concatenate(average_precisions).mean(axis=0)


def audit(
    ks: Sequence[int], values: Sequence[float], mean_relevant: float | None = None, tolerance: float = 0.0005
) -> list[str]:
    """Contradictions in a row of mAP@K values that are normalised by K: one sentence for each, none if the row can be true.

    K * mAP@K, the mean sum of precisions at the hits, never decreases with K and never exceeds the number of hits there can
    be, the mean number of relevant items per query.
    values: mAP@K in [0, 1], one for each of the rising ks
    tolerance: how far a value may be off by rounding; half a thousandth suits published tables
    """
    ks = _checked_ks(ks, "k")
    if len(values) != len(ks) or not all(0 <= value <= 1 for value in values):
        raise ValueError(f"found values {list(values)} for ks {list(ks)}, expected one mAP in [0, 1] for each K")
    slack = tolerance + 1e-12
    violations = []
    for (k, value), (next_k, next_value) in pairwise(zip(ks, values, strict=True)):
        if next_k * (next_value + slack) < k * (value - slack):
            violations.append(
                f"K * mAP@K falls from {k * value:.3f} at K = {k} to {next_k * next_value:.3f} at K = {next_k}, "
                "but it can never decrease with K."
            )
    for k, value in zip(ks, values, strict=True):
        if mean_relevant is not None and k * (value - slack) > mean_relevant:
            violations.append(
                f"K * mAP@K is {k * value:.3f} at K = {k}, but it can never exceed the mean number of relevant items, "
                f"{mean_relevant:.3f}."
            )
    return violations


def _search(queries, database, query_labels, database_labels, own, ks, normalisation) -> Iterator[tuple]:
    """Per chunk of queries: items and relevant items per distance (rows, bits + 1), and AP@K with ties by index."""
    bins = queries.shape[1] + 2  # distances 0..bits, and one for the item that is left out
    depth = min(max(ks), len(database))
    by_class = database_labels.T.tocsr()
    for rows, distances in distance_chunks(queries, database, torch.from_numpy(own).to(queries.device)):
        first_bin = torch.arange(len(distances), device=distances.device)[:, None] * bins
        bin_of_pair = distances.add_(first_bin)
        is_relevant = torch.from_numpy(_is_relevant(query_labels[rows], by_class, own[rows])).to(queries.device)
        items = torch.bincount(bin_of_pair.view(-1), minlength=len(distances) * bins)
        relevant = torch.bincount(bin_of_pair[is_relevant], minlength=len(distances) * bins)
        neighbours, _ = first_neighbours_in_place(bin_of_pair, depth)
        found = is_relevant.gather(1, neighbours).cpu().numpy()

        items, relevant = (counts.view(-1, bins)[:, :-1].cpu().numpy() for counts in (items, relevant))
        yield items, relevant, average_precision(found, ks, relevant.sum(axis=1), normalisation)


class _Ranks(NamedTuple):
    """For every rank, the bucket that it lies in; integer arrays (queries, ranks), n = m = 0 behind the database's end."""

    n: np.ndarray  # items in the bucket
    m: np.ndarray  # relevant ones among them
    N: np.ndarray  # items in nearer buckets
    H: np.ndarray  # relevant ones among them
    k: np.ndarray  # position in the bucket, from 1


def _walk(items: np.ndarray, relevant: np.ndarray, depth: int) -> _Ranks:
    items, relevant = (np.pad(counts, ((0, 0), (0, 1))) for counts in (items, relevant))
    through = torch.from_numpy(items[:, :-1].cumsum(axis=1))
    ranks = torch.arange(1, depth + 1).repeat(len(items), 1)
    bucket = torch.searchsorted(through, ranks).numpy()
    before = items.cumsum(axis=1) - items, relevant.cumsum(axis=1) - relevant
    n, m, N, H = (np.take_along_axis(counts, bucket, axis=1) for counts in (items, relevant, *before))
    return _Ranks(n, m, N, H, ranks.numpy() - N)


def _score_block(items, relevant, ks, normalisation) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ranks = _walk(items, relevant, max(ks))
    n, m, N, H, k = ranks
    gains = _ratio(m, n) * (H + 1 + _ratio((k - 1) * (m - 1), n - 1)) / (N + k)
    relevant_first, relevant_last = k <= m, (n - m < k) & (k <= n)
    if normalisation == "hits":
        return _score_by_hits(ranks, gains, relevant_first, relevant_last, items.sum(axis=1, keepdims=True), ks)
    total = relevant.sum(axis=1)
    expected = _ratio(gains.cumsum(axis=1)[:, np.array(ks) - 1], _divisor(normalisation, ks, total, None))
    lower, upper = (average_precision(order, ks, total, normalisation) for order in (relevant_last, relevant_first))
    return expected, lower, upper


def _score_by_hits(ranks, gains, relevant_first, relevant_last, available, ks):
    """Expected, lowest and highest AP@K divided by the hits in the first K ranks.

    That divisor depends on the order, through the bucket that K cuts. Given that h of its j positions before the cut hold
    hits, the order before the cut is again uniform, so e_r holds with (h, j) in place of (m, n), and the divisor is H + h;
    h is hypergeometric. Sums over r <= N do not depend on h.
    """
    at_rank = np.arange(1, ranks.n.shape[1] + 1)
    last = np.maximum(np.minimum(ks, available), 1) - 1
    n, m, N, H, j = (np.take_along_axis(values, last, axis=1)[:, :, None] for values in ranks)
    j = np.minimum(j, n)
    fewest, most = np.maximum(0, j - (n - m)), np.minimum(j, m)
    h = fewest + np.arange((most - fewest).max() + 1)
    weights = _hypergeometric(h, n, m, j)
    h = np.minimum(h, most)  # repeats the last possible h, with weight 0

    def sum_before(gain_of_rank):
        sums = np.pad(gain_of_rank.cumsum(axis=1), ((0, 0), (1, 0)))
        return np.take_along_axis(sums, N[:, :, 0], axis=1)[:, :, None]

    # Sums of 1/r and of (k-1)/r over ranks N + 1..N + j, and with them the sum of any run of hits, in closed form.
    harmonic = np.concatenate([[0], (1 / at_rank).cumsum()])
    inverse_ranks = harmonic[N + j] - harmonic[N]
    expected = sum_before(gains) + _ratio(h, j) * (
        (H + 1) * inverse_ranks + _ratio(h - 1, j - 1) * (j - (N + 1) * inverse_ranks)
    )
    precision_first, precision_last = (
        np.where(order, order.cumsum(axis=1) / at_rank, 0) for order in (relevant_first, relevant_last)
    )
    highest = sum_before(precision_first) + h + (H - N) * (harmonic[N + h] - harmonic[N])
    skipped = N + j - h
    lowest = sum_before(precision_last) + h + (H - skipped) * (harmonic[N + j] - harmonic[skipped])

    expected, lowest, highest = (_ratio(sums, H + h) for sums in (expected, lowest, highest))
    return (expected * weights).sum(axis=2), lowest.min(axis=2), highest.max(axis=2)


def _hypergeometric(h, n, m, j) -> np.ndarray:
    """Probability of h hits among j of n positions that hold m hits; the last axis of h rises by 1 from its least value.

    Built from ratios of neighbouring probabilities, because factorials of large n would cost the last digits.
    """
    ratios = _ratio((m - h + 1) * (j - h + 1), h * (n - m - j + h))[:, :, 1:]
    logarithms = np.log(ratios, out=np.full(ratios.shape, -np.inf), where=ratios > 0).cumsum(axis=2)
    logarithms = np.pad(logarithms, ((0, 0), (0, 0), (1, 0)))
    weights = np.exp(logarithms - logarithms.max(axis=2, keepdims=True))
    return weights / weights.sum(axis=2, keepdims=True)


def _expected_hits(items: np.ndarray, relevant: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    share, before = _ratio(relevant, items), items.cumsum(axis=1) - items
    return np.stack([(np.clip(k - before, 0, items) * share).sum(axis=1) for k in ks], axis=1)


def _tie_rate(items: np.ndarray, depth: int) -> float:
    within = np.clip(depth - (items.cumsum(axis=1) - items), 0, items)
    return float(within[items > 1].sum() / max(within.sum(), 1))


def _divisor(normalisation: str, ks: Sequence[int], relevant_total, hits: np.ndarray | None) -> np.ndarray:
    relevant_total = np.asarray(relevant_total)[:, None]
    return {
        "k": np.array(ks)[None],
        "hits": hits,
        "min(k,relevant)": np.minimum(ks, relevant_total),
        "relevant": relevant_total,
    }[normalisation]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Division in which anything by 0 is 0."""
    out = np.zeros(np.broadcast_shapes(numerator.shape, denominator.shape))
    return np.divide(numerator, denominator, out=out, where=denominator != 0)


def _is_relevant(query_labels, by_class, own: np.ndarray) -> np.ndarray:
    """(rows, items) bool; an item that is left out counts as not relevant. by_class: (classes, items)."""
    is_relevant = (query_labels @ by_class).toarray()
    left_out = np.flatnonzero(own >= 0)
    is_relevant[left_out, own[left_out]] = False
    return is_relevant


def _most_similar(similarities: Tensor, k: int) -> np.ndarray:
    """Columns (rows, k) of the k highest values of each row, equal ones by column: topk orders equal values at will."""
    threshold = similarities.topk(k).values[:, -1:]
    row, column = (similarities >= threshold).nonzero(as_tuple=True)
    similarity, row, column = (values.cpu().numpy() for values in (similarities[row, column], row, column))
    order = np.lexsort((column, -similarity, row))
    starts = np.searchsorted(row, np.arange(len(similarities)))
    return column[order][starts[:, None] + np.arange(k)]


def _checked_ks(ks: Sequence[int], normalisation: str) -> tuple[int, ...]:
    if normalisation not in NORMALISATIONS:
        raise ValueError(
            f"found normalisation {normalisation!r}, expected one of {', '.join(map(repr, NORMALISATIONS))}"
        )
    ks = tuple(ks)
    if not ks or any(k != int(k) or k < 1 for k in ks) or any(low >= high for low, high in pairwise(ks)):
        raise ValueError(f"found ks {list(ks)}, expected rising whole numbers from 1, such as {list(KS)}")
    return tuple(int(k) for k in ks)


def _label_pair(query_labels, database_labels, queries: int, items: int):
    query_labels = _as_labels(query_labels, queries, "query")
    database_labels = _as_labels(database_labels, items, "database")
    if query_labels.shape[1] != database_labels.shape[1]:
        raise ValueError(
            f"found {query_labels.shape[1]} classes in the query labels and {database_labels.shape[1]} in the database "
            "labels, expected the same; the two files disagree, so look for a surplus column before using either"
        )
    return query_labels, database_labels


def _as_labels(labels, videos: int, whose: str) -> scipy.sparse.csr_array:
    labels = labels.cpu().numpy() if isinstance(labels, Tensor) else labels
    labels = labels if scipy.sparse.issparse(labels) else np.asarray(labels)
    if labels.ndim != 2 or labels.shape[0] != videos or videos == 0:
        raise ValueError(
            f"found {whose} labels of shape {tuple(labels.shape)} for {videos} videos, expected one multi-hot row "
            "(videos, classes) for each of at least one video"
        )
    labels = scipy.sparse.csr_array(labels)
    if not np.isin(labels.data, (0, 1)).all():
        raise ValueError(f"found values other than 0 and 1 in the {whose} labels, expected multi-hot rows")
    labels = labels.astype(bool)
    labels.eliminate_zeros()
    return labels


def _own_positions(self_match: str, query_ids, database_ids, queries: int, items: int) -> np.ndarray:
    """(queries,) int64 database index of each query's own entry that is to be left out, -1 for none."""
    if self_match not in SELF_MATCHES:
        raise ValueError(f"found self_match {self_match!r}, expected one of {', '.join(map(repr, SELF_MATCHES))}")
    if self_match == "included":
        return np.full(queries, -1)
    if query_ids is None or database_ids is None:
        raise ValueError('found self_match "excluded" without ids, expected query_ids and database_ids; pass both')
    query_ids, database_ids = (
        ids.tolist() if hasattr(ids, "tolist") else list(ids) for ids in (query_ids, database_ids)
    )
    position = {video: index for index, video in enumerate(database_ids)}
    if (len(query_ids), len(database_ids), len(position)) != (queries, items, items):
        raise ValueError(
            f"found {len(query_ids)} query ids and {len(database_ids)} database ids ({len(position)} different ones), "
            f"expected {queries} and {items} unique ones; give each video its own id"
        )
    return np.array([position.get(video, -1) for video in query_ids], dtype=np.int64)
