"""The site: README, notebooks as they ran on the demo set, docs and the public Python names, as pages for any browser.

    python book/build.py [--executed FOLDER] [--site FOLDER]

Notebooks are executed where their results are missing or older than they and the package are. Pages mirror the project's
folders, so that links between them hold; a link that leads nowhere ends the build.
"""

from __future__ import annotations

import argparse
import base64
import html
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from mkdocs.commands.build import build
from mkdocs.config import load_config

import wsch_core

HERE = Path(__file__).parent
ROOT = HERE.parent
# What the notebooks show, in this order: they share a run. Those not named here follow, with their own parameters.
EXECUTED = {
    "train": {"run": "demo-64"},
    "gallery": {"run": "demo-64", "compare_run": "ITQ", "queries": 10},
    "umap": {"run": "demo-64"},
    "ablation": {"variants": "joint", "seeds": "3346"},
    "compare": {"methods": "wsch, bth, ssvh", "seeds": "1", "amount": 20},
    "reproduce": {"seeds": "3346"},
    "data": {},
}
PAGES = {
    "Start": ["README.md"],
    "Notebooks": [],
    "Guides": ["data/README.md"],
    "Reference": [
        "api.md", "ARCHITECTURE.md", "benchmarks/README.md", "tests/README.md", "CONTRIBUTING.md", "CHANGELOG.md",
    ],
}  # fmt: skip
PICTURES = {"image/png": "png", "image/svg+xml": "svg"}
WIDGET = "application/vnd.jupyter.widget-view+json"


def main() -> None:
    """Execute what is missing, lay the pages out, and build the site of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--executed", type=Path, default=ROOT / "build/book/executed", help="folder of executed notebooks"
    )
    parser.add_argument("--site", type=Path, default=ROOT / "build/book/site", help="folder to write the site to")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    executed = execute_all(chosen.executed.resolve())
    with tempfile.TemporaryDirectory() as pages:
        navigation = lay_out(Path(pages), executed)
        site = str(chosen.site.resolve())
        build(load_config(str(HERE / "mkdocs.yml"), docs_dir=pages, site_dir=site, nav=navigation, strict=True))
    print(f"open {os.path.relpath(chosen.site)}/index.html")


def execute_all(folder: Path) -> list[Path]:
    """Every notebook as executed in `folder`, runs beside them; what is newer than its source and the package stays."""
    folder.mkdir(parents=True, exist_ok=True)
    package = max(path.stat().st_mtime for path in (ROOT / "wsch_core").rglob("*.py"))
    names = sorted((path.stem for path in (ROOT / "notebooks").glob("*.ipynb")), key=_order)
    for name in names:
        source, made = ROOT / f"notebooks/{name}.ipynb", folder / f"{name}.ipynb"
        if made.exists() and made.stat().st_mtime > max(source.stat().st_mtime, package):
            continue
        draft = folder / f"{name}-draft.ipynb"
        options = [word for key, value in EXECUTED.get(name, {}).items() for word in ("-p", key, str(value))]
        if name == "train":  # begun anew
            shutil.rmtree(folder / "outputs" / EXECUTED["train"]["run"], ignore_errors=True)
        subprocess.run(
            [sys.executable, "-m", "papermill", "--log-output", "--no-progress-bar", source, draft, *options],
            env=os.environ | {"WSCH_OUTPUTS": str(folder / "outputs")}, check=True,
        )  # fmt: skip
        draft.replace(made)
    return [folder / f"{name}.ipynb" for name in names]


def _order(name: str) -> tuple[int, str]:
    return (list(EXECUTED).index(name) if name in EXECUTED else len(EXECUTED), name)


def lay_out(pages: Path, executed: list[Path]) -> list[dict]:
    """Write all pages below `pages`, in the folders of the project, and return mkdocs' navigation."""
    guides = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))]
    sections = {title: list(names) for title, names in PAGES.items()}
    sections["Guides"] = guides + sections["Guides"]
    for name in [name for names in sections.values() for name in names if name != "api.md"]:
        _copy(ROOT / name, pages / name)
    for picture in (ROOT / "docs").glob("*.png"):
        _copy(picture, pages / "docs" / picture.name)
    for part in (HERE / "book.css", HERE / "iframe-worker.js", ROOT / "CITATION.cff"):
        shutil.copy(part, pages)
    names = "\n".join(f"::: wsch_core.{name}" for name in wsch_core.__all__)
    (pages / "api.md").write_text((HERE / "api.md").read_text().format(names=names))
    for notebook in executed:
        page = Path("notebooks") / f"{notebook.stem}.md"
        write_notebook(notebook, pages / page)
        sections["Notebooks"].append(str(page))
    return [{title: names[0] if title == "Start" else names} for title, names in sections.items()]


def _copy(source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, to)


def write_notebook(notebook: Path, page: Path) -> None:
    """An executed notebook as a page of Markdown, its pictures and the pages that it wrote beside it."""
    page.parent.mkdir(parents=True, exist_ok=True)
    blocks, pictures, heading = [], 0, ""
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown":
            blocks.append(cell.source)
            heading = ([line for line in cell.source.splitlines() if line.startswith("#")] or [heading])[-1]
            continue
        if "injected-parameters" in cell.metadata.get("tags", []):
            blocks.append("What was handed over for this page:")
        blocks.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            kind = next((kind for kind in PICTURES if kind in output.get("data", {})), None)
            if kind:
                pictures += 1
                picture = page.with_name(f"{page.stem}-{pictures}.{PICTURES[kind]}")
                content = output.data[kind]
                picture.write_bytes(base64.b64decode(content) if kind == "image/png" else content.encode())
                blocks.append(f"![{_alternative(output, heading)}]({picture.name})")
            else:
                blocks += as_html(output)
    gallery = notebook.parent / "outputs" / EXECUTED["train"]["run"] / "gallery.html"
    if page.stem == "gallery" and gallery.exists():
        shutil.copy(gallery, page.with_name("gallery-page.html"))
        blocks.append("[The page that this notebook wrote](gallery-page.html)")
    page.write_text("\n\n".join(blocks) + "\n")


def as_html(output: nbformat.NotebookNode) -> Iterator[str]:
    """What a cell printed or returned; widgets, which need a kernel, and the progress of long work are left out."""
    data = output.get("data", {})
    if WIDGET in data or output.get("name") == "stderr":
        return
    if "text/html" in data:
        shown = re.sub(r"\n\s*\n", "\n", data["text/html"])  # a blank line would end the block of HTML in Markdown
        yield f'<div class="output">{shown}</div>'
        return
    text = output.get("text") or data.get("text/plain", "")
    if text.strip():
        lines = html.escape(text.rstrip()).replace("\n\n", "\n&#8203;\n")
        yield f'<div class="output"><pre>{lines}</pre></div>'


def _alternative(output: nbformat.NotebookNode, heading: str) -> str:
    """A picture's own text, or else the heading it stands under."""
    own = output.get("metadata", {}).get("image/png", {}).get("alt")
    return (own or f"Figure: {heading.lstrip('# ')}").translate(str.maketrans("[]", "()"))


if __name__ == "__main__":
    main()
