"""A run folder: settings, history, checkpoints, weights, codes and metrics. Files are written whole or not at all.

    outputs/<run>/
      settings.json               all settings, versions, device, fingerprint of the training features
      history.jsonl               a line for each pass
      checkpoint-000123.safetensors   everything needed to go on after pass 123 (the newest two are kept)
      weights.safetensors         the trained network
      codes.h5, metrics.json, figures   with what they were made from: see `Run.evaluated`, `Run.stored_codes`

Loading never executes anything from a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import torch
from torch import Tensor, nn

from ..data import Split
from ..data.definition import MOST_SIZE, SPLITS
from ..methods import DEFAULT, METHODS, Method
from ..methods.method import Pass
from ..retrieval.codes import pack, unpack
from ..storage.files import (
    check_file,
    damaged,
    is_locked,
    locked,
    parse_json,
    read_json,
    read_text,
    remove_leftovers,
    write_whole,
)
from ..storage.hdf5 import check_storage, find, hdf5_image, read_attribute, read_slice, read_texts
from ..storage.tensors import digest, load_weights, read_head, read_tensors
from ..storage.words import one_line, shortened
from .records import are_shares, is_entry, is_evaluation, is_health

KEPT_CHECKPOINTS = 2
CHECKPOINTED = "model."  # how the network's tensors are named in a checkpoint
MOST_HISTORY = 2**26  # bytes
TRAIN_AGAIN, EVALUATE_AGAIN = "train the run again", "evaluate the run again"
LOCK = ".lock"
WEIGHTS = "weights.safetensors"  # there once a run is finished


class Codes(NamedTuple):
    """The codes of a split, and what made them."""

    codes: Tensor  # (n, b) int8 of ±1
    ids: list[str]
    weights: str  # digest of the network's weights
    features: str  # fingerprint of the split


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
    def schedule(self) -> list[Pass]:
        """All passes of the run, in order; of an imported one, of whose training nothing is known, none."""
        record = self.record
        if "imported" in record:
            return []
        described = record["dataset"]
        videos = described.get("train_videos")
        if type(videos) is not int or videos < 1:
            raise damaged(self.folder / "settings.json", f"train_videos is {shortened(videos)}", TRAIN_AGAIN)
        return self.method(self.settings, videos, described["frames"], described["feature_size"]).passes()

    @property
    def passes_done(self) -> int:
        """Of the schedule; what a killed run has in its history beyond its newest checkpoint counts as well."""
        return len(self.history)

    @property
    def finished(self) -> bool:
        """Whether the network is there as all passes of the schedule have made it."""
        path = self.folder / WEIGHTS
        if not path.exists():
            return False
        passes = read_head(path, self.folder).get("passes", str(self.passes_done))  # former versions did not write it
        return passes == str(len(self.schedule))

    @property
    def evaluated(self) -> bool:
        """Whether metrics.json was made by the finished network; one that is damaged is made again."""
        if not self.finished or not (self.folder / "metrics.json").exists():
            return False
        try:
            return self.metrics.get("made_from", {}).get("weights") == self.weights
        except (OSError, AttributeError):
            return False

    @property
    def weights(self) -> str:
        """What tells the network as it is from all others, see `digest`."""
        path, prefix = self._network_file()
        told = read_head(path, self.folder).get("weights")
        return told or digest(
            {n.removeprefix(prefix): t for n, t in read_tensors(path).items() if n.startswith(prefix)}
        )

    @property
    def unfinished(self) -> str:
        """ "" for a finished run; else how far it is: "unfinished: 2 of 70 passes"."""
        return "" if self.finished else f"unfinished: {self.passes_done} of {len(self.schedule)} passes"

    @property
    def title(self) -> str:
        """For headings: "WSCH, 64 bits"; an unfinished run says so."""
        words = [self.method.name, f"{self.settings.bits} bits", self.unfinished]
        return ", ".join(filter(None, words))

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
        path, prefix = self._network_file()
        load_weights(model, read_tensors(path, self.folder), path, prefix, assign=True)
        return model.eval()

    def _network_file(self) -> tuple[Path, str]:
        """The file that holds the network as it is, and how the names of its tensors begin there."""
        if self.finished:
            return self.folder / WEIGHTS, ""
        if self.checkpoints():
            return self.checkpoints()[0], CHECKPOINTED
        raise FileNotFoundError(f"{self.folder} holds no weights yet: train the run first.")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from training in this folder for as long as the block lasts (RuntimeError if one is).

        The lock ends with its process, however that ends; what a killed one left half written is removed.
        """
        busy = f"run {self.name} is being trained by another process: wait for it, or choose another run name."
        with locked(self.folder / LOCK, busy):
            remove_leftovers(self.folder)
            yield

    @property
    def being_trained(self) -> bool:
        """Whether a process holds the lock; where this user may not ask, none is taken to."""
        return is_locked(self.folder / LOCK)

    def save_json(self, name: str, content: Any) -> None:
        write_whole(self.folder / name, lambda path: path.write_text(json.dumps(content, indent=1), encoding="utf-8"))

    def save_codes(self, split: Split, codes: Tensor, weights: str) -> None:
        """Keep a split's codes, packed, with their ids and bit count, in codes.h5 beside those of other splits.

        weights: of the network that made them, see `digest`
        """
        try:
            stored = self.load_codes()
        except OSError:  # none yet, or damaged: they are written anew
            stored = {}
        stored[split.name] = Codes(codes, split.ids, weights, split.fingerprint)

        def fill(file: h5py.File) -> None:
            for name, found in stored.items():
                group = file.create_group(name)
                group.attrs["bits"] = found.codes.shape[1]
                group.attrs["weights"], group.attrs["features"] = found.weights, found.features
                group.create_dataset("packed", data=pack(found.codes).numpy(), fletcher32=True)  # damage shows
                group.create_dataset("ids", data=found.ids, dtype=h5py.string_dtype())

        write_whole(self.folder / "codes.h5", lambda path: path.write_bytes(hdf5_image(fill)))

    def stored_codes(self, split: Split) -> Tensor | None:
        """The codes (n, b) of a split that are kept, if the network as it is made them of the features as they are."""
        if not (self.folder / "codes.h5").exists():
            return None
        wanted = (self.weights, split.fingerprint)
        same = (found.codes for found in self.load_codes().values() if (found.weights, found.features) == wanted)
        return next(same, None)  # the database's may be those of the training split

    def load_codes(self) -> dict[str, Codes]:
        """By split, what codes.h5 holds, whatever it was made from."""
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


def _read_codes(file: h5py.File, split: str) -> Codes:
    packed, ids, group = (find(file, f"{split}/{name}") for name in ("packed", "ids", ""))
    for name, stored, ranks in (("packed", packed, 2), ("ids", ids, 1)):
        if not isinstance(stored, h5py.Dataset) or stored.ndim != ranks:
            raise ValueError(f"{split}/{name} is missing or of another shape")
        check_storage(file, f"{split}/{name}", stored)
    if len(packed) != len(ids):
        raise ValueError(f"{split} has {len(packed)} codes and {len(ids)} ids")
    codes = unpack(torch.from_numpy(read_slice(packed)), int(read_attribute(group, "bits")))
    made_from = (str(read_attribute(group, name) or "") for name in ("weights", "features"))
    return Codes(codes, read_texts(ids), *made_from)
