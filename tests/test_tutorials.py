"""Every tutorial, run as a script with small settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = sorted((Path(__file__).parents[1] / "tutorials").glob("*.py"))
SMALL = {"TUTORIAL_DRAWS": "2", "TUTORIAL_STEPS": "4"}


@pytest.mark.parametrize("script", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial(script, tmp_path):
    environment = {**os.environ, **SMALL, "TUTORIAL_OUT": str(tmp_path / "out")}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert any((tmp_path / "out").iterdir())
