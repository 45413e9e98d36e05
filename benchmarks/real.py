"""Real videos: codes of each recipe beside ITQ's and beside the features that both are made of, paired by seed.

python benchmarks/real.py FEATURES.h5 [--bits 16,32,64,128] [--seeds 1,2,3,4,5] [--variants published,plus]
python benchmarks/real.py --dataset NAME ...             a set that is there, such as one that data.ipynb imported
python benchmarks/real.py --videos FOLDER [--lists FOLDER] ...   videos, imported first; lists: of an official split

FEATURES.h5 holds feats_uint8 (videos, frames, D) with the attribute scale, ids, labels (class numbers), classes, file_sha1,
and for each split (--splits) an entry that says "train", "database", "query" or "test" for every video; without "database"
the training videos are the database. Of identical files one is kept.

Other data sets train with their own settings, these with what an import gives to a set of the size. Runs are kept in the
folder --out, with what was measured in results.jsonl: started again, it goes on. Tables are printed at the end as Markdown.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from recipe_rows import (
    KNOWN,
    KS,
    WITHOUT_NEIGHBOURS,
    Row,
    Variants,
    changes_of,
    difference,
    measure_all,
    missing,
    numbers,
    read_rows,
    work_in,
)  # fmt: skip

from wsch_core import load_dataset, settings_for
from wsch_core.experiments.compare import mean_interval
from wsch_core.experiments.evaluation import CENTRED, NOT_HASHED, REAL_VALUED
from wsch_core.experiments.repeat import complete_run
from wsch_core.methods.wsch.settings import Settings
from wsch_core.storage.words import unknown_name
from wsch_core.videos.assemble import default_settings

OF_SETS = {name: getattr(Settings(), name) for name in default_settings(1)}  # what an import sets, as it was published
VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "plus without neighbours": WITHOUT_NEIGHBOURS,
    "plus": {"recipe": "plus"},
    "published schedule": OF_SETS,
}
BESIDE = {"ITQ": "ITQ", "mean features": REAL_VALUED, "mean features, centred": CENTRED}
USES = {"train": "train", "database": "database", "query": "query", "test": "query"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("features", type=Path, nargs="?")
    source.add_argument("--dataset")
    source.add_argument("--videos", type=Path)
    parser.add_argument("--lists", type=Path, default="", help="UCF101's or HMDB51's lists; else splits are made")
    parser.add_argument("--splits", default="split_a,official1", help="entries of FEATURES.h5")
    parser.add_argument("--bits", default="64")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--variants", default="published,plus without neighbours,plus", help=", ".join(VARIANTS))
    parser.add_argument("--change", nargs="*", default=[], help="of every variant, such as pretrain_epochs=0 epochs=5")
    parser.add_argument("--out", type=Path, default=Path("outputs/real"))
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    bits, seeds, variants = numbers(given.bits), numbers(given.seeds), given.variants.split(",")
    for name in variants:
        if name not in VARIANTS:
            parser.error(unknown_name("variant", name, list(VARIANTS)))
    pairs = [word.split("=") for word in given.change]
    changed = {name: VARIANTS[name] | {key: json.loads(value) for key, value in pairs} for name in variants}
    sets = prepare(given)
    known = given.out / KNOWN
    rows = read_rows(known, changed)
    jobs = list(missing(rows, sets, bits, seeds, variants))
    rows += measure_all(known, jobs, partial(measure, variants=changed), given.workers)
    for name in sets:
        for length in bits:
            print(f"\n{name}, {length} bits\n\n{table(rows, name, length, variants)}")


def prepare(given: argparse.Namespace) -> list[str]:
    """Have the data sets ready; their names."""
    given.out.mkdir(parents=True, exist_ok=True)
    if given.dataset:
        os.environ |= {"WSCH_OUTPUTS": str(given.out.absolute()), "OMP_NUM_THREADS": "1"}
        return [given.dataset]
    work_in(given.out)
    if given.videos:
        from wsch_core.videos import import_videos  # only here: it loads image models

        name = given.videos.resolve().name
        print(import_videos(given.videos, name, splits=given.lists).summary())
        return [name]
    return [write_set(given.features, split, given.out / "data") for split in given.splits.split(",")]


def write_set(path: Path, split: str, folder: Path) -> str:
    """A data set of one split of a file of features; its name."""
    with h5py.File(path) as file:
        ids, uses, copies = (file[name].asstr()[:] for name in ("ids", split, "file_sha1"))
        labels, classes = file["labels"][:], [*file["classes"].asstr()[:]]
        kept = np.isin(np.arange(len(ids)), np.unique(copies, return_index=True)[1])  # the first of identical files
        features = file["feats_uint8"][:]
        scale = np.float32(file["feats_uint8"].attrs["scale"])
    name = f"{path.stem}-{split}"
    rows = {use: [] for use in ("train", "database", "query")}
    for place in np.flatnonzero(kept & np.isin(uses, list(USES))):
        rows[USES[uses[place]]].append(place)
    head = {"title": name, "frames": features.shape[1], "feature_size": features.shape[2], "classes": classes}
    lines = [f"{key} = {json.dumps(value)}" for key, value in head.items()]
    (folder / name).mkdir(parents=True, exist_ok=True)
    for use, places in rows.items():
        lines += [f"[{use}]"]
        if use == "database" and not places:
            lines += ['same_as = "train"']
            continue
        with h5py.File(folder / name / f"{use}.h5", "w") as file:
            file["feats"], file["ids"] = features[places] * scale, ids[places].astype(object)
        scipy.io.savemat(folder / name / f"{use}.mat", {"labels": np.eye(len(classes), dtype=np.uint8)[labels[places]]})
        lines += [f'features = ["{use}.h5"]', f'labels = ["{use}.mat"]']
    settings = default_settings(len(rows["train"]))
    lines += ["[settings]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items())]
    (folder / f"{name}.toml").write_text("\n".join(lines) + "\n")
    return name


def measure(job: tuple[str, int, int, str], variants: Variants) -> list[Row]:
    """Train one run and evaluate it beside ITQ and the features."""
    import torch

    name, bits, seed, variant = job
    torch.set_num_threads(1)
    data = load_dataset(name)
    changes = {"recipe": "published"} | variants[variant]  # whichever recipe the data set asks for
    settings = settings_for(data, bits=bits, seed=seed, device="cpu", **changes)
    run, _ = complete_run(settings, data, callbacks=[], baselines=("ITQ",))
    metrics = run.metrics
    of_methods = {method: found["expected"] for method, found in metrics["methods"].items()}
    of_methods |= {method: metrics[key] for method, key in NOT_HASHED.items()}
    ks = metrics["methods"][run.method.name]["ks"]
    values = {method: [found[ks.index(k)] for k in KS] for method, found in of_methods.items()}
    row = {"set": name, "bits": bits, "seed": seed, "variant": variant, "changes": changes_of(variants[variant])}
    row |= {"map": values[run.method.name], "beside": {shown: values[method] for shown, method in BESIDE.items()}}
    trust = [entry["trust"] for entry in run.history if "trust" in entry]
    return [row | {"trust": max(trust, default=0.0), "seconds": sum(entry["seconds"] for entry in run.history)}]


def table(rows: Sequence[Row], name: str, bits: int, variants: Sequence[str]) -> str:
    """Markdown: mAP@K over the seeds, and how the last variant differs from each row over the seeds both have."""
    here = [row for row in rows if (row["set"], row["bits"]) == (name, bits)]
    found = {shown: {row["seed"]: row["beside"][shown] for row in here} for shown in BESIDE}
    found |= {v: {row["seed"]: row["map"] for row in here if row["variant"] == v} for v in variants}
    last = variants[-1]
    lines = ["| | seeds | " + " | ".join(f"mAP@{k}" for k in KS) + " | "]
    lines[0] += " | ".join(f"{last} against it, @{k}" for k in KS) + " |"
    lines.append("|---|---|" + "---|" * (2 * len(KS)))
    for shown, by_seed in found.items():
        if by_seed:
            cells = [level(by_seed, place) for place in range(len(KS))]
            cells += [
                "" if shown == last else difference(at(found[last], place), at(by_seed, place))
                for place in range(len(KS))
            ]
            lines.append(f"| {shown} | {len(by_seed)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def at(by_seed: Mapping[int, Sequence[float]], place: int) -> dict[int, float]:
    return {seed: values[place] for seed, values in by_seed.items()}


def level(by_seed: Mapping[int, Sequence[float]], place: int) -> str:
    values = [values[place] for values in by_seed.values()]
    mean, half = mean_interval(values)
    return f"{mean:.3f}" + ("" if math.isnan(half) or len(set(values)) == 1 else f" ± {half:.3f}")


if __name__ == "__main__":
    main()
