"""Parameters integrated out of the likelihood: against the closed form, and what that does to Gibbs sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from problems import small_data, tiny_prior
from scipy.stats import multivariate_normal

import bayesdownscale as bd
from bayesdownscale.posterior.collapse import CollapsedLikelihood


def biased(prior, H, y=None):
    x = numpyro.sample("weather", prior)
    sigma = numpyro.sample("sigma", dist.LogNormal(-1.2, 0.3))
    offset = numpyro.sample("offset", dist.Normal(0.5, 2.0))
    numpyro.sample("coarse", dist.Normal(H(x) + offset, sigma).to_event(4), obs=y)


@pytest.fixture(scope="module")
def setting():
    prior = tiny_prior()
    H, coarse, _ = small_data(prior, block=2, every=2)
    return prior, H, bd.Fields(coarse.values + 1.5, coarse.coords)


@pytest.fixture(scope="module")
def likelihood(setting):
    prior, H, coarse = setting
    program, _ = bd.read_model(biased, (prior, H), {"y": coarse})
    theta = {"sigma": jnp.asarray(0.3), "offset": jnp.asarray(0.0)}
    return CollapsedLikelihood.of(program, prior, theta, ("offset",))


def test_is_the_marginal_density(setting, likelihood):
    """Differences over fields against N(H x + 0.5, 0.3^2 I + 2^2 1 1^T), and the gradient by finite differences."""
    prior, H, coarse = setting
    n = coarse.values.size
    fields = [jax.random.normal(jax.random.key(k), prior.event_shape) for k in range(3)]
    cov = 0.09 * np.eye(n) + 4.0 * np.ones((n, n))
    physical = lambda x: prior.standardisation.backward(x, prior.context)
    mean = lambda x: np.asarray(H(physical(x)), np.float64).ravel() + 0.5
    want = [multivariate_normal.logpdf(coarse.values.ravel(), mean(x), cov) for x in fields]
    got = [float(likelihood(x)) for x in fields]
    np.testing.assert_allclose(np.diff(got), np.diff(want), rtol=2e-3)
    direction = fields[1]
    slope = jnp.vdot(jax.grad(likelihood)(fields[0]), direction)
    step = 1e-2 * direction
    finite = (likelihood(fields[0] + step) - likelihood(fields[0] - step)) / 2e-2
    np.testing.assert_allclose(slope, finite, rtol=2e-2)


def test_a_factor_is_integrated_out_too(setting):
    """y = (1 + w) H x + noise, w ~ N(0, 0.5^2): the covariance of y then depends on the field, here H x H x^T / 4 +
    0.3^2 I. Fields near a few kelvin, so that w counts as much as noise."""
    prior, H, coarse = setting

    def stretched(prior, H, y):
        w = numpyro.sample("w", dist.Normal(0.0, 0.5))
        mean = 0.01 * H(numpyro.sample("weather", prior))
        numpyro.sample("coarse", dist.Normal((1 + w) * mean, 0.3).to_event(4), obs=y)

    y = 0.01 * coarse.values
    program, _ = bd.read_model(stretched, (prior, H), {"y": jnp.asarray(y)})
    likelihood = CollapsedLikelihood.of(program, prior, {"w": jnp.asarray(0.0)}, ("w",))
    got, want = [], []
    for size in (-120.0, -60.0, 0.0):
        x = jnp.full(prior.event_shape, size)
        mean = 0.01 * np.asarray(H(prior.standardisation.backward(x, prior.context)), np.float64).ravel()
        cov = 0.09 * np.eye(mean.size) + 0.25 * np.outer(mean, mean)
        got.append(float(likelihood(x)))
        want.append(multivariate_normal.logpdf(y.ravel(), mean, cov))
    np.testing.assert_allclose(np.diff(got), np.diff(want), rtol=2e-3)


def test_what_is_simulated_knows_the_other_parameters(setting):
    """w given its scale, which is a parameter too and known in a draw: not given another one from its prior."""
    prior, H, coarse = setting

    def deep(prior, H, y):
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 3.0))
        w = numpyro.sample("w", dist.Normal(0.0, scale))
        numpyro.sample("coarse", dist.Normal(H(numpyro.sample("weather", prior)) + w, 0.3).to_event(4), obs=y)

    program, _ = bd.read_model(deep, (prior, H), {"y": coarse})
    theta = {"scale": jnp.asarray(1e-3), "w": jnp.asarray(0.0)}
    likelihood = CollapsedLikelihood.of(program, prior, theta, ("w",))
    drawn = jax.vmap(likelihood._draw_w)(jax.random.split(jax.random.key(0), 100))["w"]
    assert np.abs(drawn).max() < 5e-3  # five standard deviations


def test_only_real_parameters_are_collapsed(setting):
    prior, H, coarse = setting
    with pytest.raises(bd.ProgramError, match="to collapse, got 'sigma', which cannot be any real number"):
        bd.GuidedSDE(biased, steps=4, collapse=("sigma",)).run(jax.random.key(0), prior, H, y=coarse, draws=1)


def test_a_parameter_that_is_not_there_is_refused(setting):
    prior, H, coarse = setting
    with pytest.raises(bd.ProgramError, match="to collapse, got 'slope'"):
        bd.GuidedSDE(biased, steps=4, collapse=("slope",)).run(jax.random.key(0), prior, H, y=coarse, draws=1)


@pytest.mark.slow
def test_gibbs_finds_the_bias(setting):
    """Mean and spread of the offset against the exact posterior on a grid of sigma: within 0.3 of its standard
    deviation and 25 %, four standard errors of 256 nearly independent draws. Three sweeps that are not collapsed are
    nowhere near: the offset stays where its prior put it."""
    prior, H, coarse = setting

    def known(prior, H, y, offset, sigma):
        numpyro.sample("coarse", dist.Normal(H(numpyro.sample("weather", prior)) + offset, sigma).to_event(4), obs=y)

    offsets, logs = np.meshgrid(np.linspace(-8, 8, 65), np.linspace(-2.2, -0.2, 9), indexing="ij")

    def log_joint(offset, log_sigma):
        args = (prior, H, jnp.asarray(coarse.values), offset, jnp.exp(log_sigma))
        posterior = bd.condition_gaussian(bd.read_model(known, args, {})[0], prior)
        priors = dist.Normal(0.5, 2.0).log_prob(offset) + dist.Normal(-1.2, 0.3).log_prob(log_sigma)
        return posterior.log_evidence() + priors

    at = lambda pair: log_joint(*pair)
    pairs = jnp.asarray(np.stack([offsets.ravel(), logs.ravel()], 1), jnp.float32)
    weights = np.exp(np.asarray(jax.jit(lambda p: jax.lax.map(at, p))(pairs), np.float64))
    weights /= weights.sum()
    mean = weights @ offsets.ravel()
    sd = np.sqrt(weights @ (offsets.ravel() - mean) ** 2)

    def run(**settings):
        sampler = bd.GuidedSDE(biased, steps=24, sweeps=3, batch=128, guidance=bd.FixedCovariance, **settings)
        return sampler.run(jax.random.key(2), prior, H, y=coarse, draws=256).theta["offset"]

    collapsed = run(collapse=("offset",))
    assert abs(collapsed.mean() - mean) < 0.3 * sd
    assert abs(collapsed.std() / sd - 1) < 0.25
