"""Ensembles: jobs that do not depend on each other, a store that survives, and errors of one sentence."""

import errno
import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import ensembles
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from ensembles import SIGMA, SPAN, build, problem

import bayesdownscale as bd
from bayesdownscale.ensemble import hosts
from bayesdownscale.ensemble.noise import KeyedNoise
from bayesdownscale.ensemble.plan import Job, Plan
from bayesdownscale.ensemble.problem import CoarseFile
from bayesdownscale.ensemble.run import Ensemble
from bayesdownscale.ensemble.solve import ORIGIN, Solver


def ensemble(out, **changed):
    """By fixed covariances, which compile fastest."""
    settings = {"members": 2, "guidance": bd.FixedCovariance, **SPAN}
    return Ensemble(changed.pop("build", build), out, **settings | changed)


def content(out: Path) -> dict[str, bytes]:
    """The bytes of all chunks and markers, and nothing else may be there but labels."""
    files = {str(p.relative_to(out.parent)): p.read_bytes() for p in sorted(out.parent.rglob("*")) if p.is_file()}
    assert not [name for name in files if "partial" in name or "/." in name]
    return {name: data for name, data in files.items() if "/t2m/c/" in name or name.endswith("-00000.json")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run: its store and its bytes."""
    out = tmp_path_factory.mktemp("whole") / "ens.zarr"
    heard = []
    assert ensemble(out).run(on_done=heard.append) == []
    assert heard == [0, 1, 2, 3, 4, 5, 6]
    return out, content(out)


def test_the_store_is_a_cf_dataset(finished):
    out, _ = finished
    with xr.open_dataset(out, engine="zarr", consolidated=False) as ds:
        assert ds["t2m"].dims == ("realization", "time", "lat", "lon")
        assert ds["t2m"].shape == (2, 21, 2, 2)
        assert ds["t2m"].attrs["standard_name"] == "air_temperature"
        np.testing.assert_array_equal(ds["time"].values, ensembles.hours(21))
        assert np.isfinite(ds["t2m"].values).all()
        assert abs(float(ds["t2m"].mean()) - 280) < 3
        assert ds.attrs["seed"] == 0
        assert ds.attrs["approximate"] == 1
        assert ds.attrs["method"] == "guided reverse SDE, fixed covariance"


def test_a_job_is_the_solver_written_out(finished):
    """Member 1 on span 1 by the multistep formula, each guided mean from dense matrices: D_y = D + V H' S^-1 (y - H D),
    S = H V H' + R. The ensemble solves by a Krylov method with a relative tolerance of 1e-3."""
    solver = Solver(problem(), ensemble(finished[0]).plan, steps=SPAN["steps"], seed=0)
    prior = solver.program(1)[0]
    shape, sd, y = prior.coords.shape, float(prior.standardisation.scale[0]), solver.data(1).ravel()
    unit = jnp.eye(math.prod(shape)).reshape(-1, *shape)
    denoise = jax.jit(lambda x, sigma: prior.denoiser(x, sigma, prior.context).ravel())
    covariance = jax.jit(jax.vmap(lambda v, sigma: prior.denoiser.covariance(v, sigma).ravel(), (0, None)))
    H = np.asarray(jax.vmap(lambda x: solver.operator(sd * x).ravel())(unit)).T[np.isfinite(y)]
    y = y[np.isfinite(y)] - 280

    def guided(x, sigma):
        D = np.asarray(denoise(jnp.asarray(x.reshape(shape), jnp.float32), sigma), np.float64)
        V = np.asarray(covariance(unit, sigma), np.float64)
        return D + V @ H.T @ np.linalg.solve(H @ V @ H.T + SIGMA**2 * np.eye(len(H)), y - H @ D)

    first = jnp.asarray(solver.plan.first(1) + ORIGIN)
    noise = jax.jit(lambda level: KeyedNoise(jax.random.key(0), jnp.asarray(1), first, shape)(level).ravel())
    sigmas = prior.levels.levels(SPAN["steps"])
    h = -np.diff(np.log(sigmas))
    x, before = sigmas[0] * np.asarray(noise(0), np.float64), None
    for n in range(len(h)):
        now = guided(x, sigmas[n])
        mean = now if before is None else now + h[n] / (2 * h[n - 1]) * (now - before)
        decay = np.exp(-2 * h[n])
        x = decay * x + (1 - decay) * mean + sigmas[n + 1] * np.sqrt(1 - decay) * np.asarray(noise(n + 1))
        before = now
    wanted = 280 + sd * guided(x, sigmas[-1]).reshape(shape)[4:12, 0]
    with xr.open_dataset(finished[0], engine="zarr", consolidated=False) as ds:
        np.testing.assert_allclose(ds["t2m"].values[1, 8:16], wanted, rtol=0, atol=5e-3)  # K, the noise has 1.5


def test_order_and_shares_do_not_matter(finished, tmp_path):
    """Three array jobs, the last one first."""
    out = tmp_path / "ens.zarr"
    for index in (2, 0, 1):
        ensemble(out).run(share=(index, 3))
    assert content(out) == finished[1]


def test_members_do_not_depend_on_their_number(finished, tmp_path):
    out = tmp_path / "ens.zarr"
    ensemble(out, members=1).run()
    whole = content(finished[0])
    assert {k: v for k, v in content(out).items() if "/c/0/" in k} == {k: v for k, v in whole.items() if "/c/0/" in k}


def test_members_and_seeds_differ(finished, tmp_path):
    out = tmp_path / "ens.zarr"
    ensemble(out, members=1, seed=1).run(share=(0, 3))
    read = lambda path: xr.open_dataset(path, engine="zarr", consolidated=False)["t2m"].values[:, :8]
    first, second, other = *read(finished[0]), read(out)[0]
    assert np.abs(first - second).min() > 0
    assert np.abs(first - other).min() > 0


def damage(file: Path, how: str) -> None:
    whole = file.read_bytes()
    if how == "gone":
        file.unlink()
    elif how == "short":
        file.write_bytes(whole[:-3])
    else:
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))


@pytest.mark.parametrize("how", ["gone", "short", "flipped"])
def test_damage_is_found_and_done_again(finished, tmp_path, how):
    out, whole = finished
    job, run = Job(1, 1), ensemble(out)
    damage(run.store.chunks(job)["t2m"], how)
    assert run.run() == ([] if how == "flipped" else [job])  # a flipped bit keeps the size: only `verify` reads all
    assert run.run(verify=True) == ([job] if how == "flipped" else [])
    assert content(out) == whole


def test_left_over_temporary_files_go(finished):
    out, whole = finished
    run = ensemble(out)
    chunk = run.store.chunks(Job(0, 2))["t2m"]
    chunk.with_suffix(".0123.partial").write_bytes(b"half")
    (run.store.jobs / ".0000-00002.json.99").write_bytes(b"{")
    run.store.forget(Job(0, 2))
    run.run()
    assert content(out) == whole


def test_a_job_in_the_hands_of_another_process_is_left_to_it(finished):
    """A process holds job (0, 1); here it is busy; when the process is killed, the kernel lets go of it."""
    out, whole = finished
    run = ensemble(out)
    code = (
        "import fcntl, os, sys, time\n"
        f"fd = os.open({str(run.store.jobs / 'lock')!r}, os.O_RDWR)\n"
        "fcntl.lockf(fd, fcntl.LOCK_EX, 1, 1)\nprint('held', flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with run.store.lock(Job(0, 1)) as mine, run.store.lock(Job(0, 2)) as free:
            assert not mine
            assert free
        other.kill()
        other.wait()
    with run.store.lock(Job(0, 1)) as mine:
        assert mine
    assert content(out) == whole


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"seed": 5}, "seed"),
        ({"members": 3}, "members"),
        ({"build": partial(problem, 21, 0.5)}, "settings"),
        ({"build": partial(problem, 19)}, "coarse data"),
        ({"steps": 5}, "steps"),
        ({"guidance": bd.MomentMatching}, r'guidance \("fixed_covariance", now "moment_matching"\)'),
    ],
)
def test_another_run_is_refused(finished, changed, word):
    with pytest.raises(bd.DataError, match=f"holds an ensemble with another .*{word}"):
        ensemble(finished[0], **changed).run()


def test_something_else_is_refused(tmp_path):
    (tmp_path / "ens.zarr").mkdir()
    with pytest.raises(bd.DataError, match="got something else"):
        ensemble(tmp_path / "ens.zarr").run()
    with pytest.raises(bd.DataError, match=r"ending in \.zarr"):
        ensemble(tmp_path / "ens.nc").run()
    with pytest.raises(bd.DataError, match=r"folder .* to exist"):
        ensemble(tmp_path / "nowhere" / "ens.zarr").run()


def test_a_full_disk_is_named(tmp_path):
    """The kernel refuses files of more than 100 bytes: the chunk of the first job."""
    import resource

    run = ensemble(tmp_path / "ens.zarr")
    run.store.create({})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        with pytest.raises(bd.DataError, match=r"member 0, span 0 of .*File too large; free space and run the same"):
            run.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not run.store.marker(Job(0, 0)).exists()
    assert not list(tmp_path.rglob("*.partial"))


def test_a_store_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(bd.DataError, match="Permission denied; check its permissions"):
        ensemble(tmp_path / "ens.zarr").run()


def test_draws_that_are_not_finite_are_not_kept(tmp_path):
    run = ensemble(tmp_path / "ens.zarr")
    run.store.create({})
    with pytest.raises(FloatingPointError, match="member 1, span 0"):
        run.store.write(Job(1, 0), np.full((8, 1, 2, 2), np.nan))
    assert not run.store.done(Job(1, 0))


def test_a_prior_has_one_order_of_leaves():
    """NumPyro keeps the names of a distribution's arrays in a set, whose order changes from process to process."""
    for prior in (bd.FieldPrior, bd.GaussianPrior):
        for names in (prior.gather_pytree_data_fields(), prior.gather_pytree_aux_fields()):
            assert list(names) == sorted(names)


def test_free_parameters_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\['sigma'\] free; draw them first on a short span with `downscale`"):
        ensemble(tmp_path / "ens.zarr", build=partial(problem, 21, None))


def test_a_prior_without_windows_is_refused(gaussian_prior):
    from bayesdownscale.ensemble.solve import windows_of

    with pytest.raises(ValueError, match="expected a prior of windows"):
        windows_of(gaussian_prior)


def test_coarse_files_are_read_by_rows(tmp_path):
    coarse = ensembles.data(21)[1]
    bd.write_atomic(coarse.to_dataset(), tmp_path / "coarse.nc")
    lazy = CoarseFile(tmp_path / "coarse.nc", ensembles.windowed_prior())
    assert lazy.coords == coarse.coords
    np.testing.assert_array_equal(lazy.rows(2, 6), coarse.values[2:6])
    assert np.isnan(lazy.rows(3, 4)).all()
    assert lazy.rows(4, 4).shape == (0, 1, 1, 1)


class TestPlan:
    hour = np.timedelta64(1, "h")

    def times(self, *hours):
        return np.datetime64("2001-01-01", "ns") + self.hour * np.asarray(hours)

    @pytest.mark.parametrize("window", [5, 9, 25])
    @pytest.mark.parametrize("every", [1, 3, 6, 24])
    def test_blocks_share_windows_and_data(self, window, every):
        plan = Plan.of(self.times(*range(0, 1000, every)), self.hour, window, 1, np.timedelta64(100, "h"))
        kept = [np.arange(plan.length)[plan.kept(k)] for k in range(plan.spans)]
        np.testing.assert_array_equal(np.concatenate(kept), np.arange(plan.length))
        assert (plan.block - plan.window) % plan.stride == 0
        assert plan.block >= plan.span + 2 * plan.halo
        for k in range(plan.spans):
            assert plan.first(k) % plan.stride == plan.first(k) % plan.every == 0
        assert plan.span >= 100
        assert plan.stride <= 0.75 * window

    def test_the_defaults_for_hours_from_six_hours(self):
        plan = Plan.of(self.times(*range(0, 8760, 6)), self.hour, 25, 2)
        assert (plan.stride, plan.halo, plan.span, plan.spans) == (18, 18, 720, 13)
        assert plan.cost < 1.5

    def test_gaps_keep_the_cadence(self):
        plan = Plan.of(self.times(0, 6, 12, 36, 42), self.hour, 25, 1)
        assert (plan.every, plan.length) == (6, 43)

    def test_bad_settings(self):
        with pytest.raises(ValueError, match="whole number of the prior's steps of 1 h"):
            Plan.of(self.times(0, 6) + np.timedelta64(30, "m") * np.arange(2), self.hour, 25, 1)
        for settings, word in (({"halo": 5}, "halo"), ({"stride": 26}, "stride"), ({"stride": 4}, "stride")):
            with pytest.raises(ValueError, match=f"expected a {word}"):
                Plan.of(self.times(0, 6, 12), self.hour, 25, 1, **settings)
        with pytest.raises(ValueError, match="at least one member"):
            Plan.of(self.times(0, 6), self.hour, 25, 0)
        with pytest.raises(ValueError, match="span of at least one"):
            Plan.of(self.times(0, 6), self.hour, 25, 1, np.timedelta64(10, "m"))


def test_other_processes_hear_that_the_first_failed(monkeypatch):
    def fail():
        raise bd.DataError("the disk is full")

    np.testing.assert_array_equal(hosts.decided(lambda: [3, 4], 2), [3, 4])
    with pytest.raises(bd.DataError, match="the disk is full"):
        hosts.decided(fail)
    monkeypatch.setattr(hosts, "first", lambda: False)
    monkeypatch.setattr(hosts, "_of_the_first", lambda numbers: np.array([1, 0, 0], np.int32))
    with pytest.raises(ChildProcessError, match="start all again once that is mended: finished jobs are safe"):
        hosts.decided(fail, 2)
