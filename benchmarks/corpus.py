"""A corpus larger than a data set: encoding by workers, and five ways to search it, in one table.

python benchmarks/corpus.py [--codes 1000000] [--queries 100] [--folder FOLDER] [--json corpus.json]

The codes are made: 64 bits, clustered, a thousand to a centre, each bit flipped with probability 0.08; queries are drawn in
the same way. A latency is that of one query, asked alone. Memory is what the processes that hold the codes have grown by; a
database's is that of its table and indexes on disk, which it keeps in memory as far as there is room.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import psutil
from timing import machine, save, table

from wsch_core import fit, load_dataset, settings_for
from wsch_core.corpus.database import embedded, open_database
from wsch_core.corpus.encode import encode_corpus
from wsch_core.corpus.search import Found, Lists, open_search, recall
from wsch_core.corpus.shards import Corpus, Head, Queries, make_corpus, write_shard

BITS, K, PER_CENTRE, FLIPPED = 64, 100, 1000, 0.08
SHARD = 250_000
HEAD = Head(BITS, "made", "made")
APPROXIMATE = {"faiss IVF, 8 probes": Lists(1024, 8), "faiss IVF, 32 probes": Lists(1024, 32)}


def made(count: int, centres: int, seed: int) -> np.ndarray:
    """(count, 8) uint8: packed codes near one of some centres, which are the same for every seed."""
    random = np.random.default_rng(seed)
    own = np.random.default_rng(0).integers(0, 256, (centres, BITS // 8), dtype=np.uint8)[
        random.integers(centres, size=count)
    ]
    return own ^ np.packbits(random.random((count, BITS), dtype=np.float32) < FLIPPED, axis=1)


def make(folder: Path, codes: int) -> tuple[Corpus, float]:
    """A corpus of made codes, and the seconds that writing its shards took."""
    corpus, seconds = make_corpus(folder, HEAD), 0.0
    for start in range(0, codes, SHARD):
        count = min(SHARD, codes - start)
        packed, ids = (
            made(count, max(1, codes // PER_CENTRE), start + 1),
            [f"video-{start + row:010}" for row in range(count)],
        )
        begun = time.perf_counter()
        write_shard(folder / f"{start:010}.parquet", HEAD, ids, packed)
        seconds += time.perf_counter() - begun
    return corpus, seconds


def resident() -> int:
    """Bytes of this process and those it has started."""
    own = psutil.Process()
    return sum(process.memory_info().rss for process in (own, *own.children(recursive=True)))


def ask(nearest: Callable[[Queries], Found], packed: np.ndarray, exact: Found | None) -> tuple[list, Found]:
    """Median and 99 % latency in ms of one query after the other, and recall; all answers as one."""
    nearest(Queries(packed[:1], HEAD))
    found = [nearest(Queries(packed[row : row + 1], HEAD)) for row in range(len(packed))]
    seconds = [1000 * one.seconds for one in found]
    whole = Found([one.ids[0] for one in found], np.concatenate([one.distances for one in found]), sum(seconds) / 1000)
    same = exact is None or (whole.ids == exact.ids and (whole.distances == exact.distances).all())
    share = 1.0 if same else recall(whole, exact)
    return [statistics.median(seconds), float(np.percentile(seconds, 99)), share, "yes" if same else "no"], whole


def search_rows(corpus: Corpus, packed: np.ndarray, folder: Path) -> list[list]:
    rows, exact, codes = [], None, len(corpus)
    ways = {"faiss, one process": (0, None), "faiss, Dask, 2 workers": (2, None)}
    ways |= {name: (0, lists) for name, lists in APPROXIMATE.items()}
    for name, (workers, lists) in ways.items():
        before, start = resident(), time.perf_counter()
        with open_search(corpus, workers, approximate=lists) as search:
            ready, grown = time.perf_counter() - start, resident() - before
            told, found = ask(lambda queries: search.nearest(queries, K), packed, exact)
            exact = exact or found
            rows.append([name, codes / ready, grown / 1e6, *told])
            print(rows[-1], flush=True)
    with embedded(folder / "postgres") as url, open_database(url) as database:
        for name, prepare, candidates in (
            ("pgvector, exact", lambda: database.fill(corpus), 0),
            ("pgvector, HNSW, 100 candidates", database.make_hnsw, 100),
            ("pgvector, HNSW, 400 candidates", database.make_hnsw, 400),
        ):
            start = time.perf_counter()
            prepare()
            ready = codes / (time.perf_counter() - start)
            told, _ = ask(lambda queries: database.nearest(queries, K, candidates=candidates), packed, exact)  # noqa: B023
            size = database.connection.execute("SELECT pg_total_relation_size('wsch_corpus')").fetchone()[0]
            rows.append([name, ready, size / 1e6, *told])
            print(rows[-1], flush=True)
    return rows


def encode_rows(folder: Path) -> list[list]:
    """Videos a second by workers: eight files of the demo set's features, a network of the published size."""
    data = load_dataset("demo")
    run = fit(settings_for(data, bits=BITS, pretrain_epochs=0, epochs=0), data, callbacks=[])
    features = data.database.features.read(range(500)).numpy()
    sources = [folder / f"{number}.h5" for number in range(8)]
    for source in sources:
        with h5py.File(source, "w") as file:
            file["feats"] = features
    rows = []
    for workers in (0, 1, 2):
        start = time.perf_counter()
        done = encode_corpus(run, sources, folder / f"encoded-{workers}", workers)
        seconds = time.perf_counter() - start
        assert len(done.written) == len(sources)
        rows.append([str(workers or "in this process"), len(done.corpus) / seconds, seconds])
    shutil.rmtree(run.folder)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codes", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where there is room; removed in the end")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder, prefix="corpus-") as name:
        folder = Path(name)
        corpus, seconds = make(folder / "made", chosen.codes)
        size = sum(path.stat().st_size for path in corpus.shards())
        print(f"{len(corpus):,} codes of {BITS} bits in {len(corpus.shards())} shards: {size / 1e6:,.0f} MB on disk, "
              f"{chosen.codes / seconds:,.0f} codes/s written\n")  # fmt: skip
        packed = made(chosen.queries, max(1, chosen.codes // PER_CENTRE), 0)
        rows = search_rows(corpus, packed, folder)
        head = ["way", "codes/s made ready", "MB", "median ms", "99 % ms", f"recall@{K}", "as the first"]
        table(head, rows)
        encoded = encode_rows(folder)
        table(["workers", "videos/s", "seconds"], encoded)
    save(chosen.json, {"machine": machine(), "search": rows, "encode": encoded})


if __name__ == "__main__":
    main()
