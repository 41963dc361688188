"""The README's commands and code, run as they stand, on a shipped prior."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder in which the README's first command was run (its last part: the environment is this one)."""
    folder = tmp_path_factory.mktemp("readme")
    command = re.findall(r"```bash\n(.+?)\n```", README)[0].split(" && ")[-1]
    words = shlex.split(command)
    assert words[0] == ".venv/bin/bayesdownscale"
    done = subprocess.run(
        [sys.executable, "-m", "bayesdownscale", *words[1:]], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_two_commands():
    commands = re.findall(r"```bash\n(.+?)\n```", README)
    assert len(commands) == 2
    assert commands[1].endswith("&& .venv/bin/pytest")


def test_the_demo_makes_what_it_says(demo):
    tree = xr.open_datatree(demo / "demo" / "posterior.zarr", engine="zarr", consolidated=False)
    assert tree["posterior"].sizes["draw"] == 16
    assert tree["posterior"].sizes["time"] == 13
    assert {"psl", "uas", "vas", "tas"} <= set(tree["posterior"].data_vars)
    assert not tree["sample_stats"]["diverging"].any()
    page = (demo / "demo" / "report.html").read_text()
    for word in ("CRPS", "PIT", "overage", "<img"):
        assert word in page


def test_the_python_example(demo):
    code = "\n".join(re.findall(r"```python\n(.+?)\n```", README, re.DOTALL))
    done = subprocess.run([sys.executable, "-c", code], cwd=demo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (demo / "report.html").exists()
    assert "posterior" in done.stdout


def test_every_link_points_to_something():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
