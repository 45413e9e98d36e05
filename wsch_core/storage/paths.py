"""Where data sets and runs live, from whichever folder Python was started."""

from __future__ import annotations

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent


def _home() -> Path:
    """The checkout this package stands in; for an installed copy without one, the current folder."""
    return PROJECT if (PROJECT / "notebooks").is_dir() else Path.cwd()


def data_folder() -> Path:
    """The folder of feature files and definitions: the environment variable WSCH_DATA, else the project's data/."""
    return Path(os.environ.get("WSCH_DATA") or _home() / "data").expanduser().resolve()


def definition_folders() -> list[Path]:
    """Where definition files are looked for: the user's own WSCH_DATA first, then the project's data/."""
    return list(dict.fromkeys([data_folder(), _home() / "data"]))


def outputs_folder() -> Path:
    """The folder of runs: the environment variable WSCH_OUTPUTS, else the project's outputs/."""
    return Path(os.environ.get("WSCH_OUTPUTS") or _home() / "outputs").expanduser().resolve()
