"""Retrieval quality of codes: mAP@K, precision and recall, exact in the presence of ties.

Two videos are relevant to each other if they share at least one label. Hamming distances of short codes tie massively,
and the order among equals is an accident, so `evaluate` reports the expected value over all orders of each group of
ties, with the best and the worst order as bounds (McSherry & Najork 2008, "Computing information retrieval performance
measures efficiently in the presence of tied scores"; He et al. 2018, "Hashing as tie-aware learning to rank"). Two
histograms per query are enough for that: database items per distance, and relevant ones among them. In the symbols used
below, a bucket (all items at one distance) holds n items, m of them relevant, behind N items and H relevant ones that
are nearer; its item at position k = 1..n has rank r = N + k and adds

    e_r = (m/n) (H + 1 + (k-1)(m-1)/(n-1)) / r

to the expected sum of rel_r * precision@r. AP@K is that sum over ranks r <= K, divided as the normalisation says:

    "k"                by K, as in every video-hashing paper
    "hits"             by the number of relevant items within the first K ranks
    "min(k,relevant)"  by K, or by the number of relevant items in the database if that is smaller
    "relevant"         by the number of relevant items in the database

and 0 where that is 0. K may exceed the database: ranks behind its end add nothing, and a divisor K stays K.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy  # whose parts are loaded when first used: they take longer than the rest of the core
import torch
from torch import Tensor

from . import search
from .codes import as_tensor
from .histograms import item_histograms, relevant_histograms

KS = (5, 20, 40, 60, 80, 100)
SELF_MATCHES = ("included", "excluded")
NORMALISATIONS = ("k", "hits", "min(k,relevant)", "relevant")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found; curves over K have shape (len(ks),), curves over the Hamming radius (bits + 1,).

    Recall is the mean over queries that have relevant items, 0 if there are none.
    """

    ks: tuple[int, ...]
    expected: np.ndarray  # mAP@K, expected over all orders of ties
    lower: np.ndarray  # mAP@K of the worst order
    upper: np.ndarray  # mAP@K of the best order
    by_index: np.ndarray  # mAP@K with ties in the order of the database
    precision: np.ndarray  # expected share of relevant items among the first K ranks
    recall: np.ndarray  # expected share of the relevant items that the first K ranks hold
    precision_by_radius: np.ndarray  # share of relevant items within the radius; 0 for a query that retrieves nothing
    recall_by_radius: np.ndarray  # share of the relevant items that lie within the radius
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
        values = {name: value for name, value in vars(self).items() if name != "per_query_expected"}
        values["ks"] = list(self.ks)
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}


def evaluate(
    query_codes, database_codes, query_labels, database_labels, *, ks: Sequence[int] = KS,
    query_ids: Sequence | None = None, database_ids: Sequence | None = None,
    self_match: str = "included", normalisation: str = "k",
) -> Evaluation:  # fmt: skip
    """Search the database with every query by Hamming distance and score what is found.

    query_codes: (queries, bits) of -1 and +1; database_codes: (items, bits) of -1 and +1, on the same device
    query_labels: (queries, classes) multi-hot, scipy.sparse, array or tensor; database_labels: (items, classes)
    ks: rising cut-off ranks K
    query_ids, database_ids: what names each video, needed for self_match = "excluded"
    self_match: "included", or "excluded" to leave out of each search the database item with the query's own id;
        a query whose id is not in the database searches all of it
    normalisation: what AP@K is divided by, see the head of this module; precision and recall do not depend on it
    Raises ValueError for inputs that do not fit each other. Makes no array of queries x items.
    """
    ks = _checked_ks(ks, normalisation)
    queries, database = search.as_code_pair(query_codes, database_codes)
    labels = _label_pair(query_labels, database_labels, len(queries), len(database))
    own = _own_positions(self_match, query_ids, database_ids, len(queries), len(database))

    with ThreadPoolExecutor(1) as beside:  # counting takes one core, and lets another go on searching
        neighbours = beside.submit(search.nearest_others, queries, database, max(ks), own)
        items = item_histograms(queries, database, own)
    relevant, found = relevant_histograms(queries, database, *labels, own, neighbours.result())
    by_index = average_precision(found, ks, relevant.sum(axis=1), normalisation)
    expected, lower, upper = tie_aware_average_precision(items, relevant, ks, normalisation)

    retrieved, retrieved_relevant = items.cumsum(axis=1), relevant.cumsum(axis=1)
    relevant_share, total = _ratio(relevant, items), retrieved_relevant[:, -1:]
    hits = np.stack([(_items_within(k, items) * relevant_share).sum(axis=1) for k in ks], axis=1)
    ranked = _items_within(max(ks), items)
    with_relevant = int((total > 0).sum())
    return Evaluation(
        ks=ks,
        expected=expected.mean(axis=0), by_index=by_index.mean(axis=0),
        lower=lower.mean(axis=0), upper=upper.mean(axis=0),
        precision=(hits / np.array(ks)).mean(axis=0),
        recall=_ratio(hits, total).sum(axis=0) / max(with_relevant, 1),
        precision_by_radius=_ratio(retrieved_relevant, retrieved).mean(axis=0),
        recall_by_radius=_ratio(retrieved_relevant, total).sum(axis=0) / max(with_relevant, 1),
        tie_rate=float(ranked[items > 1].sum() / max(ranked.sum(), 1)),
        per_query_expected=expected,
        queries=len(queries), database_size=len(database), queries_without_relevant=len(queries) - with_relevant,
        self_matches_removed=int((own >= 0).sum()),
        bits=queries.shape[1], self_match=self_match, normalisation=normalisation,
    )  # fmt: skip


def evaluate_cosine(
    query_features, database_features, query_labels, database_labels, *, ks: Sequence[int] = KS,
    query_ids: Sequence | None = None, database_ids: Sequence | None = None,
    self_match: str = "included", normalisation: str = "k",
) -> np.ndarray:  # fmt: skip
    """mAP@K of real-valued features by cosine similarity: the line that codes made from them are read against.

    query_features: (queries, size), database_features: (items, size), finite; other arguments as for `evaluate`
    returns: (len(ks),) mAP@K, equal similarities in the order of the database; an all-zero feature has similarity 0
    """
    ks = _checked_ks(ks, normalisation)
    queries, database = as_tensor(query_features).float(), as_tensor(database_features).float()
    query_labels, database_labels = _label_pair(query_labels, database_labels, len(queries), len(database))
    own = _own_positions(self_match, query_ids, database_ids, len(queries), len(database))
    by_class, values = database_labels.T.tocsr(), []
    for rows, similarities in search.cosine_chunks(queries, database, torch.from_numpy(own).to(queries.device)):
        is_relevant = _is_relevant(query_labels[rows], by_class, own[rows])
        neighbours = search.most_similar(similarities, min(max(ks), len(database))).cpu().numpy()
        found = np.take_along_axis(is_relevant, neighbours, axis=1)
        values.append(average_precision(found, ks, is_relevant.sum(axis=1), normalisation))
    return np.concatenate(values).mean(axis=0)


def average_precision(relevant, ks: Sequence[int], relevant_total, normalisation: str = "k") -> np.ndarray:
    """AP@K of one concrete order.

    relevant: (queries, ranks) bool, nearest first; ranks behind the last column count as not relevant
    relevant_total: (queries,) number of relevant items in the whole database
    returns: (queries, len(ks)) in [0, 1]
    """
    ks = _checked_ks(ks, normalisation)
    relevant = np.asarray(relevant, dtype=bool)[:, : max(ks)]
    relevant = np.pad(relevant, ((0, 0), (0, max(ks) - relevant.shape[1])))
    hits, at_k = relevant.cumsum(axis=1), np.array(ks) - 1
    sums = _precision_at_hits(relevant).cumsum(axis=1)[:, at_k]
    return _ratio(sums, hits[:, at_k] if normalisation == "hits" else _divisor(normalisation, ks, relevant_total))


def tie_aware_average_precision(items, relevant, ks: Sequence[int], normalisation: str = "k") -> tuple:
    """AP@K over all orders of ties, from two histograms per query.

    items: (queries, distances) integers, how many database items lie at each distance, nearest first
    relevant: (queries, distances) integers, how many of them are relevant
    returns: expected, lowest and highest AP@K, each (queries, len(ks)) in [0, 1]
    """
    ks, items, relevant = _checked_ks(ks, normalisation), np.asarray(items), np.asarray(relevant)
    score = _score_by_hits if normalisation == "hits" else _score
    blocks = search.query_chunks(len(items), max(ks) * len(ks), bytes_per_pair=100)
    parts = [score(items[rows], relevant[rows], ks, normalisation) for rows in blocks]
    expected, lower, upper = (np.concatenate(part) for part in zip(*parts, strict=True))
    # Where all orders are equal, rounding must not put the three out of order: plots draw their differences.
    lower = np.minimum(lower, upper)
    return np.clip(expected, lower, upper), lower, upper


def audit(ks, values, mean_relevant: float | None = None, tolerance: float = 0.0005) -> list[str]:
    """Contradictions in a row of mAP@K values that are normalised by K, one sentence each; none if it can be true.

    K * mAP@K, the mean sum of the precisions at the hits, never decreases with K, and never exceeds the mean number of
    relevant items per query.
    values: mAP@K in [0, 1], one for each of the rising ks
    tolerance: how far a value may be off by rounding; half a thousandth suits published tables
    """
    ks = _checked_ks(ks, "k")
    if len(values) != len(ks) or not all(0 <= value <= 1 for value in values):
        raise ValueError(f"found values {list(values)} for ks {list(ks)}, expected one mAP in [0, 1] for each K")
    slack = tolerance + 1e-12
    falls = [
        f"K * mAP@K falls from {k * value:.3f} at K = {k} to {next_k * next_value:.3f} at K = {next_k}."
        for (k, value), (next_k, next_value) in pairwise(zip(ks, values, strict=True))
        if next_k * (next_value + slack) < k * (value - slack)
    ]
    excesses = [
        f"K * mAP@K is {k * value:.3f} at K = {k}, more than the mean number of relevant items, {mean_relevant:.3f}."
        for k, value in zip(ks, values, strict=True)
        if mean_relevant is not None and k * (value - slack) > mean_relevant
    ]
    return falls + excesses


def _walk(items: np.ndarray, relevant: np.ndarray, depth: int) -> tuple:
    """(queries, depth): n, m (0 behind the end of the database), N, H, k; e_r; hits of the worst and the best order."""
    ranks = torch.arange(1, depth + 1).repeat(len(items), 1)
    bucket = torch.searchsorted(torch.from_numpy(items.cumsum(axis=1)), ranks).numpy()
    items, relevant = (np.pad(counts, ((0, 0), (0, 1))) for counts in (items, relevant))
    before = items.cumsum(axis=1) - items, relevant.cumsum(axis=1) - relevant
    n, m, N, H = (np.take_along_axis(counts, bucket, axis=1) for counts in (items, relevant, *before))
    k = ranks.numpy() - N
    gains = _ratio(m, n) * (H + 1 + _ratio((k - 1) * (m - 1), n - 1)) / (N + k)
    return (n, m, N, H, k), gains, (k > n - m) & (k <= n), k <= m


def _score(items, relevant, ks, normalisation) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    _, gains, relevant_last, relevant_first = _walk(items, relevant, max(ks))
    divisor = _divisor(normalisation, ks, relevant.sum(axis=1))
    return tuple(
        _ratio(gain_of_rank.cumsum(axis=1)[:, np.array(ks) - 1], divisor)
        for gain_of_rank in (gains, _precision_at_hits(relevant_last), _precision_at_hits(relevant_first))
    )


def _score_by_hits(items, relevant, ks, _) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_score` for the divisor that depends on the order, through the bucket that K cuts.

    If h of the j positions of that bucket up to K hold hits, the divisor is H + h, and the order within the j positions
    is again uniform: e_r holds with (h, j) in place of (m, n). h is hypergeometric. Nearer buckets do not depend on h.
    """
    ranks, gains, relevant_last, relevant_first = _walk(items, relevant, max(ks))
    last = np.maximum(np.minimum(ks, items.sum(axis=1, keepdims=True)), 1) - 1
    n, m, N, H, j = (np.take_along_axis(values, last, axis=1)[:, :, None] for values in ranks)
    j = np.minimum(j, n)
    fewest, most = np.maximum(0, j - (n - m)), np.minimum(j, m)
    h = fewest + np.arange((most - fewest).max() + 1)
    weights = _hypergeometric(h, n, m, j)
    h = np.minimum(h, most)  # h that cannot be have weight 0, and must not move the bounds

    def nearer(gain_of_rank):
        sums = np.pad(gain_of_rank.cumsum(axis=1), ((0, 0), (1, 0)))
        return np.take_along_axis(sums, N[:, :, 0], axis=1)[:, :, None]

    # A run of h hits behind N items and H hits adds sum of (H + i) / (N + i) = h + (H - N) * (sum of 1 / (N + i)).
    harmonic = np.concatenate([[0], (1 / np.arange(1, max(ks) + 1)).cumsum()])
    first, skipped = harmonic[N + h] - harmonic[N], N + j - h
    highest = nearer(_precision_at_hits(relevant_first)) + h + (H - N) * first
    lowest = nearer(_precision_at_hits(relevant_last)) + h + (H - skipped) * (harmonic[N + j] - harmonic[skipped])
    inverse_ranks = harmonic[N + j] - harmonic[N]
    positions_by_rank = j - (N + 1) * inverse_ranks  # sum of (k-1)/r
    expected = nearer(gains) + _ratio(h, j) * ((H + 1) * inverse_ranks + _ratio(h - 1, j - 1) * positions_by_rank)

    expected, lowest, highest = (_ratio(sums, H + h) for sums in (expected, lowest, highest))
    return (expected * weights).sum(axis=2), lowest.min(axis=2), highest.max(axis=2)


def _hypergeometric(h, n, m, j) -> np.ndarray:
    """Probability of h hits among j of n positions that hold m hits; the last axis of h counts up from the least h.

    Built from ratios of neighbouring probabilities, because factorials of large n would cost the last digits.
    """
    ratios = _ratio((m - h + 1) * (j - h + 1), h * (n - m - j + h))[:, :, 1:]
    logarithms = np.log(ratios, out=np.full(ratios.shape, -np.inf), where=ratios > 0).cumsum(axis=2)
    logarithms = np.pad(logarithms, ((0, 0), (0, 0), (1, 0)))
    weights = np.exp(logarithms - logarithms.max(axis=2, keepdims=True))
    return weights / weights.sum(axis=2, keepdims=True)


def _items_within(k: int, items: np.ndarray) -> np.ndarray:
    return np.clip(k - (items.cumsum(axis=1) - items), 0, items)


def _precision_at_hits(relevant: np.ndarray) -> np.ndarray:
    return np.where(relevant, relevant.cumsum(axis=1) / np.arange(1, relevant.shape[1] + 1), 0)


def _divisor(normalisation: str, ks: Sequence[int], relevant_total) -> np.ndarray:
    relevant_total = np.asarray(relevant_total)[:, None]
    smaller = np.minimum(ks, relevant_total)
    return {"k": np.array([ks]), "min(k,relevant)": smaller, "relevant": relevant_total}[normalisation]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Division in which anything by 0 is 0."""
    out = np.zeros(np.broadcast_shapes(numerator.shape, denominator.shape))
    return np.divide(numerator, denominator, out=out, where=denominator != 0)


def _is_relevant(query_labels, by_class, own: np.ndarray) -> np.ndarray:
    """(rows, items) bool from labels (rows, classes) and (classes, items); an item that is left out is not relevant."""
    is_relevant = (query_labels @ by_class).toarray()
    left_out = np.flatnonzero(own >= 0)
    is_relevant[left_out, own[left_out]] = False
    return is_relevant


def _checked_ks(ks: Sequence[int], normalisation: str) -> tuple[int, ...]:
    if normalisation not in NORMALISATIONS:
        raise ValueError(f"found normalisation {normalisation!r}, expected one of {NORMALISATIONS}")
    if len(ks) == 0 or any(k != int(k) or k < 1 for k in ks) or any(low >= high for low, high in pairwise(ks)):
        raise ValueError(f"found ks {list(ks)}, expected rising whole numbers from 1, such as {list(KS)}")
    return tuple(int(k) for k in ks)


def _label_pair(query_labels, database_labels, queries: int, items: int) -> tuple:
    query_labels, database_labels = _as_labels(query_labels, queries), _as_labels(database_labels, items)
    if query_labels.shape[1] != database_labels.shape[1]:
        raise ValueError(
            f"found {query_labels.shape[1]} classes in the query labels and {database_labels.shape[1]} in the database "
            "labels, expected the same; look for a surplus column in one of the two files"
        )
    return query_labels, database_labels


def _as_labels(labels, videos: int) -> scipy.sparse.csr_array:
    labels = labels.cpu() if isinstance(labels, Tensor) else labels
    labels = scipy.sparse.csr_array(labels if scipy.sparse.issparse(labels) else np.atleast_2d(labels))
    if labels.shape[0] != videos or videos == 0 or not np.isin(labels.data, (0, 1)).all():
        raise ValueError(
            f"found labels of shape {labels.shape} for {videos} videos, values {np.unique(labels.data)[:5]}, expected "
            "a multi-hot row (videos, classes) of 0 and 1 for each of at least one video"
        )
    return labels.astype(bool)


def _own_positions(self_match: str, query_ids, database_ids, queries: int, items: int) -> np.ndarray:
    """(queries,) int64 database index of each query's own entry that is to be left out, -1 for none."""
    if self_match == "included":
        return np.full(queries, -1)
    if self_match not in SELF_MATCHES:
        raise ValueError(f'found self_match {self_match!r}, expected "included" or "excluded"')
    found = tuple(None if ids is None else len(ids) for ids in (query_ids, database_ids))
    if found != (queries, items):
        raise ValueError(
            f"found {found[0]} query_ids and {found[1]} database_ids, expected {queries} and {items}, one for each "
            'video; pass both for self_match = "excluded"'
        )
    return search.positions_by_id(query_ids, database_ids)
