"""Figures for tests/README.md: where WSCH_MEASURED names a file, tests add what they have measured to it.

WSCH_MEASURED=measured.jsonl pytest ...; python tests/measured.py measured.jsonl
"""

import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STATUS = Path("/proc/self/status")


def measured(part: str, name: str, **figures: float) -> None:
    """Add a line to the file, if one is wanted."""
    path = os.environ.get("WSCH_MEASURED")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"part": part, "name": name, **figures}) + "\n")


@contextmanager
def taking() -> Iterator[dict[str, float]]:
    """What the block takes: seconds, and MB of resident memory at its highest above what was in use before."""
    gc.collect()
    taken: dict[str, float] = {}
    if STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, start = _resident("VmRSS"), time.perf_counter()
    yield taken
    taken["seconds"] = time.perf_counter() - start
    taken["MB"] = max(0.0, (_resident("VmHWM") - before) / 1e6)


def _resident(field: str) -> int:
    """Bytes; 0 where the system does not tell."""
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(field)), 0)


def tables(lines: list[dict]) -> str:
    """A table for each part, the newest figures of each name."""
    parts: dict[str, dict[str, dict]] = {}
    for line in lines:
        parts.setdefault(line.pop("part"), {})[line.pop("name")] = line
    return "\n".join(_table(part, rows) for part, rows in sorted(parts.items()))


def _table(part: str, rows: dict[str, dict]) -> str:
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    head = [part, *(column.replace("_", " ") for column in columns)]
    text = [head, ["---"] * len(head), *([name, *(_cell(row.get(c)) for c in columns)] for name, row in rows.items())]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in text)


def _cell(value) -> str:
    return "" if value is None else f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


if __name__ == "__main__":
    print(tables([json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]))
