"""mAP@K of a network while it is trained: to be watched, never to choose by."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from ..data import Dataset
from ..methods.method import Pass
from ..retrieval.metrics import evaluate
from ..runs.folder import Run
from ..storage.files import read_json
from ..training.loop import encode
from ..training.progress import Progress

WATCHED = "watched.json"  # in a run's folder
K, QUERIES = 20, 1_000  # depth, and queries at most, spread evenly


class Watch:
    """A callback that measures mAP@20 after every so many epochs of each stage and at the end, and keeps it with the run.

    dataset: database and queries have labels; schedule: all passes of the run; every: epochs, at least 1

    A copy of the network is asked, so that the run ends as if it had not been watched. Training waits meanwhile.
    """

    def __init__(self, dataset: Dataset, schedule: Sequence[Pass], every: int):
        self.dataset, self.k = dataset, min(K, len(dataset.database))
        turns = {(p.stage, p.epoch): p.number for p in schedule}  # its last pass
        self.after = {number for (_, epoch), number in turns.items() if (epoch + 1) % every == 0}
        self.after.add(schedule[-1].number if schedule else 0)

    def __call__(self, progress: Progress) -> None:
        number = progress.current.number
        if progress.entry is None or number not in self.after:
            return
        before = [line for line in watched(progress.run) if line["pass"] < number]
        line = {"pass": number, "k": self.k, "map": self.measure(progress)}
        progress.run.save_json(WATCHED, [*before, line])

    def measure(self, progress: Progress) -> float:
        network = copy.deepcopy(progress.network)
        device = next(network.parameters()).device
        database, query = self.dataset.database, self.dataset.query
        rows = np.unique(np.linspace(0, len(query) - 1, min(len(query), QUERIES)).astype(int))
        found = encode(network, database.features, device)
        asked = found if query is database else encode(network, query.features, device)
        result = evaluate(asked[rows], found, query.labels[rows], database.labels, ks=(self.k,))
        return float(result.expected[0])


def watched(run: Run) -> list[dict]:
    """What was measured while the run was trained: {"pass" (from 0), "k", "map"}, in order; [] if it was not watched."""
    if not (run.folder / WATCHED).exists():
        return []
    lines = read_json(run.folder / WATCHED, "remove it", run.folder)
    return [line for line in lines if _is_line(line)] if isinstance(lines, list) else []


def _is_line(line: object) -> bool:
    kinds = {"pass": int, "k": int, "map": float}
    return isinstance(line, dict) and all(type(line.get(name)) is kind for name, kind in kinds.items())
