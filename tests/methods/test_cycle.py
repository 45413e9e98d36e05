import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsch_core.methods.wsch.cycle import PUBLISHED_CYCLE, TASKS, parse_cycle, passes


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


@given(st.text(max_size=60) | st.just("contrast," * 10**5))
def test_any_text_at_all_is_read_or_refused_in_a_sentence(cycle):
    try:
        parse_cycle(cycle)
    except ValueError as error:
        assert str(error).startswith("cycle ")  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
        assert len(str(error)) < 600  # noqa: PT017


CYCLES = ["contrast", "centers, cluster", PUBLISHED_CYCLE, "centers, cluster+contrast, contrast"]


@given(st.sampled_from(CYCLES), st.integers(0, 30), st.integers(0, 30), st.integers(1, 40))
def test_every_schedule_has_the_passes_it_should(cycle, pretrain_epochs, epochs, centers_every):
    schedule = list(passes(cycle, pretrain_epochs, epochs, centers_every))
    turn = parse_cycle(cycle)
    searches = -(-epochs // centers_every) if ("centers",) in turn else 0
    learning = epochs * sum(tasks != ("centers",) for tasks in turn)
    assert [one.number for one in schedule] == list(range(pretrain_epochs + learning + searches))
    assert sum(not one.learns for one in schedule) == searches
    before = [one.tasks == ("centers",) for one in schedule]
    assert all(any(before[:place]) for place, one in enumerate(schedule) if "cluster" in one.tasks)


def test_a_schedule_without_end_is_not_waited_for():
    assert next(passes(PUBLISHED_CYCLE, 0, 10**15)).title == "centers"
    assert next(passes(PUBLISHED_CYCLE, 10**15, 10**15)).stage == "pretraining"


def test_centres_may_be_found_in_every_third_turn_only():
    schedule = list(passes(PUBLISHED_CYCLE, 2, 7, centers_every=3))
    assert [p.number for p in schedule] == list(range(2 + 7 * 2 + 3))
    assert [p.epoch for p in schedule if p.tasks == ("centers",)] == [0, 3, 6]
    assert [p.epoch for p in schedule if p.tasks == ("contrast",)] == list(range(7))
    assert list(passes(PUBLISHED_CYCLE, 2, 7, 1)) == list(passes(PUBLISHED_CYCLE, 2, 7))
