"""Queries and their results as one HTML page that needs nothing else: no server, no network, no script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ...storage.files import write_whole
from .cards import FRAMES, SIDE, Films, content
from .gallery import Gallery, Place

LARGEST = 4_900_000  # bytes of a page that one still likes to send
SIZES = ((FRAMES, SIDE), (8, 80), (6, 64), (4, 48), (1, 48))  # frames of a picture and their longer side in pixels

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title><style>
body {{ margin: 0 auto; max-width: 1500px; padding: 24px; }}
h1 {{ font: 600 20px system-ui, sans-serif; margin: 0; overflow-wrap: anywhere; }}
.wsch .row + .row {{ border-top: 1px solid var(--rule); }}
{css}
{theme}
{films}</style></head><body class="wsch"><h1>{title}</h1>
<p class="note">{subtitle}</p>
"""
THEME = """:root { color-scheme: light dark; }
body { background: var(--paper); }
@media (prefers-color-scheme: dark) { .wsch { --ink: #e4e4e4; --soft: #a6a6a6; --rule: #444; --paper: #1c1c1c;
  --place: #2c2c2c; --hit: #56b4e9; --miss: #e69f00; } }
@media (max-width: 700px) { body { padding: 12px; } .wsch .row, .wsch .panels { flex-direction: column; gap: 12px; }
  .wsch .panels, .wsch .query { width: 100%; }
  .wsch .query { display: grid; grid-template-columns: 110px 1fr; column-gap: 10px; }
  .wsch .query h4 { grid-column: 1 / 3; } .wsch .query .frame { grid-row: 2 / 5; }
  .wsch .cards { grid-template-columns: repeat(3, 1fr); } }"""
LEGEND = (
    "✓ solid frame: shares a label with the query · ✗ dashed: does not · a bracket joins equally near videos, whose order "
    "means nothing · d: Hamming distance · #: rank · point at a picture to play it"
)


def write_page(gallery: Gallery, queries: Sequence[int], path: Path, title: str, subtitle: str = "") -> Path:
    """Write what each of some queries retrieves by every method of the gallery; its query stays as it was.

    queries: rows of the query split. A picture that is shown several times is stored once; where the page would be larger
    than `LARGEST`, pictures get smaller and fewer of their frames are kept.
    """
    before = gallery.query
    try:
        for frames, side in SIZES:
            text = _page(gallery, queries, Films(gallery.splits, frames, side), title, subtitle).encode()
            if len(text) <= LARGEST:
                break
    finally:
        gallery.go(before, keep=False)
    write_whole(path, lambda draft: draft.write_bytes(text))
    return path


def _page(gallery: Gallery, queries: Sequence[int], films: Films, title: str, subtitle: str) -> str:
    rows, names = [], {}
    for query in queries:
        gallery.go(Place("query", query), keep=False)
        rows.append(_row(content(gallery, films), names))
    rules = [
        f".{name}{{background-image:url({source});--frames:{frames};--middle:{middle};--aspect:{aspect}}}"
        for (source, frames, middle, aspect), name in names.items()
    ]
    css = (Path(__file__).parent / "gallery.css").read_text(encoding="utf-8")
    head = HEAD.format(title=escape(title), subtitle=escape(subtitle), css=css, theme=THEME, films="\n".join(rules))
    return f'{head}{"".join(rows)}<div class="legend">{escape(LEGEND)}</div></body></html>\n'


def some_queries(gallery: Gallery, count: int, seed: int = 0) -> list[int]:
    """Rows of queries drawn at random, in their own order; all of them if there are no more than `count`."""
    return sorted(np.random.default_rng(seed).permutation(len(gallery.dataset.query))[: max(count, 0)].tolist())


def _row(shown: dict[str, Any], names: dict) -> str:
    query, panels = shown["query"], []
    for panel in shown["panels"]:
        cards = "".join(_card(card, names) for card in panel["cards"])
        panels.append(
            f'<div class="panel"><h4>{escape(panel["method"])}</h4><p class="note">{escape(panel["summary"])}</p>'
            f'<div class="cards">{cards}</div></div>'
        )
    return (
        f'<div class="row"><div class="query"><h4>query</h4>{_frame(query["film"], names)}'
        f'<div class="name">{escape(query["id"])}</div><div class="name labels">{escape(query["labels"])}</div></div>'
        f'<div class="panels">{"".join(panels)}</div></div>\n'
    )


def _card(card: dict[str, Any], names: dict) -> str:
    kind, mark = {True: ("hit", "✓"), False: ("miss", "✗"), None: ("", "")}[card["relevant"]]
    tie = f'<span class="tie {card["tie"]}"></span>' if card["tie"] else ""
    video, labels = escape(card["id"]), escape(card["labels"])
    return (
        f'<div class="card {kind}" title="{video}">{tie}{_frame(card["film"], names)}'
        f'<div class="line"><span class="mark">{mark}</span><span>d = {card["distance"]}</span>'
        f'<span class="rank">#{card["rank"]}</span></div>'
        f'<div class="name">{video}</div><div class="name labels">{labels}</div></div>'
    )


def _frame(film: dict[str, Any], names: dict) -> str:
    name = names.setdefault(tuple(film[part] for part in ("source", "frames", "middle", "aspect")), f"f{len(names)}")
    return f'<span class="frame"><span class="{"film" if film["moving"] else "strip"} {name}"></span></span>'
