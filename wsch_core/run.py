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
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .codes import pack, unpack
from .model import WSCH
from .paths import outputs_folder
from .settings import Settings, unknown_name

if TYPE_CHECKING:
    from .data import Dataset

KEPT_CHECKPOINTS = 2
CHECKPOINTED = "model."  # how the network's tensors are named in a checkpoint
LOCK, TEMPORARY = ".lock", ".writing-"
WEIGHTS = "weights.safetensors"  # there once a run is finished
MODEL_SETTINGS = (
    "bits", "encoder_width", "decoder_width", "attention_heads", "ssd_head_width", "state_size", "encoder_blocks",
    "decoder_positions",
)  # fmt: skip


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
        record = _read_json(path, "train the run again")
        if not isinstance(record, dict) or not all(isinstance(record.get(k), dict) for k in ("settings", "dataset")):
            raise OSError(f"{path} is damaged (settings or dataset are missing): restore it, or train the run again.")
        return record

    @property
    def settings(self) -> Settings:
        try:
            return Settings.create(self.record["settings"])
        except ValueError as error:
            raise ValueError(f"{self.folder / 'settings.json'}: {error}") from error

    @property
    def history(self) -> list[dict[str, Any]]:
        """One entry for each finished pass."""
        path = self.folder / "history.jsonl"
        if not path.exists():
            return []
        try:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            return [json.loads(line) for line in lines if line.endswith("\n")]  # a killed run may leave half a line
        except ValueError as error:
            raise OSError(f"{path} is damaged ({error}): restore it, or train the run again.") from error

    @property
    def finished(self) -> bool:
        return (self.folder / WEIGHTS).exists()

    @property
    def evaluated(self) -> bool:
        return self.finished and (self.folder / "metrics.json").exists()

    @property
    def metrics(self) -> dict[str, Any]:
        return _read_json(self.folder / "metrics.json", "evaluate the run again")

    def checkpoints(self) -> list[Path]:
        """Checkpoints, the newest first."""
        return sorted(self.folder.glob("checkpoint-*.safetensors"), reverse=True)

    def model(self) -> WSCH:
        """The trained network; of an unfinished run, the network of its newest checkpoint."""
        model = build_model(self.settings, self.record["dataset"]["feature_size"])
        if self.finished:
            path, prefix = self.folder / WEIGHTS, ""
        elif self.checkpoints():
            path, prefix = self.checkpoints()[0], CHECKPOINTED
        else:
            raise FileNotFoundError(f"{self.folder} holds no weights yet: train the run first.")
        load_weights(model, read_tensors(path), path, prefix)
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

        def write(path: Path) -> None:
            with h5py.File(path, "w") as file:
                for name, (rows, names) in stored.items():
                    group = file.create_group(name)
                    group.attrs["bits"] = rows.shape[1]
                    group["packed"] = pack(rows).numpy()
                    group.create_dataset("ids", data=names, dtype=h5py.string_dtype())

        write_whole(self.folder / "codes.h5", write)

    def load_codes(self) -> dict[str, tuple[Tensor, list[str]]]:
        """By split: the codes (n, b) int8 of ±1, and their ids."""
        path = self.folder / "codes.h5"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: evaluate the run first.")
        try:
            with h5py.File(path, "r") as file:
                return {split: _read_codes(group) for split, group in file.items()}
        except (OSError, LookupError, AttributeError, TypeError, ValueError) as error:
            raise OSError(f"{path} is damaged ({error}): evaluate the run again.") from error


def _read_codes(group: h5py.Group) -> tuple[Tensor, list[str]]:
    return unpack(torch.from_numpy(group["packed"][:]), int(group.attrs["bits"])), group["ids"].asstr()[:].tolist()


def build_model(settings: Settings, feature_size: int) -> WSCH:
    return WSCH(feature_size, **{name: getattr(settings, name) for name in MODEL_SETTINGS})


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


def find_run(settings: Settings, dataset: Dataset) -> Run | None:
    """The run that was made with these settings, on whatever device, from these features; None if there is none.

    Of several an evaluated one is preferred, then a finished one, then the newest.
    """
    wanted = _identity(settings, dataset)
    same = [run for run in list_runs() if _identity_of(run) == wanted]
    return max(reversed(same), key=lambda run: (run.evaluated, run.finished), default=None)


def run_name(prefix: str, settings: Settings, dataset: Dataset) -> str:
    """A run's name that tells what is in it, the same for the same settings and features:
    "ablation-joint-64bits-seed1-3fa2c1"."""
    digest = hashlib.sha256(json.dumps(_identity(settings, dataset), sort_keys=True).encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9.+]+', '-', prefix)[:60]}-{settings.bits}bits-seed{settings.seed}-{digest[:6]}"


def _identity(settings: Settings, dataset: Dataset) -> dict[str, Any]:
    """All that decides what a run becomes."""
    return settings.as_dict() | {"device": "", "train_fingerprint": dataset.train.fingerprint}


def _identity_of(run: Run) -> dict[str, Any] | None:
    try:
        return run.settings.as_dict() | {"device": "", "train_fingerprint": run.record["dataset"]["train_fingerprint"]}
    except (OSError, ValueError, LookupError):
        return None  # damaged, imported, or of settings this version does not know: not the run that is looked for


def _run_folder(name: str) -> Path:
    if not isinstance(name, str) or not re.fullmatch(r"[\w][\w.+-]{0,99}", name):
        raise ValueError(
            f"the run name {name!r} cannot be a folder name: use up to 100 letters, digits, '.', '_', '-' and '+'."
        )
    return outputs_folder() / name


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file so that a reader sees all of it or nothing: temporary name, flush to disk, rename."""
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            f"{path} cannot be written ({error.strerror or error}): free some space, or make it writable."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, lambda temporary: save_file(contiguous, temporary, metadata))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; a damaged one is an OSError that names it."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise OSError(f"{path} is damaged ({error}).") from error


def load_weights(model: WSCH, tensors: dict[str, Tensor], path: Path, prefix: str = "") -> None:
    """Give a network the tensors of a file whose names begin with `prefix`; if they do not fit, an OSError names it."""
    weights = {n.removeprefix(prefix): tensor for n, tensor in tensors.items() if n.startswith(prefix)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise OSError(f"{path} does not hold the weights of this run ({reason}): restore the file.") from error


def _read_json(path: Path, remedy: str) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: {remedy}.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OSError(f"{path} is damaged ({error}): restore it, or {remedy}.") from error
