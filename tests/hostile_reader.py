"""Reads broken files in a process of its own: started by tests/hostile.py, told what to read on standard input.

Each line is a folder and the names of readers; the answer says how each ended, what it took, and what else it touched.
Address space is limited, so that a file that makes Python ask for too much ends in an error here, not in a full machine.
"""

import gc
import json
import os
import resource
import sys
import time
import warnings
from pathlib import Path

import torch

from wsch_core import load_dataset, load_run, settings_for
from wsch_core.data.check import check_dataset
from wsch_core.experiments.reference import load_checkpoint
from wsch_core.experiments.report import metric_rows, text_table, verdict
from wsch_core.methods.wsch.method import WSCHMethod
from wsch_core.runs.outputs import create_run, find_run, list_runs
from wsch_core.show.figures.run import loss_curves
from wsch_core.show.maps.maps import _read
from wsch_core.training.checkpoint import restore_newest
from wsch_core.training.loop import new_state

ROOM = 2**30  # bytes of address space beyond what the imports took
RUNS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
    "pty.spawn",
)
torch.set_num_threads(1)


def features(hold):
    train = load_dataset("tiny", hold).train
    train.features.gather_sums(torch.tensor([0]))
    train.features.mean_pooled()
    return train.ids, train.fingerprint, train.keyframes([0, 20])


def checked(folder):
    return check_dataset(load_dataset("tiny")).verdict()


def resumed(folder):
    run = load_run("r")
    method = WSCHMethod(run.settings, 21, 10, 12)
    restore_newest(run, new_state(method, torch.device("cpu")), method)


def records(folder):
    run = load_run("r")
    _ = run.settings, run.finished, run.checkpoints()
    ks, rows = metric_rows(run)
    text_table(ks, rows), verdict(ks, rows)
    loss_curves(run.history)
    list_runs()
    find_run(run.settings, load_dataset("tiny").train.fingerprint)


def named(folder):
    """A name that came from elsewhere, used for a run and a data set."""
    name, use = json.loads((folder / "name.json").read_text())
    {"make": lambda: create_run(name, {}), "load": lambda: load_run(name), "data": lambda: load_dataset(name)}[use]()


READERS = {
    "published": lambda folder: load_checkpoint(folder / "published.pth"),
    "weights": lambda folder: load_run("r").model(),
    "resume": resumed,
    "memory": lambda folder: features("memory"),
    "disk": lambda folder: features("disk"),
    "check": checked,
    "query labels": lambda folder: load_dataset("tiny").query.labels,
    "database labels": lambda folder: load_dataset("tiny").database.labels,
    "codes": lambda folder: load_run("r").load_codes(),
    "definition": lambda folder: settings_for(load_dataset("tiny")),
    "records": records,
    "map": lambda folder: _read(folder / "map.h5", 14),
    "name": named,
}


class Watch:
    """What happens outside the folder that is being read."""

    def __init__(self):
        self.allowed, self.seen = None, []
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if self.allowed is None:
            return
        if event in RUNS:
            self.seen.append(f"{event} {arguments!r}"[:200])
        elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith(self.allowed):
                self.seen.append(f"open {path}")


def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field)) * 1024


def read(reader, folder, watch):
    os.environ |= {"WSCH_DATA": str(folder / "data"), "WSCH_OUTPUTS": str(folder / "outputs")}
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, start = status("VmRSS"), time.process_time()
    watch.allowed = (
        os.path.realpath(folder),
        sys.prefix,
        sys.base_prefix,
        str(Path(__file__).parents[1]),
        "/proc",
        "/sys",
    )
    kind, text = "", ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            READERS[reader](folder)
        except BaseException as error:  # whatever it is, the test judges it
            kind, text = ",".join(cls.__name__ for cls in type(error).__mro__), str(error)
    watch.allowed = None
    seconds = time.process_time() - start  # of computing, however busy the machine is
    told = [str(warning.message) for warning in caught if warning.category is RuntimeWarning]
    return {
        "reader": reader, "kind": kind, "text": text[:5000], "warned": told, "seconds": seconds,
        "grown": max(0, status("VmHWM") - before), "seen": [watch.seen.pop() for _ in range(len(watch.seen))],
    }  # fmt: skip


def main():
    good, watch = Path(sys.argv[1]), Watch()
    for reader in READERS:  # imports and first uses are not what is measured
        result = read(reader, good, watch)
        assert not result["kind"], result
    limit = status("VmSize") + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        answers = [read(reader, Path(asked["folder"]), watch) for reader in asked["readers"]]
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
