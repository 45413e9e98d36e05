"""The peers' published weights -> our networks. A table for each method says how its files are laid out.

Sizes are read off the shapes; the number of heads cannot be, and is a setting like any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Dataset
from ..methods import DEFAULT, METHODS
from ..runs.folder import Run
from ..storage.words import shortened, unknown_name
from .reference import import_checkpoint, imported_run, is_whole, read_stored

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """How a method's published weights are laid out."""

    entry: str  # of the file's dictionary that holds the weights; "" if the file holds nothing else
    rename: Callable[[Weights], dict[str, Tensor]]  # their names -> ours, and away with what is never used
    sized_by: Mapping[str, tuple[str, int]]  # settings (and feature_size, frames) by our name of a weight, and its axis
    counted: Mapping[str, str]  # settings that count modules, by the beginning of our names: blocks.0, blocks.1, ...
    fixed: Mapping[str, Any] = field(default_factory=dict)  # settings that all of them have


def _of_several_gpus(weights: Weights) -> dict[str, Tensor]:
    return {name.removeprefix("module."): weight for name, weight in weights.items()}


def _one_mixer(weights: Weights) -> dict[str, Tensor]:
    """Both mixers of a block are the same one; nothing reads the net of token probabilities."""
    renamed = {name.replace(".mamba2.", ".mamba."): weight for name, weight in weights.items() if ".mamba2." in name}
    renamed |= {name.replace(".mamba1.", ".mamba."): w for name, w in weights.items() if ".mamba2." not in name}
    return {name: weight for name, weight in renamed.items() if not name.startswith("get_token_probs.")}


_AUTOENCODER = {
    "feature_size": ("encoder.patch_embed.weight", 1),
    "bits": ("binary.weight", 0),
    "encoder_width": ("encoder.patch_embed.weight", 0),
    "decoder_width": ("encoder_to_decoder.weight", 0),
}
_BLOCKS = {"encoder_blocks": "encoder.blocks.", "decoder_blocks": "decoder.blocks."}

_BTH = {
    "embedding.frame_map": "frame_map",
    "transformer_blocks.0.attention.linear_layers.0": "query",
    "transformer_blocks.0.attention.linear_layers.1": "key",
    "transformer_blocks.0.attention.linear_layers.2": "value",
    "transformer_blocks.0.attention.output_linear": "output",
    "transformer_blocks.0.feed_forward.w_1": "widen",
    "transformer_blocks.0.feed_forward.w_2": "narrow",
    "transformer_blocks.0.input_sublayer.norm": "attention_norm",
    "transformer_blocks.0.output_sublayer.norm": "feed_norm",
}
_BTH_UNUSED = re.compile(
    r"bert2\.|project\.|bert\.embedding\.(token|segment|position)\.|bert\.transformer_blocks\.0\.attention\.linear_layers\.1\.bias"
)


def _of_bth(weights: Weights) -> dict[str, Tensor]:
    """Without what is never used, that of an older version too; and without the bias of keys, to which softmax is blind."""
    found = {}
    for name, weight in _of_several_gpus(weights).items():
        name = re.sub(r"^bert1\.", "bert.", name)
        if not _BTH_UNUSED.match(name):
            module, _, last = name.removeprefix("bert.").rpartition(".")
            last = {"a_2": "gain", "b_2": "bias"}.get(last, last)
            found[f"{_BTH.get(module, module)}.{last}"] = weight
    return found


LAYOUTS: dict[str, Layout] = {
    "conmh": Layout("model_state_dict", _of_several_gpus, _AUTOENCODER, _BLOCKS),
    "autossvh": Layout(
        "model_state_dict",
        _of_several_gpus,
        _AUTOENCODER | {"frames": ("pos_embed", 1)},
        _BLOCKS,
        {"published_code": True},
    ),
    "s5vh": Layout(
        "model_state_dict",
        _one_mixer,
        _AUTOENCODER | {"clusters": ("classifier.weight", 0)},
        {"encoder_blocks": "encoder.blocks."},
        {"published_code": True},
    ),
    "bth": Layout(
        "",
        _of_bth,
        {
            "feature_size": ("frame_map.weight", 1),
            "bits": ("binary.weight", 0),
            "encoder_width": ("frame_map.weight", 0),
        },
        {},
    ),
}


SIGNS = {
    "s5vh": r"\.mamba1\.",
    "autossvh": r"pos_embed",
    "conmh": r"encoder\.blocks\.",
    "bth": r"\bbert\d?\.",
}  # in names


def load_published(path: Path | str, method: str, frames: int, **chosen: Any) -> tuple[Any, nn.Module]:
    """Read a published file of a method in `LAYOUTS`: the settings that its shapes tell, and the network.

    frames: of a video; chosen: settings that shapes do not tell, such as heads
    Nothing in the file is executed. Raises FileNotFoundError, OSError or ValueError with one sentence that names it.
    """
    if method not in LAYOUTS:
        raise ValueError(unknown_name("published method", method, list(LAYOUTS)))
    path, entry = Path(path), LAYOUTS[method].entry
    stored = read_stored(path)
    weights = stored.get(entry) if entry and isinstance(stored, dict) else stored
    if not isinstance(weights, dict):
        found = ", ".join(map(shortened, stored))[:300] if isinstance(stored, dict) else type(stored).__name__
        raise ValueError(
            f"{path} holds {found}, but no weights as {METHODS[method].name} keeps them: use its own files."
        )
    try:
        return published_network(weights, method, frames, **chosen)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def import_published(path: Path | str, dataset: Dataset, name: str, method: str = "", **chosen: Any) -> Run:
    """Make a finished run of a published file, of WSCH or of a peer, which every notebook can open.

    method: "" tells it by the names of the weights; chosen: settings that shapes do not tell, such as heads
    Raises what `load_published` does, ValueError if the data set's videos have another shape, and FileExistsError for a run
    name in use.
    """
    method = method or recognised(read_stored(Path(path)))
    if method == DEFAULT:
        return import_checkpoint(path, dataset, name)
    settings, network = load_published(path, method, dataset.frames, **chosen)
    weights = network.state_dict()
    for size, wanted in (("feature_size", dataset.feature_size), ("frames", dataset.frames)):
        place = LAYOUTS[method].sized_by.get(size)
        if place and _size(weights, *place) != wanted:
            raise ValueError(
                f"{path} was trained with {size} {_size(weights, *place)}, but {dataset.name} has {wanted}: use the data "
                "set it was trained on."
            )
    return imported_run(path, dataset, name, replace(settings, dataset=dataset.name), network)


def recognised(stored: Any) -> str:
    """The method whose published file this is, by the names in it; WSCH if of no peer."""
    names = stored.get("model_state_dict", stored) if isinstance(stored, dict) else {}
    names = " ".join(name for name in names if isinstance(name, str)) if isinstance(names, dict) else ""
    for method, sign in SIGNS.items():
        if re.search(sign, names):
            return method
    return DEFAULT


def published_network(weights: Weights, method: str, frames: int, **chosen: Any) -> tuple[Any, nn.Module]:
    """As `load_published`, of weights in memory by their published names."""
    layout, of = LAYOUTS[method], METHODS[method]
    for name, weight in weights.items():
        if not isinstance(name, str) or not is_whole(weight) or not weight.isfinite().all():
            raise ValueError(f"{shortened(name)} is not a tensor of finite floating-point numbers.")
    ours = {name: weight.float() for name, weight in layout.rename(weights).items()}
    sizes = {name: _size(ours, *place) for name, place in layout.sized_by.items()}
    sizes |= {name: _count(ours, prefix) for name, prefix in layout.counted.items()}
    feature_size, frames = sizes.pop("feature_size"), sizes.pop("frames", frames)
    settings = of.Settings(**layout.fixed | sizes | chosen)
    with torch.device("meta"):
        network = of.network(settings, feature_size, frames)
    expected = network.state_dict()
    wrong = [
        f"{word} {', '.join(sorted(names))[:300]}"
        for word, names in (
            ("missing are", expected.keys() - ours.keys()),
            ("unknown are", ours.keys() - expected.keys()),
        )
        if names
    ]
    if wrong:
        raise ValueError(f"the weights are not those of {of.name}: {'; '.join(wrong)}.")
    for name, weight in ours.items():
        if weight.shape != expected[name].shape:
            raise ValueError(
                f"{name} has the shape {tuple(weight.shape)}, but the other weights and the settings ask for "
                f"{tuple(expected[name].shape)}."
            )
    network.load_state_dict(ours, assign=True)
    return settings, network.eval()


def _size(weights: Weights, name: str, axis: int) -> int:
    if name not in weights or weights[name].ndim <= axis or not weights[name].numel():
        raise ValueError(f"{name}, which tells a size, is missing or empty.")
    return weights[name].shape[axis]


def _count(weights: Weights, prefix: str) -> int:
    places = [re.match(re.escape(prefix) + r"(\d{1,4})\.", name) for name in weights]
    return 1 + max((int(place.group(1)) for place in places if place), default=-1)
