import numpy as np
import pytest
import torch

from wsch_core.methods.baselines import BASELINES, LinearHash, fit_baseline


def make_features(videos: int = 200, size: int = 12, seed: int = 0) -> torch.Tensor:
    """Correlated directions of falling variance, away from the origin."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.linalg.qr(torch.randn(size, size, generator=generator)).Q
    scales = torch.linspace(3, 0.5, size)
    return torch.randn(videos, size, generator=generator) * scales @ mixing + 5


def quantisation_error(hasher: LinearHash, features: torch.Tensor) -> float:
    projected = (features - hasher.mean) @ hasher.projection
    return float((projected - hasher.encode(features)).square().sum())


@pytest.mark.parametrize("name", BASELINES)
def test_codes_are_signs_of_the_centred_projection(name):
    features = make_features()
    hasher = fit_baseline(name, features, 8)
    codes = hasher.encode(features)
    assert (hasher.name, hasher.mean.shape, hasher.projection.shape) == (name, (12,), (12, 8))
    assert (codes.shape, codes.dtype) == ((200, 8), torch.int8)
    torch.testing.assert_close(hasher.mean, features.mean(dim=0))
    projected = (features.numpy() - hasher.mean.numpy()) @ hasher.projection.numpy()
    clear = np.abs(projected) > 1e-4  # what lies nearer to 0 may fall to either side
    assert clear.mean() > 0.99
    assert np.array_equal(codes.numpy()[clear], np.where(projected > 0, 1, -1)[clear])
    assert torch.equal(hasher.encode(features.numpy()), codes)
    assert hasher.encode(features[:0]).shape == (0, 8)


def test_exactly_zero_becomes_minus_one():
    hasher = LinearHash("LSH", torch.zeros(2), torch.eye(2))
    assert hasher.encode([[0.0, 1.0], [-0.0, -1.0]]).tolist() == [[-1, 1], [-1, -1]]


@pytest.mark.parametrize("name", BASELINES)
def test_a_seed_gives_the_same_codes_and_the_global_generator_is_left_alone(name):
    features = make_features()
    state = torch.random.get_rng_state()
    first, second, other = (fit_baseline(name, features, 8, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.projection, second.projection)
    assert torch.equal(first.projection, other.projection) == (name == "PCAH")


def test_lsh_keeps_angles():
    """The share of differing bits is the angle between the centred features, in units of pi (Charikar 2002)."""
    features = make_features(30)
    codes = fit_baseline("LSH", features, 4096).encode(features).float()
    centred = torch.nn.functional.normalize(features - features.mean(dim=0), dim=1)
    angles = (centred @ centred.T).clamp(-1, 1).acos() / torch.pi
    differing = (1 - codes @ codes.T / 4096) / 2
    assert (angles - differing).abs().max() < 0.05


def test_pcah_finds_the_leading_directions():
    features = make_features()
    projection = fit_baseline("PCAH", features, 5).projection.numpy()
    centred = features.numpy().astype(np.float64) - features.numpy().mean(axis=0, dtype=np.float64)
    leading = np.linalg.svd(centred, full_matrices=False)[2][:5].T
    np.testing.assert_allclose(np.abs((projection * leading).sum(axis=0)), 1, atol=1e-6)
    assert (np.take_along_axis(projection, np.abs(projection).argmax(axis=0)[None], axis=0) > 0).all()


@pytest.mark.parametrize("bits", [1, 5, 12])
def test_itq_rotates_pcah_to_less_quantisation_error(bits):
    features = make_features()
    principal, rotated = (fit_baseline(name, features, bits) for name in ("PCAH", "ITQ"))
    rotation = principal.projection.T @ rotated.projection
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(bits), atol=1e-5, rtol=0)
    assert quantisation_error(rotated, features) <= quantisation_error(principal, features) * (1 + 1e-6)


def test_itq_undoes_a_rotation_of_a_cube():
    """Features at the corners of a rotated cube have a rotation without any quantisation error.

    It is found from about two of three starts.
    """
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3).repeat(5, 1)
    features = corners @ torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1))).Q
    assert min(quantisation_error(fit_baseline("ITQ", features, 3, seed), features) for seed in range(20)) < 1e-6


@pytest.mark.parametrize("name", ["PCAH", "ITQ"])
def test_more_bits_than_directions_are_refused(name):
    with pytest.raises(ValueError, match=f"vary in 12 directions, but {name} needs 13"):
        fit_baseline(name, make_features(), 13)
    with pytest.raises(ValueError, match=f"6 training videos .* vary in 5 directions, but {name} needs 6"):
        fit_baseline(name, make_features(6), 6)
    repeated = make_features()[:, [0, 1, 2, 0, 1, 2]]
    with pytest.raises(ValueError, match=f"vary in 3 directions, but {name} needs 4"):
        fit_baseline(name, repeated, 4)
    with pytest.raises(ValueError, match="vary in 0 directions"):
        fit_baseline(name, torch.full((20, 4), 0.1), 1)
    assert fit_baseline(name, make_features(6), 5).projection.shape == (12, 5)


def test_lsh_has_any_number_of_bits():
    assert fit_baseline("LSH", make_features(6), 64).encode(make_features(3)).shape == (3, 64)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_broken_features_are_refused(name, broken):
    features = make_features()
    features[7, 3] = broken
    with pytest.raises(ValueError, match="in 1 videos, first in row 7"):
        fit_baseline(name, features, 4)
    with pytest.raises(ValueError, match="NaN or infinite features"):
        fit_baseline(name, make_features(), 4).encode(features)


def test_what_does_not_fit_is_refused():
    features = make_features()
    with pytest.raises(ValueError, match="found baseline 'SH', expected one of LSH, PCAH, ITQ"):
        fit_baseline("SH", features, 4)
    with pytest.raises(ValueError, match="found 0 bits"):
        fit_baseline("LSH", features, 0)
    with pytest.raises(ValueError, match="no training features for LSH"):
        fit_baseline("LSH", features[:0], 4)
    with pytest.raises(ValueError, match="pool the frames"):
        fit_baseline("LSH", features[None], 4)
    with pytest.raises(ValueError, match="found features of size 11, expected 12"):
        fit_baseline("ITQ", features, 4).encode(features[:, 1:])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", BASELINES)
def test_same_on_cuda(name):
    features = make_features()
    on_cpu, on_cuda = (fit_baseline(name, each, 8).encode(each).cpu() for each in (features, features.cuda()))
    assert (on_cpu == on_cuda).float().mean() > 0.99
