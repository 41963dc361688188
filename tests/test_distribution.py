"""The priors as NumPyro distributions: units, labels, handlers, transformations, and the law of their draws."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import handlers
from numpyro.infer import Predictive
from problems import small_prior
from scipy.stats import multivariate_normal

from bayesdownscale.data.grid import Coords, Grid, Variable
from bayesdownscale.prior.denoiser import Context
from bayesdownscale.prior.distribution import FieldPrior, GaussianPrior
from bayesdownscale.prior.gaussian import GaussianDenoiser
from bayesdownscale.prior.noise import NoiseLevels
from bayesdownscale.prior.standardise import Standardisation, fit_standardisation, harmonics
from bayesdownscale.prior.windows import WindowedDenoiser

HOUR = np.timedelta64(1, "h")


@pytest.fixture(scope="module")
def diffusion_prior(gaussian_prior):
    """The same law through the reverse SDE. 16 steps and a start at 50 (see test_solver for what they cost)."""
    p = gaussian_prior
    return FieldPrior(p.denoiser, p.standardisation, NoiseLevels(0.02, 50.0), p.coords, steps=16)


@pytest.fixture(params=["gaussian_prior", "diffusion_prior"])
def prior(request):
    return request.getfixturevalue(request.param)


def model(prior):
    x = numpyro.sample("weather", prior)
    numpyro.deterministic("mean", x.mean())


class TestBothPriors:
    def test_it_has_the_shape_of_its_labels(self, prior):
        assert prior.event_shape == prior.coords.shape == (3, 2, 2, 3)
        assert prior.batch_shape == ()
        assert prior.times.size == 3
        assert prior.grid.shape == (2, 3)
        assert [v.name for v in prior.variables] == ["t2m", "u10"]

    @pytest.mark.parametrize("shape", [(), (2, 3)])
    def test_sample_shapes(self, prior, shape):
        draws = prior.sample(jax.random.key(0), shape)
        assert draws.shape == (*shape, 3, 2, 2, 3)
        assert jnp.all(jnp.isfinite(draws))

    def test_handlers(self, prior):
        trace = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(prior)
        x = trace["weather"]["value"]
        again = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(prior)
        np.testing.assert_array_equal(again["weather"]["value"], x)
        given = handlers.substitute(handlers.seed(model, jax.random.key(1)), {"weather": x + 1})
        trace = handlers.trace(given).get_trace(prior)
        np.testing.assert_array_equal(trace["weather"]["value"], x + 1)
        np.testing.assert_allclose(trace["mean"]["value"], x.mean() + 1, rtol=1e-3)

    def test_predictive(self, prior):
        draws = Predictive(model, num_samples=3)(jax.random.key(0), prior)
        assert draws["weather"].shape == (3, 3, 2, 2, 3)
        assert draws["mean"].shape == (3,)
        assert len(np.unique(draws["mean"])) == 3

    def test_jit_and_vmap(self, prior):
        """As an argument (a pytree) and over keys; the same draws each time."""
        key = jax.random.key(3)
        plain = prior.sample(key)
        np.testing.assert_allclose(jax.jit(lambda p, k: p.sample(k))(prior, key), plain, rtol=1e-4, atol=1e-4)
        keys = jnp.stack([key, jax.random.key(4)])
        mapped = jax.jit(jax.vmap(prior.sample))(keys)
        np.testing.assert_allclose(mapped[0], plain, rtol=1e-4, atol=1e-4)
        assert jnp.abs(mapped[0] - mapped[1]).max() > 0.1

    def test_pytree_round_trip_keeps_the_labels(self, prior):
        leaves, structure = jax.tree.flatten(prior)
        back = jax.tree.unflatten(structure, leaves)
        assert back.coords is prior.coords
        np.testing.assert_array_equal(back.sample(jax.random.key(0)), prior.sample(jax.random.key(0)))

    def test_the_law_of_the_draws(self, prior, cov):
        """Mean and covariance of n draws. Means: 36 z-scores under 5 (failure rate 2e-5). Covariance: in Frobenius
        norm its sampling error is sqrt((|C|^2 + tr(C)^2) / n); twice that (failure rate below 1e-6), and for the
        reverse SDE 8 % more, the variance that 16 steps add (test_solver.py)."""
        n = 4000
        draws = np.asarray(jax.jit(lambda key: prior.sample(key, (n,)))(jax.random.key(0)), np.float64)
        scale = np.tile(np.repeat([2.0, 5.0], 6), 3)
        physical = cov * scale[:, None] * scale
        climatology = prior.standardisation.climatology(prior.context)
        z = (draws.mean(0) - climatology).ravel() / np.sqrt(np.diag(physical) / n)
        assert np.abs(z).max() < 5
        error = np.linalg.norm(np.cov(draws.reshape(n, -1).T) - physical)
        bias = 0.08 if type(prior) is FieldPrior else 0.0
        sampling = np.sqrt((np.sum(physical**2) + np.trace(physical) ** 2) / n)
        assert error < 2 * sampling + bias * np.linalg.norm(physical)

    def test_unlabelled_priors_compile_once(self, prior):
        later = prior.at(prior.times + 24 * HOUR)
        a, b = prior.unlabelled(), later.unlabelled()
        assert jax.tree.structure(a) == jax.tree.structure(b)
        np.testing.assert_array_equal(a.sample(jax.random.key(0)), prior.sample(jax.random.key(0)))


class TestDensity:
    def test_gaussian_in_physical_units(self, gaussian_prior, cov):
        x = gaussian_prior.sample(jax.random.key(0), (2, 2))
        scale = np.tile(np.repeat([2.0, 5.0], 6), 3)
        mean = np.ravel(gaussian_prior.standardisation.climatology(gaussian_prior.context))
        exact = multivariate_normal(mean, cov * scale[:, None] * scale)
        got = gaussian_prior.log_prob(x)
        assert got.shape == (2, 2)
        np.testing.assert_allclose(got, exact.logpdf(np.asarray(x, np.float64).reshape(2, 2, -1)), rtol=1e-4)
        np.testing.assert_allclose(gaussian_prior.log_prob(x[0, 0]), got[0, 0], rtol=1e-5)

    def test_gaussian_in_a_program(self, gaussian_prior):
        trace = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(gaussian_prior)
        site = trace["weather"]
        assert site["fn"].log_prob(site["value"]).shape == ()

    def test_a_diffusion_prior_in_a_program(self, diffusion_prior):
        """Its value is tested in test_flow.py."""
        handler = handlers.trace(handlers.seed(model, jax.random.key(0)))
        density = lambda: handler.get_trace(diffusion_prior)["weather"]["fn"].log_prob(jnp.zeros((2, 3, 2, 2, 3)))
        assert jax.eval_shape(density).shape == (2,)


class TestTimes:
    @pytest.fixture(scope="class")
    def windowed(self, gaussian_prior):
        p = gaussian_prior
        denoiser = WindowedDenoiser(GaussianDenoiser(p.field), 3, 2)
        return FieldPrior(denoiser, p.standardisation, p.levels, p.coords, steps=4)

    def test_at_other_times(self, windowed):
        times = np.datetime64("2031-07-04T21", "ns") + HOUR * np.arange(7)
        prior = windowed.at(times)
        assert prior.event_shape == (7, 2, 2, 3)
        assert prior.grid == windowed.grid
        np.testing.assert_array_equal(prior.context.hour, [21, 22, 23, 0, 1, 2, 3])
        np.testing.assert_array_equal(prior.context.day, [184] * 3 + [185] * 4)
        assert prior.sample(jax.random.key(0)).shape == (7, 2, 2, 3)
        assert windowed.event_shape == (3, 2, 2, 3)
        again = prior.at(windowed.times)
        np.testing.assert_array_equal(again.sample(jax.random.key(1)), windowed.sample(jax.random.key(1)))

    @pytest.mark.parametrize(
        ("hours", "got"), [([0, 2, 4, 6], r"\[2\.0\] h"), ([0, 1, 3, 4], r"\[1\.0, 2\.0\] h"), ([5], r"\[\] h")]
    )
    def test_other_spacings_are_refused(self, windowed, hours, got):
        with pytest.raises(ValueError, match=rf"expected times spaced by 1 h as in training, got {got}"):
            windowed.at(windowed.times[0] + HOUR * np.asarray(hours))

    def test_fewer_times_than_the_window_are_refused(self, windowed):
        with pytest.raises(ValueError, match="expected at least 3 times, the window of this prior, got 2"):
            windowed.at(windowed.times[:2])

    def test_spanning(self, windowed):
        coarse = np.datetime64("2020-02-28T12", "ns") + 6 * HOUR * np.arange(3)
        prior = windowed.spanning(coarse)
        np.testing.assert_array_equal(prior.times, coarse[0] + HOUR * np.arange(13))
        short = windowed.spanning(coarse[:1])
        np.testing.assert_array_equal(short.times, coarse[0] + HOUR * np.arange(3))

    def test_a_gaussian_prior_keeps_its_length(self, gaussian_prior):
        later = gaussian_prior.at(gaussian_prior.times + 48 * HOUR)
        assert isinstance(later, GaussianPrior)
        x = later.sample(jax.random.key(0))
        np.testing.assert_allclose(later.log_prob(x), gaussian_prior.log_prob(x), rtol=1e-3)
        with pytest.raises(ValueError, match="expected at most 3 times, all this prior describes, got 5"):
            gaussian_prior.at(gaussian_prior.times[0] + HOUR * np.arange(5))

    def test_a_prior_of_one_time(self):
        """It can be moved, and asks for one time where it is given more."""
        prior = small_prior(1)
        noon = prior.times + 12 * HOUR
        for later in (prior.at(noon), prior.spanning(noon)):
            np.testing.assert_array_equal(later.times, noon)
            np.testing.assert_array_equal(later.context.hour, [12])
        with pytest.raises(ValueError, match="expected at most 1 times, all this prior describes, got 2"):
            prior.at(prior.times + HOUR * np.arange(2))
        with pytest.raises(ValueError, match="expected data at one time, as this prior describes one and no spacing"):
            prior.spanning(prior.times + HOUR * np.arange(2))


class TestStandardisation:
    times = np.datetime64("2019-01-01", "ns") + 6 * HOUR * np.arange(4 * 365)
    context = Context.at(times)

    def test_there_and_back(self, gaussian_prior):
        s, context = gaussian_prior.standardisation, gaussian_prior.context
        x = jax.random.normal(jax.random.key(0), (3, 2, 2, 3))
        np.testing.assert_allclose(s.forward(s.backward(x, context), context), x, rtol=1e-4, atol=1e-5)
        same = Standardisation.identity((2, 2, 3))
        np.testing.assert_array_equal(same.backward(x, context), x)

    @pytest.mark.parametrize(("days", "season", "n"), [(100, False, 5), (365, True, 15)])
    def test_climatology_is_recovered(self, days, season, n):
        """Data made of the harmonics and little noise; the season only with 300 days or more."""
        keep = slice(0, 4 * days)
        context = Context(self.context.hour[keep], self.context.day[keep])
        rng = np.random.default_rng(0)
        truth = 280 * np.eye(n)[0][:, None] + rng.normal(size=(n, 6))
        signal = np.asarray(harmonics(context, season), np.float64) @ truth
        values = (signal + 0.5 * rng.normal(size=signal.shape)).reshape(-1, 1, 2, 3)
        fitted, anomalies = fit_standardisation(values, context)
        assert fitted.season is season
        np.testing.assert_allclose(fitted.climatology(context).reshape(-1, 6), signal, atol=0.3)
        np.testing.assert_allclose(fitted.scale, 0.5, rtol=0.05)
        np.testing.assert_allclose(anomalies.std(), 1, rtol=1e-3)

    def test_cross_fitted_anomalies_are_as_large_as_unseen_weather(self):
        """White noise on 40 times: anomalies from its own fit have variance 1 - 5 / 40, from the other folds
        1 + 5 / 30 on average. 2000 series: standard error below 0.01."""
        context = Context(self.context.hour[:40], self.context.day[:40])
        values = np.random.default_rng(0).normal(size=(40, 1, 40, 50))
        fitted, _ = fit_standardisation(values, context)
        assert 1.05 < float(fitted.scale[0]) ** 2 < 1.35
        assert np.var(values - np.asarray(fitted.climatology(context))) < 0.95


def test_context_at():
    times = np.asarray(["2020-12-31T23:30", "2019-01-01T00:00", "2020-03-01T06:00"], "datetime64[ns]")
    context = Context.at(times)
    np.testing.assert_allclose(context.hour, [23.5, 0, 6])
    np.testing.assert_array_equal(context.day, [365, 0, 60])


def test_labels_are_compared_by_value(gaussian_prior):
    c = gaussian_prior.coords
    copy = Coords(c.times.copy(), (Variable("t2m", "K"), Variable("u10", "m s-1")), Grid(c.grid.lat, c.grid.lon))
    assert copy == c
    assert hash(copy) == hash(c)
