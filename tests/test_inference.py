"""Every recipe in inference/ on the exact Gaussian problem."""

import jax
import numpy as np
import pytest
from problems import known_noise, load_program, names, small_data, small_prior

import bayesdownscale as bd


@pytest.fixture(scope="module")
def problem():
    prior = small_prior()
    H, coarse, _ = small_data(prior)
    exact = bd.ExactGaussian(known_noise).condition(prior, H, y=coarse)
    identity = np.eye(320, dtype=np.float32).reshape(320, *prior.event_shape)
    variance = np.diagonal(jax.vmap(exact.covariance)(identity).reshape(320, 320))
    return prior, H, coarse, 280 + 2 * np.asarray(exact.mean()).ravel(), 2 * np.sqrt(variance)


@pytest.mark.parametrize("name", names("inference"))
def test_recipe_draws_from_the_exact_posterior(name, problem):
    """Means of 256 draws within 5 standard errors in every cell, spread within 6 % on average: a probability of
    failure below 1e-3 for exact draws (320 strongly correlated cells)."""
    prior, H, coarse, mean, sd = problem
    tree = load_program("inference", name).run(jax.random.key(3), known_noise, prior, H, y=coarse, draws=256)
    draws = tree["posterior"]["t2m"].values[0].reshape(256, -1)
    assert np.abs((draws.mean(0) - mean) / (sd / 16)).max() < 5
    assert abs(np.mean(draws.std(0) / sd) - 1) < 0.06
    assert not tree["sample_stats"]["diverging"].any()
    assert tree.attrs["approximate"] == (name != "exact_gaussian")
