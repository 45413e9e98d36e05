"""Tensors in safetensors files: loading executes nothing, and a checksum tells damage."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .files import check_file, write_whole
from .words import one_line

CHECKSUM = "crc32"
MOST_HEADER = 2**20  # bytes that name the tensors: some ten thousand of them


def save_tensors(path: Path, tensors: dict[str, Tensor], **told: str) -> None:
    """Write tensors as safetensors, with a checksum that tells a damaged file from a good one.

    told: what else the file's head says, see `read_head`
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = told | {CHECKSUM: _checksum(contiguous)}

    def write(temporary: Path) -> None:
        try:
            save_file(contiguous, temporary, metadata)
        except SafetensorError as error:  # a full disk among others
            raise OSError(one_line(error)) from error

    write_whole(path, write)


def check_header(path: Path, inside: Path | None = None) -> None:
    """Refuse a safetensors file of so many tensors that naming them takes memory and time (OSError)."""
    check_file(path, "restore it", inside)
    with open(path, "rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > MOST_HEADER:
        raise OSError(f"{path} is damaged (its header takes {header:,} bytes, at most {MOST_HEADER:,} are read).")


def read_head(path: Path, inside: Path | None = None) -> dict[str, str]:
    """What the head of a safetensors file says beside its tensors, of which none is read."""
    check_header(path, inside)
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise OSError(f"{path} is damaged ({one_line(error)}).") from error


def digest(tensors: Mapping[str, Tensor]) -> str:
    """What tells weights from all others: of names, types, shapes and contents, in 16 hexadecimal digits."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b"")
    return found.hexdigest()[:16]


def read_tensors(path: Path, inside: Path | None = None) -> dict[str, Tensor]:
    """All tensors of a safetensors file; a damaged one is an OSError that names it."""
    check_header(path, inside)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            expected = (file.metadata() or {}).get(CHECKSUM)
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise OSError(f"{path} is damaged ({one_line(error)}).") from error
    if expected is not None and expected != _checksum(tensors):
        raise OSError(f"{path} is damaged (its content does not fit its checksum).")
    return tensors


def _checksum(tensors: dict[str, Tensor]) -> str:
    """Over names, types, shapes and contents: against accidents, not against forgery."""
    value = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        if tensor.numel():
            value = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), value)
    return f"{value:08x}"


def load_weights(
    model: nn.Module, tensors: dict[str, Tensor], path: Path, prefix: str = "", assign: bool = False
) -> None:
    """Give a network the tensors of a file whose names begin with `prefix`; if they do not fit, an OSError names it.

    assign: put the tensors into the network in place of copying them, which a network on the meta device needs
    """
    weights = {n.removeprefix(prefix): tensor for n, tensor in tensors.items() if n.startswith(prefix)}
    if assign:  # what is read lies in the file's own memory, which changes with the file
        weights = {name: tensor.clone() for name, tensor in weights.items()}
    wrong = [name for name, weight in weights.items() if weight.dtype != torch.float32 or not weight.isfinite().all()]
    if wrong:
        raise OSError(f"{path} does not hold weights ({wrong[0][:100]} is not finite float32): restore the file.")
    try:
        model.load_state_dict(weights, assign=assign)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()[:300]
        raise OSError(f"{path} does not hold the weights of this run ({reason}): restore the file.") from error
