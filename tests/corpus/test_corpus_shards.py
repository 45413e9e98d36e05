"""Shards: what is written is read, and what is damaged, doubled or made by another network is refused in one sentence."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wsch_core.corpus.shards import HEAD, Head, Queries, make_corpus, open_corpus, write_shard

ONE = Head(12, "0123456789abcdef", "one")
ODD_IDS = ["b", "a'\"; drop table x; --<b>", "é", "\u2028"]


@pytest.fixture
def corpus(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", ONE)
    packed = np.arange(8).reshape(4, 2)
    write_shard(corpus.folder / "a.parquet", ONE, ODD_IDS, packed, "a.h5", [["x", "y"], [], ["z"], []], "train")
    write_shard(corpus.folder / "b.parquet", ONE, ["0"], [[9, 9]])
    return corpus


def test_what_is_written_is_read_in_the_order_of_ids(corpus):
    found = open_corpus(corpus.folder)
    assert (found, len(found)) == (corpus, 5)
    rows = found.rows()
    assert rows.ids.to_pylist() == sorted([*ODD_IDS, "0"])
    of = dict(zip(rows.ids.to_pylist(), zip(rows.packed.tolist(), rows.labels.to_pylist(), strict=True), strict=True))
    assert of["b"] == ([0, 1], ["x", "y"])
    assert of["é"] == ([4, 5], ["z"])
    assert of["0"] == ([9, 9], [])
    assert found.source(corpus.folder / "a.parquet") == "a.h5"


def test_an_id_that_stands_twice_is_named(corpus):
    write_shard(corpus.folder / "c.parquet", ONE, ["é"], [[1, 1]])
    for refuses in (corpus.rows, corpus.check_ids):
        with pytest.raises(ValueError, match="the id 'é' stands twice"):
            refuses()


def test_a_damaged_shard_is_named_wherever_it_is_unless_nothing_depends_on_it(corpus):
    path, good, told = corpus.folder / "a.parquet", corpus.rows(), []
    whole = path.read_bytes()
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 0xFF
        path.write_bytes(content)
        try:
            rows = corpus.rows()
        except (OSError, ValueError) as error:
            told.append(str(error))
        else:
            assert (rows.ids, rows.labels, rows.split) == (good.ids, good.labels, good.split)
            assert np.array_equal(rows.packed, good.packed)
    assert len(told) > 0.5 * len(whole)
    assert all("a.parquet" in sentence for sentence in told)


def test_a_shard_that_was_cut_off_is_named(corpus):
    path = corpus.folder / "a.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(OSError, match=r"a\.parquet is damaged"):
        len(corpus)


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (Head(16, ONE.weights, "other"), r"c\.parquet has codes of 16 bits, made by the run 'other'"),
        (Head(12, "fedcba9876543210", "other"), "codes of two networks cannot be compared"),
    ],
    ids=["bits", "weights"],
)
def test_codes_of_another_run_are_refused(corpus, other, complaint):
    write_shard(corpus.folder / "c.parquet", other, ["c"], [[1, 1]])
    with pytest.raises(ValueError, match=complaint):
        corpus.rows()
    with pytest.raises(ValueError, match="the run 'other'"):
        make_corpus(corpus.folder, other)


def test_other_tables_are_refused(corpus):
    told = {"bits": "12", "weights": ONE.weights, "run": "one"}
    table = pa.table({"id": ["c"], "code": [b"abc"]}).replace_schema_metadata(told)
    pq.write_table(table, corpus.folder / "c.parquet")
    with pytest.raises(OSError, match=r"c\.parquet is damaged \(its columns are"):
        corpus.rows()
    pq.write_table(table.replace_schema_metadata({}), corpus.folder / "c.parquet")
    with pytest.raises(OSError, match="what made its codes is missing"):
        corpus.rows()


@pytest.mark.parametrize("told", [{}, [], {"bits": 0, "weights": "", "run": ""}, {"bits": 8, "weights": 1, "run": ""}])
def test_a_head_that_says_nothing_is_refused(corpus, told):
    (corpus.folder / HEAD).write_text(json.dumps(told))
    with pytest.raises(OSError, match=r"corpus\.json is damaged"):
        open_corpus(corpus.folder)


def test_folders_without_a_corpus_or_shards_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"corpus\.json is missing: encode some files"):
        open_corpus(tmp_path)
    with pytest.raises(ValueError, match="holds no shards"):
        make_corpus(tmp_path, ONE).rows()


def test_sizes_that_do_not_fit_are_refused(corpus):
    with pytest.raises(ValueError, match=r"found 1 ids for packed codes of the shape \(2, 2\)"):
        write_shard(corpus.folder / "c.parquet", ONE, ["c"], [[1, 1], [2, 2]])
    with pytest.raises(ValueError, match="found queries of 8 bits, but the run 'one' makes codes of 12"):
        Queries.of(np.ones((1, 8), np.int8), ONE)
