"""What is written is whole or not there, also where a disk is full; what is read is judged first."""

import json
import os
import subprocess
import sys

import pytest

from notebooks import PATIENCE
from wsch_core.storage.files import check_file, parse_json, read_json
from wsch_core.storage.words import shortened

# Files of more than 100 kB cannot be written in this process: to the code that is what a full disk or a quota is.
FULL = """
import json, resource, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np, torch
from wsch_core.runs.folder import Run
from wsch_core.storage.tensors import save_tensors
from wsch_core.show.maps.maps import Map, _write

folder = Path(sys.argv[1])
(folder / "maps").mkdir()
run, videos = Run(folder), 50_000
ids = [str(video) for video in range(videos)]
split = SimpleNamespace(name="database", ids=ids, fingerprint="")
points = Map("", ids, np.zeros((videos, 2), "f4"), np.zeros((videos, 3), "i4"), 0.5, folder / "maps" / "m.h5", False)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
told = {}
for name, act in {
    "weights.safetensors": lambda: save_tensors(folder / "weights.safetensors", {"a": torch.zeros(200_000)}),
    "codes.h5": lambda: run.save_codes(split, torch.ones(videos, 64, dtype=torch.int8), ""),
    "m.h5": lambda: _write(points, {}),
    "metrics.json": lambda: run.save_json("metrics.json", "x" * 500_000),
}.items():
    try:
        act()
    except OSError as error:
        told[name] = str(error)
print(json.dumps(told))
"""


def test_a_full_disk_ends_in_a_sentence_and_keeps_what_was_there(tmp_path):
    names = ("weights.safetensors", "metrics.json")
    for name in names:
        (tmp_path / name).write_text("former")
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert list(told) == ["weights.safetensors", "codes.h5", "m.h5", "metrics.json"]
    for name, sentence in told.items():
        assert f"{name} cannot be written" in sentence
        assert "File too large" in sentence
        assert "free some space" in sentence
        assert "\n" not in sentence
    assert all((tmp_path / name).read_text() == "former" for name in names)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == set(names)


def test_links_within_a_folder_are_followed_and_others_not(tmp_path):
    inside, outside = tmp_path / "run" / "kept.json", tmp_path / "secret.json"
    inside.parent.mkdir()
    for path in (inside, outside):
        path.write_text("[1]")
    link = tmp_path / "run" / "settings.json"
    link.symlink_to(inside)
    assert read_json(link, "x", link.parent) == [1]
    link.unlink()
    link.symlink_to(outside)
    with pytest.raises(OSError, match=r"settings\.json is a link that leaves its folder"):
        read_json(link, "restore it", link.parent)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(OSError, match="is not a regular file"):
            check_file(tmp_path / name, "restore it")


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', "[" * 10**5, '{"a":' * 10**5, "1" * 10**5, "", "{'a': 1}"])
def test_json_that_is_none_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_values_in_complaints_stay_short():
    deep = []
    for _ in range(10**5):
        deep = [deep]
    for value in ("x" * 10**6, 10**5000, deep, {"a": "b" * 10**6}, list(range(10**6)), b"x" * 10**6):
        assert len(shortened(value)) <= 120
    assert shortened("ten") == "'ten'"
    assert shortened(1.5) == "1.5"
