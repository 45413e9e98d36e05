"""k-means over binary codes, against scikit-learn and faiss.

python benchmarks/clustering.py [--device cpu] [--rounds 5] [--json clustering.json]

19,444 codes of 64 bits (two views of ActivityNet's 9,722 training videos) and 800 centres, everybody from the same start,
with the same tolerance and most iterations. Three kinds of codes: of clear clusters, of blurred ones, and random bits. The
start is k-means++'s, as in a run's first centers pass; and once more centres that a first k-means found, after a tenth of
the bits changed, as in later ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import faiss
import torch
from sklearn.cluster import KMeans
from timing import in_turn, machine, save, table

from wsch_core.methods.wsch.centers import MOST_ITERATIONS, TOLERANCE, kmeans, kmeans_plus_plus

CODES, BITS, CENTERS = 19_444, 64, 800
FLIPPED = {"clear clusters": 0.1, "blurred clusters": 0.25, "random bits": 0.5}  # share of bits unlike the cluster's


def made_up_codes(flipped: float) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    centers = torch.rand(CENTERS, BITS, generator=draw) < 0.5
    own = centers[torch.randint(CENTERS, (CODES,), generator=draw)]
    return (own ^ (torch.rand(CODES, BITS, generator=draw) < flipped)).float() * 2 - 1


def starts(codes: torch.Tensor) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    first = kmeans_plus_plus(codes, CENTERS, draw)
    found = torch.where(kmeans(codes, first).means < 0, -1.0, 1.0)
    return {"first": first, "later": torch.where(torch.rand(found.shape, generator=draw) < 0.1, -found, found)}


def scikit_learn(codes, start, algorithm: str) -> tuple[float, int]:
    found = KMeans(len(start), init=start, n_init=1, max_iter=MOST_ITERATIONS, tol=TOLERANCE, algorithm=algorithm).fit(
        codes
    )
    return found.inertia_, found.n_iter_


def faiss_kmeans(codes, start, iterations: int) -> tuple[float, int]:
    """faiss knows no tolerance: it is given as many iterations as ours took."""
    found = faiss.Kmeans(BITS, len(start), niter=iterations, min_points_per_centroid=1, max_points_per_centroid=CODES)
    found.train(codes, init_centroids=start)
    distances, _ = found.index.search(codes, 1)
    return float(distances.sum(dtype="float64")), iterations


def ours(codes, start) -> tuple[float, int]:
    found = kmeans(codes, start)
    return found.inertia, found.iterations


def measure(kind: str, device: str, rounds: int) -> list[dict]:
    codes = made_up_codes(FLIPPED[kind])
    rows = []
    for which, start in starts(codes).items():
        iterations = ours(codes, start)[1]
        arrays, tensors = (codes.numpy(), start.numpy()), (codes.to(device), start.to(device))
        ways = {
            "scikit-learn elkan": lambda arrays=arrays: scikit_learn(*arrays, "elkan"),
            "scikit-learn lloyd": lambda arrays=arrays: scikit_learn(*arrays, "lloyd"),
            "faiss": lambda arrays=arrays, iterations=iterations: faiss_kmeans(*arrays, iterations),
            "ours": lambda tensors=tensors: ours(*tensors),
        }
        seconds = in_turn(ways, rounds)
        for name, run in ways.items():
            inertia, iterations = run()
            found = {
                "codes": kind,
                "start": which,
                "by": name,
                "ms": 1000 * seconds[name],
                "iterations": str(iterations),
            }
            rows.append(found | {"inertia": inertia, "times elkan": seconds["scikit-learn elkan"] / seconds[name]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = [row for kind in FLIPPED for row in measure(kind, given.device, given.rounds)]
    table(rows[0], [row.values() for row in rows])
    save(given.json, {"machine": machine(given.device), "k-means": rows})


if __name__ == "__main__":
    main()
