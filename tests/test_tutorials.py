"""Every tutorial, run as a script with small settings, which takes a minute or more even so: with `-m slow`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bayesdownscale as bd

TUTORIALS = sorted((Path(__file__).parents[1] / "tutorials").glob("*.py"))
SMALL = {"TUTORIAL_DRAWS": "2", "TUTORIAL_STEPS": "4", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


@pytest.mark.parametrize("script", TUTORIALS, ids=lambda path: path.stem)
def test_names_are_those_of_the_package(script):
    names = set(re.findall(r"\bbd\.(\w+)", script.read_text()))
    assert names
    assert not [name for name in names if not hasattr(bd, name)]


@pytest.mark.slow
@pytest.mark.parametrize("script", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial(script, tmp_path):
    environment = {**os.environ, **SMALL, "TUTORIAL_OUT": str(tmp_path / "out")}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert any((tmp_path / "out").iterdir())
