"""What the tests of all notebooks share: the files, their cells, and papermill as its users call it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PATIENCE = 900  # seconds until something hangs: what takes one on an idle machine may take many on a busy one
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SMALL = {
    "dataset": "tiny", "bits": 8, "pretrain_epochs": 1, "epochs": 1, "centers": 4, "encoder_width": 64,
    "decoder_width": 32, "device": "cpu",
}  # fmt: skip


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def as_options(parameters):
    return [word for name, value in parameters.items() for word in ("-p", name, str(value))]


def run_papermill(folder, notebook, out, parameters, options=()):
    """Papermill in a process of its own, started in `folder`, where `notebook` and `out` are looked for."""
    command = [sys.executable, "-W", "ignore", "-m", "papermill", "--log-output", "--no-progress-bar"]
    command += ["--start-timeout", str(PATIENCE)]
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    return subprocess.run(
        [*command, str(notebook), str(out), *as_options(parameters), *options],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
