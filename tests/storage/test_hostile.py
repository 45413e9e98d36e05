"""Files that are broken, or made to do harm: each ends in one clear sentence, soon, in little memory, and does nothing.

`pytest tests/test_hostile.py` tries them all, `-m "not slow"` some of each kind. tests/README.md says what was measured.
"""

import collections
import random
import shutil
import sys

import h5py
import hostile_hdf5
import hostile_mat
import hostile_tensors
import hostile_texts
import numpy as np
import pytest
import torch
from conftest import DEFINITION, TINY, VIDEOS, write_split
from hostile import TARGETS, Reader
from measured import measured
from shared import PARITY

from wsch_core import Settings, evaluate_run, fit, load_dataset

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
SECONDS, BYTES, LONGEST = 2.0, 200e6, 1500
SHARE = 10  # of the variants, one in so many is tried by the quick tests
VARIANTS = [v for module in (hostile_tensors, hostile_hdf5, hostile_mat, hostile_texts) for v in module.variants()]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder in which every file is good: what variants are copies of."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "data" / "tiny").mkdir(parents=True)
    (folder / "data" / "tiny.toml").write_text(DEFINITION)
    for seed, (name, videos) in enumerate(VIDEOS.items()):
        write_split(folder / "data" / "tiny", name, videos, seed)
    write_v73(folder / "data" / "tiny" / "database.mat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSCH_DATA", str(folder / "data"))
        patch.setenv("WSCH_OUTPUTS", str(folder / "outputs"))
        tiny = load_dataset("tiny")
        run = fit(Settings(**TINY), tiny, "r", callbacks=[])
        evaluate_run(run, tiny)
    with h5py.File(folder / "map.h5", "w") as file:
        file.attrs["trustworthiness"] = 0.9
        file["coordinates"] = np.random.default_rng(0).normal(size=(14, 2)).astype(np.float32)
        file["neighbours"] = np.tile(np.arange(3, dtype=np.int32), (14, 1))
    with np.load(PARITY) as file:
        weights = {n.removeprefix("param."): torch.from_numpy(file[n]) for n in file.files if n.startswith("param.")}
    torch.save({"berthash": weights, "epoch": 300}, folder / "published.pth")
    (folder / "name.json").write_text('["r", "load"]')
    return folder


def write_v73(path):
    classes = np.arange(VIDEOS["database"]) % 3
    path.unlink()
    with h5py.File(path, "w", userblock_size=512) as file:
        file["labels"] = np.eye(3, dtype=np.uint8)[classes].T


@pytest.fixture(scope="module")
def reader(good):
    reader = Reader(good)
    yield reader
    reader.end()


def try_one(variant, reader, good, folder):
    """What is wrong with how this variant ends, in words, and the answers of its readers."""
    variant.write(good, folder)
    answers = reader.read(folder, variant.readers)
    if isinstance(answers, str):
        return [answers], []
    wrong = [text for answer in answers for text in faults(variant, answer)]
    if variant.refused and not any(answer["kind"] or "Not ready" in answer["text"] for answer in answers):
        wrong.append("is not refused")
    if (folder / "executed").exists():
        wrong.append("ran what it holds")
    return wrong, answers


def faults(variant, answer):
    kinds, text = answer["kind"].split(","), answer["text"]
    place = f"{answer['reader']}: "
    if answer["kind"] and not {"ValueError", "OSError"} & set(kinds):
        yield f"{place}{kinds[0]}: {text[:200]}"
    if answer["kind"] and kinds[0] not in ("ValueError", "OSError", "FileNotFoundError", "FileExistsError"):
        yield f"{place}ends in {kinds[0]}: {text[:200]}"
    if answer["kind"]:
        told = " ".join([text, *answer["warned"]])
        if "\n" in text or len(text) > LONGEST:
            yield f"{place}is no sentence: {text[:200]!r} ({len(text)} letters)"
        if variant.kind != "name" and variant.file.rsplit("/", 1)[-1] not in told:
            yield f"{place}does not name the file: {told[:300]}"
    if answer["seconds"] > SECONDS:
        yield f"{place}took {answer['seconds']:.1f} s"
    if answer["grown"] > BYTES:
        yield f"{place}took {answer['grown'] / 1e6:.0f} MB"
    yield from (f"{place}touched {what}" for what in answer["seen"])


def try_all(kind, variants, reader, good, folder):
    """Try variants of a kind."""
    wrong, answers = {}, []
    for number, variant in enumerate(variants):
        place = folder / str(number)
        found, told = try_one(variant, reader, good, place)
        shutil.rmtree(place)
        answers += told
        if found:
            wrong[variant.name] = found
    assert not wrong, "\n".join(f"{kind}, {name}: {'; '.join(found)}" for name, found in wrong.items())
    return answers


def of_kind(kind):
    return [variant for variant in VARIANTS if variant.kind == kind]


@pytest.mark.parametrize("kind", TARGETS)
def test_some_of_each_kind_end_in_a_sentence(kind, good, reader, tmp_path):
    some = random.Random(kind).sample(of_kind(kind), len(of_kind(kind)) // SHARE)
    try_all(kind, some, reader, good, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TARGETS)
def test_all_end_in_a_sentence(kind, good, reader, tmp_path):
    answers = try_all(kind, of_kind(kind), reader, good, tmp_path)
    measured(
        "hostile", kind,
        files=len(of_kind(kind)), reads=len(answers), refused=sum(bool(answer["kind"]) for answer in answers),
        slowest_seconds=max(answer["seconds"] for answer in answers),
        largest_MB=max(answer["grown"] for answer in answers) / 1e6,
    )  # fmt: skip


def test_there_are_enough_of_them():
    counts = collections.Counter(variant.kind for variant in VARIANTS)
    assert counts.keys() == TARGETS.keys()
    assert sum(counts.values()) >= 200
    assert len({(variant.kind, variant.name) for variant in VARIANTS}) == len(VARIANTS)
