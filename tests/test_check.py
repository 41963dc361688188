"""posterior_check: a sampler that is exact passes, one that is not is found out, by the right amount."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import known_noise, small_data, tiny_prior

import bayesdownscale as bd
from bayesdownscale.posterior.check import drift
from bayesdownscale.posterior.guidance.base import AbstractGuidance
from bayesdownscale.posterior.likelihood import AbstractLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser

SETTINGS = {"chains": 128, "steps": 20, "batch": 128, "guided_steps": 16}


class Shifted(AbstractGuidance):
    """Moment matching that is off by half a unit everywhere."""

    denoiser: AbstractDenoiser
    likelihood: AbstractLikelihood

    def twist(self, x_sigma, sigma, context):
        twist = bd.MomentMatching(self.denoiser, self.likelihood).twist(x_sigma, sigma, context)
        return twist._replace(mean=twist.mean + 0.5 * jnp.minimum(1.0, sigma))


@pytest.fixture(scope="module")
def setting():
    prior = tiny_prior()
    return prior, *small_data(prior, block=2, every=2)[:2]


def check(setting, **changes):
    prior, H, coarse = setting
    return bd.posterior_check(known_noise, jax.random.key(0), prior, H, y=coarse, **{**SETTINGS, **changes})


def test_draws_that_are_exact_pass(setting):
    """Error of the mean within 4 standard errors of zero, width within 4 of one: fails once in 1e4."""
    result = check(setting)
    assert result.forgotten > 0.2
    assert result.mean_error < 4 * result.mean_error_se + 0.1
    assert abs(result.sd_ratio - 1) < 4 * result.sd_ratio_se + 0.05
    assert result.pareto_k is not None  # of weights of whole paths: heavy-tailed even where the guidance is exact
    assert "Pareto k of the weights of guided paths" in str(result)


def test_draws_that_are_not_are_found_out(setting):
    result = check(setting, guidance=Shifted)
    assert result.mean_error > 0.25
    assert result.mean_error > 3 * result.mean_error_se


def test_too_few_steps_say_nothing():
    """Chains that did not move: the sentence gives no number."""
    first = np.random.default_rng(0).normal(size=(64, 20))
    forgotten = drift(first, first)[-1]
    assert forgotten < 0.01
    result = bd.Check(0.0, 0.1, 1.0, 0.1, {}, forgotten, None, chains=64, steps=1)
    assert "is not known; ask for more steps" in str(result)


def test_drift_of_a_known_chain():
    """AR(1) chains that start 0.5 too high and 1.3 times too wide, watched until half is forgotten: both are found
    within 5 standard errors of 1000 chains."""
    rng = np.random.default_rng(0)
    first = 0.5 + 1.3 * rng.normal(size=(1000, 20))
    last = 0.5 * first + np.sqrt(0.75) * rng.normal(size=(1000, 20))
    error, error_se, ratio, ratio_se, forgotten = drift(first, last)
    assert abs(error - 0.5) < max(5 * error_se, 0.1)
    assert abs(ratio - 1.3) < max(5 * ratio_se, 0.15)
    assert 0.3 < forgotten < 0.6
