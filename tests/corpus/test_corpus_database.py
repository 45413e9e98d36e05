"""The database answers as the index does, ties included; what does not fit is refused and changes nothing."""

import tempfile
from pathlib import Path

import numpy as np
import psycopg
import pytest
import torch

from wsch_core.corpus.database import embedded, open_database
from wsch_core.corpus.search import open_search, recall
from wsch_core.corpus.shards import Head, Queries, make_corpus, write_shard
from wsch_core.retrieval.codes import pack

pytestmark = pytest.mark.slow
VIDEOS, BITS, K = 400, 12, 40  # so few bits that most distances tie
HEAD = Head(BITS, "0123456789abcdef", "one")
OTHER = Head(BITS, "fedcba9876543210", "other")
LABEL = "it's <b>\"\\"


def codes_of(videos: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 2, (videos, BITS), dtype=np.int8) * 2 - 1)


@pytest.fixture(scope="module")
def url():
    # Run by root, PostgreSQL is another user's, whom every start of pytest shuts out of its own folders.
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder, embedded(Path(folder) / "data") as url:
        yield url


@pytest.fixture
def database(url, request):
    name = f"t{abs(hash(request.node.name)) % 10**9}"
    with open_database(url, name) as database:
        yield database


@pytest.fixture
def corpus(tmp_path):
    """Ids that sort by bytes, and would break a pasted command; every third has the label, the second shard a split."""
    corpus = make_corpus(tmp_path / "corpus", HEAD)
    order = np.random.default_rng(1).permutation(VIDEOS)
    for shard, rows in enumerate(np.split(order, [250])):
        ids = [f"{'éZa_'[row % 4]}'; DROP TABLE x; --{row}\\\t\"" for row in rows]
        labels = [[LABEL, "all"] if row % 3 == 0 else ["all"] for row in rows]
        packed = pack(codes_of(VIDEOS, 2)[rows.tolist()])
        write_shard(corpus.folder / f"{shard}.parquet", HEAD, ids, packed, "", labels, ["train", "query"][shard])
    return corpus


@pytest.fixture
def queries():
    return Queries.of(codes_of(15, 3), HEAD)


def test_exact_answers_are_the_indexs_also_beside_hnsw(database, corpus, queries):
    assert database.head is None
    assert database.fill(corpus)
    assert not database.fill(corpus)
    assert (database.head, len(database)) == (HEAD, VIDEOS)
    with open_search(corpus, workers=0) as search:
        expected = search.nearest(queries, K)
    for prepare in (lambda: None, database.make_hnsw):
        prepare()
        found = database.nearest(queries, K)
        assert found.ids == expected.ids
        assert found.distances.tolist() == expected.distances.tolist()
    assert 0.5 < recall(database.nearest(queries, K, candidates=200), expected) <= 1


def test_labels_and_splits_filter(database, corpus, queries):
    database.fill(corpus)
    rows = corpus.rows()
    with open_search(corpus, workers=0) as search:
        everything = search.nearest(queries, VIDEOS)
    for chosen, keeps in (
        ({"label": LABEL}, [LABEL in labels for labels in rows.labels.to_pylist()]),
        ({"split": "query"}, [split == "query" for split in rows.split.to_pylist()]),
    ):
        kept = {name for name, keep in zip(rows.ids.to_pylist(), keeps, strict=True) if keep}
        expected = [[name for name in ids if name in kept][:20] for ids in everything.ids]
        assert database.nearest(queries, 20, **chosen).ids == expected
    with pytest.raises(ValueError, match="but 0 videos of the table can be found"):
        database.nearest(queries, 1, label="' OR TRUE --")
    with pytest.raises(ValueError, match="approximate search needs make_hnsw"):
        database.nearest(queries, 5, candidates=100)


def test_another_run_is_refused_or_replaces(database, corpus, tmp_path):
    database.fill(corpus)
    other = make_corpus(tmp_path / "other", OTHER)
    write_shard(other.folder / "a.parquet", OTHER, ["a"], pack(codes_of(1, 0)))
    with pytest.raises(ValueError, match="codes of two networks cannot be compared; say replace=True"):
        database.fill(other)
    assert (database.head, len(database)) == (HEAD, VIDEOS)
    with pytest.raises(ValueError, match="encode the query with the table's run"):
        database.nearest(Queries.of(codes_of(1, 0), OTHER), 1)
    assert database.fill(other, replace=True)
    assert (database.head, len(database)) == (OTHER, 1)


def test_what_fails_half_way_changes_nothing(database, corpus):
    database.fill(corpus)
    write_shard(corpus.folder / "2.parquet", HEAD, ["twice", "twice"], pack(codes_of(2, 0)))
    with pytest.raises(ValueError, match="the id 'twice' stands twice"):
        database.fill(corpus)
    (corpus.folder / "2.parquet").write_bytes(b"PAR1")
    with pytest.raises(OSError, match=r"2\.parquet is damaged"):
        database.fill(corpus)
    assert (database.head, len(database)) == (HEAD, VIDEOS)


def test_a_text_that_postgresql_cannot_hold_is_told(database, corpus):
    write_shard(corpus.folder / "2.parquet", HEAD, ["nul\0"], pack(codes_of(1, 0)))
    with pytest.raises(OSError, match="the database cannot be used"):
        database.fill(corpus)
    assert database.head is None


def test_a_table_of_another_schema_is_refused(database, corpus, url):
    with psycopg.connect(url) as connection:
        connection.execute(f"CREATE TABLE wsch_{database.name} (id int)")
    with pytest.raises(ValueError, match="has another schema"):
        database.fill(corpus)


def test_names_and_databases_that_are_not_there_are_refused(url, corpus):
    with pytest.raises(ValueError, match="cannot be a table's"), open_database(url, 'x"; --'):
        pass
    with pytest.raises(OSError, match="no database answers"), open_database("postgresql://127.0.0.1:1/none"):
        pass


def test_a_database_that_goes_away_is_told(database, corpus, queries, url):
    database.fill(corpus)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", [database.connection.info.backend_pid])
    with pytest.raises(OSError, match="the database cannot be used"):
        database.nearest(queries, 1)
