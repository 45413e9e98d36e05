import pytest

from wsch_core.runs.parameters import chosen_settings, chosen_values

INJECTED = '# Parameters\nbits = 32\nrun = "mine"\n'


def test_settings_are_taken_from_the_notebooks_variables():
    namespace = {"bits": 32, "epochs": None, "run": "mine", "dataset": "demo", "unrelated": 7, "In": ["", INJECTED]}
    assert chosen_settings(namespace, also={"run": str}) == {"bits": 32, "epochs": None, "dataset": "demo"}


def test_a_misspelt_parameter_fails_and_names_the_closest():
    with pytest.raises(ValueError, match=r"'bitz' is not a known parameter: did you mean 'bits'\?"):
        chosen_settings({"bitz": 32, "In": ["", "# Parameters\nbitz = 32\n"]}, also={"run": str})
    with pytest.raises(ValueError, match=r"'rum' is not a known parameter: did you mean 'run'\?"):
        chosen_settings({"In": ["# Parameters\nrum = 'x'\n"]}, also={"run": str})


def test_other_variables_of_a_session_do_not_matter():
    assert chosen_settings({"bits": 8, "In": ["bitz = 3", "x = 1"]}) == {"bits": 8}
    assert chosen_settings({"bits": 8}) == {"bits": 8}


CELL = 'run = ""  # a name\nresume = False\nbits = 64\npretrain_epochs = None\n'
ALSO = {"run": str, "resume": bool}


def run_cells(*cells):
    """What a session knows after some cells, the last of which asks for the settings."""
    namespace = {}
    for cell in cells:
        exec(cell, namespace)
    return chosen_settings(namespace | {"In": ["", *cells, "chosen = chosen_settings(globals())"]}, also=ALSO)


class TestTyped:
    """By hand, in JupyterLab."""

    @pytest.mark.parametrize(
        "form", ["pretrain_epoch = 4\n", "pretrain_epoch: int = 4", '"""help"""\npretrain_epoch = 4']
    )
    def test_a_misspelt_parameter_fails(self, form):
        for cell in (CELL.replace("pretrain_epochs = None\n", form), CELL + form):
            with pytest.raises(
                ValueError, match="'pretrain_epoch' is not a known parameter: did you mean 'pretrain_epochs'"
            ):
                run_cells(cell)

    def test_in_a_cell_of_its_own_as_well(self):
        with pytest.raises(ValueError, match="'pretrain_epoch' is not a known parameter"):
            run_cells(CELL, "pretrain_epoch = 4")
        assert run_cells(CELL, "epochs_shown = 3; x = 1; total = 5")["bits"] == 64
        assert run_cells(CELL, "pretrain_epochs = 7")["pretrain_epochs"] == 7

    def test_a_correction_counts_once_the_cell_is_run_again(self):
        wrong = CELL.replace("pretrain_epochs", "pretrain_epoch")
        assert run_cells(wrong, CELL)["pretrain_epochs"] is None
        assert run_cells(CELL, "pretrain_epoch = 4", CELL)["pretrain_epochs"] is None

    def test_a_value_of_a_former_run_is_not_used(self):
        former = CELL.replace("None", "4")
        with pytest.raises(ValueError, match="pretrain_epochs is 4, left over from a cell that was run before"):
            run_cells(former, CELL.replace("pretrain_epochs = None\n", ""))
        assert run_cells(former, CELL)["pretrain_epochs"] is None
        with pytest.raises(ValueError, match="epochs is 3, left over"):
            run_cells("epochs = 3", CELL)

    def test_values_that_are_computed_count(self):
        assert run_cells(CELL, "bits = len('abcdefgh')\nfor epochs in (1, 2): pass") | {"run": ""} == {
            "bits": 8, "epochs": 2, "pretrain_epochs": None, "run": "",
        }  # fmt: skip

    def test_what_could_not_be_run_does_not_matter(self):
        assert chosen_settings({"run": "", "resume": False, "bits": 8, "In": [CELL, "bits = ", "%magic", None]}, ALSO)

    def test_a_missing_one_is_named(self):
        with pytest.raises(ValueError, match="resume has no value: assign it in the parameters cell"):
            run_cells(CELL.replace("resume = False\n", ""))

    def test_all_parameters_of_a_notebook_are_checked(self):
        kinds = {"run": str, "compare_run": str, "k": int}
        cell = 'run = ""\ncomparerun = "ITQ"\ncompare_run = ""\nk = 12'
        namespace = {"run": "", "compare_run": "", "comparerun": "ITQ", "k": 12, "In": ["", cell, "chosen = 0"]}
        with pytest.raises(ValueError, match="'comparerun' is not a known parameter: did you mean 'compare_run'"):
            chosen_values(namespace, kinds)


def test_the_shells_own_record_counts_not_a_variable():
    """What `papermill -y "In: []"` does."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    try:
        shell.run_cell(CELL, store_history=True)
        shell.run_cell("# Parameters\nbitz = 32\nIn = []\n", store_history=True)
        with pytest.raises(ValueError, match="'bitz' is not a known parameter"):
            chosen_settings(shell.user_ns, ALSO)
    finally:
        InteractiveShell.clear_instance()


def test_other_parameters_have_a_type_or_allowed_values():
    with pytest.raises(ValueError, match=r"run is 2024: it must be text \(papermill reads -p run 2024 as a number"):
        chosen_settings({"run": 2024}, also={"run": str})
    with pytest.raises(ValueError, match="resume is 'yes': it must be True or False"):
        chosen_settings({"resume": "yes"}, also={"resume": bool})
    with pytest.raises(ValueError, match="self_match is 'exclude': it must be one of included, excluded"):
        chosen_settings({"self_match": "exclude"}, also={"self_match": ("included", "excluded")})


class TestValues:
    def test_lists_may_be_given_as_one_value_or_as_text(self):
        kinds = {"bits": [int], "runs": [str]}
        for bits in ([16, 64], "16, 64", (16, 64)):
            assert chosen_values({"bits": bits, "runs": ""}, kinds) == {"bits": [16, 64], "runs": []}
        assert chosen_values({"bits": 64, "runs": "a, b"}, kinds) == {"bits": [64], "runs": ["a", "b"]}
        with pytest.raises(ValueError, match="bits is 'x': it must be a whole number, or several"):
            chosen_values({"bits": "x", "runs": ""}, kinds)
        with pytest.raises(ValueError, match=r"runs is \[3\]: it must be text, or several"):
            chosen_values({"bits": 1, "runs": [3]}, kinds)

    def test_a_whole_number_is_a_number_but_true_is_not(self):
        assert chosen_values({"share": 1}, {"share": float}) == {"share": 1.0}
        with pytest.raises(ValueError, match="k is True: it must be a whole number"):
            chosen_values({"k": True}, {"k": int})

    def test_counts_have_a_range(self):
        assert chosen_values({"queries": 0}, {"queries": range(1001)}) == {"queries": 0}
        for value in (-1, 1001, True, 2.0, "3"):
            with pytest.raises(ValueError, match=r"queries is .*: it must be a whole number from 0 to 1,000\."):
                chosen_values({"queries": value}, {"queries": range(1001)})

    def test_none_is_a_value_where_it_leaves_a_choice(self):
        assert chosen_values({"a": None, "b": 3}, {"a": int | None, "b": int | None}) == {"a": None, "b": 3}
        with pytest.raises(ValueError, match="a is '3': it must be a whole number"):
            chosen_values({"a": "3"}, {"a": int | None})

    def test_a_dictionary_is_handed_over_as_yaml(self):
        assert chosen_values({"own": {"a": {"bits": 8}}}, {"own": dict}) == {"own": {"a": {"bits": 8}}}
        with pytest.raises(
            ValueError, match=r"own is 'a': it must be a dictionary \(papermill takes one as -y \"own: "
        ):
            chosen_values({"own": "a"}, {"own": dict})

    def test_settings_are_no_parameters_of_their_own(self):
        with pytest.raises(ValueError, match="'epochs' is not a known parameter"):
            chosen_values({"k": 1, "In": ["# Parameters\nepochs = 3\n"]}, {"k": int})


class TestOfAnotherMethod:
    CELL = 'run = ""\nmethod = "bth"\nbits = 64\ncycle = None\ncenters = None\nepochs = 3\n'

    def chosen(self, *cells, method="bth"):
        namespace = {}
        for cell in cells:
            exec(cell, namespace)
        also = {"run": str, "method": ("wsch", "bth")}
        return chosen_settings(namespace | {"In": [*cells, "chosen_settings(globals())"]}, also, method)

    def test_its_own_settings_are_taken(self):
        assert self.chosen(self.CELL) == {"bits": 64, "epochs": 3}
        assert self.chosen(self.CELL, "# Parameters\nanchors = 9\n") == {"bits": 64, "epochs": 3, "anchors": 9}
        assert self.chosen(self.CELL, method="wsch").keys() == {"bits", "cycle", "centers", "epochs"}

    @pytest.mark.parametrize("cell", ["centers = 9", "# Parameters\ncenters = 9\n"])
    def test_those_of_another_are_refused_by_name(self, cell):
        for cells in ((self.CELL, cell), (self.CELL.replace("centers = None", cell.splitlines()[-1]),)):
            with pytest.raises(ValueError, match=r"centers is a setting of WSCH, which BTH does not have.*anchors"):
                self.chosen(*cells)
        with pytest.raises(ValueError, match="anchors is a setting of BTH, which WSCH does not have"):
            self.chosen(self.CELL, "# Parameters\nanchors = 9\n", method="wsch")

    def test_a_slip_is_none(self):
        with pytest.raises(ValueError, match=r"'anchor' is not a known parameter: did you mean 'anchors'"):
            self.chosen(self.CELL, "# Parameters\nanchor = 9\n")

    def test_variables_from_before_do_not_matter(self):
        assert self.chosen("centers = [1, 2]", self.CELL.replace("centers = None\n", "")) == {"bits": 64, "epochs": 3}
