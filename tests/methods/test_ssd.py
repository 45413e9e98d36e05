import pytest
import torch
from literal import ssd_recurrence

from wsch_core.methods.wsch.ssd import SSDMixer, ssd

DOUBLE = torch.float64


def arguments(batch=2, frames=7, heads=3, width=4, state=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=draw, dtype=DOUBLE)  # noqa: E731
    step = torch.rand(batch, frames, heads, generator=draw, dtype=DOUBLE) + 0.1
    decay = -torch.rand(heads, generator=draw, dtype=DOUBLE) * 4
    return (
        normal(batch, frames, heads, width),
        step,
        decay,
        normal(batch, frames, state),
        normal(batch, frames, state),
        normal(heads),
    )


@pytest.mark.parametrize("frames", [1, 2, 7, 30])
def test_equals_the_recurrence(frames):
    given = arguments(frames=frames)
    torch.testing.assert_close(ssd(*given), ssd_recurrence(*given), rtol=1e-12, atol=1e-12)


def test_is_causal():
    given = list(arguments())
    before = ssd(*given)
    given[0] = given[0].clone()
    given[0][:, 4:] += 1
    after = ssd(*given)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.isclose(before[:, 4:], after[:, 4:]).any(dim=-1).all()


def test_fast_decay_forgets_and_stays_finite():
    """Decays that underflow leave only the current frame; gradients stay finite."""
    inputs, step, _, write, read, skip = arguments()
    decay = torch.full((3,), -1e6, dtype=DOUBLE, requires_grad=True)
    out = ssd(inputs, step, decay, write, read, skip)
    alone = torch.stack(
        [
            ssd(*(a[:, t : t + 1] for a in (inputs, step)), decay, write[:, t : t + 1], read[:, t : t + 1], skip)
            for t in range(7)
        ],
        1,
    )
    torch.testing.assert_close(out, alone.squeeze(2))
    out.sum().backward()
    assert torch.isfinite(decay.grad).all()


def test_mixer_keeps_its_shape_and_starts_as_published():
    torch.manual_seed(0)
    mixer = SSDMixer(width=24, head_width=8, state_size=6)
    assert mixer(torch.randn(2, 5, 24)).shape == (2, 5, 24)
    assert torch.equal(mixer.step_bias, torch.zeros(3))
    assert torch.equal(mixer.skip, torch.ones(3))
    rates = mixer.log_decay_rate.exp()
    assert ((rates >= 1) & (rates <= 16)).all()
