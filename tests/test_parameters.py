import pytest

from wsch_core.parameters import chosen_settings

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
