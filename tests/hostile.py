"""Broken files by kind, and a process that reads them: what tests/test_hostile.py tries.

A variant is one good folder (data set, run, published checkpoint) with one file changed. Everything is drawn from seeds.
"""

import json
import random
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

READER = Path(__file__).parent / "hostile_reader.py"
HANGS = 20.0  # seconds after which a reader is ended
RUN = "outputs/r"
TARGETS = {  # by kind: the file that is changed, and what reads it
    "pth": ("published.pth", ["published"]),
    "safetensors weights": (f"{RUN}/weights.safetensors", ["weights"]),
    "safetensors checkpoint": (f"{RUN}/checkpoint-000007.safetensors", ["resume"]),
    "HDF5 features": ("data/tiny/train.h5", ["memory", "disk", "check"]),
    "HDF5 codes": (f"{RUN}/codes.h5", ["codes"]),
    "HDF5 map": ("map.h5", ["map"]),
    "mat v5": ("data/tiny/query.mat", ["query labels", "check"]),
    "mat v7.3": ("data/tiny/database.mat", ["database labels", "check"]),
    "definition": ("data/tiny.toml", ["definition"]),
    "settings.json": (f"{RUN}/settings.json", ["records"]),
    "history.jsonl": (f"{RUN}/history.jsonl", ["records"]),
    "metrics.json": (f"{RUN}/metrics.json", ["records"]),
    "name": ("name.json", ["name"]),
}


@dataclass(frozen=True)
class Variant:
    kind: str
    name: str
    change: Callable[[Path], object]  # is given the file
    refused: bool = True  # or else it may also be read: damage that cannot be told from data

    @property
    def readers(self) -> list[str]:
        return TARGETS[self.kind][1]

    @property
    def file(self) -> str:
        return TARGETS[self.kind][0]

    def write(self, good: Path, folder: Path) -> None:
        """The good folder with this change."""
        shutil.copytree(good, folder, symlinks=True, ignore=shutil.ignore_patterns(".cache"))
        self.change(folder / self.file)


def truncated(kind: str, count: int, prepare: Callable[[Path], object] = lambda path: None) -> list[Variant]:
    """Cut off at places spread over the file; half a history is what a killed run leaves."""

    def cut(share: float) -> Callable[[Path], object]:
        def change(path: Path) -> None:
            prepare(path)
            content = path.read_bytes()
            path.write_bytes(content[: int(share * len(content))])

        return change

    shares = [place / count for place in range(count)]
    return [Variant(kind, f"cut at {share:.3f}", cut(share), kind != "history.jsonl") for share in shares]


def flipped(kind: str, count: int, seed: int, prepare: Callable[[Path], object] = lambda path: None) -> list[Variant]:
    """One to eight bytes changed; half of the time near the beginning, where formats keep what they declare."""

    def flip(number: int) -> Callable[[Path], object]:
        def change(path: Path) -> None:
            prepare(path)
            draw, content = random.Random(1000 * seed + number), bytearray(path.read_bytes())
            reach = min(len(content), 2048) if number % 2 else len(content)
            for _ in range(draw.randint(1, 8)):
                content[draw.randrange(reach)] = draw.randrange(256)
            path.write_bytes(bytes(content))

        return change

    return [Variant(kind, f"flipped {seed}.{number}", flip(number), False) for number in range(count)]


class Reader:
    """The reading process; begun anew after a hang or a crash."""

    def __init__(self, good: Path):
        self.good, self.process = good, None

    def read(self, folder: Path, readers: list[str]) -> list[dict] | str:
        """How each reader ended; in words if the process did not survive."""
        if self.process is None:
            self.begin()
        self.process.stdin.write(json.dumps({"folder": str(folder), "readers": readers}) + "\n")
        self.process.stdin.flush()
        line = self.line(HANGS)
        if line:
            return json.loads(line)
        code = self.process.poll()
        self.end()
        return "hangs" if code is None else f"ends the process ({code})"

    def begin(self) -> None:
        command = [sys.executable, "-W", "ignore", str(READER), str(self.good)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.line(120) == "ready\n", "the good files cannot be read"

    def line(self, seconds: float) -> str:
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else ""
        if ready and not line:
            self.process.wait()
        return line

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
        self.process = None
