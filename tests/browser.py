"""JupyterLab in a headless Chromium: a copy of a notebook, opened and run as its users do it.

    with opened(ROOT / "notebooks" / "gallery.ipynb", tmp_path, {"run": "small"}) as page:
        run_all(page)
        page.locator(".some-class").click()

`page` is playwright's. Servers, settings and the notebook's copy live in the folder given, and end with the block.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TOKEN = "t"  # the server listens on this machine alone, for as long as a test lasts
SECONDS = 600  # for the server to start, and for a notebook to run: the machine may be busy

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)")

SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight are there as well
}
FOLDERS = (
    "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR",
    "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR",
)  # fmt: skip
KERNEL_IS_READY = """() => {
    const session = window.jupyterapp?.shell.currentWidget?.sessionContext?.session
    return session?.kernel?.connectionStatus === 'connected' && session.kernel.status === 'idle'
}"""
ALL_CELLS_HAVE_RUN = """() => {
    const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]
    return prompts.length > 0 && prompts.every(prompt => /^\\[\\d+\\]:$/.test(prompt.textContent))
}"""
ERRORS = """() => {
    const cells = window.jupyterapp.shell.currentWidget.content.model.cells
    return [...cells].flatMap(cell => cell.type === 'code' ? cell.outputs.toJSON() : [])
        .filter(output => output.output_type === 'error').map(output => output.traceback.join('\\n'))
}"""


@contextmanager
def opened(notebook: Path, folder: Path, parameters: Mapping | None = None, theme: str = "Light") -> Iterator:
    """A copy of a notebook in JupyterLab, its kernel ready and no cell run yet: playwright's page.

    folder: an empty folder for the copy and for everything the server writes
    parameters: handed over as papermill does; theme: "Light" or "Dark"
    The kernel sees the environment variables of the caller.
    """
    from playwright.sync_api import sync_playwright

    copy = load_notebook_node(str(notebook))
    copy = parameterize_notebook(copy, dict(parameters), language="python") if parameters else copy
    root = folder / "lab"
    root.mkdir(parents=True)
    nbformat.write(copy, root / notebook.name)
    with _server(root, folder / "jupyter", theme) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(SECONDS * 1000)
        page.goto(f"{address}/doc/tree/{notebook.name}?token={TOKEN}&reset")
        page.wait_for_function(KERNEL_IS_READY)
        try:
            yield page
        finally:
            browser.close()


def run_all(page, seconds: float = SECONDS) -> None:
    """Run all cells, and wait until the last has ended; a cell that fails is an AssertionError with its text."""
    start_all(page)
    wait_until(page, lambda: page.evaluate(ALL_CELLS_HAVE_RUN), seconds)


def start_all(page) -> None:
    """Run all cells, and do not wait."""
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")


def wait_until(page, holds: Callable[[], object], seconds: float = SECONDS, failing: bool = False) -> None:
    """Wait until something holds; a cell that fails before, unless that is expected, is an AssertionError with its text."""
    end = time.monotonic() + seconds
    while not holds():
        assert failing or not (failed := errors(page)), failed[0]
        assert time.monotonic() < end, f"waited in vain for {seconds} seconds"
        page.wait_for_timeout(100)
    assert failing or not (failed := errors(page)), failed[0]


def errors(page) -> list[str]:
    """What cells have failed with, as it is shown."""
    return page.evaluate(ERRORS)


def set_source(page, word: str, source: str) -> None:
    """Type anew the first cell that holds a word."""
    cells = "[...window.jupyterapp.shell.currentWidget.content.model.cells]"
    page.evaluate(
        f"([word, source]) => {cells}.find(cell => cell.sharedModel.source.includes(word)).sharedModel.setSource(source)",
        [word, source],
    )


def screenshot(page, path: Path, height: int = 4000) -> Path:
    """All of the notebook in one picture, if it is no taller than `height` pixels."""
    before = page.viewport_size
    page.set_viewport_size({"width": before["width"], "height": height})
    page.wait_for_timeout(300)
    page.screenshot(path=path)
    page.set_viewport_size(before)
    return path


@contextmanager
def _server(root: Path, scratch: Path, theme: str) -> Iterator[str]:
    """JupyterLab on a free port, until the block ends."""
    environment = os.environ | {name: str(scratch / name.lower()) for name in FOLDERS}
    settings = SETTINGS | {"apputils-extension/themes": {"theme": f"JupyterLab {theme}"}}
    for name, content in settings.items():
        path = Path(environment["JUPYTERLAB_SETTINGS_DIR"], "@jupyterlab", f"{name}.jupyterlab-settings")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-W", "ignore", "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={root}", "--LabApp.expose_app_in_browser=True",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    log_path = scratch / "server.log"
    with log_path.open("wb") as log:
        server = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/api", server, log_path)
            yield address
        finally:
            _end(server)


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + SECONDS
    while True:
        alive = server.poll() is None and time.monotonic() < end
        assert alive, f"no JupyterLab: {log.read_text()[-2000:]}"
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)


def _end(server: subprocess.Popen) -> None:
    """Let the server end its kernels; what is left after ten seconds ends with its process group."""
    server.terminate()
    try:
        server.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
