"""Many runs of the train notebook, on the workers of a Dask cluster: found if they were done, resumed if interrupted.

Each run is a papermill execution with its own executed notebook and its own run folder. All processes must see the same
files; on one machine that is so.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
import psutil
from dask.distributed import Client, Future, LocalCluster
from dask.system import CPU_COUNT

from ..data import Dataset
from ..methods import METHODS, method_of, settings_for
from ..runs.folder import Run
from ..runs.outputs import find_run, run_name
from ..storage.files import made_folder
from ..storage.paths import PROJECT, data_folder, outputs_folder
from ..training.loop import Interrupted
from .evaluation import is_evaluated
from .variants import PUBLISHED

TRAIN_NOTEBOOK = PROJECT / "notebooks" / "train.ipynb"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# A kernel's log would end up between the outputs of the notebook that waits for it.
KERNEL_LOG = ["--log-level=CRITICAL"]
SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_FOR_A_CLUSTER = 30
SECONDS_FOR_A_KERNEL = 600  # to start in: a busy machine takes its time


@dataclass(frozen=True)
class Planned:
    """One run of a sweep."""

    variant: str
    settings: Any  # of any method
    parameters: Mapping[str, Any]  # what the train notebook is given: the settings that are no defaults
    run: Run  # where it is, or will be
    found: bool  # it was there before, finished and evaluated: nothing is left to do
    passes: int  # of a whole run


@dataclass
class Progress:
    """How far a run of a sweep is."""

    planned: Planned
    state: str = "waiting"  # then "running", then "done", "failed" or "stopped"; or "found"
    passes_done: int = 0
    begun: float | None = None  # when it was first seen running, by time.monotonic()
    seconds: float = 0.0  # since then
    error: str = ""  # of a failed one: what stopped it, in one line


Show = Callable[[Sequence[Progress]], None]


def plan(
    variants: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    dataset: Dataset,
    prefix: str = "ablation",
    **common: Any,
) -> list[Planned]:
    """A run for every seed of every variant, seed by seed, so that early results already compare.

    variants: name -> the settings it changes, of another method with its name as "method"; common: settings that all share
    Runs are recognised by their settings and features, whatever they are called.
    """
    planned = []
    for seed in dict.fromkeys(seeds):
        for variant, changes in variants.items():
            parameters = {"recipe": PUBLISHED, **common, "seed": seed, **changes}
            settings = settings_for(dataset, **parameters)
            run = find_run(settings, dataset.train.fingerprint)
            if run is None:
                run = Run(outputs_folder() / run_name(f"{prefix}-{variant}", settings, dataset.train.fingerprint))
            else:
                parameters["device"] = run.settings.device  # one that is resumed goes on where it was
            parameters |= {"dataset": dataset.name, "run": run.name}
            method = METHODS[method_of(settings)](settings, len(dataset.train), dataset.frames, dataset.feature_size)
            planned.append(
                Planned(variant, settings, parameters, run, is_evaluated(run, dataset), len(method.passes()))
            )
    return planned


def run_sweep(
    planned: Sequence[Planned], folder: Path, workers: int = 2, scheduler: str = "", show: Show | None = None
) -> list[Progress]:
    """Carry out what is planned, and say how each run ended. A failing run does not stop the others.

    folder: of the executed notebooks, <run>.ipynb each
    workers: processes on this machine, which share its cores; scheduler: the address of a Dask cluster to use instead
    show: is given the progress of all runs every two seconds, and at the end

    Interrupted, it ends the runs that are under way, shows what was stopped, and raises Interrupted with a sentence; the
    next sweep resumes them.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}: it must be a whole number of at least 1.")
    progress = [Progress(one, "found" if one.found else "waiting") for one in planned]
    waiting = [one for one in progress if one.state == "waiting"]
    if waiting:
        made_folder(folder)
        for one in waiting:
            _executed(folder, one.planned).unlink(missing_ok=True)  # once it is back, the run has begun
        try:
            with cluster(min(workers, len(waiting)), scheduler) as client:
                _carry_out(client, waiting, progress, folder, show)
        except KeyboardInterrupt:
            for one in waiting:
                one.state = "stopped" if one.state in ("waiting", "running") else one.state
            if show:
                show(progress)
            stopped = sum(one.state == "stopped" for one in waiting)
            raise Interrupted(
                f"the sweep was stopped before {stopped} of {len(progress)} runs had ended: start it again, and they go on "
                "where they were."
            ) from None
    if show:
        show(progress)
    return progress


def _carry_out(
    client: Client, waiting: Sequence[Progress], progress: Sequence[Progress], folder: Path, show: Show | None
) -> None:
    environment = {"WSCH_DATA": str(data_folder()), "WSCH_OUTPUTS": str(outputs_folder())}
    environment |= dict.fromkeys(THREADS, str(_threads_per_run(client)))
    sweep = uuid.uuid4().hex
    futures = [
        client.submit(
            execute, sweep, str(TRAIN_NOTEBOOK), str(_executed(folder, one.planned)), dict(one.planned.parameters),
            str(one.planned.run.folder), environment, pure=False, retries=0, priority=-place,
        )
        for place, one in enumerate(waiting)
    ]  # fmt: skip
    try:
        while any(one.state in ("waiting", "running") for one in waiting):
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for one, future in zip(waiting, futures, strict=True):
                _look(one, future, folder)
            if show:
                show(progress)
    finally:
        client.cancel(futures)
        while any(client.run(stop, sweep).values()):  # what a worker has begun, cancelling does not end
            time.sleep(0.5)


def _look(one: Progress, future: Future, folder: Path) -> None:
    """Bring the progress of one run up to date."""
    if one.state in ("done", "failed"):
        return
    if future.status == "finished":
        one.error = future.result()
    elif future.status in ("error", "lost", "cancelled"):
        one.error = _one_line(future.exception() if future.status == "error" else "its worker was lost")
    if future.done():
        one.state = "failed" if one.error else "done"
    elif _executed(folder, one.planned).exists():
        one.state = "running"
    if one.state != "waiting":
        one.begun = one.begun or time.monotonic()
        one.seconds = time.monotonic() - one.begun
        one.passes_done = _count_passes(one.planned.run)


def _executed(folder: Path, planned: Planned) -> Path:
    return folder / f"{planned.run.name}.ipynb"


def _count_passes(run: Run) -> int:
    try:
        return (run.folder / "history.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:  # it has only just begun
        return 0


@contextlib.contextmanager
def cluster(workers: int, scheduler: str) -> Iterator[Client]:
    """A client of the cluster at an address, or of one of its own, which ends with the block."""
    if scheduler:
        try:
            client = Client(scheduler, timeout=SECONDS_FOR_A_CLUSTER)
            client.wait_for_workers(1, timeout=SECONDS_FOR_A_CLUSTER)
        except (OSError, ValueError, TimeoutError) as error:
            raise ValueError(
                f"scheduler is {scheduler!r}: no Dask scheduler with workers answers there ({_one_line(error)}); start it, "
                'or leave scheduler "" to use this machine.'
            ) from error
        with client:
            yield client
        return
    options = {"threads_per_worker": 1, "dashboard_address": ":0", "memory_limit": 0, "silence_logs": "ERROR"}
    with contextlib.ExitStack() as stack:
        with _interrupts_wait(), _unchanged_environment():  # making a cluster sets thread counts, also for this process
            local = stack.enter_context(LocalCluster(n_workers=workers, **options))
        yield stack.enter_context(Client(local))


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Ctrl-C reaches all processes of a terminal or a kernel: those that begin inside the block never hear of it, and this
    one, which shall act on it, does so when the block has ended."""
    if threading.current_thread() is not threading.main_thread():  # which alone is interrupted
        yield
        return
    resource_tracker.ensure_running()  # started with the first worker, it would let interrupts through to all of them
    asked = []
    former = signal.signal(signal.SIGINT, lambda *_: asked.append(True))
    former_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # handed down to what begins here
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former_mask)
        signal.signal(signal.SIGINT, former)
    if asked:
        raise KeyboardInterrupt


def _threads_per_run(client: Client) -> int:
    """The cores of a machine divided by its workers; the least of all machines, so that every run has the same."""
    cores = client.run(_host_and_cores)
    hosts = [host for host, _ in cores.values()]
    return max(1, min(count // hosts.count(host) for host, count in cores.values()))


def _host_and_cores() -> tuple[str, int]:
    return socket.gethostname(), CPU_COUNT


# What follows runs in the workers.

_one_at_a_time = threading.Lock()  # a notebook's process takes its environment from the worker's
_sweeps = {"running": "", "stopped": ""}  # the sweep whose notebook this worker executes; the last one that was stopped


def execute(
    sweep: str, notebook: str, executed: str, parameters: dict[str, Any], run: str, environment: dict[str, str]
) -> str:
    """Execute a notebook by papermill; resumed if its run folder is there. Returns "" or, in one line, what stopped it."""
    import papermill

    papermill.log.logger.setLevel("CRITICAL")  # what goes wrong is returned; unlisted settings are no reason to warn
    with _one_at_a_time, _unchanged_environment():
        if _sweeps["stopped"] == sweep:
            return "stopped"
        _sweeps["running"] = sweep
        for name in dask.config.get("distributed.nanny.pre-spawn-environ"):
            # Made for Dask's own work: its MALLOC_TRIM_THRESHOLD_ made a sweep spend 349 instead of 21 s in the system.
            os.environ.pop(name, None)
        os.environ.update(environment)
        parameters["resume"] = (Path(run) / "settings.json").exists()
        try:
            papermill.execute_notebook(
                notebook,
                executed,
                parameters,
                progress_bar=False,
                start_timeout=SECONDS_FOR_A_KERNEL,
                extra_arguments=KERNEL_LOG,
            )  # fmt: skip
        except papermill.PapermillExecutionError as error:
            return _one_line(f"{error.ename}: {error.evalue}")
        except Exception as error:  # a kernel that died, a full disk: told in the table, as every other reason
            return _one_line(error)
        finally:
            _sweeps["running"] = ""
    return ""


def stop(sweep: str) -> bool:
    """End the kernel of a sweep that is over. Returns whether this worker still executes one of its notebooks."""
    _sweeps["stopped"] = sweep
    if _sweeps["running"] != sweep:
        return False
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it has ended by itself
            if any("ipykernel" in word for word in process.cmdline()):
                process.terminate()
    return True


@contextlib.contextmanager
def _unchanged_environment() -> Iterator[None]:
    former = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - former.keys():
            del os.environ[name]
        os.environ.update(former)


def _one_line(error: object) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, BaseException):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text[:500]
