"""ExactGaussian against dense linear algebra: its evidence in physical units, missing data, several variables."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from problems import small_wind_prior, tiny_prior
from scipy.stats import multivariate_normal

import bayesdownscale as bd
from bayesdownscale.likelihood.program import ProgramError

SD = 0.5


def first_variable(prior, y, noise=SD):
    x = numpyro.sample("weather", prior)
    numpyro.sample("data", dist.Normal(x[:2, :1, :2, :2], noise).mask(jnp.isfinite(y)).to_event(4), obs=y)


def dense(prior, corner=(2, 1, 2, 2)):
    """Mean and covariance of the data that `first_variable` sees, in physical units."""
    n = int(np.prod(prior.event_shape))
    basis = jnp.eye(n).reshape(n, *prior.event_shape)
    cov = np.asarray(jax.vmap(prior.field.covariance)(basis), np.float64).reshape(n, n)
    inside = np.zeros(prior.event_shape, bool)
    inside[tuple(slice(k) for k in corner)] = True
    scale = float(prior.standardisation.scale[0])
    mean = np.asarray(prior.standardisation.backward(jnp.zeros(prior.event_shape), prior.context))
    return mean[inside], scale**2 * cov[np.ix_(inside.ravel(), inside.ravel())] + SD**2 * np.eye(8)


@pytest.fixture(scope="module")
def data():
    """A prior in kelvin with a scale of 2, and eight data that it made, two of them missing."""
    prior = tiny_prior()
    y = np.asarray(prior.sample(jax.random.key(0)))[:2, :1, :2, :2]
    y = y + SD * np.asarray(jax.random.normal(jax.random.key(1), y.shape))
    y[0, 0, 0, 1] = y[1, 0, 1, 0] = np.nan
    return prior, y


def test_evidence_is_a_density_of_the_data_in_their_units(data):
    """Inside jit and vmap, as calibration maps it."""
    prior, holes = data
    full = np.where(np.isfinite(holes), holes, 281.0)
    mean, cov = dense(prior)
    evidence = lambda y: bd.ExactGaussian(first_variable).condition(prior, y).log_evidence()
    together = jax.jit(jax.vmap(evidence))(jnp.stack([full, holes]))
    for y, found in zip((full, holes), together, strict=True):
        seen = np.isfinite(y.ravel())
        truth = multivariate_normal(mean[seen], cov[np.ix_(seen, seen)]).logpdf(y.ravel()[seen])
        np.testing.assert_allclose(found, truth, rtol=1e-4)


def test_missing_data_change_no_draw(data):
    """A datum that is missing has the prior's covariance with what is seen: as if its row were left out."""
    prior, holes = data
    posterior = bd.ExactGaussian(first_variable).condition(prior, holes)
    mean, cov = dense(prior)
    seen = np.isfinite(holes.ravel())
    gain = (cov - SD**2 * np.eye(8))[:, seen] @ np.linalg.inv(cov[np.ix_(seen, seen)])
    found = prior.standardisation.backward(posterior.mean(), prior.context)[:2, :, :2, :2].ravel()
    np.testing.assert_allclose(found, mean + gain @ (holes.ravel() - mean)[seen], rtol=1e-5)
    assert np.isfinite(posterior.draw(jax.random.key(1))).all()


def test_evidence_is_that_of_twisted_smc(data):
    """Of the same program, within 4 standard errors and 0.05 for the steps of the solver."""
    prior, y = data
    program, _ = bd.read_model(first_variable, (prior, y), {})
    likelihood = bd.ProgramLikelihood.of(program, prior)
    guidance = bd.MomentMatching(prior.denoiser, likelihood)
    place = prior.context, prior.levels.levels(64), prior.event_shape
    found = jax.jit(lambda key: bd.log_evidence(key, guidance, likelihood, *place, particles=64, islands=8))(
        jax.random.key(0)
    )
    exact = bd.condition_gaussian(program, prior).log_evidence()
    assert found.standard_error < 0.2
    assert abs(found.log_evidence - exact) < 4 * found.standard_error + 0.05


def test_one_of_two_variables_is_observed_once():
    prior = small_wind_prior(3)
    y = 3.0 + np.asarray(jax.random.normal(jax.random.key(0), (2, 1, 2, 2)))
    posterior = bd.ExactGaussian(first_variable).condition(prior, y)
    assert posterior.y.shape == (8,)
    mean, cov = dense(prior)
    np.testing.assert_allclose(posterior.log_evidence(), multivariate_normal(mean, cov).logpdf(y.ravel()), rtol=1e-4)
    cell = jnp.zeros(prior.event_shape).at[0, 0, 0, 0].set(1.0)
    exact = 4 * posterior.covariance(cell)[0, 0, 0, 0]
    signal = cov - SD**2 * np.eye(8)
    np.testing.assert_allclose(exact, (signal - signal @ np.linalg.inv(cov) @ signal)[0, 0], rtol=1e-3)


def test_noise_that_depends_on_the_field_is_refused(data):
    def growing(prior, y):
        x = numpyro.sample("weather", prior)
        numpyro.sample("data", dist.Normal(x, 0.1 + 0.01 * jnp.abs(x - 280.0)).to_event(4), obs=y)

    with pytest.raises(ProgramError, match="noise that does not depend on the field"):
        bd.ExactGaussian(growing).condition(data[0], np.full((3, 1, 4, 4), 280.0, np.float32))
