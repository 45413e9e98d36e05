"""The notebooks as they are committed, and as they run."""

import json

import nbformat
import pandas as pd
import papermill
import pytest

from notebooks import NOTEBOOKS, ROOT, SMALL, code_cells, outputs, run_papermill


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestSources:
    def test_holds_no_outputs_and_no_trace_of_papermill(self, path):
        notebook = nbformat.read(path, as_version=4)
        assert notebook.metadata.kernelspec.name == "python3"
        assert "papermill" not in notebook.metadata
        for cell in code_cells(notebook):
            assert not cell.outputs
            assert cell.execution_count is None
            assert "injected-parameters" not in cell.metadata.get("tags", [])

    def test_has_one_title_one_cell_of_parameters_and_short_cells(self, path):
        notebook = nbformat.read(path, as_version=4)
        assert sum("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells) == 1
        titles = [line for cell in notebook.cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
        assert sum(line.startswith("# ") for line in titles) == 1
        for cell in code_cells(notebook):
            assert len(cell.source.splitlines()) <= 15
            assert not any(word in cell.source for word in ("!pip", "sys.path", "\nclass ", str(ROOT)))

    def test_papermill_reads_every_parameter_and_its_help(self, path):
        found = papermill.inspect_notebook(str(path))
        cell = next(c for c in nbformat.read(path, as_version=4).cells if "parameters" in c.metadata.get("tags", []))
        assert len(found) == len(cell.source.splitlines())
        assert all(entry["help"] for entry in found.values())


@pytest.fixture
def executed(tiny_folder, tmp_path):
    """The train notebook, executed on the tiny set from the notebooks' own folder."""
    out = tmp_path / "out.ipynb"
    done = run_papermill(ROOT / "notebooks", "train.ipynb", out, SMALL | {"run": "small"})
    assert done.returncode == 0, done.stderr
    return done, nbformat.read(out, as_version=4), tmp_path / "outputs" / "small"


@pytest.mark.slow
def test_train_runs_and_keeps_everything(executed):
    done, notebook, folder = executed
    figures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert figures == {"losses", "map", "radius", "code_health", "retrieved"}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics["methods"]) == ["WSCH", "LSH", "PCAH", "ITQ"]
    shown = "".join(map(str, outputs(notebook)))
    assert f"{metrics['methods']['WSCH']['expected'][0]:.3f}" in shown
    assert f"{metrics['real_valued'][0]:.3f}" in shown
    assert sum("image/png" in output.get("data", {}) for output in outputs(notebook)) == 7
    assert "videos/s" in done.stderr  # progress reaches papermill's log
    training = next(cell for cell in code_cells(notebook) if "fit(" in cell.source)
    assert len("".join(output.get("text", "") for output in training.outputs).splitlines()) == 1


@pytest.mark.slow
def test_train_gives_what_python_gives(executed, tiny, tmp_path):
    from wsch_core import evaluate_run, fit, load_run, settings_for
    from wsch_core.storage.tensors import read_tensors

    _, _, folder = executed
    settings = load_run("small").settings
    chosen = {name: value for name, value in SMALL.items() if name != "dataset"}
    assert settings == settings_for(tiny, **chosen)
    run = fit(settings, tiny, name="python", callbacks=[])
    ours, theirs = (read_tensors(place / "weights.safetensors") for place in (run.folder, folder))
    assert all(ours[name].equal(theirs[name]) for name in ours)
    results, stored = evaluate_run(run, tiny), load_run("small").load_codes()
    assert all(stored[name][0].equal(codes) for name, codes in results.codes.items())
    assert run.load_codes()["query"][1] == stored["query"][1]
    assert run.metrics == load_run("small").metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"bitz": 32}, "'bitz' is not a known parameter: did you mean 'bits'?"),
        ({"bits": 0}, "bits is 0: it must be a whole number of at least 1"),
        ({"recipe": "pluss"}, "'pluss' is not a known recipe: did you mean 'plus'?"),
        ({"dataset": "tinny"}, "'tinny' is not a known data set: did you mean 'tiny'?"),
    ],
    ids=["misspelt", "bad value", "unknown recipe", "unknown data set"],
)
def test_train_refuses_at_once(tiny_folder, tmp_path, parameters, complaint):
    done = run_papermill(ROOT, "notebooks/train.ipynb", tmp_path / "out.ipynb", SMALL | {"run": "small"} | parameters)
    assert done.returncode != 0
    assert complaint in done.stderr
    assert not (tmp_path / "outputs" / "small").exists()


@pytest.mark.slow
def test_train_takes_another_method(tiny_folder, tmp_path):
    chosen = {
        "dataset": "tiny",
        "method": "bth",
        "bits": 8,
        "pretrain_epochs": 1,
        "epochs": 2,
        "anchors": 8,
        "device": "cpu",
    }
    out = tmp_path / "out.ipynb"
    done = run_papermill(ROOT, "notebooks/train.ipynb", out, chosen | {"run": "small"})
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs" / "small"
    assert list(json.loads((folder / "metrics.json").read_text())["methods"]) == ["BTH", "LSH", "PCAH", "ITQ"]
    assert {path.stem for path in (folder / "figures").glob("*.png")} >= {"losses", "map", "retrieved"}
    done = run_papermill(ROOT, "notebooks/train.ipynb", out, chosen | {"run": "other", "centers": 4})
    assert done.returncode != 0
    assert "centers is a setting of WSCH, which BTH does not have" in done.stderr
    assert not (tmp_path / "outputs" / "other").exists()


@pytest.mark.slow
def test_compare_trains_every_method_and_writes_what_it_shows(tiny_folder, tmp_path):
    small = {name: value for name, value in SMALL.items() if name not in ("dataset", "bits")}
    peers = {"bth": {"anchors": 8, "batch_size": 8}, "ssvh": {"neighbours": 4, "reach": 2, "batch_size": 8}}
    chosen = {
        "dataset": "tiny",
        "methods": "wsch, bth, ssvh",
        "bits": "8",
        "seeds": "1",
        "budget": "steps",
        "amount": 30,
    }
    (tmp_path / "settings.yaml").write_text(json.dumps({"settings": {"wsch": small, **peers}}))
    out, options = tmp_path / "out.ipynb", ["-f", str(tmp_path / "settings.yaml")]
    done = run_papermill(ROOT / "notebooks", "compare.ipynb", out, chosen, options)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs" / "compare-tiny"
    figures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert figures == {"map-8bits", "forest-8bits", "cost-8bits", "disputed"}
    written = {path.name for path in folder.iterdir() if path.suffix in (".csv", ".html")}
    assert written == {"results.csv", "comparison-8bits.csv", "cost.csv", "duels.csv", "runs.csv", "gallery.html"}
    runs = pd.read_csv(folder / "runs.csv")
    assert list(runs["method"]) == ["WSCH", "BTH", "SSVH"]
    for run, method, score in runs[["run", "method", "mAP@20"]].itertuples(index=False):
        metrics = json.loads((tmp_path / "outputs" / run / "metrics.json").read_text())
        assert metrics["methods"][method]["expected"][1] == pytest.approx(score)
    assert (runs["parameters"] > 0).all()
    duels = pd.read_csv(folder / "duels.csv")
    assert (duels[["won", "lost", "level"]].sum(axis=1) == 5).all()
    weights = {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs").glob("*/weights.safetensors")}
    assert len(weights) == 3
    done = run_papermill(ROOT, "notebooks/compare.ipynb", out, chosen, options)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs").glob("*/weights.safetensors")} == weights


@pytest.mark.slow
def test_data_tells_what_is_there(tiny_folder, tmp_path):
    out = tmp_path / "out.ipynb"
    done = run_papermill(ROOT / "notebooks", "data.ipynb", out, {"dataset": "tiny"})
    assert done.returncode == 0, done.stderr
    found = outputs(nbformat.read(out, as_version=4))
    assert sum("image/png" in output.get("data", {}) for output in found) == 3
    assert "Ready: one can train and evaluate" in found[-1].text
    (tiny_folder / "train.h5").write_text("broken")
    done = run_papermill(ROOT, "notebooks/data.ipynb", out, {"dataset": "tiny"})
    assert done.returncode == 0, done.stderr
    assert "Not ready: 1 problem" in outputs(nbformat.read(out, as_version=4))[-1].text


@pytest.mark.slow
def test_reproduce_trains_what_is_missing_and_writes_tables(tiny_folder, tmp_path):
    out = tmp_path / "out.ipynb"
    settings = {name: value for name, value in SMALL.items() if name not in ("dataset", "bits")}
    chosen = {"dataset": "tiny", "recipe": "published, plus", "bits": "8", "seeds": "1, 2", "ternary": True}
    (tmp_path / "settings.yaml").write_text(f"settings: {settings}")
    options = ["-f", str(tmp_path / "settings.yaml")]
    done = run_papermill(ROOT / "notebooks", "reproduce.ipynb", out, chosen, options)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs" / "reproduce-tiny"
    assert {path.name for path in folder.iterdir()} == {"map-8bits.png", "results.csv", "results.tex"}
    runs = list((tmp_path / "outputs").glob("tiny-8bits-seed*"))
    stored = {"ours": [], "ours, plus": []}
    for run in runs:
        views = json.loads((run / "settings.json").read_text())["settings"]["views"]
        expected = json.loads((run / "metrics.json").read_text())["methods"]["WSCH"]["expected"]
        stored["ours, plus" if views == 4 else "ours"].append(expected[1])
    rows = pd.read_csv(folder / "results.csv")
    assert dict(zip(rows["method"], rows["mAP@20"], strict=True)) == pytest.approx(
        {method: sum(values) / 2 for method, values in stored.items()}
    )
    weights = {run: (run / "weights.safetensors").stat().st_mtime_ns for run in runs}
    done = run_papermill(ROOT, "notebooks/reproduce.ipynb", out, chosen | {"ternary": False}, options)
    assert done.returncode == 0, done.stderr
    assert {run: (run / "weights.safetensors").stat().st_mtime_ns for run in runs} == weights
    assert "found" in "".join(map(str, outputs(nbformat.read(out, as_version=4))))
