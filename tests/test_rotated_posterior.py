"""A prior on a rotated grid, coarse data on a regular one: the exact posterior against its closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import load_program

import bayesdownscale as bd
from bayesdownscale.data.overlap import mean_weights

FINE = bd.Grid(-12.0 + 0.44 * np.arange(5), -20.0 + 0.44 * np.arange(6), pole=bd.RotatedPole(39.25, -162.0))
COARSE = bd.Grid(35.4 + 0.7 * np.arange(4), -6.3 + 0.9 * np.arange(5))
TIMES = np.datetime64("2020-03-01", "ns") + np.timedelta64(1, "h") * np.arange(3)
T2M = (bd.Variable("t2m", "K", "air_temperature"),)


@pytest.mark.slow
def test_the_posterior_mean_is_that_of_kriging():
    in_time = np.exp(-np.abs(np.subtract.outer(np.arange(3), np.arange(3))) / 3.0)
    in_space = bd.matern(FINE.distances_km(), 150.0, 1.5)
    field = bd.GaussianField.separable(in_time, in_space, (1, *FINE.shape))
    levels = bd.NoiseLevels.covering(float(jnp.sqrt(field.variances.max())))
    scale = bd.Standardisation(jnp.zeros((5, 1, *FINE.shape)).at[0].set(280.0), jnp.asarray([2.0]))
    prior = bd.GaussianPrior(field, scale, levels, bd.Coords(TIMES, T2M, FINE))
    H = bd.area_mean(FINE, COARSE) @ bd.snapshots(TIMES, TIMES[::2])
    inside = bd.observed_cells(FINE, COARSE)
    assert 2 < inside.sum() < inside.size

    y = np.where(inside, np.asarray(H(prior.sample(jax.random.key(0)))), np.nan).astype(np.float32)
    model = load_program("models", "area_mean").model
    posterior = bd.ExactGaussian(model).condition(prior, H, y=jnp.asarray(y), sigma=0.1)
    got = scale.backward(posterior.mean(), prior.context)

    area = mean_weights(COARSE, FINE)[0].toarray()[inside.ravel()]
    A = np.kron(np.eye(3)[::2], area)
    K = np.kron(in_time, 4.0 * in_space)
    gain = K @ A.T @ np.linalg.inv(A @ K @ A.T + 0.01 * np.eye(len(A)))
    want = 280.0 + gain @ (y[np.isfinite(y)] - 280.0)
    assert_allclose(np.asarray(got).ravel(), want, atol=5e-3)
