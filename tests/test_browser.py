"""The widgets, used as people use them: JupyterLab in a headless Chromium."""

import csv

import h5py
import numpy as np
import pytest
from browser import needs_browser, opened, run_all
from conftest import FRAMES, TINY, VIDEOS

from notebooks import ROOT
from wsch_core import Settings, evaluate_run, fit, load_dataset

pytestmark = [pytest.mark.browser, needs_browser]
MARKUP = "<img src=x onerror=document.title='hacked'>"


@pytest.fixture
def run(tiny_folder):
    definition = tiny_folder.parent / "tiny.toml"
    definition.write_text(definition.read_text().replace('"ant"', f'"{MARKUP}"'))
    for name, videos in VIDEOS.items():
        with h5py.File(tiny_folder / f"{name}.h5", "r+") as file:
            file["keyframes"] = np.random.default_rng(0).integers(0, 255, (videos, FRAMES, 8, 8), np.uint8)
    tiny = load_dataset("tiny")
    run = fit(Settings(**TINY | {"bits": 8}), tiny, "shown", callbacks=[])
    evaluate_run(run, tiny, baselines=())
    return run


def shown(page):
    return page.locator(".gallery")


def test_the_gallery_answers(run, tmp_path):
    with opened(ROOT / "notebooks" / "gallery.ipynb", tmp_path / "lab", {"run": "shown", "k": 4}) as page:
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        run_all(page)
        gallery = shown(page)
        gallery.locator(".card").first.wait_for()
        assert gallery.locator(".card").count() == 4
        assert gallery.locator(".query .name").first.inner_text() == "query/0"
        assert MARKUP in gallery.locator(".query .labels").inner_text()

        clicked = gallery.locator(".card .name").nth(2).inner_text()
        gallery.locator(".card .frame").nth(1).click()
        page.wait_for_function("id => document.querySelector('.gallery .query .name').textContent === id", arg=clicked)
        gallery.locator(".gallery-back").click()
        page.wait_for_function("() => document.querySelector('.gallery .query .name').textContent === 'query/0'")

        gallery.locator(".gallery-k .noUi-handle").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("() => document.querySelectorAll('.gallery .card').length === 5")
        gallery.locator(".gallery-only-misses input").check()
        page.wait_for_function("() => !document.querySelector('.gallery .card.hit')")
        gallery.locator(".gallery-codes input").check()
        page.wait_for_function("() => document.querySelector('.gallery .card .code mark')")

        ticked = gallery.locator(".card .name").nth(0).inner_text()
        gallery.locator(".card .choose").first.check()
        gallery.locator(".gallery-export").click()
        page.wait_for_function("() => document.querySelector('.gallery-said').textContent.includes('1 rows in')")
        (row,) = csv.DictReader((run.folder / "gallery" / "query_0.csv").read_text().splitlines())
        assert row["id"] == ticked
        assert page.title() != "hacked"
        assert not errors


def test_a_cell_that_fails_is_noticed(run, tmp_path):
    lab = opened(ROOT / "notebooks" / "gallery.ipynb", tmp_path / "lab", {"run": "unknown"})
    with lab as page, pytest.raises(AssertionError, match="'unknown' is not a known run"):
        run_all(page)


def test_the_map_answers(run, tmp_path):
    with opened(ROOT / "notebooks" / "umap.ipynb", tmp_path / "lab", {"run": "shown", "neighbours": 4}) as page:
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        run_all(page)
        view = page.locator(".map-view")
        canvas = view.locator(".sheet canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()

        def at(x, y):
            return box["x"] + x * box["width"], box["y"] + y * box["height"]

        def found():
            page.wait_for_timeout(60)
            return view.locator(".detail .name").first.inner_text().startswith("database/")

        pointed = ((x / 40, y / 40) for y in range(1, 40) for x in range(1, 40))
        assert any(page.mouse.move(*at(*place)) or found() for place in pointed)
        page.mouse.move(*at(0.01, 0.01))
        page.mouse.down()
        for corner in ((0.99, 0.01), (0.99, 0.99), (0.01, 0.99), (0.01, 0.02)):
            page.mouse.move(*at(*corner), steps=4)
        page.mouse.up()
        page.wait_for_function(
            "() => document.querySelector('.map-said').textContent.includes('14 of 14 videos chosen')"
        )
        view.locator(".group").first.click()
        assert view.locator(".group").first.get_attribute("aria-pressed") == "false"
        view.locator(".map-export").click()
        page.wait_for_function("() => document.querySelector('.map-said').textContent.includes('maps/chosen.csv')")
        rows = list(csv.DictReader((run.folder / "maps" / "chosen.csv").read_text().splitlines()))
        assert sorted(row["id"] for row in rows) == sorted(f"database/{number}" for number in range(14))
        view.locator(".map-open").click()
        view.locator(".card").first.wait_for()
        assert MARKUP in view.locator(".groups").inner_text()
        assert page.title() != "hacked"
        assert not errors
