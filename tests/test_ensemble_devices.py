"""The same draws on one device, on eight, and on two processes."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bayesdownscale.ensemble.devices import mesh_over

SCRIPT = Path(__file__).parent / "ensemble_on_devices.py"
pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(out, *words, **said):
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} | said
    environment.pop("XLA_FLAGS", None)
    command = [sys.executable, str(SCRIPT), str(out), *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(*processes) -> list[str]:
    """The last line that each said."""
    said = []
    for process in processes:
        output, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors[-3000:]
        said.append((output.splitlines() or [""])[-1])  # gloo talks too
    return said


@pytest.fixture(scope="module", params=["moment_matching", "fixed_covariance"])
def guidance(request):
    return request.param


@pytest.fixture(scope="module")
def one(guidance, tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "one.npy"
    finished(start(out, 1, 1, GUIDANCE=guidance))
    return np.load(out)


@pytest.mark.parametrize("shape", [(2, 4), (1, 8)])
def test_eight_devices(guidance, one, tmp_path, shape):
    finished(start(tmp_path / "many.npy", *shape, GUIDANCE=guidance))
    many = np.load(tmp_path / "many.npy")
    assert many.shape == one.shape == (2, 16, 1, 2, 2)
    np.testing.assert_allclose(many, one, rtol=0, atol=1e-4)  # kelvin, rounded at 280


def test_two_processes(guidance, one, tmp_path):
    port = free_port()
    finished(*(start(tmp_path / f"{i}.npy", 1, 2, i, port, GUIDANCE=guidance) for i in (0, 1)))
    for i in (0, 1):
        np.testing.assert_allclose(np.load(tmp_path / f"{i}.npy"), one, rtol=0, atol=1e-4)


def test_an_ensemble_in_two_processes(tmp_path):
    """The first process writes, both draw; damage is found by the first and drawn again by both."""
    many, one = tmp_path / "many.zarr", tmp_path / "one.zarr"
    alone = start(one, 1, 1)
    finished(alone)
    chunk = many / "t2m" / "c" / "1" / "1" / "0" / "0"
    for said in ("[0, 1, 2, 3, 4, 5, 6] []", "[5, 6] [(1, 1)]"):
        if chunk.exists():
            chunk.write_bytes(chunk.read_bytes()[:-1])
        port = free_port()
        assert finished(*(start(many, 1, 2, i, port) for i in (0, 1))) == [said, said]
    read = lambda path: xr.open_dataset(path, engine="zarr", consolidated=False)["t2m"].values
    assert np.isfinite(read(many)).all()
    np.testing.assert_allclose(read(many), read(one), rtol=0, atol=1e-4)  # kelvin, rounded at 280


@pytest.mark.parametrize(
    ("failure", "first_said", "other_said"),
    [
        ("full", "File too large; free space and run the same command again", "ChildProcessError: expected the first"),
        ("killed", "", "another task died"),  # said by JAX, which ends this process
    ],
    ids=["full", "killed"],
)
def test_the_first_of_two_processes_fails(tmp_path, failure, first_said, other_said):
    """Once two of six jobs are done: the other ends too, says why, and both go on from there. Without care it waits for
    300 s before JAX ends it; here no process is given more than 240."""
    out, port = tmp_path / "ens.zarr", free_port()
    both = [start(out, 1, 2, i, port, FAILURE=failure) for i in (0, 1)]
    errors = [process.communicate(timeout=240)[1] for process in both]
    assert all(process.returncode != 0 for process in both)
    assert (both[0].returncode == -signal.SIGKILL) == (failure == "killed")
    assert first_said in errors[0]
    assert other_said in errors[1]
    done = {p.name: p.read_bytes() for p in (tmp_path / "ens.zarr.jobs").glob("*.json")}
    assert sorted(done) == ["0000-00000.json", "0000-00001.json"]
    chunk = out / "t2m" / "c" / "0" / "1" / "0" / "0"
    kept = chunk.read_bytes()
    port = free_port()
    assert finished(*(start(out, 1, 2, i, port) for i in (0, 1))) == ["[2, 3, 4, 5, 6] []"] * 2
    assert chunk.read_bytes() == kept
    with xr.open_dataset(out, engine="zarr", consolidated=False) as ds:
        assert np.isfinite(ds["t2m"].values).all()


def test_more_devices_than_there_are():
    with pytest.raises(ValueError, match="expected at most 1 devices"):
        mesh_over(2, 4)
