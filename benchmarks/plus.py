"""The recipe "plus" beside the published one: mAP@K on sets of different character, with paired 95 % intervals.

python benchmarks/plus.py [--clips FOLDER] [--sets noisy,demo] [--bits 16,32,64,128] [--seeds 1,2,3,4,5]
                          [--variants published,plus] [--out outputs/plus]

Runs are kept in the folder --out, with what was measured in results.jsonl there: started again, it goes on. Every run
has one thread, as many run at a time as there are cores, and the tables are printed at the end as Markdown.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plus_sets
from recipe_rows import (
    KNOWN,
    KS,
    LIGHT,
    RATE,
    SHORT,
    TWICE,
    WITHOUT_NEIGHBOURS,
    Row,
    changes_of,
    difference,
    measure_all,
    missing,
    numbers,
    read_rows,
    work_in,
)  # fmt: skip

from wsch_core.experiments.compare import mean_interval
from wsch_core.storage.words import unknown_name

# What is compared: "published" is the method with the settings its data set asks for; the others lie between it and "plus".
VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "plus": {"recipe": "plus"},
    "plus without neighbours": WITHOUT_NEIGHBOURS,
    "learning rate": RATE,
    "without neighbours, without four short views": RATE | TWICE | LIGHT,
    "without neighbours, without contrast twice": RATE | SHORT | LIGHT,
    "without neighbours, without light reconstruction": RATE | SHORT | TWICE,
    "without neighbours, without learning rate": SHORT | TWICE | LIGHT,
}
# Of the demo set's features there are two sets of labels: one run is measured with both.
LABELLED = {"demo": ("demo", "demo-motion")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="a folder of videos, whose parts become one more set")
    parser.add_argument("--sets", default=f"demo,{','.join(plus_sets.GENERATED)}")
    parser.add_argument("--bits", default="16,32,64,128")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--variants", default="published,plus", help=f"some of: {', '.join(VARIANTS)}")
    parser.add_argument("--against", default="published", choices=VARIANTS)
    parser.add_argument("--out", type=Path, default=Path("outputs/plus"))
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    sets, variants = [*filter(None, given.sets.split(","))], given.variants.split(",")
    bits, seeds = numbers(given.bits), numbers(given.seeds)
    for kind, names, all_known in (
        ("set", sets, ["demo", *plus_sets.GENERATED]),
        ("variant", variants, list(VARIANTS)),
    ):
        for name in names:
            if name not in all_known:
                parser.error(unknown_name(kind, name, all_known))
    work_in(given.out)
    if given.clips:
        sets.append("clips")
        plus_sets.cut_clips(given.out / "data", given.clips)
    for name in set(sets) & set(plus_sets.GENERATED):
        plus_sets.generate(given.out / "data", name)
    known = given.out / KNOWN
    rows = read_rows(known, VARIANTS)
    rows += measure_all(known, list(missing(rows, sets, bits, seeds, variants)), measure, given.workers)
    wanted = [one for name in sets for one in LABELLED.get(name, (name,))]
    for variant in variants:
        if variant != given.against:
            print(f"\n{table(rows, wanted, bits, variant, given.against)}")


def measure(job: tuple[str, int, int, str]) -> list[Row]:
    """Train and read one run; a row for each set of labels."""
    import torch

    from wsch_core import load_dataset, settings_for
    from wsch_core.experiments.repeat import complete_run
    from wsch_core.retrieval.metrics import evaluate

    name, bits, seed, variant = job
    torch.set_num_threads(1)
    data = load_dataset(name)
    variant_of = {"recipe": "published"} | VARIANTS[variant]  # whichever recipe the data set asks for
    settings = settings_for(data, bits=bits, seed=seed, device="cpu", **variant_of)
    run, _ = complete_run(settings, data, callbacks=[], baselines=())
    codes = {split: found for split, (found, *_) in run.load_codes().items()}
    seconds = sum(entry["seconds"] for entry in run.history)
    rows = []
    for labelled in LABELLED.get(name, (name,)):
        data = load_dataset(labelled)
        found = evaluate(codes["query"], codes["database"], data.query.labels, data.database.labels, ks=KS)
        values = [float(value) for value in found.expected]
        what = {
            "set": labelled,
            "bits": bits,
            "seed": seed,
            "variant": variant,
            "changes": changes_of(VARIANTS[variant]),
        }
        rows.append(what | {"map": values, "seconds": seconds})
    return rows


def table(
    rows: Sequence[Row], sets: Sequence[str], bits: Sequence[int], variant: str, against: str = "published"
) -> str:
    """Markdown: means over the seeds both have, and the paired difference in percent of the other's mean."""
    lines = ["| set | bits | seeds | " + " | ".join(f"mAP@{k} {against} | {variant} | difference" for k in KS) + " |"]
    lines.append("|---|---|---|" + "---|---|---|" * len(KS))
    for name in sets:
        for length in bits:
            of_both = [
                {row["seed"]: row["map"] for row in rows if (row["set"], row["bits"], row["variant"]) == wanted}
                for wanted in ((name, length, variant), (name, length, against))
            ]
            seeds = len(of_both[0].keys() & of_both[1].keys())
            if seeds:
                shown = " | ".join(cells(place, *of_both) for place in range(len(KS)))
                lines.append(f"| {name} | {length} | {seeds} | {shown} |")
    return "\n".join(lines)


def cells(place: int, of_variant: dict[int, list[float]], of_other: dict[int, list[float]]) -> str:
    """At one depth, from mAP by seed: the other's mean, the variant's, and the paired difference."""
    ours, theirs = ({seed: values[place] for seed, values in one.items()} for one in (of_variant, of_other))
    base = mean_interval([theirs[seed] for seed in ours if seed in theirs])[0]
    mean = mean_interval([ours[seed] for seed in ours if seed in theirs])[0]
    return f"{base:.3f} | {mean:.3f} | {difference(ours, theirs)}"


if __name__ == "__main__":
    main()
