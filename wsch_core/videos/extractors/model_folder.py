"""A folder of a Hugging Face model, judged before anything builds the network that it describes.

Such a folder may come from anywhere: what its config.json says decides how large a network is built, which files are read
and, for some fields, whether code is fetched from the hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ...storage.files import check_file, read_json
from ...storage.tensors import check_header
from ...storage.words import shortened

MOST_LAYERS, MOST_SIZE = 1000, 2**20
COUNTS = re.compile(r"layers?$|depth|blocks?$|stages?$")
ATTENTION = re.compile(r"attn_implementation|experts_implementation")
KNOWN_ATTENTION = (None, "eager", "sdpa", "flash_attention_2", "flex_attention", "grouped_mm", "batched_mm")
ELSEWHERE = (  # fields that let other files, other packages or the hub decide what is loaded
    "use_kernels", "kernel_config", "quantization_config", "use_pretrained_backbone", "use_timm_backbone",
    "transformers_weights",
)  # fmt: skip
REMEDY = "choose another model, or copy it again"


def check_model_folder(folder: Path) -> None:
    """Refuse a folder that names files outside of it, asks for code from the hub, or describes a network that is larger
    than its weights (FileNotFoundError, OSError, ValueError)."""
    path = folder / "config.json"
    for name, value in _fields(path, read_json(path, REMEDY)):
        _check_field(path, name, value)
    if (folder / "adapter_config.json").exists():
        raise ValueError(f"{folder} holds an adapter of another model, which is not read: give the model itself.")
    for index in folder.glob("*.index.json"):
        _check_index(index)
    for weights in folder.glob("*.safetensors"):
        check_header(weights)


def _fields(path: Path, config: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of a configuration, those of its parts as well."""
    parts = [(name, config)]
    while parts:
        name, value = parts.pop()
        yield name, value
        if isinstance(value, dict):
            parts += value.items() if name not in ("id2label", "label2id") else ()
        elif isinstance(value, list):
            if len(value) > MOST_LAYERS:
                raise ValueError(
                    f"{path}: {shortened(name)} is a list of {len(value):,}, at most {MOST_LAYERS:,} are read: {REMEDY}."
                )
            parts += [(name, item) for item in value]


def _check_field(path: Path, name: str, value: Any) -> None:
    found = f"{path}: {shortened(name)} is {shortened(value)}"
    if (name in ELSEWHERE and value) or (ATTENTION.search(name) and not _is_known(value)):
        raise ValueError(f"{found}, which may fetch code or weights from elsewhere and is not done: {REMEDY}.")
    most = MOST_LAYERS if COUNTS.search(name) else MOST_SIZE
    numbers = value if isinstance(value, list) else [value]
    total = sum(abs(number) for number in numbers if type(number) is int)
    if total > most:
        raise ValueError(f"{found}, but at most {most:,} is read: {REMEDY}.")


def _is_known(value: Any) -> bool:
    values = value.values() if isinstance(value, dict) else [value]
    return all(isinstance(one, str | None) and one in KNOWN_ATTENTION for one in values)


def _check_index(path: Path) -> None:
    index = read_json(path, REMEDY)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict):
        raise OSError(f"{path} is damaged (weight_map is no table): {REMEDY}.")
    for name in set(map(json.dumps, places.values())):
        file = json.loads(name)
        if not isinstance(file, str) or Path(file).name != file or file in ("", ".", ".."):
            raise ValueError(f"{path} names {shortened(file)}, which is no file of its folder: {REMEDY}.")
        check_file(path.parent / file, REMEDY)


def check_size(folder: Path, config: Any, auto_model: Any) -> None:
    """Refuse a network of more numbers than its files have bytes (ValueError); it is built without memory to be counted.

    config: what transformers has made of config.json; auto_model: transformers.AutoModel
    """
    with torch.device("meta"):
        model = auto_model.from_config(config, trust_remote_code=False)
    numbers = sum(tensor.numel() for tensor in model.parameters())
    nbytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if numbers > nbytes:
        raise ValueError(
            f"{folder} describes a network of {numbers:,} numbers, but its weights take {nbytes:,} bytes: {REMEDY}."
        )
