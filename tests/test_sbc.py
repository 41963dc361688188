"""Simulation-based calibration of samplers whose calibration is known: exact draws, and draws that are too narrow."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from problems import SIGMA, tiny_prior
from scipy.stats import kstest

import bayesdownscale as bd
from bayesdownscale.diagnostics.sbc import sbc, uniformity
from bayesdownscale.posterior.exact import exact_sampler

KEY = jax.random.key(3)
REPLICATES, DRAWS = 400, 15


def program(prior, H, y=None):
    x = numpyro.sample("weather", prior)
    numpyro.sample("coarse", dist.Normal(H(x), SIGMA).to_event(4), obs=y)


def narrow_sampler(program, prior, *, draws):
    """Exact draws, their distance from their mean times 0.6."""

    def chain(key):
        x = exact_sampler(program, prior, draws=draws)(key)["field"]
        centre = x.mean(0, keepdims=True)
        return {"field": centre + 0.6 * (x - centre)}

    return chain


@pytest.fixture(scope="module")
def setting():
    prior = tiny_prior()
    return prior, bd.area_mean(prior.grid, prior.grid.coarsen(2)) @ bd.snapshots(prior.times, prior.times[::2])


@pytest.fixture(scope="module")
def exact(setting):
    return sbc(KEY, program, exact_sampler, *setting, replicates=REPLICATES, draws=DRAWS, settings={"draws": DRAWS})


def test_ranks_of_exact_draws_are_uniform(exact):
    """Eight correlated quantities; the smallest p below 0.001 fails at most once in 125 keys."""
    assert exact.attrs["draws"] == DRAWS
    assert exact["rank"].shape == (8, REPLICATES)
    assert {"t2m mean", "t2m maximum", "tarp"} <= set(exact["quantity"].values)
    assert int(exact["rank"].min()) >= 0
    assert int(exact["rank"].max()) <= DRAWS
    assert float(uniformity(exact)["p"].min()) > 0.001


def test_narrow_draws_are_found_by_single_quantities_and_by_tarp(setting):
    settings = {"draws": DRAWS}
    found = sbc(KEY, program, narrow_sampler, *setting, replicates=REPLICATES, draws=DRAWS, settings=settings)
    judged = uniformity(found)
    assert float(judged["p"].sel(quantity="t2m mean")) < 1e-3
    assert abs(float(judged["mean"].sel(quantity="t2m mean")) - 0.5) < 0.1  # too narrow, not too high
    assert float(judged["outer"].sel(quantity="t2m mean")) > 0.3
    assert float(judged["p"].sel(quantity="tarp")) < 0.01


def parametric(prior, H, y=None):
    x = numpyro.sample("weather", prior)
    bias = numpyro.sample("bias", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    numpyro.sample("coarse", dist.Normal(H(x) + bias.sum(), SIGMA).to_event(4), obs=y)


def prior_sampler(program, prior):
    """Draws from the prior, whatever the data: calibrated, as ranks can see, though useless."""

    def draw(key):
        k_theta, k_field = jax.random.split(key)
        return {"field": prior.sample(k_field), "theta/bias": program.draw_theta(k_theta)["bias"]}

    return draw


def test_parameters_and_own_functionals_are_ranked(setting):
    corner = lambda x: {"corner": x[..., 0, 0, 0, 0]}
    seen = []
    found = sbc(
        KEY, parametric, prior_sampler, *setting,
        replicates=150, draws=7, functionals=corner, batch=64, on_batch=seen.append,
    )  # fmt: skip
    assert list(found["quantity"].values) == ["bias", "corner", "tarp"]
    assert found["rank"].shape == (3, 150)
    assert seen == [64, 128, 150]
    assert float(uniformity(found)["p"].min()) > 0.001  # three quantities: fails once in 300 keys
    fixed = sbc(
        KEY, parametric, lambda p, prior: lambda key: {"field": prior.sample(key)}, *setting,
        replicates=4, draws=7, functionals=corner, theta={"bias": jnp.ones(2)},
    )  # fmt: skip
    assert list(fixed["quantity"].values) == ["corner", "tarp"]


def test_uniformity_is_that_of_scipy():
    rank = np.random.default_rng(0).integers(0, 8, (2, 300))
    result = xr.Dataset({"rank": (("quantity", "replicate"), rank)}, {"quantity": ["a", "b"]}, {"draws": 7})
    jitter = np.random.default_rng(0).uniform(size=rank.shape)
    judged = uniformity(result)
    for k, name in enumerate("ab"):
        expected = kstest((rank[k] + jitter[k]) / 8, "uniform")
        np.testing.assert_allclose(judged["D"].sel(quantity=name), expected.statistic)
        np.testing.assert_allclose(judged["p"].sel(quantity=name), expected.pvalue)


def test_data_must_be_left_out(setting):
    prior, H = setting
    with pytest.raises(bd.ProgramError, match="no data, got data at 'coarse'; leave the data out"):
        sbc(KEY, program, exact_sampler, prior, H, y=H(prior.sample(KEY)), settings={"draws": 3})
    with pytest.raises(bd.ProgramError, match="parameters among"):
        sbc(KEY, program, exact_sampler, prior, H, theta={"nothing": 1.0}, settings={"draws": 3})
