"""The contract of every program in models/, and each against its equation written out."""

import ast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from problems import FIXED, ROOT, case, names, read
from scipy import stats

import bayesdownscale as bd

LATENTS = {
    "additive_bias": {"sigma", "offset", "amplitude", "length_km", "whitened"},
    "area_mean": {"sigma"},
    "correlated_noise": {"sigma", "length_km", "tau_h"},
    "daily_mean": {"sigma"},
    "precipitation": {"m0", "k"},
    "stations": {"sigma", "sigma_rep"},
    "student_t": {"sigma", "nu"},
    "unknown_noise": {"sigma"},
    "wind_speed": {"sigma"},
}
JOINT = {"correlated_noise"}  # densities that cannot mask single values


def coarse_mean(case) -> np.ndarray:
    return np.asarray(case.H(case.truth), np.float64)


def data(case, name="y") -> np.ndarray:
    return np.asarray(case.data[name], np.float64)


def with_a_gap(y):
    return y.at[(0,) * y.ndim].set(jnp.nan)


@pytest.mark.parametrize("name", names("models"))
class TestContract:
    def test_prior_predictive(self, name):
        """Shapes without data, and which parameters are drawn."""
        c = case(name)
        for settings in ({}, FIXED[name]):
            sites = {}

            def values(key, settings=settings, sites=sites):
                sites |= handlers.trace(handlers.seed(c.model, key)).get_trace(c.prior, c.H, **c.given, **settings)
                return {n: site["value"] for n, site in sites.items() if site["type"] == "sample"}

            shapes = jax.eval_shape(values, jax.random.key(0))
            assert shapes["weather"].shape == c.prior.event_shape
            assert shapes["coarse"].shape == c.coords.shape
            assert not sites["coarse"]["is_observed"]
            assert shapes.keys() - {"weather", "coarse", "stations"} == (set() if settings else LATENTS[name])
        assert np.isfinite(c.data["y"]).all()

    def test_gradient(self, name):
        """Finite and not zero, with parameters drawn from their prior and gaps in the data where they may be."""
        c = case(name)
        gaps = {} if name in JOINT else {key: with_a_gap(y) for key, y in c.data.items()}
        program = read(c, **gaps)
        assert set(program.latents) == LATENTS[name]
        value_and_gradient = jax.value_and_grad(program.log_likelihood)
        value, gradient = jax.jit(lambda key: value_and_gradient(c.truth, program.draw_theta(key)))(jax.random.key(0))
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0

    def test_a_missing_value_has_no_weight(self, name):
        """It is masked, or refused."""
        c = case(name)
        gaps = {"y": with_a_gap(c.data["y"])}
        if name in JOINT:
            with pytest.raises(bd.ProgramError, match="site 'coarse': the data have missing values"):
                read(c, **gaps, **FIXED[name])
            return
        whole, without = (read(c, **d, **FIXED[name]) for d in ({}, gaps))
        assert without.latents == []
        lost = whole.log_likelihood(c.truth) - without.log_likelihood(c.truth)
        condition = handlers.condition(c.model, {"weather": c.truth})
        arguments = {**c.given, **c.data, **FIXED[name]}
        site = handlers.trace(handlers.seed(condition, 0)).get_trace(c.prior, c.H, **arguments)["coarse"]
        log_densities = site["fn"].base_dist.log_prob(site["value"])
        np.testing.assert_allclose(lost, log_densities[0, 0, 0, 0], rtol=1e-3, atol=1e-3)

    def test_docstring(self, name):
        """Equations, units and a reference."""
        doc = ast.get_docstring(ast.parse((ROOT / "models" / f"{name}.py").read_text()))
        assert doc is not None
        assert "~" in doc
        assert "[" in doc
        assert "arXiv" in doc or "doi" in doc


def test_area_mean_matches_its_equation():
    """log p(y | x) of the program against the sum of Normal densities written out."""
    c = case("area_mean")
    want = stats.norm.logpdf(data(c), coarse_mean(c), 0.3).sum()
    np.testing.assert_allclose(read(c, sigma=0.3).log_likelihood(c.truth), want, rtol=1e-4)


def test_unknown_noise_has_a_scale_for_each_variable():
    c = case("unknown_noise", of_wind=True)
    sigma = jnp.asarray([0.3, 0.8])
    want = stats.norm.logpdf(data(c), coarse_mean(c), np.asarray(sigma)[:, None, None]).sum()
    np.testing.assert_allclose(read(c, sigma=sigma).log_likelihood(c.truth), want, rtol=1e-4)
    program = read(c, scale=jnp.asarray([0.01, 100.0]))
    np.testing.assert_allclose(program.log_likelihood(c.truth, {"sigma": sigma}), want, rtol=1e-4)
    small, large = program.draw_theta(jax.random.key(0))["sigma"]
    assert small < 0.1 < large  # fails with probability 1e-3 over keys


def test_student_t_matches_its_equation():
    c = case("student_t")
    want = stats.t.logpdf(data(c), 4.0, coarse_mean(c), 0.3).sum()
    np.testing.assert_allclose(read(c, **FIXED["student_t"]).log_likelihood(c.truth), want, rtol=1e-4)


def test_correlated_noise_is_a_kronecker_product():
    """Against the dense covariance of all data, two variables with noise of their own."""
    c = case("correlated_noise", of_wind=True)
    hours = (c.coords.times - c.coords.times[0]) / np.timedelta64(1, "h")
    in_time = np.exp(-np.abs(hours[:, None] - hours) / 6.0)
    in_space = bd.matern(c.coords.grid.distances_km(), 100.0, 0.5)
    covariance = np.kron(in_time, np.kron(np.diag([0.3**2, 0.8**2]), in_space))
    want = stats.multivariate_normal(coarse_mean(c).ravel(), covariance).logpdf(data(c).ravel())
    program = read(c, **{**FIXED["correlated_noise"], "sigma": jnp.asarray([0.3, 0.8])})
    np.testing.assert_allclose(program.log_likelihood(c.truth), want, rtol=1e-4, atol=1e-3)


def test_additive_bias_matches_its_equation():
    """A drawn bias shifts the mean and has the Matern covariance; a given one only shifts."""
    c = case("additive_bias", of_wind=True)
    program = read(c, sigma=0.3)
    theta = {**program.draw_theta(jax.random.key(1)), "length_km": jnp.asarray(150.0)}
    correlation = bd.matern(c.coords.grid.distances_km(), 150.0, 1.5) + 1e-4 * np.eye(4)
    varying = np.asarray(theta["whitened"], np.float64) @ np.linalg.cholesky(correlation).T
    bias = np.asarray(theta["offset"])[:, None] + float(theta["amplitude"]) * varying
    want = stats.norm.logpdf(data(c), coarse_mean(c) + bias.reshape(2, 2, 2), 0.3).sum()
    np.testing.assert_allclose(program.log_likelihood(c.truth, theta), want, rtol=1e-4)
    fixed = read(c, sigma=0.3, bias=jnp.asarray(bias.reshape(2, 2, 2), jnp.float32))
    np.testing.assert_allclose(fixed.log_likelihood(c.truth), want, rtol=1e-4)


@pytest.mark.parametrize("xi", [None, 0.2])
def test_precipitation_matches_its_equation(xi):
    """Zeros and amounts; the mean of a coarse value is the intensity."""
    c = case("precipitation")
    y, z = data(c), np.asarray(c.truth, np.float64)
    y[0, 0, 0, 1], y[1, 0, 1, 0] = 0.0, 1.3
    m = np.asarray(c.H(jnp.asarray(((z + np.sqrt(z**2 + 0.1**2)) / 2) ** 2, jnp.float32)), np.float64)
    p = 1 - np.exp(-m / 0.2)
    amount = stats.gamma(2.0, scale=m / p / 2.0) if xi is None else stats.genpareto(xi, scale=(1 - xi) * m / p)
    want = np.where(y == 0, np.log1p(-p), np.log(p) + amount.logpdf(np.where(y == 0, 1.0, y))).sum()
    program = read(c, y=jnp.asarray(y, jnp.float32), xi=xi, **FIXED["precipitation"])
    np.testing.assert_allclose(program.log_likelihood(c.truth), want, rtol=1e-4)
    with handlers.seed(rng_seed=0), handlers.condition(data={"weather": c.truth}), handlers.trace() as trace:
        c.model(c.prior, c.H, xi=xi, **FIXED["precipitation"])
    np.testing.assert_allclose(trace["coarse"]["fn"].mean, m, rtol=1e-4)


def test_precipitation_has_a_gradient_where_it_is_dry():
    """A wet coarse value pulls on a field that is dry everywhere, even far below zero."""
    c = case("precipitation")
    program = read(c, y=jnp.full(c.coords.shape, 1.0), **FIXED["precipitation"])
    gradient = jax.grad(program.log_likelihood)(jnp.full(c.prior.event_shape, -30.0))
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[[0, 2]] > 0).all()


def test_daily_mean_averages_red_noise():
    """The variance of a mean over a window, against the mean of the autocorrelation over all pairs of its times."""
    c = case("daily_mean")
    t = (np.arange(1000) + 0.5) / 1000
    share = [np.mean(np.exp(-hours * np.abs(t[:, None] - t) / 6.0)) for hours in c.given["hours"]]
    sd = 0.3 * np.sqrt(share)[:, None, None, None]
    want = stats.norm.logpdf(data(c), coarse_mean(c), sd).sum()
    np.testing.assert_allclose(read(c, sigma=0.3).log_likelihood(c.truth), want, rtol=1e-4)
    np.testing.assert_allclose(c.given["hours"], 2.0)
    x = np.asarray(c.truth, np.float64)
    early = bd.area_mean(c.prior.grid, c.coords.grid)(jnp.asarray(x[:2].mean(0, keepdims=True), jnp.float32))
    np.testing.assert_allclose(c.H(c.truth)[:1], early, rtol=1e-5)


def test_stations_add_their_densities():
    """Both errors of a station add up in variance; without stations it is the program of area means."""
    c = case("stations")
    z = data(c, "z")
    at_stations = np.asarray(c.given["S"](c.truth), np.float64)
    want = stats.norm.logpdf(data(c), coarse_mean(c), 0.3).sum()
    alone = c._replace(given={}, data={"y": c.data["y"]})
    np.testing.assert_allclose(read(alone, sigma=0.3).log_likelihood(c.truth), want, rtol=1e-4)
    want = want + stats.norm.logpdf(z, at_stations, np.hypot(0.2, 0.4)).sum()
    np.testing.assert_allclose(read(c, **FIXED["stations"]).log_likelihood(c.truth), want, rtol=1e-4)


def test_wind_speed_matches_its_equation():
    c = case("wind_speed")
    x = np.asarray(c.truth, np.float64)
    speed = np.sqrt(x[:, :1] ** 2 + x[:, 1:] ** 2 + 0.1**2)
    mean = np.asarray(c.H(jnp.asarray(speed, jnp.float32)), np.float64)
    want = stats.norm.logpdf(data(c), mean, 0.3).sum()
    program = read(c, sigma=0.3)
    np.testing.assert_allclose(program.log_likelihood(c.truth), want, rtol=1e-4)
    assert np.isfinite(jax.grad(program.log_likelihood)(jnp.zeros(c.prior.event_shape))).all()
    with pytest.raises(ValueError, match="expected a prior of both wind components, got one variable"):
        c.model(case("area_mean").prior, c.H)
