"""Files of runs and data sets, damaged at random: every reader gives an answer, or says in a sentence why not."""

import random
import re
import shutil
import time
import warnings
from pathlib import Path

import pytest
from measured import measured, taking

from wsch_core import evaluate_run, fit, load_dataset, load_run
from wsch_core.data.check import check_dataset
from wsch_core.experiments import report
from wsch_core.experiments.evaluation import is_evaluated
from wsch_core.experiments.repeat import complete_run
from wsch_core.runs.outputs import find_run
from wsch_core.show.figures.run import loss_curves
from wsch_core.show.gallery.gallery import Gallery, methods_for

NUMBERS = (b"-1", b"0", b"1e999", b"NaN", b"null", b'"a"', b"99999999999999999999", b"true", b"[]", b"{}", b"0.5")
WORDS = (b"", b"x" * 5000, b"weights", b"\0", b"features", b"\xff\xfe")
SECONDS = 10  # of computing, for any reader


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Bits flipped; bytes replaced, taken out, put in, cut off or repeated; a number or a word replaced."""
    at, count = draw.randrange(len(content)), draw.choice((1, 1, 1, 2, 4, 8, 64))
    noise = draw.randbytes(count)
    kind = draw.randrange(8)
    if kind == 0:
        flipped = bytearray(content)
        for _ in range(count):
            flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        return bytes(flipped)
    if kind == 1:
        return content[:at] + noise + content[at + count :]
    if kind == 2:
        return content[:at] + content[at + count :]
    if kind == 3:
        return content[:at] + noise + content[at:]
    if kind == 4:
        return content[:at]
    if kind == 5:
        return content[:at] + content[draw.randrange(len(content)) :][:200] + content[at:]
    places = list(re.finditer(rb"\d+(\.\d+)?" if kind == 6 else rb"[A-Za-z_]{3,}", content))
    if not places:
        return content[:at]
    place = draw.choice(places)
    return content[: place.start()] + draw.choice(NUMBERS if kind == 6 else WORDS) + content[place.end() :]


def readers_of_runs(settings, data):
    run = load_run("r")
    return {
        "what it is": lambda: (run.finished, run.evaluated, run.unfinished, run.title, run.weights),
        "network": run.model,
        "codes": lambda: (run.load_codes(), run.stored_codes(data.database)),
        "newest": load_run,
        "find": lambda: find_run(settings, data.train.fingerprint),
        "evaluated": lambda: is_evaluated(run, data),
        "report": lambda: report.main(["r"]),
        "curves": lambda: loss_curves(run.history),
        "gallery": lambda: Gallery(data, methods_for(run, data)),
        "resume": lambda: fit(settings, data, name="r", callbacks=[], resume=True),
        "complete": lambda: complete_run(settings, data, callbacks=[], baselines=()),
    }


def readers_of_data():
    def look(hold):
        for split in load_dataset("tiny", hold).splits.values():
            _ = split.fingerprint, split.labels, split.features, split.keyframes([0])

    return {
        "memory": lambda: look("memory"),
        "disk": lambda: look("disk"),
        "check": lambda: check_dataset(load_dataset("tiny")).verdict(),
    }


def complaint(act) -> str:
    """What is wrong with how a reader ends; "" if nothing is."""
    start = time.process_time()
    try:
        act()
    except (OSError, ValueError, SystemExit) as error:
        if isinstance(error, UnicodeError) or not re.fullmatch(r"[^\n]{10,900}[.:]", str(error)):
            return f"{type(error).__name__}: {error}"
    except Exception as error:
        return f"raw {type(error).__name__}: {error}"
    taken = time.process_time() - start
    return f"took {taken:.1f} s" if taken > SECONDS else ""


@pytest.mark.parametrize("files", [6, pytest.param(150, marks=pytest.mark.slow)])
def test_ends_in_an_answer_or_a_sentence(tiny_folder, tiny_settings, tmp_path, files, capsys):
    data, draw, wrong, reads = load_dataset("tiny"), random.Random(files), {}, 0
    evaluate_run(fit(tiny_settings, data, "r", callbacks=[]), data, baselines=())
    outputs, good = tmp_path / "outputs", tmp_path / "good"
    shutil.copytree(outputs, good)
    of_runs = sorted(path for path in good.rglob("*") if path.is_file() and path.stat().st_size)
    of_data = sorted(path for path in tiny_folder.parent.rglob("*") if path.is_file() and ".cache" not in path.parts)
    warnings.simplefilter("ignore", RuntimeWarning)  # of a damaged checkpoint before the one that is used
    with taking() as taken:
        for number in range(files):
            path: Path = draw.choice(of_runs if number % 3 else of_data)
            shutil.rmtree(outputs)
            shutil.copytree(good, outputs)
            victim = outputs / path.relative_to(good) if path.is_relative_to(good) else path
            whole = victim.read_bytes()
            victim.write_bytes(damaged(whole, draw))
            for name, act in (readers_of_data() if victim == path else readers_of_runs(tiny_settings, data)).items():
                reads += 1
                if found := complaint(act):
                    wrong[f"{number}, {victim.name}, {name}"] = found
            victim.write_bytes(whole)
    measured("damage", f"{files} files damaged at random", reads=reads, wrong=len(wrong), seconds=taken["seconds"])
    assert not wrong, "\n".join(f"{name}: {found}" for name, found in wrong.items())
