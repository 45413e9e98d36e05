"""Runs made once: a finished one is recognised by its settings, an interrupted one goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data import Dataset
from ..methods import settings_for
from ..methods.wsch.settings import Settings
from ..runs.folder import Run
from ..runs.outputs import find_run, list_runs, load_run, run_name
from ..training.loop import fit
from .evaluation import evaluate_run, is_evaluated
from .published import import_published


def complete_run(
    settings: Settings, dataset: Dataset, callbacks: Iterable[Callable] | None = None, **evaluation
) -> tuple[Run, str]:
    """A trained and evaluated run of these settings, and what was done: "found", "evaluated", "resumed" or "trained".

    evaluation: how to evaluate, as for `evaluate_run`; a run that was evaluated in another way is evaluated again
    Raises what `fit` and `evaluate_run` raise.
    """
    run = find_run(settings, dataset.train.fingerprint)
    if run is None:
        name = run_name(settings.dataset, settings, dataset.train.fingerprint)
        run, done = fit(settings, dataset, name, callbacks), "trained"
    elif not run.finished:
        begun = replace(settings, device=run.settings.device)
        run, done = fit(begun, dataset, run.name, callbacks, resume=True), "resumed"
    elif not is_evaluated(run, dataset, **evaluation):
        done = "evaluated"
    else:
        return run, "found"
    evaluate_run(run, dataset, **evaluation)
    return run, done


def complete_all(
    dataset: Dataset,
    bits: Iterable[int],
    seeds: Iterable[int],
    settings: Mapping[str, Any],
    runs: Sequence[str] = (),
    checkpoints: Sequence[str] = (),
    recipes: Sequence[str] = ("published",),
    **evaluation,
) -> dict[Run, str]:
    """Runs of every recipe for every number of bits with every seed, or else the named runs and published checkpoints;
    all evaluated.

    settings: other choices, as for `settings_for`
    returns: each run with what was done for it, as `complete_run` says, or "imported", or "given" for one that was ready
    """
    for name, plural in (("bits", "bits"), ("seed", "seeds"), ("recipe", "recipe")):
        if name in settings:
            raise ValueError(f"settings hold {name}, of which each run has its own: give it as the parameter {plural}.")
    given = [(load_run(name), "given") for name in runs]
    given += [_import(Path(path), dataset) for path in checkpoints]
    for place, (run, done) in enumerate(given):
        if not is_evaluated(run, dataset, **evaluation):
            evaluate_run(run, dataset, **evaluation)
            given[place] = run, "evaluated" if done == "given" else done
    if given:
        return dict(given)
    plan = [
        settings_for(dataset, **{**settings, "recipe": recipe, "bits": b, "seed": s})
        for b in bits
        for recipe in dict.fromkeys(recipes)
        for s in seeds
    ]
    if not plan:
        raise ValueError(
            "there is nothing to show: give recipes, bits and seeds, or the names of runs, or checkpoints."
        )
    return dict(complete_run(chosen, dataset, **evaluation) for chosen in plan)


def _import(path: Path, dataset: Dataset) -> tuple[Run, str]:
    """The run made of a published checkpoint before, or a new one."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:6] if path.is_file() else ""
    name = "".join(letter if letter.isalnum() else "_" for letter in f"{dataset.name}-{path.stem}")[:80] + f"-{digest}"
    known = [run for run in list_runs() if run.name == name]
    return (known[0], "found") if known else (import_published(path, dataset, name), "imported")
