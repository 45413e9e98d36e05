"""The site: built of notebooks that someone has executed, and read in a headless Chromium."""

import base64
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urldefrag

import nbformat
import pytest
from browser import CHROMIUM, needs_browser

from notebooks import NOTEBOOKS, ROOT

pytestmark = [pytest.mark.browser, pytest.mark.slow, needs_browser]
DOT = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6364f8cf500f000e18018045"
        "8dcd1a0000000049454e44ae426082"
    )
).decode()


def build(executed: Path, site: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "book" / "build.py", "--executed", executed, "--site", site]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> Path:
    """All notebooks as they would be after a run that printed and drew little."""
    folder = tmp_path_factory.mktemp("executed")
    for source in NOTEBOOKS:
        notebook = nbformat.read(source, as_version=4)
        last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
        last.outputs = [
            nbformat.v4.new_output("stream", text="one line\n\n<b>another</b>"),
            nbformat.v4.new_output("display_data", {"image/png": DOT, "text/plain": "a figure"}),
            nbformat.v4.new_output("display_data", {"text/html": "<table><tr><td>cell</td></tr></table>"}),
            nbformat.v4.new_output("stream", name="stderr", text="progress"),
        ]
        nbformat.write(notebook, folder / source.name)
    return folder


@pytest.fixture(scope="module")
def site(executed, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(executed, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return folder


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


def test_every_page_stands_on_its_own(site, browser):
    """Opened from the folder, as a reader does: nothing fails, nothing comes from elsewhere, every link leads somewhere."""
    page, wrong = browser.new_page(), []
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(request.url))
    page.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else wrong.append(asked.url))
    pages = {path.as_uri() for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > len(NOTEBOOKS) + 8
    links, anchors = set(), set()
    for address in sorted(pages):
        page.goto(address, wait_until="networkidle")
        links |= set(page.eval_on_selector_all("a[href]", "all => all.map(one => one.href)"))
        anchors |= {f"{address}#{name}" for name in page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")}
        broken = "all => all.filter(one => !one.naturalWidth).map(one => one.src)"
        assert not page.eval_on_selector_all("article img", broken)
    assert not wrong
    inside = {link for link in links if link.startswith("file:")}
    files = {path.as_uri() for path in site.rglob("*") if path.is_file()}
    assert not [link for link in inside if urldefrag(link)[0] not in files]
    assert not [link for link in inside if urldefrag(link)[1] and link not in anchors]
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_in_light_and_dark(site, browser, scheme):
    page = browser.new_page(viewport={"width": 400, "height": 800}, color_scheme=scheme)
    for path in ("index.html", "api.html", "notebooks/train.html", "docs/plus.html"):
        page.goto((site / path).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, path
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    page.close()


def test_a_notebook_shows_what_it_printed_and_drew(site, browser):
    page = browser.new_page()
    page.goto((site / "notebooks" / "data.html").as_uri())
    assert page.locator(".output pre").last.inner_text().splitlines()[-1] == "<b>another</b>"
    assert page.locator("article img").last.get_attribute("alt") == "Figure: Verdict"
    assert page.locator(".output td").last.inner_text() == "cell"
    assert page.get_by_text("progress", exact=True).count() == 0
    page.close()


def test_the_interface_is_there_with_what_it_takes(site, browser):
    import wsch_core

    page = browser.new_page()
    page.goto((site / "api.html").as_uri())
    assert page.locator("article h2 .doc-object-name").all_inner_texts() == wsch_core.__all__
    assert page.locator("article li").filter(has_text="go on with the run of this name").count() == 1
    assert page.locator("article li").filter(has_text="b, length of the hash code").count() == 1
    page.close()


def test_the_search_finds_without_a_server(site, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto((site / "index.html").as_uri())
    page.locator(".md-search__input").click()
    page.keyboard.type("ternary")
    page.locator(".md-search-result__link").first.wait_for()
    page.close()


def test_a_link_that_leads_nowhere_ends_the_build(executed, tmp_path):
    copy = shutil.copytree(executed, tmp_path / "executed")
    notebook = nbformat.read(copy / "data.ipynb", as_version=4)
    notebook.cells[0].source += "\n\n[there](nowhere.md)"
    nbformat.write(notebook, copy / "data.ipynb")
    done = build(copy, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr
