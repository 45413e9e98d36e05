"""Working copies of notebooks: made once, kept as they were left, put aside when the committed notebook changes."""

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from wsch_core.show.lab import working_copies


def test_working_copies_are_kept_until_the_notebook_changes(tmp_path):
    source, folder = tmp_path / "notebooks", tmp_path / "outputs" / "notebooks"
    source.mkdir()
    nbformat.write(new_notebook(cells=[new_code_cell("bits = 64")]), source / "train.ipynb")
    before = (source / "train.ipynb").read_bytes()
    (copy,) = working_copies(source, folder)
    used = nbformat.read(copy, as_version=4)
    used.cells[0].source = "bits = 32"
    nbformat.write(used, copy)
    assert working_copies(source, folder) == [copy]
    assert nbformat.read(copy, as_version=4).cells[0].source == "bits = 32"
    assert (source / "train.ipynb").read_bytes() == before

    nbformat.write(new_notebook(cells=[new_code_cell("bits = 128")]), source / "train.ipynb")
    assert working_copies(source, folder) == [copy]
    sources = {path.name == "train.ipynb": nbformat.read(path, 4).cells[0].source for path in folder.glob("*.ipynb")}
    assert sources == {True: "bits = 128", False: "bits = 32"}

    copy.write_text("no notebook")
    working_copies(source, folder)
    assert nbformat.read(copy, as_version=4).cells[0].source == "bits = 128"
    assert len(list(folder.glob("train-*.ipynb"))) == 2
