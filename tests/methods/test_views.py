import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wsch_core.data.loader import hidden_frames
from wsch_core.methods.wsch.views import draw_views, hidden_count


@pytest.mark.parametrize(("frames", "ratio", "hidden"), [(30, 0.9, 27), (25, 0.9, 22), (30, 0.6, 18), (25, 0.6, 15)])
def test_published_counts(frames, ratio, hidden):
    assert hidden_count(frames, ratio) == hidden


def test_hiding_nothing_is_refused():
    with pytest.raises(ValueError, match="videos of one frame cannot be trained on"):
        hidden_count(1, 0.9)
    with pytest.raises(ValueError, match=r"hides none of a video's 2 frames.*: raise it to at least 0.5"):
        hidden_count(2, 0.4)


@given(st.integers(1, 30), st.integers(2, 40), st.data())
def test_views_are_sorted_distinct_and_disjoint_where_they_can_be(videos, frames, data):
    hidden = data.draw(st.integers(1, frames - 1))
    count = data.draw(st.integers(2, min(hidden + 1, 6)))
    views = draw_views(videos, frames, hidden, torch.Generator().manual_seed(1), count)
    visible = frames - hidden
    assert views.shape == (count, videos, visible)
    assert (views.diff(dim=-1) > 0).all()
    assert 0 <= views.min() <= views.max() < frames
    assert len(views[:, 0].unique(dim=0)) == count
    shared = (views[0].unsqueeze(-1) == views[-1].unsqueeze(-2)).sum(dim=(1, 2))
    assert (shared == max(0, 2 * visible - frames)).all()
    if count * visible <= frames:
        together = views.transpose(0, 1).flatten(1).sort(dim=1).values
        assert (together.diff(dim=1) > 0).all()


def test_the_first_and_the_last_of_more_views_are_the_two_of_two():
    two, five = (draw_views(7, 25, 20, torch.Generator().manual_seed(3), views) for views in (2, 5))
    assert five[[0, 4]].equal(two)


def test_every_frame_is_as_likely_as_any_other():
    views = draw_views(20_000, 10, 6, torch.Generator().manual_seed(0))
    share = torch.bincount(views.flatten(), minlength=10) / views.numel()
    assert share.sub(0.1).abs().max() < 0.003


def test_hidden_frames_are_the_others_in_order():
    views = draw_views(20, 9, 5, torch.Generator().manual_seed(0))
    hidden = hidden_frames(views, 9)
    assert hidden.shape == (2, 20, 5)
    assert torch.equal(torch.cat([views, hidden], dim=-1).sort(dim=-1).values, torch.arange(9).expand(2, 20, 9))
    assert torch.equal(hidden, hidden.sort(dim=-1).values)
