"""Kernels of the field in NumPyro's MCMC and Gibbs sampling, and the field as noise: against exact posteriors."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.diagnostics import effective_sample_size as autocorrelated
from numpyro.infer import MCMC, NUTS, Gibbs, init_to_value
from tiny import LEVELS, SHAPE, check, discretised, one_cell_scale, tiny_field

import bayesdownscale as bd
from bayesdownscale.likelihood.program import ProgramError
from bayesdownscale.prior.gaussian import GaussianPosterior


@pytest.fixture(scope="module")
def prior():
    """The tiny field in kelvin, with a mean of 280 and a scale of 2."""
    coords = bd.Coords(
        np.datetime64("2020-03-01T00", "ns") + np.timedelta64(1, "h") * np.arange(2),
        (bd.Variable("t2m", "K"),),
        bd.Grid(np.asarray([50.0, 51.0]), np.asarray([3.0, 4.0])),
    )
    mean = jnp.zeros((5, 1, 2, 2)).at[0].set(280.0)
    return bd.GaussianPrior(tiny_field(), bd.Standardisation(mean, jnp.asarray([2.0])), LEVELS, coords)


def observe_all(x):
    return jnp.concatenate([x[0].ravel(), x[1].mean(keepdims=True).ravel()])


def program(prior, y=None, sigma=None):
    """Four cells and a mean [K], with a noise that is known or not."""
    x = numpyro.sample("weather", prior)
    sigma = numpyro.sample("sigma", dist.LogNormal(-0.5, 0.7)) if sigma is None else sigma
    numpyro.deterministic("warmth", x.mean())
    numpyro.sample("data", dist.Normal(observe_all(x), sigma).to_event(1), obs=y)


DATA = 280.0 + np.asarray([1.5, -0.5, 2.0, 0.3, -1.0], np.float32)


def exact_posterior(field, sigma):
    return GaussianPosterior(field, observe_all, jnp.asarray((DATA - 280.0) / 2.0), jnp.asarray(sigma / 2.0) ** 2)


class TestFieldKernel:
    def test_one_chain(self, prior):
        """The prior and the data are arguments of the compiled chain; the noise level is adapted in warm-up only."""
        kernel = bd.FieldKernel(program, partial(bd.NoiseDenoiseMH, candidates=2))
        mcmc = MCMC(kernel, num_warmup=10, num_samples=10, progress_bar=False, jit_model_args=True)
        start = {"weather": jnp.full(SHAPE, 281.0)}
        mcmc.run(jax.random.key(0), prior, DATA, 0.5, init_params=start, extra_fields=("info.sigma", "field.count"))
        assert mcmc.get_samples()["weather"].shape == (10, *SHAPE)
        extra = mcmc.get_extra_fields()
        assert np.all(extra["field.count"] == 10)
        assert np.ptp(np.asarray(extra["info.sigma"])) == 0

    def test_vectorized_chains(self, prior):
        """120 chains of FlowSlice, from the prior, with legacy keys: the posterior of the prior of the ODE."""
        kernel = bd.FieldKernel(program, partial(bd.FlowSlice, steps=10))
        mcmc = MCMC(
            kernel, num_warmup=20, num_samples=20, num_chains=120, chain_method="vectorized", progress_bar=False
        )
        mcmc.run(jax.random.PRNGKey(0), prior, y=DATA, sigma=0.5)
        fields = np.asarray(mcmc.get_samples(group_by_chain=True)["weather"])
        check((fields - 280.0) / 2.0, exact_posterior(discretised(prior.field, LEVELS.levels(10), 0), 0.5))

    def test_unknown_parameters_need_another_block(self, prior):
        mcmc = MCMC(bd.FieldKernel(program), num_warmup=1, num_samples=1, progress_bar=False)
        with pytest.raises(ProgramError, match="'sigma' unknown"):
            mcmc.run(jax.random.key(0), prior, DATA)

    def test_gibbs_with_unknown_noise(self, prior):
        """The noise and the field together, inside jit as in simulation-based calibration: log sigma against its
        exact marginal posterior on a grid; within 5 standard errors between 30 chains."""
        field = discretised(prior.field, LEVELS.levels(10), 0)
        grid = np.linspace(-3.5, 2.5, 241)
        evidence = jax.jit(jax.vmap(lambda s: exact_posterior(field, s).log_evidence()))
        log_prior = -0.5 * ((grid + 0.5) / 0.7) ** 2
        log_weights = log_prior + np.asarray(evidence(jnp.exp(jnp.asarray(grid, jnp.float32))))
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
        model = bd.unscored(program)
        gibbs = Gibbs([(bd.FieldKernel(model, partial(bd.FlowSlice, steps=10)), ["weather"]), (NUTS(model), None)])
        mcmc = MCMC(gibbs, num_warmup=150, num_samples=300, num_chains=30, chain_method=jax.vmap, progress_bar=False)

        def run(key, y):
            mcmc.run(key, prior, y)
            return mcmc.get_samples(group_by_chain=True)

        samples = jax.jit(run)(jax.random.key(0), DATA)
        assert samples["weather"].shape == (30, 300, *SHAPE)
        np.testing.assert_allclose(samples["warmth"], samples["weather"].mean((2, 3, 4, 5)), rtol=1e-4)
        log_sigma = np.log(np.asarray(samples["sigma"], np.float64))
        for f in (lambda a: a, lambda a: (a - weights @ grid) ** 2):
            want, averages = weights @ f(grid), f(log_sigma).mean(1)
            error = averages.std() / math.sqrt(30)
            assert abs(averages.mean() - want) < 5 * error
            assert error < 0.08


class TestFlowReparam:
    def test_nuts(self, prior):
        """A heavy-tailed datum: the mean of its cell in the prior of the ODE, by quadrature."""

        def model(prior, y):
            x = numpyro.sample("weather", prior)
            numpyro.sample("data", dist.StudentT(3.0, x[1, 0, 0, 1], 0.5), obs=y)

        reparam = bd.FlowReparam(steps=6)
        flow = handlers.reparam(model, config={"weather": reparam})

        def run(key):
            near = init_to_value(values={"weather_noise": reparam.noise(prior, jnp.full(SHAPE, 281.0))})
            kernel = NUTS(flow, max_tree_depth=4, init_strategy=near)
            mcmc = MCMC(kernel, num_warmup=150, num_samples=600, progress_bar=False)
            mcmc.run(key, prior, 283.0)
            return mcmc.get_samples()["weather"][:, 1, 0, 0, 1]

        cell = np.asarray(jax.jit(run)(jax.random.key(0)), np.float64) - 280.0
        scale = 2.0 * one_cell_scale(discretised(prior.field, LEVELS.levels(6), 0))
        grid = np.linspace(-12, 12, 4801)
        density = np.exp(-0.5 * (grid / scale) ** 2) * (1 + (3.0 - grid) ** 2 / (3 * 0.25)) ** -2.0
        mean = grid @ density / density.sum()
        error = cell.std() / math.sqrt(autocorrelated(cell[None]))
        assert abs(cell.mean() - mean) < 5 * error
        assert error < 0.15

    def test_it_refuses_other_sites(self, prior):
        model = handlers.reparam(program, config={"sigma": bd.FlowReparam()})
        with pytest.raises(ProgramError, match="'sigma': expected a field prior"), handlers.seed(rng_seed=0):
            model(prior)
