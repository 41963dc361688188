"""A problem of eight cells with two data, and the exact law of what a discretised prior draws."""

import math
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesdownscale.posterior.likelihood import AbstractLikelihood, LinearGaussianLikelihood
from bayesdownscale.prior.gaussian import GaussianField
from bayesdownscale.prior.noise import NoiseLevels

SHAPE = (2, 1, 2, 2)
CELLS = 8
LEVELS = NoiseLevels(0.02, 8.0)
Y, VARIANCE = jnp.asarray([1.0, -0.7]), jnp.asarray([0.05, 0.1])
LOG_CONSTANT = -0.5 * float(jnp.sum(jnp.log(2 * jnp.pi * VARIANCE)))  # that LinearGaussianLikelihood leaves out


def observe(x):
    """The mean of the first time and one cell of the second."""
    return jnp.stack([x[0].mean(), x[1, 0, 0, 1]])


LIKELIHOOD = LinearGaussianLikelihood(observe, Y, VARIANCE)


def tiny_field() -> GaussianField:
    """Two times and four cells in a row, with unit variances."""
    distance = np.abs(np.arange(4)[:, None] - np.arange(4))
    return GaussianField.separable(np.exp(-distance[:2, :2] / 2), np.exp(-distance / 2), SHAPE[1:])


def discretised(field, sigmas, stochasticity):
    """The field whose draws are those of the solver, exactly: the multistep chain is linear in each eigenmode, x_n
    a Gaussian with D_{n-1}, and ends with D(x_N)."""
    v, lam = np.asarray(field.variances, np.float64), stochasticity
    gain, noise = np.stack([np.ones_like(v), 0 * v]), np.zeros((2, 2, *v.shape))
    h = -np.diff(np.log(sigmas))
    for n, (sigma, low) in enumerate(pairwise(sigmas)):
        w, decay = v / (v + sigma**2), math.exp(-(1 + lam) * h[n])
        ratio = h[n] / (2 * h[n - 1]) if n else 0.0
        step = np.asarray([[decay + (1 - decay) * (1 + ratio) * w, np.full_like(v, -(1 - decay) * ratio)], [w, 0 * w]])
        gain = np.einsum("ab...,b...->a...", step, gain)
        noise = np.einsum("ab...,bc...,dc...->ad...", step, noise, step)
        noise[0, 0] += low**2 * -math.expm1(-2 * lam * h[n])
    last = v / (v + sigmas[-1] ** 2)
    variances = last**2 * (gain[0] ** 2 * sigmas[0] ** 2 + noise[0, 0])
    return eqx.tree_at(lambda f: f.variances, field, jnp.asarray(variances, jnp.float32))


def moments(posterior):
    """The mean and the covariance matrix, float64."""
    basis = jnp.eye(CELLS).reshape(CELLS, *SHAPE)
    cov = np.asarray(jax.vmap(posterior.covariance)(basis), np.float64).reshape(CELLS, CELLS)
    return np.asarray(posterior.mean(), np.float64).ravel(), cov


def check(paths, posterior, bias=0.0):
    """`paths` (chain, step, ...) of independent chains: 8 means and 8 variances of their averages over steps, within
    5 standard errors, which are missed with probability 1e-5, plus `bias` standard deviations (variances: twice)."""
    x = np.asarray(paths, np.float64).reshape(*paths.shape[:2], CELLS)
    mean, cov = moments(posterior)
    z = (x - mean) / np.sqrt(np.diag(cov))
    for averages, want, allowed in [(z.mean(1), 0.0, bias), ((z**2).mean(1), 1.0, 2 * bias)]:
        error = averages.std(0, ddof=1) / math.sqrt(len(z))
        assert np.all(np.abs(averages.mean(0) - want) < 5 * error + allowed)
        assert np.all(error < 0.15)


def keys(seed, n):
    return jax.random.split(jax.random.key(seed), n)


class OneSided(AbstractLikelihood):
    """Half a Normal datum: no density, and no number, where the cell is negative."""

    def __call__(self, x):
        cell = x[1, 0, 0, 1]
        return jnp.where(cell < 0, jnp.nan, -0.5 * (cell - 0.3) ** 2)

    def simulated_score(self, key, x):
        raise NotImplementedError

    def gaussian_terms(self, x):
        raise NotImplementedError


def one_cell_scale(field):
    """The standard deviation of the cell that the one-dimensional problems observe."""
    return math.sqrt(float(field.covariance(jnp.zeros(SHAPE).at[1, 0, 0, 1].set(1.0))[1, 0, 0, 1]))
