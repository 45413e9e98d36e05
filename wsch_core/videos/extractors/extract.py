"""What turns pictures into features: EfficientNet-Lite0, a Hugging Face image model, or the small network of the demo set.

Weights of models are read from safetensors only, and no code that comes with one is run. Videos are never put into one
batch, so the features of one depend on nothing else that is imported with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ...data.definition import Definition, ExtractorRecord
from ...data.demo import frames as demo_frames
from ...data.demo import network as demo_network
from ...data.holding import gigabytes
from ...training.device import resolve_device
from . import efficientnet, runtime
from .model_folder import check_model_folder, check_size
from .prepare import Preparation, read_preparation

DEFAULT = efficientnet.NAME
DEMO = "demo"
FRAMES_TOGETHER = 5  # on a CPU, whose cache then holds what lies between two layers
HUB_SECONDS = 10  # to wait for an answer before the machine is called offline
MODEL_FILES = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json")
WITHOUT = f'or choose extractor = "{DEFAULT}", which needs no download'


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network that turns prepared pictures into features; the same version gives the same features."""

    name: str  # "efficientnet-lite0", "demo", a model's name on the Hugging Face hub, or the path of a local folder
    version: str  # hash of weights and preparation
    feature_size: int  # D
    preparation: Preparation
    network: nn.Module  # (n, channels, height, width) float32 -> (n, D)
    device: torch.device

    def prepare(self, image: Image.Image) -> np.ndarray:
        """One picture -> (channels, height, width) uint8."""
        return self.preparation.picture(image)

    @torch.inference_mode()
    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """Prepared pictures (n, channels, height, width) uint8 -> features (n, D) float32."""
        together = len(pictures) if self.device.type == "cuda" else FRAMES_TOGETHER
        parts = []
        for part in torch.from_numpy(pictures).split(together):
            batch = self.preparation.normalise(part.to(self.device)).contiguous(memory_format=torch.channels_last)
            parts.append(self.network(batch).float().cpu())
        return torch.cat(parts).numpy()


def load_extractor(name: str = DEFAULT, device: str = "auto") -> Extractor:
    """Load an extractor, once for each device; a model that is not on this machine is downloaded, and that is said before.

    name: "efficientnet-lite0", an image model of the Hugging Face hub, a local folder of one, or "demo"
    Raises ValueError, OSError or ImportError with one sentence that names the model and what to do.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(
            f"extractor is {name!r}: give the name or the folder of a Hugging Face image model, {WITHOUT}."
        )
    return _load(name, str(resolve_device(device)))


def extractor_of(definition: Definition, device: str = "auto") -> Extractor:
    """The extractor that a data set's features were made with.

    Raises ValueError where the definition names none, or the one of that name is not the same any more.
    """
    stored = definition.extractor
    if stored is None:
        raise ValueError(
            f"{definition.name} does not say what its features were extracted with, so no video can be compared with it: "
            "give the video's features (HDF5), or import the videos anew."
        )
    extractor = load_extractor(stored.name, device)
    check_same(definition.name, stored, extractor)
    return extractor


def check_same(dataset: str, stored: ExtractorRecord, extractor: Extractor) -> None:
    """Refuse to mix features of two extractors (ValueError)."""
    if stored.version != extractor.version:
        raise ValueError(
            f"the features of {dataset} were extracted with {stored.name}, version {stored.version}, and features of "
            f"{extractor.name}, version {extractor.version}, cannot be mixed with them: use that extractor, or import the "
            "videos under another name."
        )


@cache
def _load(name: str, device: str) -> Extractor:
    network, preparation = LOADERS[name]() if name in LOADERS else _huggingface(name)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    version = _version(network, preparation)
    if name == efficientnet.NAME and device == "cpu" and runtime.can_run():
        network = runtime.OnnxRuntime(network)
    network.eval().to(device, memory_format=torch.channels_last)
    blank = torch.zeros(1, len(preparation.mean), *preparation.size, device=device)
    with torch.inference_mode():
        size = network(blank).shape[-1]
    return Extractor(name, version, size, preparation, network, torch.device(device))


def _version(network: nn.Module, preparation: Preparation) -> str:
    digest = hashlib.sha256(repr(sorted(asdict(preparation).items())).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


# EfficientNet-Lite0, and the demo set's network


def _efficientnet() -> tuple[nn.Module, Preparation]:
    return efficientnet.EfficientNetLite0(efficientnet.read_weights()), efficientnet.PREPARATION


def _demo() -> tuple[nn.Module, Preparation]:
    side = demo_frames.SIDE
    preparation = Preparation((side, side), side, scale=1 / 128, mean=(1.0,), deviation=(1.0,), mode="L")
    return demo_network.load_network(), preparation


LOADERS = {efficientnet.NAME: _efficientnet, DEMO: _demo}


# Hugging Face models


class _Pooled(nn.Module):
    """A vision model whose output is one vector for each picture."""

    def __init__(self, model: nn.Module, pooler: bool):
        super().__init__()
        self.model, self.pooler = model, pooler

    def forward(self, pictures: Tensor) -> Tensor:
        encode = getattr(self.model, "get_image_features", self.model)  # of a model that also reads text
        output = encode(pixel_values=pictures)
        if isinstance(output, Tensor):
            return output.flatten(1)
        if self.pooler and getattr(output, "pooler_output", None) is not None:
            return output.pooler_output.flatten(1)
        last = output.last_hidden_state
        return last.mean(dim=1) if last.ndim == 3 else last.flatten(2).mean(dim=2)  # tokens, or a map


def _huggingface(name: str) -> tuple[nn.Module, Preparation]:
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            f"the extractor {name} needs the package transformers ({error}): install wsch-core[videos], {WITHOUT}."
        ) from error
    folder = _model_folder(name)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no config.json: give the folder of a Hugging Face model, {WITHOUT}.")
    check_model_folder(folder)
    preparation = read_preparation(folder)
    with _quiet(transformers):
        try:
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            check_size(folder, config, transformers.AutoModel)
            model, found = transformers.AutoModel.from_pretrained(
                folder, use_safetensors=True, trust_remote_code=False, local_files_only=True, dtype=torch.float32,
                output_loading_info=True,
            )  # fmt: skip
        except Exception as error:  # transformers raises nearly anything for what is not a model
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise OSError(
                f"{name} cannot be loaded as an image model with safetensors weights ({reason}): choose another, {WITHOUT}."
            ) from error
    missing = sorted(found["missing_keys"])
    if any("pooler" not in key for key in missing):
        raise OSError(
            f"{folder} holds not all weights of its model (missing: {', '.join(missing[:3])}): copy it again, or choose "
            "another model."
        )
    weights = model.state_dict()
    for key in missing:  # drawn at random, and not used
        weights[key].zero_()
    return _Pooled(model, pooler=not missing), preparation


@contextmanager
def _quiet(transformers) -> Iterator[None]:
    """Without the report on weights that are left aside: those of the classifier, which features do not need."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _model_folder(name: str) -> Path:
    """The model's local folder; one of the hub is downloaded, after what and how large has been said."""
    local = Path(name).expanduser()
    if local.is_dir():
        return local
    import huggingface_hub as hub
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.utils import filter_repo_objects, validate_repo_id

    try:
        validate_repo_id(name)
    except ValueError:
        raise ValueError(
            f"extractor is {name!r}, which is neither a folder nor a model's name on the hub: give one of them, {WITHOUT}."
        ) from None
    try:
        return Path(hub.snapshot_download(name, local_files_only=True, allow_patterns=MODEL_FILES))
    except OSError:  # not on this machine yet
        pass
    try:
        files = hub.HfApi().model_info(name, files_metadata=True, timeout=HUB_SECONDS).siblings or []
        wanted = filter_repo_objects(files, allow_patterns=MODEL_FILES, key=lambda file: file.rfilename)
        size = gigabytes(sum(file.size or 0 for file in wanted))
        print(f"Downloading {name} ({size}) from the Hugging Face hub to {HF_HUB_CACHE}, once.", flush=True)
        return Path(hub.snapshot_download(name, allow_patterns=MODEL_FILES))
    except Exception as error:  # the hub's client has errors of several packages
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise OSError(
            f"{name} is not on this machine and cannot be downloaded ({reason}): connect to the network, give a local "
            f"folder of the model, {WITHOUT}."
        ) from error
