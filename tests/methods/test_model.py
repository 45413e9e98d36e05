import pytest
import torch
from literal import attention, decode_all_tokens

from wsch_core.methods.wsch.model import WSCH, CausalConvolution, binarise, majority, video_codes


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = WSCH(feature_size=12, bits=16, encoder_width=64, decoder_width=32)
    torch.nn.init.normal_(model.decoder.mask_token)
    return model


@pytest.mark.parametrize("hidden", [1, 3, 6])
def test_one_mask_query_equals_all_mask_tokens(model, hidden):
    model = model.double()
    codes = torch.randn(5, 4, 16, dtype=torch.float64).sign()
    expected = decode_all_tokens(model, codes, hidden)
    torch.testing.assert_close(
        model.decoder(codes, hidden).unsqueeze(1).expand_as(expected), expected, rtol=1e-12, atol=1e-12
    )


def test_one_mask_query_has_the_gradients_of_all_mask_tokens(model):
    model = model.double()
    codes = torch.randn(5, 4, 16, dtype=torch.float64).sign()
    target = torch.randn(12, dtype=torch.float64)
    gradients = []
    for output in (lambda: model.decoder(codes, 6), lambda: decode_all_tokens(model, codes, 6).mean(dim=1)):
        model.zero_grad()
        (output() @ target).sum().backward()
        gradients.append({n: p.grad.clone() for n, p in model.decoder.named_parameters()})
    assert len(gradients[0]) == 11
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-10, atol=1e-12)


def test_attention_equals_its_definition(model):
    tokens = torch.randn(3, 5, 64)
    torch.testing.assert_close(
        model.encoder.attention(tokens, tokens), attention(model.encoder.attention, tokens), rtol=1e-5, atol=1e-5
    )


def test_convolution_is_causal_and_mixes_pairs_of_channels(model):
    inputs = torch.zeros(1, 8, 128)
    inputs[0, 3, 5] = 1
    reached = model.encoder.convolution(inputs)[0] != 0
    assert reached.any(dim=1).tolist() == [False] * 3 + [True] * 4 + [False]
    assert reached.any(dim=0).nonzero().flatten().tolist() == [4, 5]


@pytest.mark.parametrize("frames", [1, 3, 30])
def test_convolution_equals_torchs(frames):
    layer, inputs = CausalConvolution(groups=6), torch.randn(5, frames, 12)
    padded = torch.nn.functional.pad(inputs.transpose(1, 2), (3, 0))
    expected = torch.nn.functional.conv1d(padded, layer.weight, groups=6).transpose(1, 2)
    torch.testing.assert_close(layer(inputs), expected)


def test_binarise_values_and_gradient():
    values = torch.tensor([-2.0, -1.0, -0.4, 0.0, 0.4, 1.0, 2.0], requires_grad=True)
    codes = binarise(values)
    assert codes.tolist() == [-1, -1, -1, -1, 1, 1, 1]
    codes.backward(torch.arange(1.0, 8.0))
    assert values.grad.tolist() == [0, 0, 3, 4, 5, 0, 0]


def test_majority_decides_ties_by_the_mean_prebinary_value():
    frame_codes = torch.tensor([[[1, 1, 1, 1.0], [1, -1, -1, -1]]])
    prebinary = torch.tensor([[[0.1, 0.2, 0.5, 0.5], [0.1, -0.9, -0.1, -0.5]]])
    assert majority(frame_codes, prebinary).tolist() == [[1, -1, 1, -1]]


def test_codes_are_always_bits(model):
    codes = model.encode(torch.randn(50, 10, 12))
    assert codes.dtype == torch.int8
    assert codes.shape == (50, 16)
    assert set(codes.unique().tolist()) == {-1, 1}
    assert set(model.encode(torch.zeros(2, 10, 12)).unique().tolist()) <= {-1, 1}


def test_video_codes_that_cancel_out_have_a_bounded_gradient():
    frame_codes = torch.tensor([[[1.0, -1], [-1, 1]], [[1, 1], [1, -1]]], requires_grad=True)
    codes = video_codes(frame_codes)
    assert codes.tolist() == [[0, 0], [1, 0]]
    codes.sum().backward()
    assert frame_codes.grad.abs().max() <= 1


def test_a_video_does_not_depend_on_its_batch(model):
    """In double precision no value is as near to 0 as sums in another order come out different."""
    model, frames = model.double(), torch.randn(9, 10, 12, dtype=torch.float64)
    assert torch.equal(model.encode(frames), torch.cat([model.encode(video[None]) for video in frames]))


@pytest.mark.parametrize(
    ("sizes", "name"),
    [
        ({"encoder_width": 66}, "encoder_width is 66"),
        ({"decoder_width": 30}, "decoder_width is 30"),
        ({"encoder_width": 96}, "ssd_head_width is 128"),
    ],
)
def test_heads_that_do_not_divide_are_refused_by_name(sizes, name):
    with pytest.raises(ValueError, match=name):
        WSCH(**{"feature_size": 12, "bits": 16, "encoder_width": 64, "decoder_width": 32, **sizes})


def test_published_size():
    with torch.device("meta"):
        model = WSCH(feature_size=2048, bits=64, ssd_head_width=128)
    assert sum(p.numel() for p in model.parameters()) == 19_331_376


@pytest.mark.parametrize(("blocks", "absent"), [("ssd", "attention"), ("attention", "mixer")])
def test_a_block_left_out_has_no_parameters_and_changes_nothing_else(blocks, absent):
    """What is left computes what it does in the whole network where the absent block adds nothing."""
    torch.manual_seed(0)
    sizes = {"feature_size": 12, "bits": 16, "encoder_width": 64, "decoder_width": 32}
    whole, part = WSCH(**sizes), WSCH(**sizes, encoder_blocks=blocks)
    assert not any(absent in name for name, _ in part.encoder.named_parameters())
    part.load_state_dict({name: whole.state_dict()[name] for name in part.state_dict()})
    silent = whole.encoder.attention.output if absent == "attention" else whole.encoder.contraction
    torch.nn.init.zeros_(silent.weight)
    torch.nn.init.zeros_(silent.bias)
    frames = torch.randn(3, 10, 12)
    assert torch.equal(part.encoder(frames), whole.encoder(frames))
