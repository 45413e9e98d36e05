"""Sweeps as they are planned, carried out, stopped and taken up again."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
import sweeping
from dask.system import CPU_COUNT

from notebooks import PATIENCE, ROOT, code_cells, outputs, run_papermill
from wsch_core import evaluate_run, fit, load_run, settings_for
from wsch_core.experiments import sweep
from wsch_core.experiments.compare import mean_interval, paired_difference
from wsch_core.experiments.sweep import THREADS, _threads_per_run, _unchanged_environment, plan, run_sweep
from wsch_core.runs.outputs import list_runs
from wsch_core.storage.tensors import read_tensors

VARIANTS = {"published": {}, "joint": {"cycle": "centers, cluster+contrast"}}
SMALL = {
    "bits": 8, "pretrain_epochs": 1, "epochs": 1, "centers": 4, "encoder_width": 64, "decoder_width": 32,
    "device": "cpu", "precision": "float32",
}  # fmt: skip


def test_a_plan_goes_through_the_seeds_and_names_every_run(tiny):
    planned = plan(VARIANTS, [1, 2, 1], tiny, **SMALL)
    assert [(one.variant, one.settings.seed) for one in planned] == [
        ("published", 1), ("joint", 1), ("published", 2), ("joint", 2),
    ]  # fmt: skip
    assert len({one.run.name for one in planned}) == 4
    assert [one.passes for one in planned[:2]] == [1 + 3, 1 + 2]
    assert planned[1].settings == settings_for(tiny, **SMALL, seed=1, **VARIANTS["joint"])
    assert not any(one.found for one in planned)


def test_finished_runs_are_found_and_unfinished_ones_go_on_where_they_were(tiny):
    first, second = (one.settings for one in plan(VARIANTS, [1], tiny, **SMALL))
    evaluate_run(fit(first, tiny, name="mine", callbacks=[]), tiny, baselines=())
    fit(second, tiny, name="half", callbacks=[])
    planned = plan(VARIANTS, [1], tiny, **(SMALL | {"device": "auto"}))
    assert [(one.run.name, one.found) for one in planned] == [("mine", True), ("half", False)]
    assert planned[1].parameters["device"] == "cpu"
    told = []
    (done,) = run_sweep(planned[:1], Path("never made"), show=told.append)  # without a cluster: nothing is left to do
    assert done.state == "found"
    assert len(told) == 1
    assert not Path("never made").exists()


class Cluster:
    """Answers as a client whose workers stand on these hosts."""

    def __init__(self, *hosts: tuple[str, int]):
        self.hosts = hosts

    def run(self, function):
        return dict(enumerate(self.hosts))


def test_threads_are_shared_fairly():
    assert _threads_per_run(Cluster(("a", 2), ("a", 2))) == 1
    assert _threads_per_run(Cluster(("a", 8))) == 8
    assert _threads_per_run(Cluster(("a", 8), ("b", 4), ("b", 4))) == 2  # every run has the same number
    assert _threads_per_run(Cluster(("a", 2), ("a", 2), ("a", 2))) == 1


def test_the_environment_is_put_back(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with _unchanged_environment():
        os.environ |= dict.fromkeys(THREADS, "1")
        del os.environ["HOME"]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
    assert "HOME" in os.environ


def test_an_interrupt_waits_until_a_cluster_has_started_and_processes_begun_meanwhile_never_hear_of_it():
    seen = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    begun = []

    def interrupted():
        with sweep._interrupts_wait():
            os.kill(os.getpid(), signal.SIGINT)
            begun.append(subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True).stdout)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert begun == ["True\n"]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with sweep._interrupts_wait():
        pass


def test_a_scheduler_that_does_not_answer_is_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("wsch_core.experiments.sweep.SECONDS_FOR_A_CLUSTER", 1)
    planned = plan(VARIANTS, [1], tiny, **SMALL)
    with pytest.raises(ValueError, match=r"scheduler is 'tcp://127.0.0.1:9': no Dask scheduler with workers answers"):
        run_sweep(planned, tmp_path, scheduler="tcp://127.0.0.1:9")
    with pytest.raises(ValueError, match="workers is 0"):
        run_sweep(planned, tmp_path, workers=0)


def ablation(tmp_path, **own):
    """Execute the notebook; dictionaries reach it as YAML only. Returns the executed notebook and papermill's log."""
    out = tmp_path / "out.ipynb"
    parameters = {"dataset": "tiny", "variants": "joint", "bits": 8, "seeds": [1, 2], "epochs": 1, "own": own}
    parameters["common"] = {name: value for name, value in SMALL.items() if name not in parameters}
    command = [sys.executable, "-W", "ignore", "-m", "papermill", "--log-output", "--no-progress-bar"]
    command += ["ablation.ipynb", str(out), "-y", json.dumps(parameters)]
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    done = subprocess.run(
        command, cwd=ROOT / "notebooks", env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return nbformat.read(out, as_version=4), done.stderr


@pytest.mark.slow
def test_the_notebook_compares_variants_and_finds_them_again(tiny_folder, tmp_path):
    notebook, log = ablation(tmp_path, bad={"learning_rate": 10**30})
    folder = tmp_path / "outputs" / "ablation-tiny-8bits"
    runs = pd.read_csv(folder / "runs.csv")
    assert runs["state"].tolist() == ["done", "done", "failed"] * 2
    assert runs["error"].str.contains("FloatingPointError: the weights are not finite").sum() == 2
    for name in runs["run"]:
        assert (folder / f"{name}.ipynb").exists()
        assert load_run(name).settings.dataset == "tiny"
    check_numbers(folder, runs)
    assert {path.stem for path in (folder / "figures").glob("*.png")} == {"forest", "cycle"}
    assert {path.name for path in folder.glob("*.tex")} == {"comparison.tex", "cost.tex", "runs.tex"}
    shown = "".join(map(str, outputs(notebook)))
    assert "FloatingPointError" in shown
    assert "4 of 6 runs done, 2 failed" in shown
    assert sum("image/png" in output.get("data", {}) for output in outputs(notebook)) == 2
    sweep_cell = next(cell for cell in code_cells(notebook) if "run_sweep(" in cell.source)
    assert len(sweep_cell.outputs) == 1  # no wall of text, and no log of the runs' kernels
    assert "6 runs done" in log
    trained = {run.name: (run.folder / "history.jsonl").stat().st_mtime_ns for run in list_runs()}
    notebook, _ = ablation(tmp_path)
    assert pd.read_csv(folder / "runs.csv")["state"].tolist() == ["found"] * 4
    assert "4 of 4 runs done (4 found)" in "".join(map(str, outputs(notebook)))
    assert {run.name: (run.folder / "history.jsonl").stat().st_mtime_ns for run in list_runs()} == trained
    check_numbers(folder, pd.read_csv(folder / "runs.csv"))


def check_numbers(folder, runs):
    """What is told of the variants is what the runs' own metrics say."""
    values = {name: {} for name in runs["variant"]}
    for name, seed, run, state in runs[["variant", "seed", "run", "state"]].itertuples(index=False):
        if state != "failed":
            ours = load_run(run).metrics["methods"]["WSCH"]
            values[name][seed] = ours["expected"][ours["ks"].index(20)]
    told = pd.read_csv(folder / "comparison.csv").set_index("variant")
    for name, ours in values.items():
        expected = (*mean_interval([*ours.values()]), *paired_difference(ours, values["published"]))
        if name == "published":
            expected = (*expected[:2], np.nan, np.nan)
        found = told.loc[name, ["mAP@20", "± (95 %)", "difference", "difference ± (95 %)"]].astype(float)
        np.testing.assert_allclose(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"variant": "joint"}, "'variant' is not a known parameter: did you mean 'variants'?"),
        ({"variants": "jiont"}, "'jiont' is not a known variant: did you mean 'joint'?"),
        ({"k": 7}, "k is 7: it must be one of 5, 20"),
    ],
    ids=["misspelt", "unknown variant", "not measured"],
)
def test_the_notebook_refuses_at_once(tiny_folder, tmp_path, parameters, complaint):
    done = run_papermill(ROOT, "notebooks/ablation.ipynb", tmp_path / "out.ipynb", {"dataset": "tiny"} | parameters)
    assert done.returncode != 0
    assert complaint in done.stderr
    assert not list_runs()


def start_sweep(*arguments):
    """As from a terminal: with a process group of its own, which Ctrl-C reaches as a whole."""
    command = [sys.executable, str(Path(sweeping.__file__)), *arguments]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE)


def wait_until(holds):
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def passes_done():
    return [len(run.history) for run in list_runs()]


def weights():
    return {run.settings.cycle: read_tensors(run.folder / "weights.safetensors") for run in list_runs()}


def kernels_below(process):
    below = psutil.Process(process.pid).children(recursive=True)
    return [one for one in below if any("ipykernel" in word for word in one.cmdline())]


def hold_under_way(process, held):
    """Suspend each kernel whose run has done some passes: on a busy machine one may begin after the other has ended."""
    for run in list_runs():
        if len(run.history) > 3:
            for kernel in kernels_below(process):
                if any(Path(file.path).is_relative_to(run.folder) for file in kernel.open_files()):
                    kernel.suspend()
                    held[run.name] = kernel
    return len(held) == 2


def is_told_to_end(kernel):
    status = Path(f"/proc/{kernel.pid}/status").read_text()
    return bool(int(re.search(r"ShdPnd:\s*(\w+)", status).group(1), 16) & 1 << signal.SIGTERM - 1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_ctrl_c_ends_every_process_and_the_next_sweep_resumes(tiny_folder, tmp_path, monkeypatch):
    process, held = start_sweep(), {}
    try:
        wait_until(lambda: hold_under_way(process, held))
        below = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        wait_until(lambda: all(map(is_told_to_end, held.values())))
        for kernel in held.values():
            kernel.resume()
        _, errors = process.communicate(timeout=PATIENCE)
    finally:  # whatever went wrong, nothing stays suspended
        process.kill()
        for kernel in held.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                kernel.kill()
    told = "the sweep was stopped before 2 of 2 runs had ended: start it again, and they go on where they were."
    assert errors.rstrip().endswith(f"Interrupted: {told}")
    assert errors.count("Traceback") == 1  # of the one that was waiting, none of the workers
    assert "Warning" not in errors
    wait_until(lambda: not any(one.is_running() and one.status() != "zombie" for one in below))
    assert not any(run.finished for run in list_runs())
    stopped_at = passes_done()
    done, _ = start_sweep().communicate(timeout=PATIENCE)
    assert done.splitlines() == ["published done ", "joint done "]
    assert [len(run.history) for run in list_runs()] > stopped_at
    resumed = weights()
    monkeypatch.setenv("WSCH_OUTPUTS", str(tmp_path / "whole"))
    start_sweep().communicate(timeout=PATIENCE)
    for cycle, whole in weights().items():
        assert all(tensor.equal(resumed[cycle][name]) for name, tensor in whole.items())


@pytest.mark.slow
def test_an_existing_cluster_is_used_by_its_address_and_left_running(tiny_folder, tmp_path, monkeypatch):
    address_file = tmp_path / "scheduler.json"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WSCH_")} | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    }
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment, "cwd": tmp_path}
    dask = [sys.executable, "-m", "dask"]
    scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    worker = [*dask, "worker", "--nthreads", "2", "--no-dashboard", "--scheduler-file", str(address_file)]
    started = [subprocess.Popen([*scheduler, "--scheduler-file", str(address_file)], **quiet)]
    try:
        wait_until(address_file.exists)
        started.append(subprocess.Popen(worker, **quiet))
        done, errors = start_sweep(json.loads(address_file.read_text())["address"]).communicate(timeout=PATIENCE)
        assert done.splitlines() == ["published done ", "joint done "], errors
        assert [process.poll() for process in started] == [None, None]
        assert {run.record["threads"] for run in list_runs()} == {CPU_COUNT}  # one worker: all cores
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=PATIENCE)
