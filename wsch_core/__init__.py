"""WSCH: self-supervised video hashing with a wide, shallow autoencoder and cyclic multi-task learning.

from wsch_core import evaluate_run, fit, load_dataset, settings_for
dataset = load_dataset("demo")
run = fit(settings_for(dataset, bits=64), dataset)
results = evaluate_run(run, dataset)
"""

from . import threads  # noqa: F401  # isort: skip (first: torch reads it when loaded)
from .data import load_dataset
from .evaluation import evaluate_run, settings_for
from .model import WSCH
from .run import load_run
from .settings import Settings
from .train import encode, fit

__all__ = ["WSCH", "Settings", "encode", "evaluate_run", "fit", "load_dataset", "load_run", "settings_for"]
