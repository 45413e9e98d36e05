"""Tables for notebooks: what the data is, how it was trained, what it reached."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from ..data import Dataset
from ..data.holding import gigabytes
from ..experiments.evaluation import NOT_HASHED
from ..methods import DEFAULT, method_of
from ..storage.files import made_folder, write_whole
from ..storage.words import as_cell

MEANINGS = {
    "dataset": "data set",
    "bits": "length of the hash code",
    "seed": "of weights, order of videos, views, first centres",
    "cycle": "',' is then, '+' is in the same pass",
    "pretrain_epochs": "passes of reconstruction alone, first",
    "epochs": "turns of the cycle",
    "pretrain_masking_ratio": "share of frames hidden in pre-training and for the centres",
    "masking_ratio": "share of frames hidden in the cycle",
    "views": "of each video, in the cycle's learning passes",
    "weight_reconstruction": "in the cycle",
    "weight_cluster": "of the loss of clusters",
    "weight_contrast": "of the contrast loss",
    "neighbours": "nearest training videos whose frames may stand for a video's own",
    "weight_similarity": "of the codes' similarities to the features', as far as neighbours are trusted",
    "centers": "number of cluster centres",
    "centers_every": "turns from one search for centres to the next",
    "cluster_targets": "nearest centre of the own view, or swapped",
    "cluster_temperature": "the lower, the sharper",
    "contrast_temperature": "the lower, the sharper",
    "tau_plus": "assumed share of false negatives",
    "learning_rate": "Adam",
    "learning_rate_schedule": "constant, or cosine with a short warm-up",
    "batch_size": "videos",
    "encoder_width": "channels",
    "decoder_width": "channels",
    "attention_heads": "of the attention layer",
    "ssd_head_width": "of the state-space mixer",
    "state_size": "of the state-space mixer",
    "encoder_blocks": "or one of the two alone",
    "decoder_positions": "sinusoidal: each hidden frame on its own",
    "device": "auto: the GPU if there is one",
    "precision": "auto: bfloat16 where it is faster",
}
OF_PEERS = {  # where these differ
    "seed": "of all that is drawn at random",
    "epochs": "passes",
    "masking_ratio": "share of frames hidden in each view",
    "weight_reconstruction": "of the reconstruction loss",
    "weight_neighbours": "of the loss of neighbours",
    "weight_anchors": "of the loss of anchors",
    "weight_pairwise": "of the loss of pairs",
    "weight_prototypes": "of the loss of prototypes",
    "weight_decay": "of the optimizer",
    "momentum": "of the optimizer",
    "learning_rate": "of the optimizer",
    "encoder_heads": "of attention",
    "decoder_heads": "of attention",
    "learning_rate_schedule": "cosine or constant",
    "least_learning_rate": "that the learning rate falls to",
    "learning_rate_decay": "of the learning rate, over 10,000 steps",
    "encoder_blocks": "how many",
    "decoder_blocks": "how many",
    "zeroed": "share of frames that become zero",
    "replaced": "share of frames that become one of any training video",
    "anchors": "number of cluster centres of stage 1's latents, at most",
    "dropout": "share of values left out while training",
    "input_dropout": "share of the visible frames' features left out while training",
    "neighbours": "nearest training videos, by mean features",
    "reach": "videos of the largest overlap whose neighbours are a video's own too",
    "weight_quantisation": "within the pairwise loss",
    "largest_step": "of any weight",
    "clusters": "number of clusters, of each clustering",
    "latent_size": "principal components that are clustered",
    "label_rate": "by which labels move towards what the network tells",
    "labels_move_from": "epoch, from 0",
    "center_sweeps": "that spread the centres, where there are too few Hadamard rows",
    "stochastic_depth": "share of videos that leave out the last block; less in those before",
    "warm_up_epochs": "without prototypes",
    "prototype_temperature": "mean density of a clustering's clusters",
    "published_code": "as the authors' code where that is not what was meant, see docs/peers.md",
}
CHANGED = "●"


def data_table(dataset: Dataset) -> Styler:
    """Videos, frames, feature size, labels and bytes of each split."""
    rows = []
    for name, split in dataset.splits.items():
        labels = split.labels
        rows.append(
            {
                "split": "query (the database itself)" if name == "query" and dataset.queries_are_database else name,
                "videos": f"{len(split):,}",
                "frames": dataset.frames,
                "feature size": f"{dataset.feature_size:,}",
                "classes seen": "no labels" if labels is None else f"{int((labels.sum(axis=0) > 0).sum()):,}",
                "labels per video": "" if labels is None else f"{labels.sum() / len(split):.2f}",
                "without label": "" if labels is None else f"{int((labels.sum(axis=1) == 0).sum()):,}",
                "size": gigabytes(split.nbytes),
            }
        )
    return plain(pd.DataFrame(rows), left=["split"])


def settings_table(settings: Any) -> Styler:
    """Every setting beside the published value; a dot marks where they differ."""
    published, meanings = type(settings)(), MEANINGS if method_of(settings) == DEFAULT else MEANINGS | OF_PEERS
    rows = [
        {
            "": CHANGED if value != getattr(published, name) and name != "dataset" else "",
            "setting": name,
            "value": str(value),
            "published": "" if name in ("dataset", "device", "precision") else str(getattr(published, name)),
            "meaning": meanings.get(name, ""),
        }
        for name, value in settings.as_dict().items()
    ]
    table = plain(pd.DataFrame(rows), left=["", "setting", "value", "published", "meaning"])
    return table.set_caption(f"{CHANGED} differs from the published value")


def map_table(ks: Sequence[int], rows: Mapping[str, Sequence[float]]) -> Styler:
    """mAP@K by method; the best hashing method of each column is bold. Features that are not hashed take no part in it."""
    names, values = list(rows), np.array([list(row) for row in rows.values()])
    columns = [f"mAP@{k}" for k in ks]
    frame = pd.DataFrame(values, columns=columns)
    frame.insert(0, "method", names)
    hashed = [row for row, name in enumerate(names) if name not in NOT_HASHED]
    best = values[hashed].max(axis=0)
    table = plain(frame, left=["method"]).format("{:.3f}", subset=columns)
    for place, column in enumerate(columns):
        rows_at_best = [row for row in hashed if values[row, place] == best[place]]
        table = table.set_properties(subset=pd.IndexSlice[rows_at_best, [column]], **{"font-weight": "bold"})
    return table


class Table(Styler):
    """A styled frame whose styles stand in its cells: of a notebook that is not trusted JupyterLab shows no <style>."""

    def to_html(self, *arguments: Any, **options: Any) -> str:
        return inline_styles(super().to_html(*arguments, **options))

    def _repr_html_(self) -> str:
        return self.to_html()


STYLE_SHEET = re.compile(r"<style.*?</style>\s*", re.DOTALL)
RULE = re.compile(r"([^{}]+)\{([^}]*)\}")
CELL = re.compile(r'<(t[dh]) id="([^"]+)"')
UNDER = "caption-side: bottom; text-align: left"


def inline_styles(html: str) -> str:
    """A table as pandas writes it, the rules for its cells moved from the style sheet into them."""
    styles: dict[str, str] = {}
    for sheet in STYLE_SHEET.findall(html):
        for selectors, rules in RULE.findall(sheet.partition(">")[2]):
            text = " ".join(rules.split())
            for selector in selectors.split(","):
                name = selector.strip().removeprefix("#")
                styles[name] = f"{styles.get(name, '')} {text}".strip()
    bare = STYLE_SHEET.sub("", html).replace("<caption>", f'<caption style="{UNDER}">')
    return CELL.sub(lambda found: _with_style(found, styles), bare)


def _with_style(cell: re.Match, styles: Mapping[str, str]) -> str:
    kind, name = cell.groups()
    style = styles.get(name)
    return f'<{kind} id="{name}"' + (f' style="{style}"' if style else "")


def plain(frame: pd.DataFrame, left: Sequence[str] = ()) -> Table:
    """A table without index, numbers to the right, words to the left; every text is escaped."""
    right = [column for column in frame.columns if column not in left]

    def sides(names: pd.Index) -> list[str]:
        return [f"text-align: {'left' if name in left else 'right'}" for name in names]

    table = (
        Table(frame)
        .hide(axis="index")
        .format(escape="html")
        .set_properties(subset=right, **{"text-align": "right"})
        .set_properties(subset=[column for column in frame.columns if column in left], **{"text-align": "left"})
    )
    return table.apply_index(sides, axis="columns") if len(frame.columns) else table


MATH = str.maketrans({"±": r"$\pm$", "−": "$-$", "·": r"$\cdot$", "…": r"\dots{}"})  # what pdfLaTeX may not know
RULES = [{"selector": f"{place}rule", "props": ":hline"} for place in ("top", "mid", "bottom")]


def write_tables(folder: Path, name: str, frame: pd.DataFrame) -> list[Path]:
    """Write <name>.csv, with all digits, and <name>.tex, a plain tabular with three decimals, to a folder.

    Returns both paths. The index is left out; in LaTeX, texts are escaped and a missing number is a dash.
    """
    made_folder(folder)
    texts = {
        ".csv": frame.map(as_cell).rename(columns=as_cell).to_csv(index=False, lineterminator="\r\n"),
        ".tex": latex(frame),
    }
    for ending, text in texts.items():
        write_whole(
            folder / f"{name}{ending}", lambda path, text=text: path.write_text(text, encoding="utf-8", newline="")
        )
    return [folder / f"{name}{ending}" for ending in texts]


def latex(frame: pd.DataFrame) -> str:
    """A tabular: texts to the left, numbers to the right, rules above, below the head and at the end."""
    in_one_line = frame.map(lambda value: " ".join(value.split()) if isinstance(value, str) else value)
    table = in_one_line.style.hide(axis="index").set_table_styles(RULES)
    table = table.format(escape="latex", na_rep="--").format_index(escape="latex", axis="columns")
    table = table.format("${:.3f}$", subset=[*frame.select_dtypes("float")], na_rep="--")
    return table.to_latex().translate(MATH)
