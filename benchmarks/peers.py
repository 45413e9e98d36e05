"""Six methods under one roof: mAP@K of codes after as many seconds of one thread, paired by seed.

python benchmarks/peers.py [FEATURES.h5] [--sets demo,noisy,modes,order] [--methods "wsch,wsch plus,bth"] [--bits 64]
                           [--seeds 1,2,3] [--seconds 30] [--out outputs/peers]

FEATURES.h5 is a file of real features as benchmarks/real.py describes it; each of its --splits is a set, and they come
first. How long a pass of each method takes is measured once for each set and kept in pace.json of the folder --out; the
epochs of a run follow from it, the same for every seed. Runs are kept there too, with what was measured in results.jsonl:
started again, it goes on. One process trains, with one thread; times are those of the processor, not of the wall's clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import plus_sets
from real import at, level, write_set
from recipe_rows import KNOWN, KS, Row, changes_of, difference, measure_all, missing, numbers, read_rows, work_in

from wsch_core import fit, load_dataset, settings_for
from wsch_core.data import Dataset
from wsch_core.data.definition import load_definition
from wsch_core.experiments.budget import fitted
from wsch_core.experiments.compare import compare_with
from wsch_core.experiments.evaluation import FITTED_VIDEOS, encode_run, evaluate_codes
from wsch_core.experiments.peers import cost_of, known_pace
from wsch_core.methods import METHODS
from wsch_core.methods.baselines import fit_baseline
from wsch_core.retrieval.metrics import evaluate_cosine
from wsch_core.runs.folder import Run
from wsch_core.storage.words import unknown_name

PLUS, WSCH, ITQ, MEAN, CENTRED = "wsch plus", "wsch", "ITQ", "mean features", "mean features, centred"
TRAINED = (WSCH, PLUS, *(name for name in METHODS if name != WSCH))
BESIDE = (ITQ, MEAN, CENTRED)  # that take no training
LABELLED = {"demo": ("demo", "demo-motion")}  # two sets of labels for the same videos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, nargs="?")
    parser.add_argument("--splits", default="split_a,official1", help="entries of FEATURES.h5")
    parser.add_argument("--sets", default="demo,noisy,modes,order", help="beside those of FEATURES.h5")
    parser.add_argument("--methods", default=",".join(TRAINED))
    parser.add_argument("--bits", default="64")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--precision", default="auto", help="float32 or bfloat16; auto: what is faster")
    parser.add_argument("--out", type=Path, default=Path("outputs/peers"))
    given = parser.parse_args()
    names = [*BESIDE, *given.methods.split(",")]
    for name in names[len(BESIDE) :]:
        if name not in TRAINED:
            parser.error(unknown_name("method", name, list(TRAINED)))
    work_in(given.out)
    sets = prepare(given)
    methods = {name: chosen_for(name) | {"seconds": given.seconds, "precision": given.precision} for name in names}
    known, seeds, bits = given.out / KNOWN, numbers(given.seeds), numbers(given.bits)
    rows = read_rows(known, methods)
    jobs = chain.from_iterable(missing(rows, [name], bits, seeds, names) for name in sets)
    rows += measure_all(known, jobs, partial(measure, out=given.out, methods=methods), workers=1)
    for name in chain.from_iterable(LABELLED.get(name, (name,)) for name in sets):
        for length in bits:
            print(f"\n{name}, {length} bits\n\n{table(rows, name, length, names)}")


def prepare(given: argparse.Namespace) -> list[str]:
    """Have the data sets ready; their names."""
    sets = [*filter(None, given.sets.split(","))]
    for name in sets:
        if name not in ("demo", *plus_sets.GENERATED):
            raise SystemExit(unknown_name("set", name, ["demo", *plus_sets.GENERATED]))
        if name in plus_sets.GENERATED:
            plus_sets.generate(given.out / "data", name)
    if given.features:
        (given.out / "data").mkdir(parents=True, exist_ok=True)
        sets = [write_set(given.features, split, given.out / "data") for split in given.splits.split(",")] + sets
    return sets


def chosen_for(name: str) -> dict[str, Any]:
    """What is chosen for a method on all sets. For the peers these are the settings of the demo set, on which they were
    chosen; WSCH has settings of its own in the definition of every set."""
    if name in BESIDE:
        return {}
    return {"recipe": "plus" if name == PLUS else "published"} if name in (WSCH, PLUS) else peer_settings(name)


def peer_settings(name: str) -> dict[str, Any]:
    return {"method": name} | load_definition("demo").settings.get(name, {})


def measure(job: tuple[str, int, int, str], out: Path, methods: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """One method on one set with one seed; a row for each set of labels."""
    import torch

    torch.set_num_threads(1)
    name, bits, seed, method = job
    data, changes = load_dataset(name), dict(methods[method])
    what = {"bits": bits, "seed": seed, "variant": method, "changes": changes_of(changes)}
    if method in BESIDE:
        return [
            what
            | {"set": labelled, "map": without_training(method, load_dataset(labelled), bits, seed), "seconds": 0.0}
            for labelled in LABELLED.get(name, (name,))
        ]
    run, taken = train(method, data, out, bits, seed, **changes)
    what |= {"seconds": taken, "epochs": epochs_of(run)} | asdict(cost_of(run, data))
    codes = encode_run(run, data, device="cpu")
    return [
        what | {"set": labelled, "map": [*map(float, evaluate_codes(codes, load_dataset(labelled), ks=KS).expected)]}
        for labelled in LABELLED.get(name, (name,))
    ]


def train(
    name: str, data: Dataset, out: Path, bits: int, seed: int, seconds: float, **changes: Any
) -> tuple[Run, float]:
    """A run that is to take so many seconds, and those it took."""
    chosen = {"bits": bits, "seed": seed, "device": "cpu"} | changes
    settings = settings_for(data, chosen.pop("recipe", None), chosen.pop("method", None), **chosen)
    pace = known_pace(out / "pace.json", settings, data)
    settings = fitted(settings, lambda longer: pace.seconds(longer, data), seconds)
    clock, start = [0.0], time.process_time()

    def stop_clock(progress) -> None:
        clock[0] = time.process_time() - start

    run = fit(settings, data, f"{data.name}-{name.replace(' ', '-')}-{bits}-{seed}-{time.time_ns()}", [stop_clock])
    return run, clock[0]


def epochs_of(run: Run) -> str:
    settings = run.settings.as_dict()
    return " + ".join(str(settings[name]) for name in ("pretrain_epochs", "epochs") if settings.get(name))


def without_training(name: str, data: Dataset, bits: int, seed: int) -> list[float]:
    """mAP at KS by ITQ, or of the mean features themselves."""
    train, query, database = (s.features.mean_pooled() for s in (data.train, data.query, data.database))
    if name == ITQ:
        hasher = fit_baseline(ITQ, train[:FITTED_VIDEOS], bits, seed)
        codes = {"query": hasher.encode(query), "database": hasher.encode(database)}
        return [*map(float, evaluate_codes(codes, data, ks=KS).expected)]
    offset = train.mean(dim=0) if name == CENTRED else 0
    found = evaluate_cosine(query - offset, database - offset, data.query.labels, data.database.labels, ks=KS)
    return [*map(float, found)]


def table(rows: Sequence[Row], name: str, bits: int, methods: Sequence[str]) -> str:
    """Markdown: mAP@K over the seeds, the paired difference to WSCH at 20, and what a run takes."""
    here = [row for row in rows if (row["set"], row["bits"]) == (name, bits)]
    by_method = {method: [row for row in here if row["variant"] == method] for method in methods}
    by_method = {method: found for method, found in by_method.items() if found}
    maps = {method: {row["seed"]: row["map"] for row in found} for method, found in by_method.items()}
    place = KS.index(20)
    verdicts = {one.name: one for one in compare_with(WSCH, {m: at(found, place) for m, found in maps.items()})}
    lines = [
        "| | seeds | " + " | ".join(f"mAP@{k}" for k in KS) + " | against wsch, @20 | p (Holm) | epochs | seconds |"
    ]
    lines.append("|---|---|" + "---|" * (len(KS) + 4))
    for method, found in by_method.items():
        cells = [level(maps[method], number) for number in range(len(KS))]
        one = verdicts[method]
        against = difference(at(maps[method], place), at(maps[WSCH], place)) if one.differences else ""
        p = f"{one.p:.3f}" if one.p == one.p else ""
        took = f"{sum(row['seconds'] for row in found) / len(found):.0f}" if method not in BESIDE else ""
        cells += [against, p, found[0].get("epochs", ""), took]
        lines.append(f"| {method} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
