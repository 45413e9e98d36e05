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
