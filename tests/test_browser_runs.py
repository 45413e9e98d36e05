"""The table of runs, used as people use it: JupyterLab in a headless Chromium."""

from dataclasses import replace

import pytest
from browser import needs_browser, opened, run_all

from notebooks import ROOT
from wsch_core import evaluate_run, fit, list_runs
from wsch_core.runs.notes import read_notes

pytestmark = [pytest.mark.browser, needs_browser]
MARKUP = "<img src=x onerror=document.title='hacked'>"
SAID = "text => document.querySelector('.runs-said').textContent.includes(text)"
ROWS = "count => document.querySelectorAll('.runs-table tbody tr').length === count"


def test_runs_are_filtered_chosen_noted_and_deleted(tiny, tiny_settings, tmp_path):
    short = replace(tiny_settings, bits=8, pretrain_epochs=1, epochs=1)
    runs = {f"seed{seed}": fit(replace(short, seed=seed), tiny, f"seed{seed}", callbacks=[]) for seed in (1, 2, 3)}
    for name in ("seed1", "seed2"):
        evaluate_run(runs[name], tiny, baselines=())
    with opened(ROOT / "notebooks" / "runs.ipynb", tmp_path / "lab") as page:
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        run_all(page)
        view = page.locator(".runs")
        page.wait_for_function(ROWS, arg=3)
        assert view.locator("tr.selected").count() == 2  # the evaluated ones, which the figures compare

        view.locator(".dt-search input").press_sequentially("seed2")
        page.wait_for_function(ROWS, arg=1)
        view.locator(".dt-search input").fill("")
        view.locator(".dt-search input").press("Backspace")
        page.wait_for_function(ROWS, arg=3)
        state = view.locator(".dt-scroll-foot input").nth(1)
        state.press_sequentially("finished")
        page.wait_for_function(ROWS, arg=1)
        view.locator(".runs-choose-none").click()
        page.wait_for_function("() => document.querySelectorAll('.runs-table tr.selected').length === 0")
        view.locator(".runs-table tbody tr").first.click()
        page.wait_for_function("() => document.querySelector('.runs-name input').value === 'seed3'")
        state.fill("")
        state.press("Backspace")
        page.wait_for_function(ROWS, arg=3)

        view.locator(".runs-tags input").fill("to show, good")
        view.locator(".runs-note input").fill(MARKUP)
        view.locator(".runs-keep").click()
        page.wait_for_function(SAID, arg="kept in seed3")
        assert read_notes(runs["seed3"]).tags == ("to show", "good")
        assert MARKUP in view.locator(".runs-table tbody").inner_text()
        assert view.locator("tr.selected").count() == 1

        view.locator(".runs-delete").click()
        page.wait_for_function(SAID, arg="Delete seed3 for good?")
        view.locator(".runs-yes-delete").click()
        page.wait_for_function(SAID, arg="deleted: seed3")
        page.wait_for_function(ROWS, arg=2)
        assert sorted(run.name for run in list_runs()) == ["seed1", "seed2"]

        for name in ("seed1", "seed2"):
            view.locator(".runs-table tbody tr:not(.selected)").filter(has_text=name).click()
        page.wait_for_function("() => document.querySelectorAll('.runs-lines pre').length === 2")
        view.locator(".runs-compare").click()
        page.wait_for_function("() => document.querySelectorAll('.runs-below img').length === 2")
        view.locator(".runs-gallery").click()
        view.locator(".runs-below .card").first.wait_for()
        assert page.title() != "hacked"
        assert not errors
