"""How a refusal reads in a notebook, and what someone who looks on is told from a program by."""

import pytest
from IPython.core.interactiveshell import InteractiveShell

from wsch_core.show import notebook
from wsch_core.show.form import Form, form
from wsch_core.show.runs.live import progress_of
from wsch_core.training.progress import ProgressLine


@pytest.fixture
def shell():
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


class TestRefusals:
    def test_a_sentence_of_ours_stands_alone(self, shell, capsys):
        notebook.short_refusals()
        result = shell.run_cell("from wsch_core import load_run\nload_run('no such')")
        assert not result.success
        shown = capsys.readouterr().out
        assert shown.startswith("ValueError: ")
        assert len(shown.splitlines()) == 2
        assert "Traceback" not in shown

    @pytest.mark.parametrize(
        "cell",
        [
            "int('x')",
            "raise ValueError('mine')",
            "import torch\nfrom wsch_core import encode\nencode(torch.nn.Linear(1, 1), None)",
            "from wsch_core.runs.parameters import chosen_values\nchosen_values(globals(), 3)",
        ],
    )
    def test_what_nobody_foresaw_keeps_its_traceback(self, shell, capsys, cell):
        notebook.short_refusals()
        assert not shell.run_cell(cell).success
        assert "Traceback" in capsys.readouterr().out

    def test_the_traceback_is_there_on_request(self, shell, capsys):
        notebook.short_refusals()
        shell.run_cell("from wsch_core import load_run\nload_run('no such')")
        capsys.readouterr()
        shell.run_cell("%tb")
        assert "load_run" in capsys.readouterr().out


def test_without_a_front_end_there_is_no_widget(tiny, tiny_settings):
    assert not notebook.looked_at()
    assert form({"bits": 64}, "bits") is None
    (line,) = progress_of(tiny_settings, tiny)
    assert isinstance(line, ProgressLine)


class TestForm:
    def test_shows_the_parameters_and_changes_nothing_by_itself(self, tiny_folder):
        given = {"dataset": "tiny", "bits": 24, "recipe": None, "resume": False, "run": "", "variants": ["joint"]}
        namespace = dict(given)
        fields = Form(namespace, [*given, "unlisted"]).fields
        assert list(fields) == list(given)
        assert {name: fields[name].value for name in ("dataset", "bits", "resume")} == {
            "dataset": "tiny", "bits": 24, "resume": False,
        }  # fmt: skip
        assert fields["variants"].value == ("joint",)
        assert namespace == given

    def test_what_is_chosen_becomes_the_variable(self, tiny_folder):
        namespace = {"bits": 64, "recipe": None, "epochs": None, "cycle": None, "seeds": [1, 2], "seed": 3}
        namespace["variants"] = []
        shown = Form(namespace, [*namespace])
        shown.fields["bits"].value = 32
        shown.fields["recipe"].value = "plus"
        shown.fields["epochs"].value = "12"
        shown.fields["cycle"].value = "centers, cluster"
        shown.fields["seeds"].value = "1, 2, 3"
        box = next(box for box in shown.fields["variants"].children if box.description == "joint")
        box.value = True
        shown.fields["seed"].value = "x"
        assert namespace == {
            "bits": 32, "recipe": "plus", "epochs": 12, "cycle": "centers, cluster", "seeds": [1, 2, 3],
            "seed": "x", "variants": ["joint"],
        }  # fmt: skip
        shown.fields["epochs"].value = ""
        assert namespace["epochs"] is None
        assert "bits = 32" in shown.said.value

    def test_a_value_that_cells_below_will_refuse_is_shown_as_it_is(self, tiny_folder):
        namespace = {"dataset": "tinny", "bits": "many", "seeds": "1, 2", "hold": 3.5}
        fields = Form(namespace, [*namespace]).fields
        assert [fields[name].value for name in namespace] == ["tinny", "many", "1, 2", "3.5"]
