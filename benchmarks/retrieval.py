"""Evaluation, search and baselines, against the usual ways.

python benchmarks/retrieval.py [--only evaluation|search|baselines] [--json retrieval.json]

evaluation  mAP@K by FCVID's protocol (45,600 videos that are their own queries, 239 classes) and YFCC's (1,000 against
            101,256, 80 classes), 64 bits; the usual way sorts all products of a query and loops over K. It is measured on
            some queries and scaled up, since all of them take half an hour.
search      the 100 nearest of a million codes for 1,000 queries, 16 to 256 bits, against faiss and a float matrix product
baselines   fitting LSH, PCAH and ITQ to FCVID's 45,585 mean features of 4,096, against scikit-learn's PCA
"""

from __future__ import annotations

import argparse
from pathlib import Path

import faiss
import numpy as np
import psutil
import scipy.sparse
import torch
from sklearn.decomposition import PCA
from timing import in_turn, machine, save, table

from wsch_core.methods.baselines import BASELINES, fit_baseline
from wsch_core.retrieval.codes import pack
from wsch_core.retrieval.metrics import KS, evaluate
from wsch_core.retrieval.search import Index, nearest
from wsch_core.training.device import peak_memory

USUAL_QUERIES = 1000


def made_up(videos: int, bits: int, classes: int, seed: int) -> tuple[torch.Tensor, scipy.sparse.csr_array]:
    """Codes near one of their class, and one label each."""
    own = np.random.default_rng(seed).integers(classes, size=videos)
    of_class = torch.rand(classes, bits, generator=torch.Generator().manual_seed(0)) < 0.5
    flipped = torch.rand(videos, bits, generator=torch.Generator().manual_seed(seed)) < 0.3
    codes = (of_class[torch.from_numpy(own)] ^ flipped).to(torch.int8) * 2 - 1
    return codes, scipy.sparse.csr_array(np.eye(classes, dtype=np.uint8)[own])


def usual_map(queries: torch.Tensor, database: torch.Tensor, query_labels, labels) -> list[float]:
    """As published evaluators do it: float products, a full sort, dense label products, a loop over K and queries."""
    distances = 0.5 * (queries.shape[1] - queries.float().numpy() @ database.float().numpy().T)
    order = np.argsort(distances, axis=1)
    relevant = query_labels.toarray().astype(np.float32) @ labels.toarray().astype(np.float32).T > 0
    found = []
    for k in KS:
        total = 0.0
        for row, ranked in zip(relevant, order, strict=True):
            hits = row[ranked[:k]]
            total += (hits.cumsum() / np.arange(1, k + 1) * hits).sum() / k
        found.append(total / len(order))
    return found


def measure_evaluation() -> list[dict]:
    protocols = {"YFCC": (101_256, 1_000, 80), "FCVID": (45_600, 45_600, 239)}
    rows = {}
    for name, (videos, queries, classes) in protocols.items():
        data = retrieved(videos, queries, classes)
        before = psutil.Process().memory_info().rss
        seconds = in_turn({"ours": lambda: evaluate(*data)}, 3)["ours"]  # noqa: B023
        grown = (peak_memory(torch.device("cpu")) - before) / 1e6
        rows[name] = {"protocol": f"{name}, {queries:,} x {videos:,}", "ours, s": seconds, "memory grown by, MB": grown}
    for name, (videos, queries, classes) in protocols.items():  # later: the usual way takes more memory
        query_codes, codes, query_labels, labels = retrieved(videos, queries, classes)
        some = query_codes[:USUAL_QUERIES], codes, query_labels[:USUAL_QUERIES], labels
        seconds = in_turn({"usual": lambda: usual_map(*some)}, 3)["usual"] * queries / len(some[0])  # noqa: B023
        rows[name] |= {"usual way, s": seconds, "times faster": seconds / rows[name]["ours, s"]}
    return [*rows.values()]


def retrieved(videos: int, queries: int, classes: int) -> tuple:
    """Codes and labels of queries and database, which are the same where they are as many."""
    codes, labels = made_up(videos, 64, classes, 1)
    query_codes, query_labels = (codes, labels) if queries == videos else made_up(queries, 64, classes, 2)
    return query_codes, codes, query_labels, labels


def faiss_search(queries: torch.Tensor, database: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    index = faiss.IndexBinaryFlat(database.shape[1])
    index.add(np.packbits(database.numpy() > 0, axis=1))
    return index.search(np.packbits(queries.numpy() > 0, axis=1), k)


def measure_search() -> list[dict]:
    rows, k = [], 100
    for bits in (16, 32, 64, 128, 256):
        database, queries = made_up(1_000_000, bits, 1000, 1)[0], made_up(1000, bits, 1000, 2)[0]
        index = faiss.IndexBinaryFlat(bits)
        index.add(pack(database).numpy())
        packed, our_index = pack(queries).numpy(), Index(database)
        columns, some = database.float().T.contiguous(), queries[:100].float()
        ways = {
            "ours": lambda: nearest(queries, database, k),  # noqa: B023
            "faiss": lambda: faiss_search(queries, database, k),  # noqa: B023
            "ours, index ready": lambda: our_index.nearest(queries, k),  # noqa: B023
            "faiss, index ready": lambda: index.search(packed, k),  # noqa: B023
            "float product and top-k": lambda: (some @ columns).topk(k),  # noqa: B023
        }
        seconds = in_turn(ways, 3)
        seconds["float product and top-k"] *= len(queries) / len(some)
        rows.append({"bits": bits} | {f"{name}, s": value for name, value in seconds.items()})
    return rows


def measure_baselines() -> list[dict]:
    features = torch.randn(45_585, 4096, generator=torch.Generator().manual_seed(0))
    features *= torch.linspace(1, 0.05, 4096)  # some directions vary more
    ways = {"scikit-learn's PCA": lambda: PCA(64, random_state=0).fit(features.numpy())}
    ways |= {name: lambda name=name: fit_baseline(name, features, 64) for name in BASELINES}
    return [{"fit": name, "s": seconds} for name, seconds in in_turn(ways, 3).items()]


def main() -> None:
    measures = {"evaluation": measure_evaluation, "search": measure_search, "baselines": measure_baselines}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=measures)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = {"machine": machine()}
    for name in [given.only] if given.only else measures:
        found[name] = measures[name]()
        print(f"{name}\n")
        table(found[name][0], [row.values() for row in found[name]])
    save(given.json, found)


if __name__ == "__main__":
    main()
