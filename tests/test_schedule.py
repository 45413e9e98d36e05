import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsch_core.schedule import PUBLISHED_CYCLE, TASKS, parse_cycle, passes


@pytest.mark.parametrize(
    ("cycle", "expected"),
    [
        (PUBLISHED_CYCLE, (("centers",), ("cluster",), ("contrast",))),
        ("centers, cluster+contrast", (("centers",), ("cluster", "contrast"))),
        ("contrast", (("contrast",),)),
        ("centers, contrast, cluster", (("centers",), ("contrast",), ("cluster",))),
        (" centers ,cluster + contrast,cluster", (("centers",), ("cluster", "contrast"), ("cluster",))),
    ],
)
def test_a_comma_means_then_and_a_plus_in_the_same_pass(cycle, expected):
    assert parse_cycle(cycle) == expected


@pytest.mark.parametrize(
    ("cycle", "reason"),
    [
        ("cluster, contrast", "without centers"),
        ("cluster, centers", "before the first centers"),
        ("centers, contrast", "no pass uses"),
        ("centers+cluster", "a pass of its own"),
        ("centers, cluster+cluster", "twice"),
        ("centers, cluster, contrats", "did you mean 'contrast'"),
        ("centres, cluster", "did you mean 'centers'"),
        ("", "empty place"),
        ("contrast,", "empty place"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused_with_the_reason(cycle, reason):
    with pytest.raises(ValueError, match=reason):
        parse_cycle(cycle)


def test_the_published_schedule():
    schedule = list(passes(PUBLISHED_CYCLE, 100, 300))
    assert len(schedule) == 1000
    assert [p.number for p in schedule] == list(range(1000))
    assert all(p.stage == "pretraining" and p.tasks == () for p in schedule[:100])
    assert [p.title for p in schedule[100:104]] == ["centers", "cluster", "contrast", "centers"]
    assert schedule[100].epoch == 0
    assert schedule[-1].epoch == 299
    assert sum(p.learns for p in schedule) == 100 + 600


@given(
    st.text(alphabet="centrsluao,+ ", max_size=40)
    | st.lists(st.sampled_from([*TASKS, "+", ","]), max_size=8).map("".join)
)
def test_any_text_is_read_or_refused(cycle):
    try:
        turn = parse_cycle(cycle)
    except ValueError as error:
        assert repr(cycle) in str(error)  # noqa: PT017
    else:
        assert parse_cycle(", ".join("+".join(tasks) for tasks in turn)) == turn


def test_centres_may_be_found_in_every_third_turn_only():
    schedule = list(passes(PUBLISHED_CYCLE, 2, 7, centers_every=3))
    assert [p.number for p in schedule] == list(range(2 + 7 * 2 + 3))
    assert [p.epoch for p in schedule if p.tasks == ("centers",)] == [0, 3, 6]
    assert [p.epoch for p in schedule if p.tasks == ("contrast",)] == list(range(7))
    assert list(passes(PUBLISHED_CYCLE, 2, 7, 1)) == list(passes(PUBLISHED_CYCLE, 2, 7))
