"""The project around the code: pins, notebooks, light imports, the README's promises."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import pytest
from conftest import did_not_run

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!~\[ ;]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!+-]+", line) for line in lines)
    return {name_of(line): line.split("==")[1] for line in lines}


@pytest.mark.parametrize("requirement", [*PROJECT["dependencies"], *chain(*EXTRAS.values())])
def test_every_dependency_is_pinned_within_its_range(requirement):
    pinned = pins()[name_of(requirement)]
    lowest = requirement.split(">=")[1]
    as_numbers = [[int(part) for part in re.findall(r"\d+", text)[:3]] for text in (pinned, lowest)]
    assert as_numbers[0] >= as_numbers[1]
    assert version(name_of(requirement)).split("+")[0] == pinned


def test_the_version_is_told_everywhere_alike():
    told = re.findall(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE).group(1)
    assert [*told, newest] == [PROJECT["version"]] * 2


def test_torch_is_pinned_to_a_build_without_a_gpu():
    assert pins()["torch"] == "2.13.0"


def test_conda_users_get_the_same():
    text = (ROOT / "environment.yml").read_text()
    assert "--constraint constraints.txt" in text
    extras = re.search(r"--editable \.\[(.*)\]", text).group(1).split(",")
    assert set(extras) == set(EXTRAS)
    assert "python>=" + PROJECT["requires-python"].removeprefix(">=") in text
    listed = [line.strip().removeprefix("- ") for line in text.splitlines() if line.strip().startswith("- ")]
    assert {name_of(item) for item in listed if not item.startswith("--")} == {"conda-forge", "python", "pip", "pip:"}


def test_every_page_that_is_pointed_to_is_there():
    pages = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *(ROOT / place / "README.md" for place in ("data", "benchmarks")),
    ]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())]
    assert len(links) > 5
    assert not [(page, link) for page, link in links if not (page.parent / link).exists()]
    named = {
        name
        for kind in ("wsch_core/**/*.py", "notebooks/*.ipynb", "benchmarks/*.py")
        for path in ROOT.glob(kind)
        for name in re.findall(r"\bdocs/\w+\.md", path.read_text())
    }
    assert "docs/plus.md" in named
    assert not [name for name in named if not (ROOT / name).exists()]


def test_importing_the_core_stays_light():
    """No plotting, widget or scikit-learn import behind `import wsch_core`."""
    heavy = [
        "matplotlib",
        "seaborn",
        "pandas",
        "ipywidgets",
        "IPython",
        "sklearn",
        "scipy.sparse",
        "umap",
        "papermill",
        "faiss",
        "plotly",
        "dask",
        "distributed",
        "av",
        "transformers",
        "PIL",
    ]
    hide = "import sys; sys.modules['tqdm'] = None"  # torch loads it where it is installed, and does without it
    code = f"{hide}; import wsch_core; print([name for name in {heavy} if sys.modules.get(name)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_interface_is_what_it_says():
    import wsch_core

    assert all(getattr(wsch_core, name, None) is not None for name in wsch_core.__all__)


@pytest.mark.parametrize(
    "command", ["make demo", "make test", "make book", "papermill notebooks/train.ipynb", "constraints.txt"]
)
def test_the_readme_shows_the_commands(command):
    assert command in (ROOT / "README.md").read_text()


def test_the_readmes_python_example_works(tiny_folder, capsys):
    """As it stands there, but on the tiny set, whose definition brings settings of its own."""
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    assert len(example.splitlines()) <= 10
    with open(tiny_folder.parent / "tiny.toml", "a") as file:
        file.write("[settings]\nencoder_width = 64\ndecoder_width = 32\ncenters = 4\npretrain_epochs = 1\nepochs = 1\n")
    exec(example.replace('"demo"', '"tiny"').replace("bits=64", "bits=8"), {})
    assert "WSCH" in capsys.readouterr().out


def test_what_is_skipped_is_counted_by_what_it_needs():
    reasons = ["Skipped: needs Linux", "Skipped: needs a CUDA device", "Skipped: needs a CUDA device"]
    assert did_not_run(reasons) == "Tests that did not run: 3 (2: needs a CUDA device; 1: needs Linux)"
