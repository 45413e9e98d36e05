"""WSCH: self-supervised video hashing with a wide, shallow autoencoder and cyclic multi-task learning.

from wsch_core import evaluate_run, fit, load_dataset, settings_for
dataset = load_dataset("demo")
run = fit(settings_for(dataset, bits=64), dataset)
results = evaluate_run(run, dataset)
"""

from .storage import threads  # noqa: F401  # isort: skip (first: torch reads it when loaded)
from .data import load_dataset
from .experiments.evaluation import evaluate_run
from .methods import settings_for
from .methods.wsch.model import WSCH
from .methods.wsch.settings import Settings
from .runs.outputs import list_runs, load_run
from .training.loop import encode, fit

__all__ = [
    "WSCH", "Settings", "encode", "evaluate_run", "fit", "list_runs", "load_dataset", "load_run", "settings_for",
]  # fmt: skip
