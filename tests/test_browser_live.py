"""A run that is trained in JupyterLab: watched, stopped by its button, resumed; in a headless Chromium."""

import re

import pytest
from browser import errors, needs_browser, opened, set_source, start_all, wait_until

from notebooks import ROOT, SMALL
from wsch_core import load_run
from wsch_core.experiments.watch import watched

pytestmark = [pytest.mark.browser, needs_browser]
LONG = SMALL | {"pretrain_epochs": 60, "epochs": 10_000, "run": "live", "watch": 10}
PASSES = 60 + 10_000 * 3
STRIP = ".live-passes svg"


def done(page):
    """Passes that are over, as the strip says."""
    label = page.locator(STRIP).get_attribute("aria-label")
    return int(re.search(r"passes: ([\d,]+) of", label).group(1).replace(",", ""))


def stop(page):
    page.locator(".live-stop").click()
    wait_until(page, lambda: errors(page), failing=True)
    (sentence,) = errors(page)
    found = re.search(rf"run live was interrupted after (\d+) of {PASSES} passes: .* run = 'live' and resume", sentence)
    assert "To go on, set run = 'live' and resume = True" in page.locator(".live-said").inner_text()
    return int(found.group(1))


def test_a_run_is_watched_stopped_and_resumed(tiny_folder, tmp_path):
    with opened(ROOT / "notebooks" / "train.ipynb", tmp_path / "lab", LONG) as page:
        thrown = []
        page.on("pageerror", lambda error: thrown.append(str(error)))
        start_all(page)
        wait_until(page, page.locator(STRIP).count)
        first = done(page)
        wait_until(page, lambda: done(page) > first)
        numbers = page.locator(".live-numbers").inner_text()
        assert re.search(r"pass \d+ of 30060 · (pre-training|cycle) epoch \d+, .* videos/s · .* left", numbers)
        wait_until(page, page.locator(".live-losses").get_by_text("mAP@14, watched only").count)  # 14 in the database

        stopped = stop(page)
        run = load_run("live")
        assert first < stopped == len(run.history)
        assert run.checkpoints()[0].name == f"checkpoint-{stopped:06}.safetensors"
        assert not run.finished
        assert [line["pass"] + 1 for line in watched(run)] == [
            n for n in range(1, stopped + 1) if n % (10 if n <= 60 else 30) == 0
        ]

        parameters = "\n".join(f"{name} = {value!r}" for name, value in (LONG | {"resume": True}).items())
        set_source(page, "# Parameters", f"# Parameters\n{parameters}\n")
        start_all(page)
        wait_until(page, lambda: page.locator(STRIP).count() and done(page) > stopped)
        assert stop(page) > stopped
        assert [line["pass"] for line in run.history] == list(range(len(run.history)))
        assert not thrown
