"""What `make demo` reaches, over several seeds and on both label sets, beside the baselines.

    python benchmarks/demo.py [--seeds 3] [--bits 64] [--json demo.json]

The two label sets share their videos: a run is trained once, without labels, and read against both.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from wsch_core import fit, load_dataset, settings_for
from wsch_core.experiments.evaluation import REAL_VALUED, evaluate_codes
from wsch_core.methods.baselines import BASELINES, fit_baseline
from wsch_core.retrieval.metrics import evaluate_cosine
from wsch_core.training.loop import encode

LABEL_SETS = ("demo", "demo-motion")


def encode_all(data, seed: int, bits: int) -> dict[str, dict]:
    """Codes of queries and database by method, and the seconds that training took."""
    start = time.perf_counter()
    run = fit(settings_for(data, bits=bits, seed=seed), data)
    seconds = time.perf_counter() - start
    splits = {"query": data.query, "database": data.database}
    model = run.model()
    codes = {"WSCH": {name: encode(model, split.features) for name, split in splits.items()}}
    for name in BASELINES:
        hasher = fit_baseline(name, data.train.features.mean_pooled(), bits, seed)
        codes[name] = {part: hasher.encode(split.features.mean_pooled()) for part, split in splits.items()}
    return {"codes": codes, "seconds": seconds, "precision": run.record["precision"]}


def measure(seeds: int, bits: int) -> dict:
    sets = {name: load_dataset(name) for name in LABEL_SETS}
    trained = [encode_all(sets["demo"], seed, bits) for seed in range(1, seeds + 1)]
    found = {"seeds": seeds, "bits": bits, "seconds": [t["seconds"] for t in trained], "sets": {}}
    found["precision"] = trained[0]["precision"]
    for name, data in sets.items():
        rows = {
            method: [evaluate_codes(t["codes"][method], data).expected.tolist() for t in trained]
            for method in ("WSCH", *BASELINES)
        }
        pooled = [split.features.mean_pooled() for split in (data.query, data.database)]
        rows[REAL_VALUED] = [evaluate_cosine(*pooled, data.query.labels, data.database.labels).tolist()]
        found["sets"][name] = rows
    return found


def show(found: dict) -> None:
    seconds = ", ".join(f"{s:.0f}" for s in found["seconds"])
    print(f"\n{found['bits']} bits, {found['seeds']} seeds, {found['precision']}; training took {seconds} s\n")
    print("| data set | method | mAP@5 | mAP@20 | mAP@100 |\n|---|---|---|---|---|")
    for name, rows in found["sets"].items():
        for method, values in rows.items():
            mean, spread = np.mean(values, axis=0), np.std(values, axis=0)
            cells = [f"{mean[at]:.3f} ± {spread[at]:.3f}" if len(values) > 1 else f"{mean[at]:.3f}" for at in (0, 1, 5)]
            print(f"| {name} | {method} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        import os

        os.environ["WSCH_OUTPUTS"] = folder
        found = measure(given.seeds, given.bits)
    show(found)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
