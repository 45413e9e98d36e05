"""Several methods on one data set: what is trained of each, how they fare query by query, and what a run costs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import Dataset
from ..methods import method_named, method_of, settings_for
from ..retrieval.metrics import evaluate
from ..runs.folder import Run
from ..storage.files import read_json, write_whole
from ..storage.words import unknown_name
from .budget import BUDGETS, COUNTS_EPOCHS, Pace, fitted, gradient_steps, measure_pace, one_thread
from .evaluation import run_codes
from .variants import OF_THE_SWEEP

ENCODED = 256  # videos, to measure what encoding takes


@dataclass(frozen=True)
class Compared:
    """A method as it takes part in a comparison, at one number of bits."""

    name: str  # as it is shown: "WSCH", "WSCH, plus"
    settings: Any  # as long as the budget allows
    changes: Mapping[str, Any]  # that make these settings of the data set's own
    steps: int  # gradient steps of a run


def choose_methods(
    names: Sequence[str],
    dataset: Dataset,
    bits: int,
    budget: str = "published",
    amount: float = 0,
    own: Mapping[str, Mapping[str, Any]] | None = None,
    paces: Path | None = None,
) -> dict[str, Compared]:
    """Methods by the names they are shown under, each made as long as the budget says.

    names: of methods, each with a recipe after it if it has another one than its own: "wsch", "wsch plus", "conmh fcvid"
    budget: "published" leaves a method the epochs of its settings; "steps" gives every one `amount` gradient steps, or as
        many as the first one's settings ask for; "seconds" gives every one so many seconds of one thread
    own: settings of your own, by name; paces: the file that keeps what a pass takes, so that epochs stay as they are
    Raises ValueError for unknown names, settings and values.
    """
    own = own or {}
    if budget not in BUDGETS:
        raise ValueError(f"budget is {budget!r}: it must be one of {', '.join(BUDGETS)}.")
    if amount < 0 or (budget == "seconds" and not amount):
        raise ValueError(f"amount is {amount}: give the {budget} that each method may train, a number above 0.")
    for name in own:
        if name not in names:
            raise ValueError(unknown_name("method among those compared", name, list(names)))
    chosen = {name: _changes(name, own.get(name, {}), bits) for name in dict.fromkeys(names)}
    if not chosen:
        raise ValueError("there is nothing to compare: name methods.")
    found = {}
    for name, changes in chosen.items():
        try:
            settings = settings_for(dataset, **changes)
            if budget == "seconds":
                pace = known_pace(paces, settings, dataset)
                settings = fitted(settings, lambda longer, pace=pace: pace.seconds(longer, dataset), amount)
            elif budget == "steps":
                amount = amount or gradient_steps(settings, dataset)
                settings = fitted(settings, lambda longer: gradient_steps(longer, dataset), amount)
        except ValueError as error:
            raise ValueError(f"method {name!r}: {error}") from error
        epochs = {} if budget == "published" else {n: v for n, v in settings.as_dict().items() if n in COUNTS_EPOCHS}
        found[shown_name(name)] = Compared(
            shown_name(name), settings, changes | epochs, gradient_steps(settings, dataset)
        )
    return found


def shown_name(name: str) -> str:
    method, _, recipe = name.partition(" ")
    return method_named(method).name + (f", {recipe}" if recipe else "")


def _changes(name: str, own: Mapping[str, Any], bits: int) -> dict[str, Any]:
    method, _, recipe = name.partition(" ")
    method_named(method)
    for setting in OF_THE_SWEEP:
        if setting in own:
            raise ValueError(
                f"method {name!r}: {setting} belongs to the whole comparison: leave it out of its settings."
            )
    recipe = recipe or ("published" if method == "wsch" else None)  # whichever a data set asks for
    return {"method": method, "recipe": recipe, "bits": bits, **own}


def known_pace(path: Path | None, settings: Any, dataset: Dataset) -> Pace:
    """What passes take: as it was measured before, or measured now and kept in the file."""
    known = read_json(path, "remove it, and paces are measured again") if path and path.exists() else {}
    counts = dict.fromkeys(COUNTS_EPOCHS)
    values = {name: value for name, value in settings.as_dict().items() if name not in counts}
    key = json.dumps([method_of(settings), dataset.train.fingerprint, values | {"seed": 0}])
    if key not in known:
        known[key] = asdict(measure_pace(settings, dataset))
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, lambda draft: draft.write_text(json.dumps(known, indent=1), encoding="utf-8"))
    return Pace(**known[key])


@dataclass(frozen=True)
class Cost:
    """What a run's network takes to store and to use."""

    parameters: int
    encode_seconds: float  # a thousand videos, by one thread


def cost_of(run: Run, dataset: Dataset) -> Cost:
    model, frames = run.model(), next(dataset.query.features.batches(min(ENCODED, len(dataset.query))))
    with torch.no_grad(), one_thread():
        model.encode(frames)  # the first time takes longer
        start = time.process_time()
        model.encode(frames)
        taken = time.process_time() - start
    return Cost(sum(parameter.numel() for parameter in model.parameters()), 1000 * taken / len(frames))


def precision_by_query(runs: Sequence[Run], dataset: Dataset, k: int) -> np.ndarray:
    """(queries,) expected AP@k of every query, the mean over runs of one method."""
    labels = dataset.query.labels, dataset.database.labels
    ids = {"query_ids": dataset.query.ids, "database_ids": dataset.database.ids}
    found = []
    for run in runs:
        database = run_codes(run, dataset.database)
        query = database if dataset.queries_are_database else run_codes(run, dataset.query)
        found.append(evaluate(query, database, *labels, ks=(k,), **ids).per_query_expected[:, 0])
    return np.mean(found, axis=0)


@dataclass(frozen=True)
class Duel:
    """A method beside the reference, query by query."""

    name: str
    won: int  # queries whose AP@k is higher
    lost: int
    level: int


def duels(precision: Mapping[str, np.ndarray], reference: str) -> list[Duel]:
    """precision: method -> (queries,) AP@k"""
    found = []
    for name, values in precision.items():
        if name != reference:
            difference = values - precision[reference]
            won, lost = int((difference > 0).sum()), int((difference < 0).sum())
            found.append(Duel(name, won, lost, len(values) - won - lost))
    return found


def most_disputed(precision: Mapping[str, np.ndarray], count: int) -> list[int]:
    """Rows of the queries whose AP@k differs most between methods, the most disputed first."""
    values = np.stack([*precision.values()])
    return np.argsort(values.min(axis=0) - values.max(axis=0), kind="stable")[:count].tolist()
