"""All runs at a glance: a row for each, with its state, what differs in its settings, and what it reached."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.definition import load_definition
from ..methods import METHODS, Method, defaults_for, method_of, recipe_of
from ..methods.method import Pass
from ..storage.files import parse_json, read_text
from ..storage.words import one_line
from .folder import EVALUATE_AGAIN, MOST_HISTORY, TRAIN_AGAIN, Run
from .notes import read_notes

if TYPE_CHECKING:
    import pandas as pd

APART = ("dataset", "bits", "seed", "device")  # settings that have a column of their own, or change no number
DEPTHS = (5, 20, 100)  # K whose mAP@K has a column
JUDGED = 20  # K at which the best baseline is chosen
COLUMNS = (
    "name", "state", "passes done", "passes", "method", "recipe", "data set", "bits", "seed", "settings",
    *(f"mAP@{k}" for k in DEPTHS), "best baseline", "its mAP@20", "seconds", "bytes", "created", "tags", "note", "problem",
)  # fmt: skip
WHOLE = ("passes done", "passes", "bits", "seed", "bytes")
REAL = (*(f"mAP@{k}" for k in DEPTHS), "its mAP@20", "seconds")
SECONDS = re.compile(r'"seconds": ([0-9.e+-]+)')


class Runs(list[Run]):
    """Runs, the oldest first."""

    def rows(self) -> list[dict[str, Any]]:
        """What is known of each run by `COLUMNS`, None where nothing is; a run that has vanished meanwhile is left out.

        state: "training" (another process is at it), "interrupted", "finished", "evaluated", "imported" or "damaged"
        settings: those that differ from the data set's own under the run's recipe, as text
        best baseline: of those that hash, by mAP@20
        seconds: of training; bytes: on disk
        problem: what is wrong with a damaged run, or with its notes, in a sentence
        """
        defaults: dict[tuple, dict] = {}
        rows = [_row(run, defaults) for run in self]
        return [row for run, row in zip(self, rows, strict=True) if run.folder.is_dir()]

    def as_frame(self) -> pd.DataFrame:
        """`rows` as a table of pandas: numbers as numbers, `created` as a time in UTC."""
        import pandas as pd  # only here: training and measuring need no pandas

        frame = pd.DataFrame(self.rows(), columns=[*COLUMNS])
        frame = frame.astype(dict.fromkeys(WHOLE, "Int64") | dict.fromkeys(REAL, "float64"))
        frame["created"] = pd.to_datetime(frame["created"], utc=True, format="ISO8601", errors="coerce")
        return frame


class _Seen(Run):
    """A run as it is when it is looked at: what several properties need is read once."""

    record = cached_property(lambda self: Run.record.fget(self))
    method = cached_property(lambda self: Run.method.fget(self))
    settings = cached_property(lambda self: Run.settings.fget(self))
    metrics = cached_property(lambda self: Run.metrics.fget(self))
    finished = cached_property(lambda self: Run.finished.fget(self))

    @cached_property
    def schedule(self) -> list[Pass]:
        """Made once for all runs that differ in their seed alone."""
        described = self.record["dataset"]
        if "imported" in self.record or type(described.get("train_videos")) is not int:
            return Run.schedule.fget(self)
        sizes = described["train_videos"], described["frames"], described["feature_size"]
        return _schedule(self.method, replace(self.settings, seed=0), sizes)

    @cached_property
    def time(self) -> tuple[int, float]:
        """How many passes are done, and the seconds they took; of the history's text, since to parse a thousand lines of it
        takes longer than all else."""
        path = self.folder / "history.jsonl"
        if not path.exists():
            return 0, 0.0
        text = read_text(path, TRAIN_AGAIN, self.folder, MOST_HISTORY)
        text = text[: text.rfind("\n") + 1]  # a killed run may leave half a line
        done, seconds = text.count("\n"), SECONDS.findall(text)
        if done and len(seconds) == done and _number_of(text[text[:-1].rfind("\n") + 1 :]) == done - 1:
            return done, sum(map(float, seconds))
        history = self.history  # or why it cannot be read
        return len(history), sum(entry["seconds"] for entry in history)

    @property
    def passes_done(self) -> int:
        return self.time[0]


@lru_cache
def _schedule(method: type[Method], settings: Any, sizes: tuple[int, int, int]) -> list[Pass]:
    return method(settings, *sizes).passes()


def _row(run: Run, defaults: dict[tuple, dict]) -> dict[str, Any]:
    run = _Seen(run.folder)
    row = dict.fromkeys(COLUMNS) | {"name": run.name, "tags": "", "note": "", "problem": ""}
    row["bytes"] = size_of(run.folder)
    try:
        notes = read_notes(run)
        row |= {"tags": ", ".join(notes.tags), "note": notes.note}
    except OSError as error:
        row["problem"] = one_line(error)
    try:
        row |= _settings(run, defaults)
        row |= _state(run)
        row |= _results(run) if run.evaluated else {"problem": row["problem"] or _why_not_evaluated(run)}
    except (OSError, ValueError) as error:
        row |= {"state": "damaged", "problem": one_line(error)}
    return row


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder; links are not followed."""
    total = 0
    for entry in os.scandir(folder) if folder.is_dir() else ():
        total += size_of(Path(entry)) if entry.is_dir(follow_symlinks=False) else _bytes(entry)
    return total


def _bytes(entry: os.DirEntry) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:  # a checkpoint that training has replaced meanwhile
        return 0


def _settings(run: _Seen, defaults: dict[tuple, dict]) -> dict[str, Any]:
    settings, created = run.settings, run.record.get("created")
    key = settings.dataset, recipe_of(settings), method_of(settings)
    if key not in defaults:
        defaults[key] = _defaults(*key)
    values = settings.as_dict()
    different = [name for name in values if name not in APART and values[name] != defaults[key][name]]
    return {
        "method": METHODS[key[2]].name,
        "recipe": key[1],
        "data set": settings.dataset,
        "bits": settings.bits,
        "seed": settings.seed,
        "settings": ", ".join(f"{name} = {values[name]}" for name in different),
        "created": created if isinstance(created, str) else None,
    }


def _defaults(dataset: str, recipe: str, method: str) -> dict[str, Any]:
    """All settings as a data set and a recipe have them; as the recipe alone where the set is not there any more."""
    of = METHODS[method]
    try:
        own = defaults_for(load_definition(dataset), recipe, method)
    except (OSError, ValueError):
        own = of.recipes[recipe]
    return of.Settings.create({}, own).as_dict()


def _state(run: _Seen) -> dict[str, Any]:
    if "imported" in run.record:
        return {"state": "imported"}
    done, seconds = run.time
    if run.finished:
        state = "evaluated" if run.evaluated else "finished"
    else:
        state = "training" if run.being_trained else "interrupted"
    return {"state": state, "passes done": done, "passes": len(run.schedule), "seconds": seconds}


def _number_of(line: str) -> int | None:
    try:
        entry = parse_json(line)
    except ValueError:
        return None
    return entry.get("pass") if isinstance(entry, dict) else None


def _why_not_evaluated(run: _Seen) -> str:
    """Why the metrics of a finished run do not count; "" where there are none."""
    path = run.folder / "metrics.json"
    if not run.finished or not path.exists():
        return ""
    try:
        return (
            f"{path} was made by another network than the one that is there: {EVALUATE_AGAIN}." if run.metrics else ""
        )
    except OSError as error:
        return one_line(error)


def _results(run: _Seen) -> dict[str, Any]:
    methods, own = run.metrics["methods"], run.method.name
    at = {name: dict(zip(found["ks"], found["expected"], strict=True)) for name, found in methods.items()}
    others = {name: found[JUDGED] for name, found in at.items() if name != own and JUDGED in found}
    best = max(others, key=others.get, default=None)
    row = {f"mAP@{k}": at[own].get(k) for k in DEPTHS}
    return row | {"best baseline": best, "its mAP@20": others.get(best)}
