"""Encoding feature files into shards: the codes of the run, found again, one failing file beside good ones."""

import h5py
import numpy as np
import pytest
from conftest import FRAMES, SIZE, VIDEOS

from wsch_core import fit
from wsch_core.corpus.encode import Source, dataset_sources, encode_corpus
from wsch_core.corpus.shards import open_corpus
from wsch_core.experiments.evaluation import encode_run
from wsch_core.retrieval.codes import pack


@pytest.fixture
def run(tiny, tiny_settings):
    return fit(tiny_settings, tiny, "one", callbacks=[])


def write_features(path, videos, seed, frames=FRAMES):
    features = np.random.default_rng(seed).normal(size=(videos, frames, SIZE)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["feats"] = features


def test_a_data_sets_split_has_the_runs_codes_ids_and_labels(run, tiny, tmp_path):
    done = encode_corpus(run, dataset_sources(tiny), tmp_path / "corpus", workers=0)
    (shard,) = done.written
    rows = open_corpus(tmp_path / "corpus").read(shard)
    assert rows.ids.to_pylist() == tiny.database.ids
    assert rows.packed.tolist() == pack(encode_run(run, tiny)["database"]).tolist()
    assert rows.labels.to_pylist() == [[tiny.database.label_names(row)] for row in range(VIDEOS["database"])]
    assert set(rows.split.to_pylist()) == {"database"}


def test_what_fails_is_told_and_what_is_there_is_found(run, tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    for number in range(3):
        write_features(folder / f"{number}.h5", 4 + number, number)
    (folder / "broken.h5").write_bytes(b"no HDF5")
    write_features(folder / "short.h5", 3, 9, frames=FRAMES - 1)
    sources = [
        *(folder / f"{number}.h5" for number in range(3)),
        *map(folder.joinpath, ("broken.h5", "short.h5", "no.h5")),
    ]
    done = encode_corpus(run, sources, tmp_path / "corpus", workers=0)
    assert len(done.written) == 3
    why = [done.failed[str(folder / name)] for name in ("broken.h5", "short.h5", "no.h5")]
    assert "cannot be read as HDF5" in why[0]
    assert "the run's network takes floating-point features of (videos, 10, 12)" in why[1]
    assert "no.h5 is missing" in why[2]
    assert "15 codes of 16 bits in 3 shards" in str(done)
    assert "3 failed" in str(done)

    before = {path: path.stat().st_mtime_ns for path in done.corpus.shards()}
    write_features(folder / "1.h5", 8, 77)  # another content: its shard is made anew
    write_features(folder / "broken.h5", 2, 5)
    again = encode_corpus(run, sources[:4], tmp_path / "corpus", workers=0)
    assert (len(again.written), len(again.found), again.failed) == (2, 2, {})
    assert len(again.corpus) == 4 + 8 + 6 + 2
    assert sum(path.stat().st_mtime_ns == before.get(path) for path in again.corpus.shards()) == 2


@pytest.mark.slow
def test_workers_write_what_one_process_writes(run, tiny, tmp_path):
    alone = encode_corpus(run, dataset_sources(tiny), tmp_path / "alone", workers=0)
    (tmp_path / "broken.h5").write_bytes(b"")
    sources = [*dataset_sources(tiny), *dataset_sources(tiny, "query"), Source(tmp_path / "broken.h5")]
    shown = []
    done = encode_corpus(run, sources, tmp_path / "corpus", workers=2, show=lambda now: shown.append(str(now)))
    assert len(done.written) == 2
    assert list(done.failed) == [str(tmp_path / "broken.h5")]
    assert len(shown) == 3
    (shard,) = alone.written
    assert done.corpus.read(done.corpus.folder / shard.name).packed.tolist() == alone.corpus.read(shard).packed.tolist()


def test_features_that_are_no_numbers_leave_no_shard(run, tmp_path):
    path = tmp_path / "bad.h5"
    write_features(path, 3, 1)
    with h5py.File(path, "r+") as file:
        file["feats"][1, 0, 0] = np.nan
    done = encode_corpus(run, [path], tmp_path / "corpus", workers=0)
    assert "1 of 3 videos hold NaN or infinite features (rows 1" in done.failed[str(path)]
    assert not done.corpus.shards()


def test_another_runs_folder_is_refused(run, tiny, tiny_settings, tmp_path):
    encode_corpus(run, dataset_sources(tiny), tmp_path / "corpus", workers=0)
    other = fit(type(tiny_settings)(**tiny_settings.as_dict() | {"seed": 2}), tiny, "two", callbacks=[])
    with pytest.raises(ValueError, match="codes of two networks cannot be compared"):
        encode_corpus(other, dataset_sources(tiny), tmp_path / "corpus", workers=0)
