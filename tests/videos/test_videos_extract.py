"""Pictures prepared as transformers does, and features from models that tests make themselves."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from wsch_core.data.definition import ExtractorRecord
from wsch_core.data.demo import build as demo
from wsch_core.data.demo import frames as demo_frames
from wsch_core.videos.extractors import extract
from wsch_core.videos.extractors.extract import check_same, load_extractor
from wsch_core.videos.extractors.prepare import KEYFRAME, keyframe, read_preparation

RESNET = {
    "crop_pct": 0.875, "do_normalize": True, "do_resize": True, "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": 32,
}  # fmt: skip


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("WSCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WSCH_CACHE", str(tmp_path / "cache"))
    extract._load.cache_clear()
    yield
    extract._load.cache_clear()


def picture(width=90, height=67, seed=0):
    noise = np.random.default_rng(seed).integers(0, 255, (height // 6 + 1, width // 6 + 1, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def write_resnet(folder, seed=0, **fields):
    """A small ResNet with random weights, as a local model folder."""
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(seed)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(RESNET | fields))
    return folder


class TestPreparation:
    @pytest.mark.parametrize(
        ("processor", "fields"),
        [
            ("ConvNextImageProcessorPil", RESNET),
            ("ConvNextImageProcessorPil", RESNET | {"size": {"shortest_edge": 384}, "crop_pct": 0.9}),
            ("ViTImageProcessorPil", {
                "size": 32, "do_resize": True, "do_normalize": True, "resample": 2, "image_mean": [0.5] * 3,
                "image_std": [0.5] * 3, "image_processor_type": "ViTImageProcessor",
            }),
            ("CLIPImageProcessorPil", {
                "size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True,
                "resample": 3, "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28],
                "image_processor_type": "CLIPImageProcessor",
            }),
        ],
        ids=["resnet", "convnext 384", "vit", "clip"],
    )  # fmt: skip
    @pytest.mark.parametrize("size", [(90, 67), (40, 71), (32, 32)])
    def test_is_that_of_transformers(self, tmp_path, processor, fields, size):
        import transformers

        (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
        theirs = getattr(transformers, processor)(**fields)
        image = picture(*size)
        expected = theirs(image, return_tensors="pt")["pixel_values"]
        preparation = read_preparation(tmp_path)
        ours = preparation.normalise(torch.from_numpy(preparation.picture(image))[None])
        assert ours.shape == expected.shape
        assert (ours - expected).abs().max() < 1e-5

    @pytest.mark.parametrize(
        ("fields", "complaint"),
        [
            ({}, "'size'"), ({"size": 32, "image_mean": [0.5]}, "'image_std'"), ([], "list"),
            (RESNET | {"include_top": True}, "include_top"), ({"size": {"longest_edge": 32}}, "'height'"),
        ],
    )  # fmt: skip
    def test_what_is_not_understood_is_refused(self, tmp_path, fields, complaint):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
        with pytest.raises(ValueError, match=rf"preprocessor_config\.json is not understood .*{complaint}"):
            read_preparation(tmp_path)

    def test_without_a_description_a_model_is_refused(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"preprocessor_config\.json is missing, which tells how large"):
            read_preparation(tmp_path)

    @pytest.mark.parametrize(("size", "inside"), [((160, 90), (54, 96)), ((90, 160), (64, 36)), ((30, 20), (64, 96))])
    def test_keyframes_show_the_whole_picture(self, size, inside):
        shown = keyframe(Image.new("RGB", size, (255, 255, 255)))
        assert shown.shape == (*KEYFRAME, 3)
        rows, columns = (np.flatnonzero(shown[..., 0].max(axis=axis) > 128) for axis in (1, 0))
        assert (len(rows), len(columns)) == inside


class TestHuggingFace:
    def test_features_are_the_models_pooled_output(self, tmp_path):
        from transformers import ResNetModel

        extractor = load_extractor(str(write_resnet(tmp_path / "model")), "cpu")
        prepared = np.stack([extractor.prepare(picture(seed=seed)) for seed in range(3)])
        assert prepared.shape == (3, 3, 32, 32)
        model = ResNetModel.from_pretrained(tmp_path / "model").eval()
        pixels = (torch.from_numpy(prepared) / 255 - torch.tensor(RESNET["image_mean"])[:, None, None]) / torch.tensor(
            RESNET["image_std"]
        )[:, None, None]
        with torch.no_grad():
            expected = model(pixels).pooler_output.flatten(1).numpy()
        assert extractor.feature_size == 16
        assert extractor(prepared).dtype == np.float32
        assert np.allclose(extractor(prepared), expected, atol=1e-5)

    def test_a_classifier_gives_the_same_features(self, tmp_path):
        from transformers import ResNetForImageClassification, ResNetModel

        bare = load_extractor(str(write_resnet(tmp_path / "a")), "cpu")
        model = ResNetForImageClassification(ResNetModel.from_pretrained(tmp_path / "a").config)
        model.resnet.load_state_dict(ResNetModel.from_pretrained(tmp_path / "a").state_dict())
        model.save_pretrained(tmp_path / "b")
        (tmp_path / "b" / "preprocessor_config.json").write_text(json.dumps(RESNET))
        assert load_extractor(str(tmp_path / "b"), "cpu").version == bare.version

    def test_a_transformer_without_a_trained_pooler_averages_its_tokens(self, tmp_path):
        from transformers import ViTConfig, ViTForImageClassification

        torch.manual_seed(0)
        config = ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=32,
            patch_size=8,
        )
        ViTForImageClassification(config).save_pretrained(tmp_path)
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(RESNET))
        prepared = np.zeros((2, 3, 32, 32), np.uint8)
        first = load_extractor(str(tmp_path), "cpu")
        assert first.feature_size == 16
        extract._load.cache_clear()
        again = load_extractor(str(tmp_path), "cpu")
        assert first.version == again.version
        assert np.array_equal(first(prepared), again(prepared))  # nothing of it is drawn at random

    def test_versions_tell_weights_and_preparation_apart(self, tmp_path):
        folders = [
            write_resnet(tmp_path / "a"), write_resnet(tmp_path / "b"), write_resnet(tmp_path / "c", seed=1),
            write_resnet(tmp_path / "d", size=40),
        ]  # fmt: skip
        a, b, c, d = (load_extractor(str(folder), "cpu").version for folder in folders)
        assert a == b
        assert len({a, c, d}) == 3

    def test_mixing_two_is_refused(self, tmp_path):
        extractor = load_extractor(str(write_resnet(tmp_path / "a")), "cpu")
        check_same("mine", ExtractorRecord("b", extractor.version), extractor)
        with pytest.raises(ValueError, match=r"of mine were extracted with b, version other, .* cannot be mixed"):
            check_same("mine", ExtractorRecord("b", "other"), extractor)

    @pytest.mark.parametrize(
        ("fields", "complaint"),
        [
            (
                {"attn_implementation": "somebody/kernel"},
                "'attn_implementation' is 'somebody/kernel', which may fetch code",
            ),
            ({"_attn_implementation": {"": "a/b:c"}}, "'_attn_implementation' is .* which may fetch code"),
            ({"vision_config": {"_attn_implementation_internal": "a/b"}}, "_internal' is 'a/b', which may fetch code"),
            ({"use_kernels": True}, "'use_kernels' is True, which may fetch code"),
            ({"quantization_config": {"quant_method": "awq"}}, "'quantization_config' is .* which may fetch code"),
            ({"depths": [1, 200_000]}, r"'depths' is \[1, 200000\], but at most 1,000 is read"),
            ({"depths": [0] * 200_000}, "'depths' is a list of 200,000"),
            (
                {"hidden_sizes": [8, 20_000], "embedding_size": 20_000},
                r"a network of [\d,]+ numbers, but its weights take",
            ),
            ({"hidden_sizes": [8, 10**9]}, "'hidden_sizes' is .* but at most 1,048,576 is read"),
            ({"num_channels": 10**6}, r"a network of [\d,]+ numbers, but its weights take"),
        ],
    )
    def test_what_asks_for_more_than_its_files_hold_is_refused(self, tmp_path, fields, complaint):
        path = write_resnet(tmp_path / "model") / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
        with pytest.raises((ValueError, OSError), match=complaint):
            load_extractor(str(path.parent), "cpu")

    @pytest.mark.parametrize(
        ("fields", "complaint"),
        [
            ({"image_mean": [0.5] * 10**6}, "image_mean and image_std are not three numbers"),
            ({"image_std": [0.5, 0.0, 0.5]}, "image_mean and image_std are not three numbers"),
            ({"rescale_factor": float("inf")}, "not finite"), ({"size": 20_000}, "sides of"), ({"size": 0}, "sides of"),
            ({"size": 10**400}, "sides of"), ({"crop_pct": 1e-300}, "OverflowError|sides of"),
        ],
    )  # fmt: skip
    def test_pictures_of_any_size_are_refused(self, tmp_path, fields, complaint):
        with pytest.raises(ValueError, match=rf"preprocessor_config\.json is not understood .*({complaint})"):
            load_extractor(str(write_resnet(tmp_path / "model", **fields)), "cpu")

    @pytest.mark.parametrize("name", ["../outside.safetensors", "/outside.safetensors", "..", ["a"], "a/b.safetensors"])
    def test_an_index_names_files_of_its_own_folder(self, tmp_path, name):
        folder = write_resnet(tmp_path / "model")
        (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
        index = {"metadata": {}, "weight_map": {"embedder.embedder.convolution.weight": name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match=r"index\.json names .*, which is no file of its folder"):
            load_extractor(str(folder), "cpu")

    def test_an_adapter_is_refused(self, tmp_path):
        folder = write_resnet(tmp_path / "model")
        (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/else"}')
        with pytest.raises(ValueError, match="holds an adapter of another model"):
            load_extractor(str(folder), "cpu")

    def test_weights_of_very_many_tensors_are_refused(self, tmp_path):
        folder = write_resnet(tmp_path / "model")
        save_file({f"t{number}": torch.zeros(0) for number in range(20_000)}, folder / "model.safetensors")
        with pytest.raises(OSError, match=r"model\.safetensors is damaged \(its header takes"):
            load_extractor(str(folder), "cpu")

    def test_only_safetensors_are_loaded(self, tmp_path):
        folder = write_resnet(tmp_path / "model")
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
        with pytest.raises(OSError, match="cannot be loaded as an image model with safetensors weights"):
            load_extractor(str(folder), "cpu")
        assert not (tmp_path / "hacked").exists()

    def test_code_that_comes_with_a_model_is_not_run(self, tmp_path):
        folder = write_resnet(tmp_path / "model")
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "own.py").write_text(f"open({str(tmp_path / 'hacked')!r}, 'w')\nclass Own: pass\n")
        with pytest.raises(OSError, match="cannot be loaded as an image model"):
            load_extractor(str(folder), "cpu")
        assert not (tmp_path / "hacked").exists()

    def test_a_folder_that_is_no_model_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"holds no config\.json: give the folder of a Hugging Face model"):
            load_extractor(str(tmp_path), "cpu")
        folder = write_resnet(tmp_path / "model")
        (folder / "model.safetensors").write_bytes(b"broken")
        with pytest.raises(OSError, match=r"model\.safetensors is damaged"):
            load_extractor(str(folder), "cpu")

    @pytest.mark.parametrize("name", ["", "not a name", "../up/../x", 5])
    def test_a_name_that_is_none(self, name):
        with pytest.raises(ValueError, match=r"extractor is .*give"):
            load_extractor(name, "cpu")

    def test_offline_says_soon_what_to_do(self, tmp_path):
        """In a process of its own, whose way to the network leads nowhere."""
        code = "from wsch_core.videos.extractors import extract; extract.load_extractor('microsoft/resnet-50', 'cpu')"
        nowhere = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | nowhere, capture_output=True, text=True, timeout=120
        )
        said = done.stderr.strip().splitlines()[-1]
        assert "microsoft/resnet-50 is not on this machine and cannot be downloaded" in said
        assert 'extractor = "efficientnet-lite0", which needs no download' in said
        assert "Downloading" not in done.stdout

    def test_says_what_is_downloaded_before_it_is(self, tmp_path, monkeypatch, capsys):
        import huggingface_hub as hub

        said = []

        def download(name, local_files_only=False, allow_patterns=None):
            if local_files_only:
                raise FileNotFoundError("not here")
            said.append(capsys.readouterr().out)
            return str(write_resnet(tmp_path / "model"))

        class Api:
            def model_info(self, name, files_metadata, timeout):
                sizes = {"model.safetensors": 102_000_000, "pytorch_model.bin": 500_000_000, "config.json": 1_000}
                files = [type("File", (), {"rfilename": file, "size": size}) for file, size in sizes.items()]
                return type("Info", (), {"siblings": files})

        monkeypatch.setattr(hub, "snapshot_download", download)
        monkeypatch.setattr(hub, "HfApi", Api)
        assert load_extractor("microsoft/resnet-50", "cpu").name == "microsoft/resnet-50"
        assert "Downloading microsoft/resnet-50 (0.1 GB) from the Hugging Face hub to" in said[0]


class TestDemo:
    def test_sees_what_the_demo_sets_own_network_sees(self):
        extractor = load_extractor("demo", "cpu")
        pictures = np.random.default_rng(0).integers(0, 255, (25, demo_frames.SIDE, demo_frames.SIDE), np.uint8)
        prepared = np.stack([extractor.prepare(Image.fromarray(one)) for one in pictures])
        assert prepared.shape == (25, 1, demo_frames.SIDE, demo_frames.SIDE)
        features = extractor(prepared)
        assert features.shape == (25, extractor.feature_size)
        assert np.allclose(features, demo.extract(pictures[None])[0], atol=demo.STEP)  # which are rounded

    def test_is_the_same_everywhere_and_leaves_the_random_state(self):
        state = torch.random.get_rng_state()
        assert load_extractor("demo", "cpu").version == "17b71ec53868"
        assert torch.equal(state, torch.random.get_rng_state())
