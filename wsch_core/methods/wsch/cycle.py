"""The cycle as data: which tasks are learned, in which order, for how long.

    "centers, cluster, contrast"    the published cycle: three passes over the training set in each epoch
    "centers, cluster+contrast"     joint training: both losses in the same pass
    "contrast"                      no clustering

A comma means "then", a plus means "in the same pass". Reconstruction is part of every pass that learns. Before the
cycle comes pre-training, which learns reconstruction alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from ...storage.words import shortened
from ..method import Pass

STAGES = ("pretraining", "cycle")
TASKS = ("centers", "cluster", "contrast")
LONGEST = 2000  # letters of a cycle
PUBLISHED_CYCLE = "centers, cluster, contrast"


def parse_cycle(cycle: str) -> tuple[tuple[str, ...], ...]:
    """Read a cycle: one tuple of task names for each pass of an epoch.

    Raises ValueError, with the reason, for an unknown task and for a schedule that makes no sense.
    """
    if len(cycle) > LONGEST:
        raise ValueError(f"cycle {shortened(cycle)} has {len(cycle):,} letters: use at most {LONGEST:,}.")
    passes = tuple(tuple(task.strip() for task in part.split("+")) for part in cycle.split(","))
    for tasks in passes:
        for task in tasks:
            _check_task(cycle, task)
        if len(set(tasks)) < len(tasks):
            raise ValueError(
                f"cycle {shortened(cycle)} names a task twice in the pass {shortened('+'.join(tasks))}: name it once."
            )
        if "centers" in tasks and len(tasks) > 1:
            raise ValueError(
                f"cycle {shortened(cycle)} joins centers with another task: centers takes no gradient steps and needs "
                "a pass of its own, so write it between commas."
            )
    _check_clustering(cycle, passes)
    return passes


def _check_task(cycle: str, task: str) -> None:
    if task in TASKS:
        return
    if not task:
        raise ValueError(f"cycle {shortened(cycle)} has an empty place: name one of {', '.join(TASKS)} there.")
    close = get_close_matches(task[:40], TASKS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    raise ValueError(
        f"cycle {shortened(cycle)} holds the unknown task {shortened(task)}: the tasks are {', '.join(TASKS)}{hint}"
    )


def _check_clustering(cycle: str, passes: tuple[tuple[str, ...], ...]) -> None:
    flat = [task for tasks in passes for task in tasks]
    if "cluster" in flat and "centers" not in flat:
        raise ValueError(f"cycle {shortened(cycle)} learns cluster without centers: put a centers pass before it.")
    if "centers" in flat and "cluster" not in flat:
        raise ValueError(
            f"cycle {shortened(cycle)} finds centers that no pass uses: add cluster, or leave centers out."
        )
    if "cluster" in flat and flat.index("cluster") < flat.index("centers"):
        raise ValueError(
            f"cycle {shortened(cycle)} learns cluster before the first centers: no centres exist then, so put centers "
            "first."
        )


def passes(cycle: str, pretrain_epochs: int, epochs: int, centers_every: int = 1) -> Iterator[Pass]:
    """Every pass of a run in order: `pretrain_epochs` of reconstruction, then `epochs` turns of the cycle.

    centers_every: centres are found in the first turn and then in every so many; other turns leave centers passes out
    """
    for epoch in range(pretrain_epochs):
        yield Pass(epoch, "pretraining", epoch, ())
    turn = parse_cycle(cycle)
    number = pretrain_epochs
    for epoch in range(epochs):
        for tasks in turn:
            if tasks == ("centers",) and epoch % centers_every:
                continue
            yield Pass(number, "cycle", epoch, tasks, learns=tasks != ("centers",))
            number += 1
