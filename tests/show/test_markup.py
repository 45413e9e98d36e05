"""Labels, ids and titles that are markup show as text: in executed notebooks, their HTML, the page, JupyterLab."""

import json

import h5py
import numpy as np
import pytest
from browser import CHROMIUM, needs_browser, opened, run_all
from conftest import DEFINITION, FRAMES, VIDEOS, write_split
from nbconvert import HTMLExporter

from notebooks import ROOT, SMALL, run_papermill

pytestmark = [pytest.mark.slow, pytest.mark.browser, needs_browser]
MARKUP = "<img src=x onerror=\"document.title='hacked'\">"
RUN = {"run": "small"}
PARAMETERS = {
    "train": SMALL | RUN, "gallery": RUN | {"k": 4}, "umap": RUN | {"neighbours": 4}, "data": {"dataset": "tiny"},
}  # fmt: skip
PLANTED = "() => document.querySelectorAll('img[src=\"x\"], [onerror]').length"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """All four notebooks executed on a set of which every text is markup: the folder of their copies."""
    folder = tmp_path_factory.mktemp("markup")
    place = folder / "data" / "tiny"
    place.mkdir(parents=True)
    for seed, (name, videos) in enumerate(VIDEOS.items(), start=1):
        write_split(place, name, videos, seed)
        with h5py.File(place / f"{name}.h5", "r+") as file:
            file["ids"] = [f"{MARKUP}{name}/{row}" for row in range(videos)]
            file["keyframes"] = np.random.default_rng(0).integers(0, 255, (videos, FRAMES, 8, 8), np.uint8)
    text, planted = DEFINITION, json.dumps(MARKUP)
    for old in ("ant", "bee", "cat"):
        text = text.replace(f'"{old}"', json.dumps(f"{MARKUP} {old}"))
    published = f"published = [{{ bits = 8, map = [{'0.1, ' * 6}], method = {planted}, source = {planted} }}]\n"
    text = text.replace('title = "Tiny"', f"title = {planted}\nabout = {planted}\n{published}")
    (folder / "data" / "tiny.toml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSCH_DATA", str(folder / "data"))
        patch.setenv("WSCH_OUTPUTS", str(folder / "outputs"))
        for name, parameters in PARAMETERS.items():
            done = run_papermill(ROOT, f"notebooks/{name}.ipynb", folder / f"{name}.ipynb", parameters)
            assert done.returncode == 0, done.stderr
        yield folder


@pytest.fixture
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def assert_harmless(page):
    page.wait_for_timeout(500)  # for a handler to run
    assert page.evaluate(PLANTED) == 0
    assert page.title() != "hacked"


def test_the_check_notices_markup_that_is_not_escaped(browser, tmp_path):
    (tmp_path / "bad.html").write_text(f"<title>good</title>{MARKUP}")
    page = browser.new_page()
    page.goto((tmp_path / "bad.html").as_uri())
    page.wait_for_function("() => document.title === 'hacked'")
    with pytest.raises(AssertionError):
        assert_harmless(page)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_html_of_an_executed_notebook(hostile, browser, name):
    path = hostile / f"{name}.html"
    body, _ = HTMLExporter().from_filename(str(hostile / f"{name}.ipynb"))
    assert "&lt;img src=x" in body  # it is shown, as text
    path.write_text(body)
    page = browser.new_page()
    page.goto(path.as_uri(), wait_until="domcontentloaded")
    assert_harmless(page)


def test_the_gallerys_page(hostile, browser):
    page = browser.new_page()
    page.goto((hostile / "outputs" / "small" / "gallery.html").as_uri())
    assert_harmless(page)
    assert "<img src=x" in page.inner_text("body")


def test_what_a_run_leaves_is_escaped_or_no_html(hostile):
    left = [path.suffix for path in (hostile / "outputs").rglob("*") if path.is_file()]
    assert set(left) <= {".json", ".jsonl", ".safetensors", ".h5", ".png", ".html", ".lock", ""}
    assert left.count(".html") == 1


@pytest.mark.parametrize("name", PARAMETERS)
def test_an_executed_notebook_in_jupyterlab(hostile, tmp_path, name):
    with opened(hostile / f"{name}.ipynb", tmp_path) as page:
        assert_harmless(page)


@pytest.mark.parametrize("name", ["data", "gallery"])
def test_a_notebook_run_in_jupyterlab(hostile, tmp_path, name):
    """What a session has computed itself, JupyterLab trusts."""
    with opened(ROOT / "notebooks" / f"{name}.ipynb", tmp_path, PARAMETERS[name]) as page:
        run_all(page)
        assert_harmless(page)
        if name == "gallery":
            assert MARKUP in page.locator(".gallery .query .labels").inner_text()
