"""A trained run, read against its baselines: codes, mAP@K, code health, kept in the run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from ..data import Dataset, Split
from ..methods.baselines import BASELINES, fit_baseline
from ..retrieval.codes import CodeHealth, health
from ..retrieval.metrics import KS, Evaluation, evaluate, evaluate_cosine
from ..runs.folder import Run
from ..storage.tensors import digest
from ..training.device import resolve_device
from ..training.loop import encode

FITTED_VIDEOS = 50_000  # that baselines are fitted to, spread over the training set; more would change little
REAL_VALUED = "mean features (not hashed)"
CENTRED = "mean features, centred (not hashed)"  # by the mean of the training set
NOT_HASHED = {REAL_VALUED: "real_valued", CENTRED: "real_valued_centred"}  # as shown -> as metrics.json has it


@dataclass(frozen=True)
class Results:
    """What a run's codes are worth, beside the baselines' at the same number of bits."""

    methods: dict[str, Evaluation]  # the run's own first, then the baselines
    not_hashed: dict[str, np.ndarray]  # mAP@K by the cosine of mean-pooled features, as they are and centred
    health: CodeHealth  # of the database's codes
    codes: dict[str, Tensor]  # "database", "query": (videos, b) int8 of ±1

    @property
    def own(self) -> Evaluation:
        """Of the run's own codes."""
        return next(iter(self.methods.values()))

    @property
    def ks(self) -> tuple[int, ...]:
        return self.own.ks

    def within_database(self) -> Results:
        """Without the K that lie beyond the database, if it has any K at all."""
        known = max(1, sum(k <= self.own.database_size for k in self.ks))
        by_k = ("ks", "expected", "lower", "upper", "by_index", "precision", "recall")
        methods = {
            name: replace(result, **{field: getattr(result, field)[:known] for field in by_k})
            for name, result in self.methods.items()
        }
        return replace(self, methods=methods, not_hashed={n: found[:known] for n, found in self.not_hashed.items()})

    def table(self) -> dict[str, np.ndarray]:
        """Expected mAP@K by method, in the order in which they are shown."""
        return {name: result.expected for name, result in self.methods.items()} | self.not_hashed

    def curves(self) -> dict[str, dict[str, np.ndarray | None]]:
        """By method: ks, and expected, lower and upper mAP@K (the real-valued line has no ties and no bounds)."""
        curves = {
            name: {"ks": self.ks, "expected": result.expected, "lower": result.lower, "upper": result.upper}
            for name, result in self.methods.items()
        }
        lines = {
            name: {"ks": self.ks, "expected": found, "lower": None, "upper": None}
            for name, found in self.not_hashed.items()
        }
        return curves | lines

    def as_dict(self) -> dict[str, Any]:
        return {
            "methods": {name: result.as_dict() for name, result in self.methods.items()},
            **{NOT_HASHED[name]: found.tolist() for name, found in self.not_hashed.items()},
            "code_health": {
                "videos": self.health.videos,
                "distinct": self.health.distinct,
                "constant_bits": self.health.constant_bits,
                "mean_absolute_balance": self.health.mean_absolute_balance,
                "mean_absolute_correlation": self.health.mean_absolute_correlation,
                "bit_balance": self.health.bit_balance.tolist(),
            },
        }


def evaluate_run(
    run: Run,
    dataset: Dataset,
    ks: Sequence[int] = KS,
    self_match: str = "included",
    normalisation: str = "k",
    baselines: Sequence[str] = BASELINES,
    device: str = "auto",
) -> Results:
    """Encode database and queries, evaluate them beside the baselines, and keep codes and metrics in the run folder.

    self_match, normalisation: see `metrics.evaluate`; where queries and database are apart, nothing matches itself
    device: where to encode, whatever the run was trained on
    A baseline that cannot make so many bits of these features is left out, which is said. Raises ValueError for a data
    set without labels, or another one than the run was trained on (for that, `encode` and `evaluate_codes` are there).
    """
    _check_labels(dataset)
    codes, weights = _encode(run, dataset, device)
    options = {"ks": ks, "self_match": self_match}
    splits = _different_splits(dataset)
    methods = {run.method.name: evaluate_codes(codes, dataset, normalisation=normalisation, **options)}
    pooled = {name: split.features.mean_pooled() for name, split in splits.items()}
    pooled.setdefault("query", pooled["database"])
    training = dataset.train.features.mean_pooled(most=FITTED_VIDEOS)
    for name in baselines:
        try:
            hasher = fit_baseline(name, training, run.settings.bits, run.settings.seed)
        except ValueError as error:
            print(f"{name} is left out: {error}")
            continue
        hashed = {split: hasher.encode(features) for split, features in pooled.items()}
        methods[name] = evaluate_codes(hashed, dataset, normalisation=normalisation, **options)
    not_hashed = {}
    for name, offset in ((REAL_VALUED, 0), (CENTRED, training.mean(dim=0))):
        not_hashed[name] = evaluate_cosine(
            pooled["query"] - offset, pooled["database"] - offset, dataset.query.labels, dataset.database.labels,
            query_ids=dataset.query.ids, database_ids=dataset.database.ids, normalisation=normalisation, **options,
        )  # fmt: skip
    results = Results(methods, not_hashed, health(codes["database"]), codes)
    run.save_json("metrics.json", results.as_dict() | {"made_from": made_from(weights, dataset)})
    return results


def made_from(weights: str, dataset: Dataset) -> dict[str, str]:
    """What metrics depend on: the network, and all features, ids and labels. weights: see `digest`."""
    found = {"weights": weights}
    for name, split in dataset.splits.items():
        found[f"{name}_features"] = split.fingerprint
    for name in ("database", "query"):
        found[f"{name}_labels"] = dataset.splits[name].labels_fingerprint
    return found


def is_evaluated(run: Run, dataset: Dataset, **evaluation: Any) -> bool:
    """Whether a finished run's metrics were made by its network, of the data set as it is, in this way.

    evaluation: as for `evaluate_run`
    """
    if not run.evaluated:
        return False
    metrics = run.metrics
    own, wanted = metrics["methods"][run.method.name], {"self_match": "included", "normalisation": "k"} | evaluation
    same = all(own.get(name) == wanted[name] for name in ("self_match", "normalisation"))
    return same and metrics["made_from"] == made_from(run.weights, dataset)


def encode_run(run: Run, dataset: Dataset, device: str = "auto") -> dict[str, Tensor]:
    """Codes of "database" and "query", (videos, b) int8 of ±1, also kept in the run folder; no labels are needed.

    Raises ValueError for another data set than the run was trained on.
    """
    return _encode(run, dataset, device)[0]


def _encode(run: Run, dataset: Dataset, device: str) -> tuple[dict[str, Tensor], str]:
    """The codes, and what tells the network that made them."""
    _check_trained_on(run, dataset)
    device, model = resolve_device(device), run.model()
    weights = digest(model.state_dict())  # of what was read: a run that is being trained has others soon
    splits = _different_splits(dataset)
    codes = {name: encode(model, split.features, device) for name, split in splits.items()}
    for name, split in splits.items():
        run.save_codes(split, codes[name], weights)
    codes.setdefault("query", codes["database"])
    return codes, weights


def run_codes(run: Run, split: Split, device: str = "auto") -> Tensor:
    """A split's codes by the run's network as it is, (videos, b) int8 of ±1; those that are not kept are encoded now."""
    stored = run.stored_codes(split)
    if stored is not None:
        return stored
    print(f"{run.name}: encoding {len(split):,} videos of the {split.name} split")
    model = run.model()
    codes = encode(model, split.features, resolve_device(device))
    try:
        run.save_codes(split, codes, digest(model.state_dict()))
    except OSError as error:
        print(f"the codes are used, but not kept: {error}")
    return codes


def evaluate_codes(codes: Mapping[str, Tensor], dataset: Dataset, **options: Any) -> Evaluation:
    """`metrics.evaluate` on codes of a data set's "query" and "database" splits."""
    return evaluate(
        codes["query"], codes["database"], dataset.query.labels, dataset.database.labels,
        query_ids=dataset.query.ids, database_ids=dataset.database.ids, **options,
    )  # fmt: skip


def _different_splits(dataset: Dataset) -> dict:
    splits = {"database": dataset.database}
    return splits if dataset.query is dataset.database else splits | {"query": dataset.query}


def _check_trained_on(run: Run, dataset: Dataset) -> None:
    trained = run.record["dataset"]
    for word, former, now in (
        ("data set", trained.get("name"), dataset.name),
        ("feature size", trained.get("feature_size"), dataset.feature_size),
    ):
        if former != now:
            raise ValueError(
                f"run {run.name} was trained with {word} {former}, but the data set given has {now}: "
                "give the data set it was trained on."
            )


def _check_labels(dataset: Dataset) -> None:
    for split in (dataset.database, dataset.query):
        if split.labels is None:
            raise ValueError(
                f"{dataset.name}: the {split.name} split has no labels, so nothing can be called relevant: "
                "name label files in its definition."
            )
