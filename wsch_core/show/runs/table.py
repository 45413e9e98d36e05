"""The runs there are, as a table that people read: states in words, sizes and times in units."""

from __future__ import annotations

from datetime import datetime

import pandas as pd
from pandas.io.formats.style import Styler

from ...runs.listing import DEPTHS
from ..tables import plain

TEXTS = (
    "name", "state", "method", "recipe", "data set", "settings", "best baseline", "created", "tags", "note", "problem",
)  # fmt: skip
MEASURED = [*(f"mAP@{k}" for k in DEPTHS), "its mAP@20"]
FIRST = (
    "name", "state", "data set", "bits", "seed", *MEASURED[:-1], "best baseline", "its mAP@20", "tags", "note",
)  # fmt: skip
LONGEST = 200  # letters of a note or a problem


def shown_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """What `Runs.as_frame` gives, the newest run first, for people: the state with how far a run is, `minutes` of training,
    `MB` on disk, `created` in local time; the columns `problem` and `its mAP@20` only where there is something in them."""
    shown = frame.iloc[::-1].reset_index(drop=True)
    shown["state"] = [
        f"{state}, pass {done} of {passes}" if state in ("training", "interrupted") else state
        for state, done, passes in zip(shown["state"], shown["passes done"], shown["passes"], strict=True)
    ]
    shown[MEASURED] = shown[MEASURED].round(3)
    shown["seconds"], shown["bytes"] = (shown["seconds"] / 60).round(1), (shown["bytes"] / 1e6).astype(float).round(1)
    here = datetime.now().astimezone().tzinfo
    shown["created"] = shown["created"].dt.tz_convert(here).dt.strftime("%Y-%m-%d %H:%M")
    shown[[*TEXTS]] = shown[[*TEXTS]].astype(object).fillna("")
    shown["note"], shown["problem"] = shown["note"].str[:LONGEST], shown["problem"].str[:LONGEST]
    shown = shown.rename(columns={"seconds": "minutes", "bytes": "MB"}).drop(columns=["passes done", "passes"])
    shown = shown if shown["problem"].any() else shown.drop(columns="problem")
    first = [name for name in FIRST if name in shown]
    return shown[[*first, *(name for name in shown if name not in first)]]


def runs_table(frame: pd.DataFrame, most: int = 40) -> Styler:
    """The newest runs, at most so many, of what `Runs.as_frame` gives."""
    shown = shown_frame(frame)
    used = [name for name in shown if name in ("name", "state") or shown[name].replace("", pd.NA).notna().any()]
    numbers = dict.fromkeys(MEASURED, "{:.3f}") | {"minutes": "{:.1f}", "MB": "{:.1f}"}
    table = plain(shown[used].head(most), left=[name for name in used if name in TEXTS])
    table = table.set_properties(subset=["name", "state"], **{"white-space": "nowrap"}).format(
        {name: form for name, form in numbers.items() if name in used}, na_rep="", escape="html"
    )
    told = f"{len(frame):,} runs" if len(frame) <= most else f"The newest {most} of {len(frame):,} runs"
    return table.set_caption(f"{told}. Settings: those that differ from the data set's own.")
