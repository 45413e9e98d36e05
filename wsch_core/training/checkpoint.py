"""Checkpoints: everything a run needs to go on, written after its passes and read back bit for bit."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import re
import subprocess
import time
import warnings
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import Dataset
from ..methods import METHODS, method_of
from ..methods.method import Method, State
from ..runs.folder import CHECKPOINTED, KEPT_CHECKPOINTS, WEIGHTS, Run
from ..runs.outputs import create_run, load_run
from ..storage.files import write_whole
from ..storage.paths import PROJECT
from ..storage.tensors import digest, load_weights, read_tensors, save_tensors
from .device import resolve_precision

OPTIMIZER, KEPT = "optimizer.", "kept."  # how tensors are named in a checkpoint, beside the network's
FORMER_OPTIMIZER = "adam."  # in checkpoints of a former version
LARGEST_SHARE = 0.1  # of the time may go into checkpoints; where passes are short they are written less often
ON_CPU = "bit for bit, on this machine with as many threads"
ON_GPU = "to rounding errors: kernels of the GPU add in an order that is not fixed"
PACKAGES = ("torch", "numpy", "scipy", "h5py", "safetensors")


def start_run(settings: Any, dataset: Dataset, device: torch.device, name: str, resume: bool) -> tuple[Run, str]:
    """The run folder to train in, and the precision to train with: a new folder, or one to go on with.

    Raises FileExistsError for a name in use, ValueError where a resumed run had other settings or other data.
    """
    if resume:
        if not name:
            raise ValueError("resume needs the name of the run to go on with: give it as the run's name.")
        run = load_run(name)
        _check_same(run, settings, dataset)
        return run, run.record["precision"]
    precision = resolve_precision(settings.precision, device)
    readable = re.sub(r"[^A-Za-z0-9.+-]", "_", settings.dataset).lstrip("-.+")[:60] or "run"
    record = describe_run(settings, dataset, device, precision)
    if name:
        return create_run(name, record), precision
    name = f"{readable}-{settings.bits}bits-{datetime.now():%Y%m%d-%H%M%S}"
    for number in itertools.count(1):  # others may begin in the same second
        with contextlib.suppress(FileExistsError):
            return create_run(name if number == 1 else f"{name}-{number}", record), precision
    raise AssertionError("unreachable")


def describe_run(settings: Any, dataset: Dataset, device: torch.device, precision: str) -> dict[str, Any]:
    """What settings.json says of a run beside its settings: enough to know what made it."""
    return {
        "method": method_of(settings),
        "settings": settings.as_dict(),
        "dataset": {
            "name": dataset.name,
            "frames": dataset.frames,
            "feature_size": dataset.feature_size,
            "train_videos": len(dataset.train),
            "train_fingerprint": dataset.train.fingerprint,
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "precision": precision,
        "repeats": ON_GPU if device.type == "cuda" else ON_CPU,
        "threads": torch.get_num_threads(),  # another number sums in another order: the same run to rounding errors
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "git_commit": _git_commit(),
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _git_commit() -> str:
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""  # not a checkout, or no git: the package versions still tell


def _check_same(run: Run, settings: Any, dataset: Dataset) -> None:
    if type(run.settings) is not type(settings):
        raise ValueError(
            f"run {run.name} was trained by {run.method.name} and cannot be resumed with the settings of "
            f"{METHODS[method_of(settings)].name}: choose another run name."
        )
    former, wanted = run.settings.as_dict(), settings.as_dict()
    longer = wanted["epochs"] > former["epochs"]
    changed = [
        f"{key} was {former[key]!r}, is {wanted[key]!r}"
        for key in former
        if former[key] != wanted[key] and not (key == "epochs" and longer)
    ]
    if changed:
        raise ValueError(
            f"run {run.name} cannot be resumed with other settings ({'; '.join(changed)}): only epochs may be raised. "
            "Give the settings it was started with, or another run name."
        )
    if longer and wanted.get("learning_rate_schedule") == "cosine":
        raise ValueError(
            f"run {run.name} cannot be given more epochs (epochs was {former['epochs']}, is {wanted['epochs']}): its "
            "cosine learning rate was spread over the former number. Start a new run."
        )
    fingerprint = run.record["dataset"].get("train_fingerprint")
    if fingerprint != dataset.train.fingerprint:
        raise ValueError(
            f"run {run.name} was trained on other features (fingerprint {fingerprint}, now {dataset.train.fingerprint}): "
            "bring back the former files, or choose another run name."
        )


class CheckpointWriter:
    """Writes the history after every pass, and a checkpoint unless that would take too much of the time."""

    def __init__(self, run: Run, state: State):
        self.run, self.state = run, state
        _write_history(run, state.history)
        self.save()

    def after_pass(self) -> None:
        path = self.run.folder / "history.jsonl"
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(self.state.history[-1]) + "\n")
        except OSError as error:
            raise OSError(
                f"{path} cannot be written ({error.strerror}): free some space, or make it writable, and resume the run."
            ) from error
        if time.perf_counter() - self.saved_at >= self.cost / LARGEST_SHARE:
            self.save()

    def save(self) -> None:
        start = time.perf_counter()
        path = self.run.folder / f"checkpoint-{len(self.state.history):06}.safetensors"
        _flush(self.run.folder / "history.jsonl")
        save_tensors(path, state_tensors(self.state), **self.told())
        for old in self.run.checkpoints()[KEPT_CHECKPOINTS:]:
            old.unlink()
        self.saved_at = time.perf_counter()
        self.cost = self.saved_at - start

    def told(self) -> dict[str, str]:
        """What a file says of the network in it."""
        return {"weights": digest(self.state.model.state_dict()), "passes": str(len(self.state.history))}

    def finish(self) -> None:
        """Keep the final state, and only that: a finished run can be given more epochs. Keep the network by itself."""
        self.save()
        for old in self.run.checkpoints()[1:]:
            old.unlink()
        save_tensors(self.run.folder / WEIGHTS, self.state.model.state_dict(), **self.told())


def _write_history(run: Run, history: list[dict]) -> None:
    text = "".join(json.dumps(entry) + "\n" for entry in history)
    write_whole(run.folder / "history.jsonl", lambda path: path.write_text(text, encoding="utf-8"))


def _flush(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def state_tensors(state: State) -> dict[str, Tensor]:
    """The training state as named tensors."""
    tensors = {f"{CHECKPOINTED}{name}": tensor for name, tensor in state.model.state_dict().items()}
    for name, parameter in state.model.named_parameters():
        for key, value in state.optimizer.state.get(parameter, {}).items():
            tensors[f"{OPTIMIZER}{key}.{name}"] = value
    tensors["generator"] = state.generator.get_state()
    tensors["passes"], tensors["steps"] = torch.tensor(len(state.history)), torch.tensor(state.steps)
    return tensors | {f"{KEPT}{name}": tensor for name, tensor in state.kept.items()}


def restore_newest(run: Run, state: State, method: Method) -> bool:
    """Bring a state to the newest good checkpoint of a run, and say whether there was one; a damaged one is warned of.

    Raises OSError if all are damaged, ValueError for one of a former version.
    """
    checkpoints = run.checkpoints()
    for path in checkpoints:
        try:
            tensors = read_tensors(path, run.folder)
            _restore(state, tensors, path, method)
        except OSError as error:
            warnings.warn(f"{error} Going on from the one before.", RuntimeWarning, stacklevel=2)
            continue
        state.history = run.history[: int(tensors["passes"])]
        if len(state.history) < int(tensors["passes"]):
            raise OSError(
                f"{run.folder / 'history.jsonl'} holds {len(state.history)} of the {int(tensors['passes'])} passes of "
                f"{path.name}: restore it, or choose another run name."
            )
        return True
    if checkpoints:
        raise OSError(f"{run.folder}: every checkpoint is damaged: restore one, or remove the folder and train again.")
    if run.finished or run.history:
        raise OSError(f"{run.folder} holds no checkpoint to go on from: restore one, or choose another run name.")
    return False


def _restore(state: State, tensors: dict[str, Tensor], path: Path, method: Method) -> None:
    """All of a state but its history; tensors that do not belong to it are an OSError that names the file."""
    if any(name.startswith(FORMER_OPTIMIZER) for name in tensors):
        raise ValueError(f"{path} was written by a former version, which this one cannot go on from: train a new run.")
    load_weights(state.model, tensors, path, CHECKPOINTED)
    device = next(state.model.parameters()).device
    try:
        for name, parameter in state.model.named_parameters():
            moments = _named(tensors, OPTIMIZER, f".{name}")
            if moments:
                _check_moments(name, parameter, moments, method.optimizer_state)
                state.optimizer.state[parameter] = {key: value.to(device) for key, value in moments.items()}
        kept, counts = _named(tensors, KEPT), [tensors[key].item() for key in ("steps", "passes")]
        method.check_kept(kept, state.model)
        if any(type(count) is not int or count < 0 for count in counts):
            raise ValueError(f"steps and passes are {counts}")
        state.generator.set_state(tensors["generator"])
        state.steps = counts[0]
        state.kept = {name: t.to(device) if name in method.kept_on_device else t for name, t in kept.items()}
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise OSError(f"{path} is damaged (its training state is not whole: {str(error)[:200]}).") from error


def _named(tensors: dict[str, Tensor], prefix: str, suffix: str = "") -> dict[str, Tensor]:
    """The tensors whose names are a prefix, a word without dots, and a suffix; by that word."""
    words = {
        n.removeprefix(prefix).removesuffix(suffix): n for n in tensors if n.startswith(prefix) and n.endswith(suffix)
    }
    return {word: tensors[name] for word, name in words.items() if word and "." not in word}


def _check_moments(name: str, parameter: Tensor, moments: dict[str, Tensor], expected: tuple[str, ...]) -> None:
    """An optimizer keeps the number of its steps, and tensors of its parameter's shape."""
    fits = moments.keys() == set(expected) and all(
        moment.shape == (() if key == "step" else parameter.shape) for key, moment in moments.items()
    )
    if not fits or not all(moment.dtype == torch.float32 and moment.isfinite().all() for moment in moments.values()):
        raise ValueError(f"the optimizer's state of {name} is not that of this network")
