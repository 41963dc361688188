"""Twisted sequential Monte Carlo: evidence and draws against the exact ones of the discretised prior."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import (
    CELLS,
    LIKELIHOOD,
    LOG_CONSTANT,
    SHAPE,
    VARIANCE,
    OneSided,
    Y,
    discretised,
    keys,
    moments,
    observe,
    one_cell_scale,
    tiny_field,
)

import bayesdownscale as bd
from bayesdownscale.posterior.guidance import SDA, MomentMatching
from bayesdownscale.posterior.kernels.resampling import systematic
from bayesdownscale.posterior.likelihood import LinearGaussianLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser
from bayesdownscale.prior.gaussian import GaussianDenoiser, GaussianPosterior


@pytest.fixture(scope="module")
def denoiser():
    return GaussianDenoiser(tiny_field())


class TestTwistedSMC:
    """Against the exact posterior and evidence of the discretised prior."""

    SIGMAS = np.geomspace(8.0, 0.02, 12)

    @pytest.fixture(scope="class")
    def prior(self):
        return discretised(tiny_field(), self.SIGMAS, 1)

    @pytest.fixture(scope="class")
    def posterior(self, prior):
        return GaussianPosterior(prior, observe, Y, VARIANCE)

    def run(self, key, guidance, context, particles, likelihood=LIKELIHOOD, **settings):
        return bd.twisted_smc(key, guidance, likelihood, context(2), self.SIGMAS, SHAPE, particles, **settings)

    def test_moment_matching(self, denoiser, context):
        """The twist is exact, and the proposal up to the discretisation: of 400 particles that are never resampled
        most still count after 64 levels."""
        sigmas = np.geomspace(8.0, 0.02, 64)
        posterior = GaussianPosterior(discretised(tiny_field(), sigmas, 1), observe, Y, VARIANCE)
        guidance = MomentMatching(denoiser, LIKELIHOOD)
        run = lambda key: bd.twisted_smc(key, guidance, LIKELIHOOD, context(2), sigmas, SHAPE, 400, ess_threshold=0)
        run = jax.jit(run)(jax.random.key(0))
        assert run.ess.shape == (64,)
        assert run.ess.min() > 250
        assert int(run.cost.evaluations) == 64 * 400
        assert abs(run.log_evidence + LOG_CONSTANT - posterior.log_evidence()) < 5 * math.sqrt(1 / 250)
        mean, cov = moments(posterior)
        fields = np.asarray(bd.equally_weighted(jax.random.key(1), run, 400)).reshape(400, CELLS)
        z = (fields - mean) / np.sqrt(np.diag(cov))
        assert np.all(np.abs(z.mean(0)) < 5 / math.sqrt(250))
        assert np.all(np.abs(z.var(0) - 1) < 5 * math.sqrt(2 / 250))

    @pytest.mark.parametrize("threshold", [0.5, 0.0])
    def test_unbiased_whatever_the_guidance(self, denoiser, context, posterior, threshold):
        """The mean of 400 estimates of p(y) from 32 particles, guided by SDA with a gamma far off, with resampling
        and without: within 5 standard errors, and these below 5 %."""
        guidance = SDA(denoiser, LIKELIHOOD, gamma=0.5)
        run = lambda key: self.run(key, guidance, context, 32, ess_threshold=threshold).log_evidence
        log_z = np.asarray(jax.jit(jax.vmap(run))(keys(0, 400)), np.float64) + LOG_CONSTANT
        ratio = np.exp(log_z - float(posterior.log_evidence()))
        error = ratio.std() / math.sqrt(400)
        assert error < 0.05
        assert abs(ratio.mean() - 1) < 5 * error

    def test_islands_tell_their_error(self, denoiser, context, posterior):
        """60 estimates from 8 islands each: their spread is the standard error told (known to 9 % itself)."""
        guidance = SDA(denoiser, LIKELIHOOD, gamma=0.5)
        estimate = lambda key: bd.log_evidence(key, guidance, LIKELIHOOD, context(2), self.SIGMAS, SHAPE, 32)
        many = jax.jit(jax.vmap(estimate))(keys(1, 60))
        assert many.islands.shape == (60, 8)
        assert 0.6 < many.log_evidence.std() / many.standard_error.mean() < 1.5
        bias = many.log_evidence.mean() + LOG_CONSTANT - posterior.log_evidence()
        assert abs(bias) < many.standard_error.mean()
        with pytest.raises(ValueError, match="at least 2 islands"):
            bd.log_evidence(jax.random.key(0), guidance, LIKELIHOOD, context(2), self.SIGMAS, SHAPE, 8, islands=1)

    def test_a_likelihood_that_the_guidance_does_not_know(self, denoiser, context, prior):
        """Some particles have no density: log p(y) by quadrature. If all have none, it is -inf."""
        near = LinearGaussianLikelihood(observe, jnp.asarray([0.3, 0.3]), jnp.asarray([2.0, 1.0]))
        run = lambda key: self.run(key, SDA(denoiser, near, gamma=0.5), context, 2000, OneSided())
        run = jax.jit(run)(jax.random.key(0))
        assert not np.all(np.isfinite(run.log_weights))
        grid, scale = np.linspace(0, 8, 8001), one_cell_scale(prior)
        density = np.exp(-0.5 * (grid / scale) ** 2 - 0.5 * (grid - 0.3) ** 2) / (scale * math.sqrt(2 * math.pi))
        assert abs(run.log_evidence - math.log(density.sum() * 1e-3)) < 0.15
        assert np.all(np.asarray(bd.equally_weighted(jax.random.key(1), run, 500))[:, 1, 0, 0, 1] > 0)

    @pytest.mark.parametrize("threshold", [0.5, 0.0])
    def test_particles_that_overflow_are_dead(self, context, denoiser, threshold):
        run = lambda top: self.run(
            jax.random.key(0), SDA(Overflowing(denoiser, top), LIKELIHOOD), context, 50, ess_threshold=threshold
        )
        some, none = jax.jit(jax.vmap(run))(jnp.asarray([2.0, -1e6])).log_evidence
        assert np.isfinite(some)
        assert none == -np.inf

    def test_systematic_resampling(self):
        """Every particle floor or ceil of its share, and its share on average; none of weight zero."""
        weights = np.asarray([0.0, 0.5, 0.125, 0.375, 0.0])
        draw = jax.vmap(lambda key: systematic(key, jnp.log(jnp.asarray(weights, jnp.float32)), 10))(keys(0, 2000))
        counts = np.stack([np.bincount(row, minlength=5) for row in np.asarray(draw)])
        assert np.all((counts >= np.floor(10 * weights)) & (counts <= np.ceil(10 * weights)))
        np.testing.assert_allclose(counts.mean(0), 10 * weights, atol=0.06)


class Overflowing(AbstractDenoiser):
    """No number where a cell is above `top`."""

    denoiser: AbstractDenoiser
    top: jax.Array

    def evaluate(self, x_sigma, sigma, context):
        denoised, cost = self.denoiser.evaluate(x_sigma, sigma, context)
        return jnp.where(x_sigma[0, 0, 0, 0] > self.top, jnp.nan, denoised), cost
