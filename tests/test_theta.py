"""The step of Gibbs that draws parameters given the field, and what guidance needs to know of units."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from problems import small_data, small_wind_prior, tiny_prior

import bayesdownscale as bd
from bayesdownscale.posterior.theta import draw_theta_given_field


def test_a_step_keeps_the_weights_of_modes():
    """p(theta | x, y) has two modes that no short run crosses, with weights 0.95 and 0.05. Starts from it stay in it:
    the share of 1000 steps that end in the second is within 4.5 standard errors (0.0069), and in each mode the spread
    within 12 %, five standard errors in the smaller."""
    prior = tiny_prior()
    H, coarse, _ = small_data(prior, block=2, every=2)
    weights, at = jnp.asarray([0.95, 0.05]), jnp.asarray([-4.0, 4.0])

    def model(prior, H, y):
        x = numpyro.sample("weather", prior)
        modes = dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(at, 0.5))
        numpyro.sample("b", modes)
        numpyro.sample("coarse", dist.Normal(H(x), 0.3).to_event(4), obs=y)

    program, _ = bd.read_model(model, (prior, H), {"y": coarse})
    x = prior.sample(jax.random.key(0))

    def step(key):
        k_start, k_step = jax.random.split(key)
        return draw_theta_given_field(k_step, program, x, program.draw_theta(k_start), warmup=16)["b"]

    b = np.asarray(jax.jit(jax.vmap(step))(jax.random.split(jax.random.key(1), 1000)))
    assert abs(np.mean(b > 0) - 0.05) < 0.031
    assert abs(b[b < 0].std() / 0.5 - 1) < 0.12


@pytest.mark.parametrize("guidance", [bd.SDA, bd.DPS, bd.TMPD, bd.SeedRule])
def test_units_that_are_not_known_are_refused(guidance):
    """A site of one variable of two: which scale is its own cannot be told from its numbers."""
    prior = small_wind_prior()
    H, coarse, _ = small_data(prior)

    def model(prior, H, y):
        x = numpyro.sample("weather", prior)
        numpyro.sample("coarse", dist.Normal(H(x)[:, :1], 0.5).to_event(4), obs=y)

    sampler = bd.GuidedSDE(model, steps=4, guidance=guidance)
    with pytest.raises(ValueError, match="when a field has several variables, so that their units are known"):
        sampler.run(jax.random.key(0), prior, H, y=coarse.values[:, :1], draws=1)
