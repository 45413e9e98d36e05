import pytest

from wsch_core.parameters import chosen_settings

INJECTED = '# Parameters\nbits = 32\nrun = "mine"\n'


def test_settings_are_taken_from_the_notebooks_variables():
    namespace = {"bits": 32, "epochs": None, "run": "mine", "dataset": "demo", "unrelated": 7, "In": ["", INJECTED]}
    assert chosen_settings(namespace, also=["run"]) == {"bits": 32, "epochs": None, "dataset": "demo"}


def test_a_misspelt_parameter_fails_and_names_the_closest():
    with pytest.raises(ValueError, match=r"'bitz' is not a known parameter: did you mean 'bits'\?"):
        chosen_settings({"bitz": 32, "In": ["", "# Parameters\nbitz = 32\n"]}, also=["run"])
    with pytest.raises(ValueError, match=r"'rum' is not a known parameter: did you mean 'run'\?"):
        chosen_settings({"In": ["# Parameters\nrum = 'x'\n"]}, also=["run"])


def test_other_variables_of_a_session_do_not_matter():
    assert chosen_settings({"bits": 8, "In": ["bitz = 3", "x = 1"]}) == {"bits": 8}
    assert chosen_settings({"bits": 8}) == {"bits": 8}
