"""The peers' published weights: their sizes, and files that are not theirs."""

from dataclasses import replace

import pytest
import torch

from wsch_core import evaluate_run
from wsch_core.experiments.published import (
    LAYOUTS,
    import_published,
    load_published,
    published_network,
    recognised,
)
from wsch_core.methods import METHODS
from wsch_core.show.gallery.gallery import methods_for

# of the networks behind the published files: settings, feature size, frames, tensors, parameters
PUBLISHED = {
    "conmh": ({}, 4096, 25, 198, 12_249_248),
    "autossvh": ({"published_code": True}, 2048, 30, 208, 11_467_810),
    "bth": ({}, 4096, 25, 21, 2_121_280 - 256),  # we leave out the bias of keys
}
SMALL = {"conmh": {"encoder_width": 20, "encoder_blocks": 2, "decoder_width": 18}, "bth": {"encoder_width": 20}}


def published_weights(method):
    """Small ones, by their published names: those of BTH are told from ours by the layout itself."""
    torch.manual_seed(0)
    network = METHODS[method].network(METHODS[method].Settings(bits=8, **SMALL[method]), 12, 10)
    ours = network.state_dict()
    if method != "bth":
        return ours
    theirs = {
        "bert.embedding.frame_map": "frame_map", "binary": "binary", "restore": "restore",
        "bert.transformer_blocks.0.attention.linear_layers.0": "query",
        "bert.transformer_blocks.0.attention.linear_layers.1": "key",
        "bert.transformer_blocks.0.attention.linear_layers.2": "value",
        "bert.transformer_blocks.0.attention.output_linear": "output",
        "bert.transformer_blocks.0.feed_forward.w_1": "widen", "bert.transformer_blocks.0.feed_forward.w_2": "narrow",
    }  # fmt: skip
    weights = {f"{t}.{part}": ours[f"{o}.{part}"] for t, o in theirs.items() for part in ("weight", "bias")
               if f"{o}.{part}" in ours}  # fmt: skip
    for sublayer, norm in (("input", "attention_norm"), ("output", "feed_norm")):
        for letter, part in (("a", "gain"), ("b", "bias")):
            weights[f"bert.transformer_blocks.0.{sublayer}_sublayer.norm.{letter}_2"] = ours[f"{norm}.{part}"]
    unused = ("embedding.token.weight", "embedding.position.pe", "transformer_blocks.0.attention.linear_layers.1.bias")
    return weights | {f"bert.{name}": torch.ones(3) for name in unused}


@pytest.mark.parametrize("method", PUBLISHED)
def test_sizes_of_the_published_networks(method):
    settings, feature_size, frames, tensors, parameters = PUBLISHED[method]
    with torch.device("meta"):
        network = METHODS[method].network(METHODS[method].Settings(**settings), feature_size, frames)
    assert len(network.state_dict()) == tensors
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize("method", SMALL)
def test_a_published_file_is_read(tmp_path, method):
    weights = published_weights(method)
    entry, path = LAYOUTS[method].entry, tmp_path / "theirs.pth"
    torch.save({entry: weights} if entry else weights, path)
    settings, network = load_published(path, method, 10)
    assert {name: getattr(settings, name) for name in SMALL[method]} == SMALL[method]
    frames = torch.rand(3, 10, 12, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    trained = METHODS[method].network(settings, 12, 10)
    assert torch.equal(network.encode(frames), trained.encode(frames))
    others = {f"module.{name}": weight for name, weight in weights.items()}
    if method == "bth":
        others = {name.replace("bert.", "bert1."): weight for name, weight in weights.items()}
        others |= {"bert2.x.weight": torch.ones(2), "project.weight": torch.ones(2)}
    _, again = published_network(others, method, 10)
    assert torch.equal(again.encode(frames), trained.encode(frames))


def test_what_is_not_theirs_is_refused(tmp_path):
    weights, path = published_weights("conmh"), tmp_path / "theirs.pth"
    for change, complaint in (
        ({"ln.bias": torch.full((8,), torch.nan)}, "'ln.bias' is not a tensor of finite"),
        ({"more": torch.ones(1)}, "the weights are not those of ConMH: unknown are more"),
        ({"ln.bias": torch.ones(9)}, r"ln.bias has the shape \(9,\), but .* ask for \(8,\)"),
        ({"encoder.patch_embed.weight": torch.ones(())}, "which tells a size, is missing or empty"),
    ):
        torch.save({"model_state_dict": weights | change}, path)
        with pytest.raises(ValueError, match=rf"theirs\.pth: .*{complaint}"):
            load_published(path, "conmh", 10)
    with pytest.raises(ValueError, match=r"encoder\.blocks\.0\.attn"):
        published_network(weights, "conmh", 10, encoder_heads=7)
    torch.save(weights, path)
    with pytest.raises(ValueError, match=r"holds .*mask_token.*, but no weights as ConMH keeps them"):
        load_published(path, "conmh", 10)
    with pytest.raises(ValueError, match="'conmhh' is not a known published method: did you mean 'conmh'"):
        load_published(path, "conmhh", 10)


@pytest.mark.parametrize("method", SMALL)
def test_a_published_file_becomes_a_run(tmp_path, tiny, method):
    weights, path = published_weights(method), tmp_path / "theirs.pth"
    torch.save({LAYOUTS[method].entry: weights} if LAYOUTS[method].entry else weights, path)
    run = import_published(path, tiny, "theirs")
    assert run.method is METHODS[method]
    assert run.finished
    assert run.settings.dataset == "tiny"
    results = evaluate_run(run, tiny, baselines=())
    _, network = published_network(weights, method, tiny.frames)
    assert torch.equal(results.codes["query"], network.encode(tiny.query.features.tensor))
    assert [one.name for one in methods_for(run, tiny, "LSH", "theirs")] == [
        f"{METHODS[method].name}, 8 bits (theirs)", "LSH, 8 bits", f"{METHODS[method].name}, 8 bits (theirs)",
    ]  # fmt: skip
    of_others = replace(tiny, definition=replace(tiny.definition, name="wide", feature_size=13))
    with pytest.raises(ValueError, match=r"trained with feature_size 12, but wide has 13: use the data set"):
        import_published(path, of_others, "wide")


def test_files_are_recognised():
    assert recognised({"berthash": {}}) == "wsch"
    assert recognised([1]) == recognised({"model_state_dict": 3}) == "wsch"
    for method, name in {
        "s5vh": "encoder.blocks.0.mamba1.D", "autossvh": "pos_embed", "conmh": "encoder.blocks.0.norm1.weight"
    }.items():  # fmt: skip
        assert recognised({"model_state_dict": {name: 0, "encoder.blocks.1.x": 0}}) == method
    assert recognised({"bert1.binary": 0}) == "bth"
