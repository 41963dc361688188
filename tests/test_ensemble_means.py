"""Ensembles from means over time: each job sees the means that lie in its block, and no part of one."""

from dataclasses import replace

import ensembles
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ensembles import GRID, MODEL, SIGMA, field, hours

import bayesdownscale as bd
from bayesdownscale.ensemble.plan import Plan
from bayesdownscale.ensemble.problem import CoarseFile, CoarseInMemory, Problem
from bayesdownscale.ensemble.run import Ensemble
from bayesdownscale.ensemble.solve import Solver

HOUR = np.timedelta64(1, "h")
LENGTH, MEAN, SPAN, MEMBERS = 32, 4, 8, 1024
BOUNDS = np.stack([hours(LENGTH)[::MEAN], hours(LENGTH)[::MEAN] + MEAN * HOUR], axis=1)
H = bd.area_mean(GRID, GRID.coarsen(2)) @ bd.time_mean(hours(LENGTH), BOUNDS)
TRUTH = 280 + 2 * field(LENGTH).draw(jax.random.key(0))


def coarse(noise: float) -> bd.Fields:
    """Means over four hours, stamped at their middles; the third is missing."""
    y = np.array(H(TRUTH)) + noise * np.random.default_rng(0).normal(size=(LENGTH // MEAN, 1, 1, 1))
    y[2] = np.nan
    labels = bd.Coords(BOUNDS[:, 0] + 2 * HOUR, (ensembles.T2M,), GRID.coarsen(2))
    return bd.Fields(y.astype(np.float32), labels, "made by a test").means_over(BOUNDS)


def problem(fields: bd.Fields) -> Problem:
    return Problem(ensembles.windowed_prior(), CoarseInMemory(fields), MODEL, {"sigma": SIGMA})


def solver(fields: bd.Fields, halo: int, guidance=bd.MomentMatching, steps: int = 12) -> Solver:
    starts, mean = problem(fields).cadence
    plan = Plan.of(starts, HOUR, ensembles.WINDOW, MEMBERS, SPAN * HOUR, halo, 4, mean)
    return Solver(problem(fields), plan, steps=steps, seed=0, guidance=guidance)


def test_every_job_sees_the_means_of_its_block():
    """The operator on the truth gives the data, where there are any: the ends of blocks hold no part of a mean."""
    made = solver(coarse(0.0), 8)
    assert (made.plan.every, made.plan.length, made.plan.rows * MEAN) == (4, LENGTH, made.plan.block - 1)
    seen = []
    for span in range(made.plan.spans):
        first = made.plan.first(span)
        block = jnp.stack([TRUTH[t % LENGTH] for t in range(first, first + made.plan.block)])
        data = made.data(span)
        known = np.isfinite(data)
        np.testing.assert_allclose(np.asarray(made.operator(block))[known], data[known], rtol=1e-6)
        seen.append(int(known.sum()))
    assert seen == [3, 5, 5, 4]  # two of a span, two in each halo, less the missing one and those outside the record


def test_files_of_means(tmp_path):
    fields = coarse(0.0)
    bd.write_atomic(fields.to_dataset(), tmp_path / "means.nc")
    read = CoarseFile(tmp_path / "means.nc", ensembles.windowed_prior())
    np.testing.assert_array_equal(read.means, BOUNDS)
    np.testing.assert_array_equal(read.rows(1, 3), fields.values[1:3])
    plain = replace(fields, bounds=None, methods=("",))
    bd.write_atomic(plain.to_dataset(), tmp_path / "plain.nc")
    assert CoarseFile(tmp_path / "plain.nc", ensembles.windowed_prior()).means is None
    said = CoarseFile(tmp_path / "plain.nc", ensembles.windowed_prior(), stamp="middle")
    np.testing.assert_array_equal(said.means, BOUNDS)


def test_the_last_mean_is_kept_whole(tmp_path):
    run = Ensemble(lambda: problem(coarse(0.0)), tmp_path / "ens.zarr", members=1, span=SPAN * HOUR, stride=4, halo=8)
    assert run.plan.record()[-1] == BOUNDS[-1, 1] - HOUR


def test_daily_means_have_longer_halos():
    """`benchmarks.windows --means 24` says why."""
    days = np.datetime64("2001-01-01", "ns") + 24 * HOUR * np.arange(365)
    plan = Plan.of(days, HOUR, 25, 2, mean=24)
    assert (plan.stride, plan.halo, plan.span, plan.length) == (12, 72, 720, 8760)
    assert plan.cost < 2.6


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"methods": ("maximum",)}, "expected snapshots .* or means .* got maximum"),
        ({"bounds": None}, "expected time_bnds with the means in made by a test"),
    ],
)
def test_neither_snapshots_nor_means(changed, sentence):
    with pytest.raises(ValueError, match=sentence):
        problem(replace(coarse(0.0), **changed))


def test_months_and_running_means_are_refused():
    months = BOUNDS.copy()
    months[3, 1] += HOUR
    with pytest.raises(ValueError, match=r"means over one length of time, .* of 1 h, got 4 to 5 h; take daily means"):
        _ = problem(coarse(0.0).means_over(months)).cadence
    starts, _ = problem(coarse(0.0)).cadence
    with pytest.raises(ValueError, match="means that do not overlap, got some over 6 h every 4 h"):
        Plan.of(starts, HOUR, ensembles.WINDOW, 1, mean=6)


@pytest.mark.slow
@pytest.mark.parametrize("guidance", [bd.MomentMatching, bd.FixedCovariance])
def test_the_law_of_a_member_given_means(guidance):
    """32 means and variances against the exact posterior from dense matrices: 5 standard errors, missed by chance with
    probability 4e-5, and 3 % for windows and steps, as for snapshots."""
    fields = coarse(SIGMA)
    made = solver(fields, 8, guidance)
    spans = [np.asarray(made(np.arange(MEMBERS), k)) for k in range(made.plan.spans)]
    drawn = (np.concatenate(spans, axis=1)[:, :LENGTH, 0].mean((2, 3)) - 280) / 2
    dt = np.abs(np.arange(LENGTH)[:, None] - np.arange(LENGTH))
    one = np.asarray(field(1).covariance(jnp.ones((1, 1, 2, 2)) / 4), np.float64).mean()
    K = one * np.exp(-dt / ensembles.MEMORY)
    y = (fields.values[:, 0, 0, 0].astype(np.float64) - 280) / 2
    A = np.kron(np.eye(LENGTH // MEAN), np.full((1, MEAN), 1 / MEAN))[np.isfinite(y)]
    gain = K @ A.T @ np.linalg.inv(A @ K @ A.T + (SIGMA / 2) ** 2 * np.eye(len(A)))
    z = (drawn - gain @ y[np.isfinite(y)]) / np.sqrt(np.diag(K - gain @ A @ K))
    assert np.all(np.abs(z.mean(0)) < 5 / MEMBERS**0.5 + 0.03)
    assert np.all(np.abs((z**2).mean(0) - 1) < 5 * (2 / MEMBERS) ** 0.5 + 0.03)
