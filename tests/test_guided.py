"""GuidedSDE and ExactGaussian on the exact Gaussian problem, and what a user sees of them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from problems import SIGMA, known_noise, load_program, small_data, small_prior
from scipy.stats import norm

import bayesdownscale as bd
from bayesdownscale.posterior.result import Posterior

KEY = jax.random.key(7)


@pytest.fixture(scope="session")
def setting():
    prior = small_prior()
    return prior, *small_data(prior)


@pytest.fixture(scope="session")
def guided(setting):
    prior, H, coarse, _ = setting
    sampler = bd.GuidedSDE(known_noise, steps=32, batch=64)
    return sampler, sampler.run(KEY, prior, H, y=coarse, draws=256)


def test_exact_gaussian_agrees_with_dense_formulas(setting):
    prior, H, coarse, _ = setting
    condition = bd.ExactGaussian(known_noise).condition(prior, H, y=coarse)
    flat = lambda f: jnp.asarray(f).reshape(-1)
    basis = jnp.eye(320).reshape(320, *prior.event_shape)
    sigma = np.asarray(jax.vmap(lambda e: flat(prior.field.covariance(e)))(basis), np.float64)
    A = np.asarray(jax.vmap(lambda e: flat(H(e)))(basis), np.float64).T
    y = (np.asarray(flat(coarse.values), np.float64) - 280.0) / 2.0
    gain = np.linalg.solve(A @ sigma @ A.T + (SIGMA / 2) ** 2 * np.eye(8), A @ sigma).T
    np.testing.assert_allclose(flat(condition.mean()), gain @ y, atol=2e-4)
    cov = jax.vmap(lambda e: flat(condition.covariance(e)))(basis)
    np.testing.assert_allclose(cov, sigma - gain @ A @ sigma, atol=2e-4)


def test_guided_draws_match_the_exact_posterior(setting, guided):
    """Means and standard deviations of 256 draws in 320 correlated cells; z-scores of the mean beyond 5 and
    deviations of the sd beyond 25 % have probability below 1e-4 for exact draws."""
    prior, H, coarse, _ = setting
    exact = bd.ExactGaussian(known_noise).run(KEY, prior, H, y=coarse, draws=2048).fields
    draws = guided[1].fields
    z = (draws.mean(0) - exact.mean(0)) / (exact.std(0) / np.sqrt(256))
    assert np.abs(z).max() < 5
    ratio = draws.std(0) / exact.std(0)
    assert 0.75 < ratio.min()
    assert ratio.max() < 1.25
    assert abs(ratio.mean() - 1) < 0.06


def test_stats_say_what_was_done(guided):
    stats = guided[1].stats
    assert (stats["n_evaluations"] == 32).all()
    assert (stats["n_products"] >= 32).all()
    assert (stats["n_products"] <= 32 * 5).all()
    assert not stats["diverging"].any()
    # Eight residuals in units of their noise: the mean square over 256 draws of one data set lies within 0.2 to 3.
    assert 0.2 < np.mean(stats["coarse_residual"] ** 2) < 3


def test_one_compile_per_shape_and_draws_do_not_depend_on_the_batch(setting, guided):
    from bayesdownscale.posterior import collect as module

    prior, H, coarse, _ = setting
    sampler, first = guided
    before = module._draw_batch._cached._cache_size()
    later = prior.at(prior.times + np.timedelta64(24, "h"))
    other = bd.Fields(coarse.values + 1, coarse.coords)
    sampler.run(KEY, later, H, y=other, draws=64)
    sampler.run(jax.random.key(8), prior, H, y=other, draws=70)
    assert module._draw_batch._cached._cache_size() == before
    few = bd.GuidedSDE(known_noise, steps=32, batch=4).run(KEY, prior, H, y=coarse, draws=6)
    np.testing.assert_allclose(few.fields, first.fields[:6], atol=2e-3)


def test_finished_batches_survive_a_kill(setting, tmp_path):
    prior, H, coarse, _ = setting
    sampler = bd.GuidedSDE(known_noise, steps=4, batch=2)
    whole = sampler.run(KEY, prior, H, y=coarse, draws=6)
    calls = []

    def killed(done):
        calls.append(done)
        if done == 4:
            raise KeyboardInterrupt

    keep = tmp_path / "unfinished"
    with pytest.raises(KeyboardInterrupt):
        sampler.run(KEY, prior, H, y=coarse, draws=6, on_batch=killed, keep=keep)
    assert len(list(keep.glob("*.safetensors"))) == 2
    again = sampler.run(KEY, prior, H, y=coarse, draws=6, keep=keep)
    np.testing.assert_array_equal(again.fields, whole.fields)
    with pytest.raises(ValueError, match="finished draws of another run"):
        sampler.run(jax.random.key(9), prior, H, y=coarse, draws=6, keep=keep)


def test_datatree_is_labelled_and_arviz_reads_it(setting, guided):
    import arviz as az

    prior, _, coarse, truth = setting
    tree = guided[1].to_datatree(truth=truth)
    t2m = tree["posterior"]["t2m"]
    assert t2m.dims == ("chain", "draw", "time", "lat", "lon")
    assert t2m.attrs["units"] == "K"
    assert tree["observed_data"]["coarse"].dims == ("time_coarse", "variable", "lat_coarse", "lon_coarse")
    np.testing.assert_array_equal(tree["observed_data"]["time_coarse"], coarse.times)
    np.testing.assert_array_equal(tree["truth"]["t2m"], truth.values[:, 0])
    assert tree.attrs["approximate"] == 1
    assert "def known_noise" in tree.attrs["model_source"]
    small = t2m.isel(time=[2], lat=[3], lon=[4]).to_dataset(name="t2m")
    assert np.isfinite(az.summary(small)["mean"].astype(float)).all()
    assert prior.variables[0].name in tree["posterior"]


def test_posterior_and_datatree_convert_both_ways(guided, tmp_path):
    tree = guided[1].to_datatree()
    back = Posterior.from_datatree(tree)
    np.testing.assert_array_equal(back.fields, guided[1].fields)
    assert back.get_samples().keys() == guided[1].get_samples().keys()
    assert back.attrs == guided[1].attrs
    assert back.to_datatree().identical(tree)
    bd.write_atomic(tree, tmp_path / "posterior.zarr")
    again = Posterior.from_datatree(xr.open_datatree(tmp_path / "posterior.zarr", engine="zarr", consolidated=False))
    np.testing.assert_array_equal(again.fields, guided[1].fields)
    np.testing.assert_array_equal(again.observed["coarse"], guided[1].observed["coarse"])
    assert again.labels["coarse"].times.tolist() == guided[1].labels["coarse"].times.tolist()
    with pytest.raises(bd.DataError, match="expected fields"):
        Posterior.from_datatree(xr.DataTree.from_dict({"/posterior": xr.Dataset()}))


def test_pointwise_densities_are_those_of_the_data(setting, guided):
    _, H, coarse, _ = setting
    tree = guided[1].to_datatree()
    density = tree["log_likelihood"]["coarse"]
    assert density.dims == ("chain", "draw", *tree["observed_data"]["coarse"].dims)
    means = np.stack([np.asarray(H(jnp.asarray(x))) for x in guided[1].fields[:4]])
    expected = norm.logpdf(coarse.values, means, SIGMA)
    np.testing.assert_allclose(density.values[0, :4], expected, rtol=1e-4, atol=1e-4)


def test_missing_coarse_values_are_missing(setting):
    """NaN in y gives the posterior of the other values, not NaN and not zeros."""
    prior, H, coarse, _ = setting
    model = load_program("models", "area_mean").model
    values = coarse.values.copy()
    values[1] = np.nan
    holes = bd.Fields(values, coarse.coords)
    exact = bd.ExactGaussian(model).run(KEY, prior, H, y=holes, sigma=SIGMA, draws=512)
    first = bd.snapshots(prior.times[:1], prior.times[:1]) @ bd.snapshots(prior.times, prior.times[:1])
    H_first = bd.area_mean(prior.grid, coarse.grid) @ first
    alone = bd.Fields(values[:1], bd.Coords(coarse.times[:1], coarse.variables, coarse.grid))
    same = bd.ExactGaussian(model).condition(prior, H_first, y=alone, sigma=SIGMA)
    np.testing.assert_allclose(
        bd.ExactGaussian(model).condition(prior, H, y=holes, sigma=SIGMA).mean(), same.mean(), atol=1e-4
    )
    assert np.isfinite(exact.stats["coarse_residual"]).all()
    assert np.isnan(exact.log_likelihood["coarse"][:, 1]).all()
    assert np.isfinite(exact.log_likelihood["coarse"][:, 0]).all()
    guided = bd.GuidedSDE(model, steps=8).run(KEY, prior, H, y=holes, sigma=SIGMA, draws=4)
    assert np.isfinite(guided.fields).all()
    assert np.isnan(guided.observed["coarse"][1]).all()


def test_unknown_noise_is_drawn_with_the_field(setting):
    """sigma ~ HalfNormal(0.5), true 0.3, eight data: the draws differ, are positive and cover the truth."""
    prior, H, coarse, _ = setting
    model = load_program("models", "area_mean").model
    sampler = bd.GuidedSDE(model, steps=8, sweeps=3, batch=32)
    sigma = sampler.run(KEY, prior, H, y=coarse, draws=32).theta["sigma"]
    assert sigma.shape == (32,)
    assert (sigma > 0).all()
    assert sigma.std() > 0.01
    assert sigma.min() < 0.3 < sigma.max()


def test_bad_use_is_one_sentence(setting):
    prior, H, coarse, _ = setting
    model = load_program("models", "area_mean").model
    with pytest.raises(ValueError, match="at least one observed site"):
        bd.GuidedSDE(model).run(KEY, prior, H, draws=2)
    with pytest.raises(ValueError, match="'tau' in theta"):
        bd.GuidedSDE(model).run(KEY, prior, H, y=coarse, draws=2, theta={"tau": 1.0})
    with pytest.raises(ValueError, match="at least one draw"):
        bd.GuidedSDE(model).run(KEY, prior, H, y=coarse, sigma=0.1, draws=0)
    with pytest.raises(ValueError, match="'sigma'"):
        bd.ExactGaussian(model).condition(prior, H, y=coarse)

    def nonlinear(prior, H, y):
        x = numpyro.sample("weather", prior)
        numpyro.sample("coarse", dist.Normal(jnp.tanh(H(x) - 280), 1.0).to_event(4), obs=y)

    with pytest.raises(ValueError, match="linear"):
        bd.ExactGaussian(nonlinear).condition(prior, H, y=coarse)


def test_draws_that_are_not_finite_are_never_silent(setting):
    prior, H, coarse, _ = setting

    def broken(prior, H, y):
        x = numpyro.sample("weather", prior)
        numpyro.sample("coarse", dist.Normal(jnp.exp(H(x)), 1.0).to_event(4), obs=y)

    with pytest.raises(FloatingPointError, match="expected finite draws"):
        bd.GuidedSDE(broken, steps=4, guidance=bd.SDA).run(KEY, prior, H, y=coarse, draws=2)
    fields = np.zeros((2, *prior.event_shape))
    fields[0, 0, 0, 0, 0] = np.nan
    with pytest.warns(RuntimeWarning, match="1 of 2 draws"):
        bd.Posterior("weather", fields, {}, {}, {}, prior.coords)


def test_a_sampler_can_mark_its_draws(setting):
    """NUTS says which of its trajectories diverged: that is kept, and is no reason to warn."""
    prior, H, coarse, _ = setting
    program, labels = bd.read_model(known_noise, (prior, H), {"y": coarse})

    def build(program, prior):
        field = lambda key: jax.random.normal(key, (3, *prior.event_shape))
        return lambda key: {"field": field(key), "stats/diverging": jnp.array([False, True, False])}

    drawn = bd.collect(build, KEY, program, labels, draws=6, chains=2, method="a test", approximate=False)
    np.testing.assert_array_equal(drawn.stats["diverging"], [False, True, False] * 2)


@pytest.mark.parametrize("guidance", [bd.SDA, bd.SeedRule, partial(bd.MomentMatching, iterations=2)])
def test_every_guidance_runs_on_programs(setting, guidance):
    prior, H, coarse, _ = setting
    result = bd.GuidedSDE(known_noise, steps=4, guidance=guidance).run(KEY, prior, H, y=coarse, draws=2)
    assert np.isfinite(result.fields).all()
