import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsch_core.retrieval.codes import as_codes, health, pack, unpack


def random_codes(videos: int, bits: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, (videos, bits), generator=torch.Generator().manual_seed(seed), dtype=torch.int8) * 2 - 1


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32, np.float64])
def test_any_numeric_type_becomes_int8(dtype):
    values = np.array([[1, -1, 1], [-1, -1, 1]], dtype=dtype)
    for codes in (values, torch.from_numpy(values), values.tolist()):
        assert as_codes(codes).dtype == torch.int8
        assert as_codes(codes).tolist() == values.tolist()


def test_arrays_that_torch_cannot_share_are_copied():
    values = np.array([[1, -1, 1], [-1, -1, 1]])
    values.flags.writeable = False
    assert as_codes(values[:, ::-1]).tolist() == [[1, -1, 1], [1, -1, -1]]


def test_no_videos_are_codes_too():
    assert as_codes(torch.empty(0, 5)).shape == (0, 5)
    assert pack(torch.empty(0, 5)).shape == (0, 1)
    assert unpack(torch.empty(0, 1, dtype=torch.uint8), 5).shape == (0, 5)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.tensor([[1, -1], [1, 0]]), "0 in row 1, column 1 is not a bit"),
        (torch.tensor([[1.0, 0.5]]), "0.5 in row 0, column 1 is not a bit"),
        (torch.tensor([[float("nan"), 1]]), "nan in row 0, column 0 is not a bit"),
        (np.array([[255, 1]], dtype=np.uint8), "255 in row 0, column 0 is not a bit"),
        (np.array([[True, False]]), "False in row 0, column 1 is not a bit"),
        (torch.ones(4), r"shape \(4,\)"),
        (torch.ones(2, 3, 4), r"shape \(2, 3, 4\)"),
        (torch.ones(3, 0), "at least one bit"),
    ],
)
def test_what_is_no_code_is_refused(codes, message):
    with pytest.raises(ValueError, match=message):
        as_codes(codes)


@given(bits=st.integers(1, 40), data=st.data())
def test_packing_is_numpys_and_comes_back(bits, data):
    is_set = data.draw(hnp.arrays(bool, (data.draw(st.integers(0, 4)), bits)))
    codes = np.where(is_set, 1, -1)
    packed = pack(codes)
    assert packed.dtype == torch.uint8
    assert np.array_equal(packed.numpy(), np.packbits(is_set, axis=1))
    assert np.array_equal(unpack(packed, bits).numpy(), codes)
    assert unpack(packed.numpy(), bits).dtype == torch.int8


def test_first_bit_is_the_highest_of_the_first_byte():
    assert pack([[1, -1, -1, -1, -1, -1, -1, 1, 1]]).tolist() == [[0b10000001, 0b10000000]]


def test_unpacking_with_another_number_of_bits_is_refused():
    packed = pack(torch.ones(2, 12))
    with pytest.raises(ValueError, match=r"expected \(videos, 3\) of torch.uint8 for 17 bits"):
        unpack(packed, 17)
    with pytest.raises(ValueError, match="set bits behind bit 11"):
        unpack(packed, 11)
    with pytest.raises(ValueError, match=r"type torch.int64"):
        unpack(packed.long(), 12)
    with pytest.raises(ValueError, match="for 0 bits"):
        unpack(packed[:, :0], 0)


def test_health_of_a_table():
    codes = torch.tensor([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, -1], [1, -1, -1, 1], [1, -1, -1, 1]])
    found = health(codes)
    assert (found.videos, found.bits, found.distinct, found.constant_bits) == (5, 4, 4, 1)
    assert found.distinct_share == 0.8
    np.testing.assert_allclose(found.bit_balance, [1, -0.2, -0.2, 0.2])
    assert found.mean_absolute_balance == pytest.approx(0.4)
    correlation = np.eye(4)
    correlation[1:, 1:] = np.corrcoef(codes[:, 1:].numpy(), rowvar=False)
    np.testing.assert_allclose(found.bit_correlation, correlation, atol=1e-12)
    assert found.bit_correlation[2, 3] == pytest.approx(-1)
    assert found.mean_absolute_correlation == pytest.approx((np.abs(correlation).sum() - 4) / 12)


def test_health_of_random_codes_against_numpy():
    codes = random_codes(500, 37)
    found = health(codes)
    np.testing.assert_allclose(found.bit_correlation, np.corrcoef(codes.numpy(), rowvar=False), atol=1e-12)
    assert found.distinct == len(np.unique(codes.numpy(), axis=0))
    assert found.mean_absolute_correlation < 0.1


@pytest.mark.parametrize("codes", [-torch.ones(6, 3), torch.ones(1, 1)])
def test_constant_codes_are_described_without_nan(codes):
    found = health(codes)
    assert found.constant_bits == found.bits
    assert found.mean_absolute_balance == 1
    assert found.mean_absolute_correlation == 0
    assert np.array_equal(found.bit_correlation, np.eye(found.bits))
    assert found.distinct == 1


def test_no_videos_have_no_health():
    with pytest.raises(ValueError, match="at least one video"):
        health(torch.empty(0, 4))
