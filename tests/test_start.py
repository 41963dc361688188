"""The start of Gibbs sweeps against exact posteriors of the parameters, on a grid."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from problems import small_data, small_prior
from scipy.stats import halfnorm, multivariate_normal, norm

from bayesdownscale.posterior.collect import read_model
from bayesdownscale.posterior.start import _moves, start_theta

DRAWS = 400


def noise(prior, H, y=None):
    x = numpyro.sample("weather", prior)
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    numpyro.sample("coarse", dist.Normal(H(x), sigma).mask(jnp.isfinite(y)).to_event(4), obs=y)


def noise_and_bias(prior, H, y=None):
    x = numpyro.sample("weather", prior)
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    bias = numpyro.sample("bias", dist.Normal(0.0, 3.0))
    numpyro.sample("coarse", dist.Normal(H(x) + bias, sigma).to_event(4), obs=y)


def tailed(prior, H, y=None):
    x = numpyro.sample("weather", prior)
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    numpyro.sample("coarse", dist.StudentT(3.0, H(x), sigma).to_event(4), obs=y)


@pytest.fixture(scope="module")
def setting():
    prior = small_prior()
    H, coarse, _ = small_data(prior)
    return prior, H, jnp.asarray(coarse.values)


@pytest.fixture(scope="module")
def covariance(setting):
    """Of the eight means [K2], dense."""
    prior, H, _ = setting
    basis = jnp.eye(320).reshape(320, *prior.event_shape)
    cov = np.asarray(jax.vmap(lambda e: prior.field.covariance(e).ravel())(basis), np.float64)
    A = np.asarray(jax.vmap(lambda e: H(e).ravel())(basis), np.float64).T
    return 4 * A @ cov @ A.T


def moments_on_a_grid(y, covariance, extra=0.0):
    """Mean and sd of log sigma given Normal data of mean 280 and this covariance."""
    sigma = np.exp(np.linspace(-6, 2, 400))
    n = len(y)
    density = [multivariate_normal.logpdf(y, np.full(n, 280.0), covariance + extra + s**2 * np.eye(n)) for s in sigma]
    weight = np.exp(density - np.max(density)) * halfnorm.pdf(sigma, scale=2.0) * sigma
    mean = np.average(np.log(sigma), weights=weight)
    return mean, np.sqrt(np.average((np.log(sigma) - mean) ** 2, weights=weight))


def log_sigma(model, setting, y, collapse=()):
    prior, H, _ = setting
    program, _ = read_model(model, (prior, H), {"y": y})
    draw = jax.jit(jax.vmap(lambda key: start_theta(key, program, prior, collapse)["sigma"]))
    return np.log(np.asarray(draw(jax.random.split(jax.random.key(1), DRAWS)), np.float64))


def agree(drawn, mean, sd):
    """Five standard errors of the mean, and the sd within a quarter: fails below once in 100 000 keys."""
    assert abs(drawn.mean() - mean) < 5 * sd / np.sqrt(DRAWS) + 0.03 * sd
    assert 0.75 < drawn.std() / sd < 1.25


def test_noise_scale(setting, covariance):
    y = setting[2]
    agree(log_sigma(noise, setting, y), *moments_on_a_grid(np.asarray(y).ravel(), covariance))


def test_missing_data_do_not_count(setting, covariance):
    y = setting[2].at[1].set(jnp.nan)
    agree(log_sigma(noise, setting, y), *moments_on_a_grid(np.asarray(y[0]).ravel(), covariance[:4, :4]))


def test_a_bias_is_integrated_out(setting, covariance):
    y = setting[2] + 2.0
    drawn = log_sigma(noise_and_bias, setting, y, ("bias",))
    agree(drawn, *moments_on_a_grid(np.asarray(y).ravel(), covariance, extra=9.0))


def test_other_noise_starts_from_the_prior(setting):
    """400 draws of log |N(0, 2)|: mean log 2 - 0.635, sd 1.11."""
    drawn = log_sigma(tailed, setting, setting[2])
    assert abs(drawn.mean() - (np.log(2) - 0.635)) < 5 * 1.11 / np.sqrt(DRAWS)
    assert 0.8 < drawn.std() / 1.11 < 1.2


def gain(prior, H, y=None):
    x = numpyro.sample("weather", prior)
    gain = numpyro.sample("gain", dist.Normal(1.0, 0.5))
    numpyro.sample("coarse", dist.Normal(280.0 + gain * (H(x) - 280.0), 0.3).to_event(4), obs=y)


def test_a_gain(setting, covariance):
    """Data are half as far from the mean as the prior says: each candidate has a Jacobian of its own."""
    prior, H, y = setting
    y = 280.0 + 0.5 * (y - 280.0)
    program, _ = read_model(gain, (prior, H), {"y": y})
    drawn = jax.jit(jax.vmap(lambda key: start_theta(key, program, prior)["gain"]))(
        jax.random.split(jax.random.key(1), DRAWS)
    )
    gains = np.linspace(-1.5, 4.0, 400)
    density = [
        multivariate_normal.logpdf(np.ravel(y), np.full(8, 280.0), g**2 * covariance + 0.09 * np.eye(8)) for g in gains
    ]
    weight = np.exp(density - np.max(density)) * norm.pdf(gains, 1.0, 0.5)
    mean = np.average(gains, weights=weight)
    agree(np.asarray(drawn, np.float64), mean, np.sqrt(np.average((gains - mean) ** 2, weights=weight)))


def test_what_moves_is_told_apart(setting):
    """From the computation: with no numbers needed, hence inside jit."""
    prior, H, y = setting
    told = {}
    for model in (noise, noise_and_bias, gain):

        def look(y, model=model):
            program, _ = read_model(model, (prior, H), {"y": y})
            told[model] = _moves(program, prior, program.draw_theta(jax.random.key(0)))
            return y

        jax.jit(look)(y)
    assert told == {noise: False, noise_and_bias: False, gain: True}


def test_nothing_unknown_starts_nowhere(setting):
    prior, H, coarse = setting

    def known(prior, H, y):
        numpyro.sample("coarse", dist.Normal(H(numpyro.sample("weather", prior)), 0.3).to_event(4), obs=y)

    program, _ = read_model(known, (prior, H), {"y": coarse})
    assert start_theta(jax.random.key(0), program, prior) == {}
