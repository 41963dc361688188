"""Kernels of the field on an exact Gaussian prior: what they draw is the posterior."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import (
    LEVELS,
    LIKELIHOOD,
    SHAPE,
    VARIANCE,
    OneSided,
    Y,
    check,
    discretised,
    keys,
    observe,
    one_cell_scale,
    tiny_field,
)

import bayesdownscale as bd
from bayesdownscale.posterior.kernels.noise_denoise import metropolised
from bayesdownscale.prior.gaussian import GaussianDenoiser, GaussianPosterior


@pytest.fixture(scope="module")
def denoiser():
    return GaussianDenoiser(tiny_field())


@eqx.filter_jit
def chains(kernel, keys, starts, adapted, steps=50, **settings):
    """The fields and infos of `steps` steps of chains from `starts`, the first `adapted` (an array) in warm-up."""

    def chain(key, x):
        k_init, k_steps = jax.random.split(key)
        state = kernel.init(k_init, x)._replace(**settings)

        def step(state, at):
            key, warming_up = at
            state, info = kernel.step(key, state)
            choose = lambda a, b: jnp.where(warming_up, a, b)
            return jax.tree.map(choose, kernel.adapt(state, info), state), (state.x, info)

        warming_up = jnp.arange(steps) < adapted
        return jax.lax.scan(step, state, (jax.random.split(k_steps, steps), warming_up))[1]

    return jax.vmap(chain)(keys, starts)


class TestNoiseDenoise:
    @pytest.mark.parametrize("candidates", [1, 3])
    def test_posterior(self, denoiser, context, candidates):
        """Chains that start exactly stay exact, at one level; from zero they get there, adapted. On a Gaussian prior
        the solver is off by at most 2.4 % of a variance at this spacing."""
        kernel = bd.NoiseDenoiseMH(denoiser, LIKELIHOOD, context(2), LEVELS, spacing=0.2, candidates=candidates)
        posterior = GaussianPosterior(denoiser.field, observe, Y, VARIANCE)
        exact = jax.vmap(posterior.draw)(keys(1, 200))
        draw = lambda key, starts, adapted: chains(kernel, key, starts, adapted, log_sigma=jnp.asarray(-0.5))
        stay, info = draw(keys(2, 200), exact, jnp.asarray(0))
        check(stay, posterior, bias=0.012)
        steps = (-0.5 - math.log(LEVELS.sigma_min)) / 0.2
        assert abs(int(info.cost.evaluations[0, 0]) / candidates - 1 - steps) < 1
        come, info = draw(keys(3, 200), 0 * exact, jnp.asarray(30))
        check(come[:, 30:], posterior, bias=0.012)
        assert 0.2 < info.acceptance[:, 30:].mean() < 0.4

    def test_the_choice_is_reversible(self):
        """The transition matrix among four states from 20000 choices each: w_i P_ij = w_j P_ji, within 5 standard
        errors, which are missed with probability 1e-5."""
        weights = np.asarray([0.1, 0.4, 0.2, 0.3])
        orders = np.asarray([[i, *(j for j in range(4) if j != i)] for i in range(4)])  # the current state in front
        choose = jax.vmap(jax.vmap(metropolised, (0, None)), (None, 0))
        j, acceptance, accepted = choose(keys(0, 20000), jnp.log(jnp.asarray(weights[orders], jnp.float32)))
        moved = np.take_along_axis(orders, np.where(accepted, j, 0), axis=1)
        counts = np.stack([np.bincount(row, minlength=4) for row in moved])
        flow, error = weights[:, None] * counts / 20000, weights[:, None] * np.sqrt(counts) / 20000
        assert np.all(np.abs(flow - flow.T) <= 5 * np.sqrt(error**2 + error.T**2))
        assert abs(acceptance.mean() - accepted.mean()) < 0.01

    @pytest.mark.parametrize(("log_weights", "want"), [([-1.0, -np.inf, -np.inf], 0.0), ([-np.inf, -5.0, -900.0], 1.0)])
    def test_weight_zero_is_never_chosen_and_always_left(self, log_weights, want):
        j, acceptance, accepted = jax.vmap(metropolised, (0, None))(keys(0, 50), jnp.asarray(log_weights))
        assert np.all(np.asarray(acceptance) == want)
        assert np.all(np.where(accepted, j, 1) == 1)

    def test_settings_are_checked(self, denoiser, context):
        with pytest.raises(ValueError, match="at least one candidate"):
            bd.NoiseDenoiseMH(denoiser, LIKELIHOOD, context(2), LEVELS, candidates=0)


class TestFlowSlice:
    def test_posterior(self, denoiser, context):
        """Against the exact posterior of the prior that the discretised ODE makes: no bias."""
        kernel = bd.FlowSlice(denoiser, LIKELIHOOD, context(2), LEVELS, steps=10)
        prior = discretised(denoiser.field, LEVELS.levels(10), 0)
        posterior = GaussianPosterior(prior, observe, Y, VARIANCE)
        exact = jax.vmap(posterior.draw)(keys(1, 200))
        stay, info = chains(kernel, keys(2, 200), exact, jnp.asarray(0), steps=40)
        check(stay, posterior)
        assert np.all(info.cost.evaluations == 10 * (1 + info.contractions))
        come, _ = chains(kernel, keys(3, 200), 0 * exact, jnp.asarray(0), steps=40)
        check(come[:, 20:], posterior)

    def test_what_is_no_number_has_no_density(self, denoiser, context):
        """A cell N(0, 1) truncated to be positive with a Normal datum: N(0.15, 1/2) beyond zero, by quadrature."""
        kernel = bd.FlowSlice(denoiser, OneSided(), context(2), LEVELS, steps=10)
        x = jnp.broadcast_to(0.5, (300, *SHAPE))
        cells = np.asarray(chains(kernel, keys(4, 300), x, jnp.asarray(0), steps=40)[0][:, 20:, 1, 0, 0, 1])
        scale = one_cell_scale(discretised(denoiser.field, LEVELS.levels(10), 0))
        grid = np.linspace(0, 6, 6001)
        density = np.exp(-0.5 * (grid / scale) ** 2 - 0.5 * (grid - 0.3) ** 2)
        mean = grid @ density / density.sum()
        assert cells.min() > 0
        averages = cells.mean(1)
        assert abs(averages.mean() - mean) < 5 * averages.std() / math.sqrt(300)

    def test_without_contractions_it_may_stay(self, denoiser, context):
        """And a start is near the field it is given."""
        kernel = bd.FlowSlice(denoiser, LIKELIHOOD, context(2), LEVELS, steps=20, contractions=0)
        x = denoiser.field.draw(jax.random.key(0))

        def run(keys):
            state = kernel.init(keys[0], x)
            return state, *jax.vmap(kernel.step, (0, None))(keys, state)

        state, moved, info = jax.jit(run)(keys(0, 40))
        np.testing.assert_allclose(state.x, x, atol=0.1)
        same = np.all(np.asarray(moved.z) == np.asarray(state.z), axis=(1, 2, 3, 4))
        assert 0 < same.sum() < 40
        np.testing.assert_array_equal(same, info.angle == 0)
        np.testing.assert_array_equal(same, info.contractions)
