"""Executors, kills and clusters: minutes each, so with `-m slow`."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from ensembles import SPAN, build, problem
from test_ensemble import content

from bayesdownscale.ensemble.executors import Dask, Processes, Serial
from bayesdownscale.ensemble.plan import Job
from bayesdownscale.ensemble.run import Ensemble

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def ensemble(out):
    return Ensemble(build, out, members=2, **SPAN)


@pytest.fixture(scope="module", autouse=True)
def compile_as_here():
    """Workers compile with the settings of this process, so that their bits are the same."""
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    yield
    del os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """By one worker process."""
    out = tmp_path_factory.mktemp("alone") / "ens.zarr"
    ensemble(out).run(Processes(1))
    return content(out)


def test_two_processes(alone, tmp_path):
    heard = []
    ensemble(tmp_path / "ens.zarr").run(Processes(2), on_done=heard.append)
    assert heard == list(range(7))
    assert content(tmp_path / "ens.zarr") == alone


def test_two_runs_at_once(alone, tmp_path):
    """Two programs start on one store at the same moment."""
    out = tmp_path / "ens.zarr"
    code = (
        "from pathlib import Path; from ensembles import *; from bayesdownscale.ensemble.run import Ensemble\n"
        "from bayesdownscale.ensemble.executors import one_thread; one_thread()\n"
        f"Ensemble(build, Path({str(out)!r}), members=2, **SPAN).run()"
    )
    command = [sys.executable, "-c", code]
    runs = [subprocess.Popen(command, cwd=ROOT / "tests", stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for run in runs:
        _, errors = run.communicate(timeout=500)
        assert run.returncode == 0, errors[-2000:]
    assert content(out) == alone


def test_a_local_dask_cluster(alone, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with distributed.Client(cluster) as client:
            client.run(one_thread_there)
            ensemble(tmp_path / "ens.zarr").run(Dask(client))
    assert content(tmp_path / "ens.zarr") == alone


def one_thread_there():
    from bayesdownscale.ensemble.executors import one_thread

    one_thread()


def test_an_error_in_a_worker_is_its_sentence(tmp_path):
    run = Ensemble(partial(problem, 21), tmp_path / "ens.zarr", members=2, **SPAN)
    run.build = partial(problem, 21, None)  # as if the program were another over there
    with pytest.raises(ValueError, match="every parameter of the program to be fixed"):
        run.run(Processes(1))


def test_serial_is_one_after_the_other():
    done = []
    jobs = [Job(1, 0), Job(0, 2)]
    Serial().map_jobs(lambda job: "done", jobs, lambda job, outcome: done.append((job, outcome)))
    assert done == [(job, "done") for job in jobs]


def test_kills(tmp_path):
    """`benchmarks.kills` with three kills: nothing lost, the same bytes, nothing left over."""
    command = [sys.executable, "-m", "benchmarks.kills", "--json", "--kills", "3", "--members", "3", "--spans", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["finished_and_lost"] == 0
    assert result["bit_identical"]
    assert result["left_over"] == []
