"""A run folder: settings, history, checkpoints, weights, codes and metrics. Files are written whole or not at all.

    outputs/<run>/
      settings.json               all settings, versions, device, data set fingerprint
      history.jsonl               a line for each pass
      checkpoint-000123.safetensors   everything needed to go on after pass 123 (the newest two are kept)
      weights.safetensors         the trained network
      codes.h5, metrics.json, figures

Loading never executes anything from a file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from ..data.definition import MOST_SIZE, SPLITS
from ..methods import DEFAULT, METHODS, Method, method_of
from ..retrieval.codes import pack, unpack
from ..storage.files import TEMPORARY, check_file, damaged, parse_json, read_json, read_text, write_whole
from ..storage.hdf5 import check_storage, find, hdf5_image, read_attribute, read_slice, read_texts
from ..storage.paths import outputs_folder
from ..storage.tensors import load_weights, read_tensors
from ..storage.words import one_line, shortened, unknown_name
from .records import are_shares, is_entry, is_evaluation, is_health

KEPT_CHECKPOINTS = 2
LONGEST_NAME = 250  # bytes of a run's name, which file systems allow
CHECKPOINTED = "model."  # how the network's tensors are named in a checkpoint
MOST_HISTORY = 2**26  # bytes
TRAIN_AGAIN, EVALUATE_AGAIN = "train the run again", "evaluate the run again"
LOCK = ".lock"
WEIGHTS = "weights.safetensors"  # there once a run is finished


@dataclass(frozen=True)
class Run:
    """One run folder. The properties read the files as they are now."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def record(self) -> dict[str, Any]:
        """What settings.json holds: settings, versions, device, precision, data set."""
        path = self.folder / "settings.json"
        record = read_json(path, TRAIN_AGAIN, self.folder)
        if not isinstance(record, dict) or not all(isinstance(record.get(k), dict) for k in ("settings", "dataset")):
            raise damaged(path, "settings or dataset are missing", TRAIN_AGAIN)
        for name in ("feature_size", "frames"):
            size = record["dataset"].get(name)
            if type(size) is not int or not 1 <= size <= MOST_SIZE:
                raise damaged(path, f"{name} is {shortened(size)}", TRAIN_AGAIN)
        if record.get("method", DEFAULT) not in METHODS:
            raise damaged(path, f"method is {shortened(record['method'])}", TRAIN_AGAIN)
        if record.get("precision", "float32") not in ("float32", "bfloat16"):
            raise damaged(path, f"precision is {shortened(record['precision'])}", TRAIN_AGAIN)
        return record

    @property
    def method(self) -> type[Method]:
        return METHODS[self.record.get("method", DEFAULT)]

    @property
    def settings(self) -> Any:
        """Of the run's method: `self.method.Settings`."""
        try:
            return self.method.Settings.create(self.record["settings"])
        except ValueError as error:
            raise ValueError(f"{self.folder / 'settings.json'}: {error}") from error

    @property
    def history(self) -> list[dict[str, Any]]:
        """One entry for each finished pass."""
        path = self.folder / "history.jsonl"
        if not path.exists():
            return []
        lines = read_text(path, TRAIN_AGAIN, self.folder, MOST_HISTORY).splitlines(keepends=True)
        try:
            entries = [parse_json(line) for line in lines if line.endswith("\n")]  # a killed run may leave half a line
        except ValueError as error:
            raise damaged(path, error, TRAIN_AGAIN) from error
        method = self.method if entries else None
        for number, entry in enumerate(entries):
            if not is_entry(entry, number, method):
                raise damaged(path, f"line {number + 1} does not describe pass {number}", TRAIN_AGAIN)
        return entries

    @property
    def finished(self) -> bool:
        return (self.folder / WEIGHTS).exists()

    @property
    def evaluated(self) -> bool:
        return self.finished and (self.folder / "metrics.json").exists()

    @property
    def metrics(self) -> dict[str, Any]:
        path = self.folder / "metrics.json"
        metrics = read_json(path, EVALUATE_AGAIN, self.folder)
        methods = metrics.get("methods") if isinstance(metrics, dict) else None
        own = self.method.name
        if not isinstance(methods, dict) or own not in methods:
            raise damaged(path, f"{own} is missing among the methods", EVALUATE_AGAIN)
        for name, method in methods.items():
            if not is_evaluation(method):
                raise damaged(path, f"{shortened(name)} is no evaluation", EVALUATE_AGAIN)
        for name in ("real_valued", "real_valued_centred"):  # runs of former versions have the first alone
            if (name == "real_valued" or name in metrics) and not are_shares(
                metrics.get(name), len(methods[own]["ks"])
            ):
                raise damaged(path, f"{name} is not a list of mAP@K", EVALUATE_AGAIN)
        if not is_health(metrics.get("code_health")):
            raise damaged(path, "code_health is not whole", EVALUATE_AGAIN)
        return metrics

    def checkpoints(self) -> list[Path]:
        """Checkpoints, the newest first."""
        return sorted(self.folder.glob("checkpoint-*.safetensors"), reverse=True)

    def model(self) -> nn.Module:
        """The trained network; of an unfinished run, the network of its newest checkpoint."""
        record = self.record
        with torch.device("meta"):  # sizes only: the file must hold them before they take memory
            model = self.method.network(self.settings, record["dataset"]["feature_size"], record["dataset"]["frames"])
        if self.finished:
            path, prefix = self.folder / WEIGHTS, ""
        elif self.checkpoints():
            path, prefix = self.checkpoints()[0], CHECKPOINTED
        else:
            raise FileNotFoundError(f"{self.folder} holds no weights yet: train the run first.")
        load_weights(model, read_tensors(path, self.folder), path, prefix, assign=True)
        return model.eval()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from training in this folder for as long as the block lasts (RuntimeError if one is).

        The lock ends with its process, however that ends; what a killed one left half written is removed.
        """
        try:
            with FileLock(self.folder / LOCK, timeout=0):
                for leftover in self.folder.glob(f"{TEMPORARY}*"):
                    leftover.unlink(missing_ok=True)
                yield
        except Timeout:
            raise RuntimeError(
                f"run {self.name} is being trained by another process: wait for it, or choose another run name."
            ) from None

    def save_json(self, name: str, content: Any) -> None:
        write_whole(self.folder / name, lambda path: path.write_text(json.dumps(content, indent=1), encoding="utf-8"))

    def save_codes(self, split: str, codes: Tensor, ids: list[str]) -> None:
        """Keep a split's codes, packed, with their ids and bit count, in codes.h5 beside those of other splits."""
        try:
            stored = self.load_codes()
        except OSError:  # none yet, or damaged: they are written anew
            stored = {}
        stored[split] = (codes, ids)

        def fill(file: h5py.File) -> None:
            for name, (rows, names) in stored.items():
                group = file.create_group(name)
                group.attrs["bits"] = rows.shape[1]
                group.create_dataset("packed", data=pack(rows).numpy(), fletcher32=True)  # damage shows
                group.create_dataset("ids", data=names, dtype=h5py.string_dtype())

        write_whole(self.folder / "codes.h5", lambda path: path.write_bytes(hdf5_image(fill)))

    def load_codes(self) -> dict[str, tuple[Tensor, list[str]]]:
        """By split: the codes (n, b) int8 of ±1, and their ids."""
        path = self.folder / "codes.h5"
        check_file(path, "evaluate the run first", self.folder)
        try:
            with h5py.File(path, "r") as file:
                codes = {split: _read_codes(file, split) for split in SPLITS if split in file}
        except (OSError, LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise OSError(f"{path} is damaged ({one_line(error)}): evaluate the run again.") from error
        if not codes:
            raise damaged(path, "it holds no codes", EVALUATE_AGAIN)
        return codes


def _read_codes(file: h5py.File, split: str) -> tuple[Tensor, list[str]]:
    packed, ids, group = (find(file, f"{split}/{name}") for name in ("packed", "ids", ""))
    for name, stored, ranks in (("packed", packed, 2), ("ids", ids, 1)):
        if not isinstance(stored, h5py.Dataset) or stored.ndim != ranks:
            raise ValueError(f"{split}/{name} is missing or of another shape")
        check_storage(file, f"{split}/{name}", stored)
    if len(packed) != len(ids):
        raise ValueError(f"{split} has {len(packed)} codes and {len(ids)} ids")
    return unpack(torch.from_numpy(read_slice(packed)), int(read_attribute(group, "bits"))), read_texts(ids)


def create_run(name: str, record: dict[str, Any]) -> Run:
    """Make a new run folder below outputs/ (or WSCH_OUTPUTS); a name in use or an unwritable folder is refused."""
    folder = _run_folder(name)
    try:
        folder.mkdir(parents=True)
        run = Run(folder)
        run.save_json("settings.json", record)
    except FileExistsError:
        raise FileExistsError(
            f"{folder} exists: choose another run name, resume this run, or remove the folder."
        ) from None
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written ({error.strerror}): set WSCH_OUTPUTS to a writable folder."
        ) from error
    return run


def load_run(name: str = "") -> Run:
    """A run by its name; without one, the newest. Raises ValueError for an unknown name, naming the closest."""
    runs = list_runs()
    if not runs:
        raise ValueError(f"{outputs_folder()} holds no runs: train one first.")
    if not name:
        return runs[-1]
    if (_run_folder(name) / "settings.json").exists():
        return Run(_run_folder(name))
    raise ValueError(unknown_name("run", name, [run.name for run in runs]))


def list_runs() -> list[Run]:
    """All runs, the oldest first."""
    found = outputs_folder().glob("*/settings.json")
    return [Run(path.parent) for path in sorted(found, key=lambda path: path.stat().st_mtime)]


def find_run(settings: Any, fingerprint: str) -> Run | None:
    """The run that was made with these settings, on whatever device, from training features of this fingerprint; None if
    there is none.

    Of several an evaluated one is preferred, then a finished one, then the newest.
    """
    wanted = _identity(settings, fingerprint)
    same = [run for run in list_runs() if _identity_of(run) == wanted]
    return max(reversed(same), key=lambda run: (run.evaluated, run.finished), default=None)


def run_name(prefix: str, settings: Any, fingerprint: str) -> str:
    """A run's name that tells what is in it, the same for the same settings and features:
    "ablation-joint-64bits-seed1-3fa2c1"."""
    digest = hashlib.sha256(json.dumps(_identity(settings, fingerprint), sort_keys=True).encode()).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9.+]+", "-", prefix).lstrip("-.+")[:60] or "run"
    return f"{readable}-{settings.bits}bits-seed{settings.seed}-{digest[:6]}"


def _identity(settings: Any, fingerprint: str) -> dict[str, Any]:
    """All that decides what a run becomes."""
    return settings.as_dict() | {"method": method_of(settings), "device": "", "train_fingerprint": fingerprint}


def _identity_of(run: Run) -> dict[str, Any] | None:
    try:
        return _identity(run.settings, run.record["dataset"]["train_fingerprint"])
    except (OSError, ValueError, LookupError):
        return None  # damaged, imported, or of settings this version does not know: not the run that is looked for


def _run_folder(name: str) -> Path:
    fits = isinstance(name, str) and re.fullmatch(r"[\w][\w.+-]{0,99}", name)
    if not fits or len(name.encode()) > LONGEST_NAME:
        raise ValueError(
            f"the run name {shortened(name)} cannot be a folder name: use up to 100 letters, digits, '.', '_', '-' "
            "and '+'."
        )
    return outputs_folder() / name
