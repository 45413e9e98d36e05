"""The authors' published checkpoints -> our network, and a run that every notebook can open."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Dataset
from ..data.disk import DiskFeatures
from ..data.features import Features
from ..methods import method_of
from ..methods.wsch.model import WSCH
from ..methods.wsch.settings import Settings
from ..retrieval.metrics import Evaluation
from ..runs.folder import WEIGHTS, Run
from ..runs.outputs import load_run, making_run
from ..storage.files import check_file
from ..storage.pth import Damaged, NotPlain, read_pth
from ..storage.tensors import digest, save_tensors
from ..storage.words import one_line, shortened
from .evaluation import evaluate_codes

_ATTENTION = {
    "linear_q.weight": "query.weight",
    "linear_k.weight": "key.weight",
    "linear_v.weight": "value.weight",
    "linear_output.weight": "output.weight",
    "linear_output.bias": "output.bias",
}
NAMES = {
    "En.Norm.weight": "encoder.frame_norm.weight",
    "En.Norm.bias": "encoder.frame_norm.bias",
    "En.in_proj.weight": "encoder.input_projection.weight",
    "En.Norm1.weight": "encoder.mixer_norm.weight",
    "En.expand_proj.weight": "encoder.expansion.weight",
    "En.conv.weight": "encoder.convolution.weight",
    "En.ssm.x_proj.weight": "encoder.mixer.projection.weight",
    "En.ssm.dt_bias": "encoder.mixer.step_bias",
    "En.ssm.A_log": "encoder.mixer.log_decay_rate",
    "En.ssm.D": "encoder.mixer.skip",
    "En.out_proj.weight": "encoder.contraction.weight",
    "En.out_proj.bias": "encoder.contraction.bias",
    "En.norm1.weight": "encoder.attention_norm.weight",
    "En.norm1.bias": "encoder.attention_norm.bias",
    "hash.linear.weight": "hash_layer.projection.weight",
    "hash.linear.bias": "hash_layer.projection.bias",
    "hash.ln.weight": "hash_layer.norm.weight",
    "hash.ln.bias": "hash_layer.norm.bias",
    "De.mask_token": "decoder.mask_token",
    "De.encoder_to_decoder.weight": "decoder.input_projection.weight",
    "De.norm.weight": "decoder.attention_norm.weight",
    "De.norm.bias": "decoder.attention_norm.bias",
    "De.out_proj.weight": "decoder.output_projection.weight",
    "De.out_proj.bias": "decoder.output_projection.bias",
    **{f"En.att1.{theirs}": f"encoder.attention.{ours}" for theirs, ours in _ATTENTION.items()},
    **{f"De.att.{theirs}": f"decoder.attention.{ours}" for theirs, ours in _ATTENTION.items()},
}
CENTERS = "cluster_centers"
SIZED_BY = ("En.in_proj.weight", "De.encoder_to_decoder.weight", "En.ssm.x_proj.weight")  # their shapes tell all sizes


@dataclass(frozen=True)
class ReferenceCheckpoint:
    """What a published checkpoint holds."""

    model: WSCH
    centers: Tensor | None  # (K, b)
    epoch: int  # finished epochs of the cycle
    adam: dict[str, dict[str, Tensor]]  # by our names of the weights: step, exp_avg, exp_avg_sq; empty if it has none

    @property
    def sizes(self) -> dict[str, int]:
        """The settings that the shapes of the weights tell."""
        encoder, decoder = self.model.encoder, self.model.decoder
        width = encoder.input_projection.out_features
        return {
            "bits": self.model.bits,
            "encoder_width": width,
            "decoder_width": decoder.input_projection.out_features,
            "ssd_head_width": 2 * width // encoder.mixer.heads,
            "state_size": encoder.mixer.state_size,
        }


def load_checkpoint(path: Path | str) -> ReferenceCheckpoint:
    """Read one of the authors' .pth files. Nothing in it is executed: anything but tensors and plain values is refused.

    Raises FileNotFoundError, OSError or ValueError with one sentence that names the file and what is wrong with it.
    """
    path = Path(path)
    stored = read_stored(path)
    weights = stored.get("berthash") if isinstance(stored, dict) else None
    if not isinstance(weights, dict):
        found = ", ".join(map(shortened, stored))[:300] if isinstance(stored, dict) else type(stored).__name__
        raise ValueError(f"{path} has no weights under 'berthash'; it holds {found}: it is not a WSCH checkpoint.")
    epoch = stored.get("epoch", 0)
    try:
        model, centers = load_reference_weights(weights)
        adam = _adam_state(stored.get("optimizer"), weights)
        return ReferenceCheckpoint(model, centers, epoch if type(epoch) is int and epoch >= 0 else 0, adam)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_stored(path: Path) -> Any:
    """What a .pth file holds, of tensors and plain values; anything else is refused, as `load_checkpoint` says."""
    check_file(path, "give the path of a .pth file")
    try:
        return read_pth(path)
    except NotPlain as error:
        raise ValueError(
            f"{path} holds more than tensors and plain values ({one_line(error)}), and was not read: "
            "get the checkpoint again from its authors."
        ) from error
    except (Damaged, OSError, RuntimeError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise OSError(
            f"{path} is damaged or no .pth file ({one_line(error)}): get the checkpoint again from its authors."
        ) from error


def is_whole(value: Any) -> bool:
    """Whether a value is a tensor of floating-point numbers that are all there; a view may repeat a few without end."""
    if not isinstance(value, Tensor) or value.device.type != "cpu" or value.layout != torch.strided:
        return False
    return value.is_floating_point() and value.nbytes <= value.untyped_storage().nbytes()


def _adam_state(optimizer: Any, weights: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The state of Adam by our names; in the file it is numbered in the order of its weights, the centres left out."""
    state = optimizer.get("state", {}) if isinstance(optimizer, dict) else {}
    names = [name for name in weights if name != CENTERS]
    if not isinstance(state, dict) or not all(type(place) is int and 0 <= place < len(names) for place in state):
        raise ValueError(f"'optimizer' does not number the {len(names)} weights: it is not the state of their Adam.")
    found = {}
    for place, values in state.items():
        theirs = names[place]
        keys = ("step", "exp_avg", "exp_avg_sq")
        if not isinstance(values, dict) or not all(key in values for key in keys):
            raise ValueError(f"the optimizer's state of {theirs} lacks step, exp_avg or exp_avg_sq.")
        step, *moments = (values[key] for key in keys)
        step = torch.tensor(float(step)) if type(step) in (int, float) else step
        if (
            not all(map(is_whole, (step, *moments)))
            or step.numel() != 1
            or any(moment.shape != weights[theirs].shape or not moment.isfinite().all() for moment in moments)
        ):
            raise ValueError(
                f"the optimizer's state of {theirs} is not finite, or does not have its shape, "
                f"{tuple(weights[theirs].shape)}."
            )
        shape = (-1,) if NAMES[theirs] == "decoder.mask_token" else weights[theirs].shape
        moments = [moment.float().reshape(shape) for moment in moments]
        found[NAMES[theirs]] = dict(zip(keys, (step.float().reshape(()), *moments), strict=True))
    return found


def import_checkpoint(path: Path | str, dataset: Dataset, name: str) -> Run:
    """Make a finished run of a published checkpoint, which every notebook can open; settings it does not tell are the
    published ones.

    Raises what `load_checkpoint` does, ValueError if the data set's features have another size, and FileExistsError for
    a run name in use.
    """
    checkpoint = load_checkpoint(path)
    feature_size = checkpoint.model.encoder.input_projection.in_features
    if feature_size != dataset.feature_size:
        raise ValueError(
            f"{path} was trained on features of size {feature_size}, but those of {dataset.name} have size "
            f"{dataset.feature_size}: use the data set it was trained on."
        )
    settings = Settings(dataset=dataset.name, epochs=checkpoint.epoch, **checkpoint.sizes)
    return imported_run(path, dataset, name, settings, checkpoint.model)


def imported_run(path: Path | str, dataset: Dataset, name: str, settings: Any, network: nn.Module) -> Run:
    """A finished run of weights that came from a file."""
    record = {
        "method": method_of(settings),
        "settings": settings.as_dict(),
        "dataset": {"name": dataset.name, "frames": dataset.frames, "feature_size": dataset.feature_size},
        "device": "",
        "precision": "float32",
        "imported": Path(path).name,
    }
    weights = network.state_dict()
    with making_run(name, record) as run:
        save_tensors(run.folder / WEIGHTS, weights, weights=digest(weights), passes="0")
    return load_run(name)


def ternary_codes(model: WSCH, features: Features | DiskFeatures, batch_size: int = 256) -> Tensor:
    """The codes that the reference retrieves with: (videos, b) int8 of -1, 0 and 1; 0 where a video's frames are split.

    Only to reproduce the reference's own numbers: a code that is no string of bits needs other memory and other search.
    """
    model = model.eval()
    with torch.no_grad():
        votes = [model.frame_codes(batch).sum(dim=1) for batch in features.batches(batch_size)]
    return torch.cat(votes).sign().to(torch.int8)


def evaluate_ternary(model: WSCH, dataset: Dataset, **options: Any) -> Evaluation:
    """`evaluation.evaluate_codes` of ternary codes, ranked by their scalar product; on the CPU."""
    database = ternary_codes(model, dataset.database.features)
    query = database if dataset.queries_are_database else ternary_codes(model, dataset.query.features)
    return evaluate_codes(
        {"query": _four_bits(query, [0, 1]), "database": _four_bits(database, [0, 2])}, dataset, **options
    )


def _four_bits(codes: Tensor, positive: list[int]) -> Tensor:
    """Four bits for each of -1, 0 and 1, whose Hamming distances rank as the scalar products of the originals do.

    A zero has two of four bits set: those two that make it as far from -1 as from 1, and, since queries and database set
    different ones, as far from a zero of the other side.
    """
    zero = torch.full((4,), -1, dtype=torch.int8)
    zero[positive] = 1
    four = codes.unsqueeze(-1).expand(-1, -1, 4)
    return torch.where(four == 0, zero, four).flatten(1)


def load_reference_weights(weights: dict[str, Tensor]) -> tuple[WSCH, Tensor | None]:
    """A network with the given weights, all sizes inferred from their shapes, and the cluster centres (K, b), if any.

    Raises ValueError naming the weights that are missing, unknown, of the wrong shape, or not finite.
    """
    missing, unknown = NAMES.keys() - weights.keys(), weights.keys() - NAMES.keys() - {CENTERS}
    if missing or unknown:
        raise ValueError(
            "the weights are not those of WSCH: "
            + "; ".join(f"{word} {', '.join(sorted(map(str, names)))[:300]}" for word, names in
                        (("missing are", missing), ("unknown are", unknown)) if names) + "."
        )  # fmt: skip
    for name, weight in weights.items():
        if not is_whole(weight) or not torch.isfinite(weight).all():
            raise ValueError(f"{name} is not a tensor of finite floating-point numbers.")
    with torch.device("meta"):
        model = _empty_model(weights)
    state = {ours: weights[theirs].float() for theirs, ours in NAMES.items()}
    state["decoder.mask_token"] = state["decoder.mask_token"].flatten()
    expected = model.state_dict()
    for theirs, ours in NAMES.items():
        if state[ours].shape != expected[ours].shape:
            raise ValueError(
                f"{theirs} has the shape {tuple(weights[theirs].shape)}, but the other weights ask for "
                f"{tuple(expected[ours].shape)}."
            )
    centers = weights.get(CENTERS)
    if centers is not None and centers.shape[1:] != (model.bits,):
        raise ValueError(f"{CENTERS} has the shape {tuple(centers.shape)}, but codes have {model.bits} bits.")
    model.load_state_dict(state, assign=True)
    return model, centers


def _empty_model(weights: dict[str, Tensor]) -> WSCH:
    for name in SIZED_BY:
        if weights[name].ndim != 2 or not weights[name].numel():
            raise ValueError(f"{name} has the shape {tuple(weights[name].shape)}, but it must be a matrix.")
    width, feature_size = weights["En.in_proj.weight"].shape
    decoder_width, bits = weights["De.encoder_to_decoder.weight"].shape
    heads = weights["En.ssm.D"].numel()
    state_size, odd = divmod(len(weights["En.ssm.x_proj.weight"]) - heads, 2)
    if not heads or 2 * width % heads or odd or state_size < 1:
        raise ValueError(f"En.ssm.D has {heads} values, which fits neither En.in_proj.weight nor En.ssm.x_proj.weight.")
    return WSCH(feature_size, bits, width, decoder_width, ssd_head_width=2 * width // heads, state_size=state_size)
