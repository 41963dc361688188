"""Variables made Gaussian and back: monotone, dry days exactly zero, dry values drawn as they should be."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from bayesdownscale.data.censored import fill
from bayesdownscale.data.errors import DataError
from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords, Grid, Variable
from bayesdownscale.data.score_map import ScoreMap, least_motion
from bayesdownscale.data.transform import STEP, Anamorphosis
from bayesdownscale.likelihood.sight import Sight
from bayesdownscale.prior.latent import LatentPrior

DRY = 0.1


def winters(days=400, seed=0):
    """Temperature and rain (day, 2, 2, 3): rain is a power of a normal where that is above a floor of each cell."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((days, 2, 2, 3))
    floor = np.linspace(-1.0, 1.0, 6).reshape(2, 3)
    rain = np.where(z[:, 1] > floor, DRY + 5 * np.maximum(z[:, 1] - floor, 0) ** 1.5, 0.0)
    values = np.stack([8 + 3 * z[:, 0], rain], axis=1).astype(np.float32)
    times = np.datetime64("2001-12-01") + np.arange(days) * np.timedelta64(1, "D")
    grid = Grid(np.array([40.0, 41.0]), np.array([-4.0, -3.0, -2.0]))
    return Fields(values, Coords(times, (Variable("tas", "degC"), Variable("pr", "mm/d")), grid))


@pytest.fixture(scope="module")
def fitted():
    fields = winters()
    return fields, Anamorphosis.fit(fields, {"pr": DRY})


def test_wet_days_come_back_and_dry_days_are_exactly_zero(fitted):
    fields, transform = fitted
    z = transform.forward(fields.values)
    dry = fields.values[:, 1] == 0
    assert np.array_equal(np.isnan(z[:, 1]), dry)
    assert not np.isnan(z[:, 0]).any()
    back = transform.backward(np.where(np.isnan(z), -9.0, z).astype(np.float32))
    assert np.all(back[:, 1][dry] == 0.0)
    np.testing.assert_allclose(back, fields.values, atol=2e-3, rtol=1e-4)


def test_what_values_stand_for_is_kept():
    """Daily means stay daily means, latent and back, with the days they are means of."""
    fields = winters(120)
    days = np.stack([fields.times, fields.times + np.timedelta64(1, "D")], axis=1)
    fields = replace(fields.means_over(days), methods=("mean", "sum"), source="RACMO")
    transform = Anamorphosis.fit(fields, {"pr": DRY})
    latent = transform.latent(fields, fields.values)
    assert (latent.methods, latent.source) == (("mean", "sum"), "RACMO")
    np.testing.assert_array_equal(latent.bounds, days)
    assert [v.units for v in latent.variables] == ["1", "1"]
    weather = transform.physical(latent.coords, latent.values, latent.bounds)
    assert weather.methods == ("mean", "sum")
    np.testing.assert_array_equal(weather.bounds, days)
    assert weather.to_dataset()["pr"].attrs == {"units": "mm/d", "cell_methods": "time: sum"}


def test_latent_values_are_standard_normal(fitted):
    fields, transform = fitted
    z = transform.forward(fields.values)
    n = len(z)
    ranks = ndtri((np.arange(n) + 0.5) / n)
    expected = np.broadcast_to(ranks[:, None, None], z[:, 0].shape)
    np.testing.assert_allclose(np.sort(z[:, 0], axis=0), expected, atol=STEP)  # the table is linear within a step
    parts = np.isnan(z[:, 1]).mean(axis=0)
    np.testing.assert_allclose(transform.wet_part()[1], 1 - parts, atol=1e-6)
    assert np.nanmin(z[:, 1] - transform.floor[1]) >= 0


def test_the_map_is_increasing_and_never_negative(fitted):
    transform = fitted[1]
    z = np.broadcast_to(np.linspace(-6, 6, 500, dtype=np.float32)[:, None, None, None], (500, 2, 2, 3))
    assert np.all(np.diff(transform.signed(z), axis=0) > 0)
    x = transform.backward(z)
    assert np.all(np.diff(x, axis=0) >= 0)
    assert x[:, 1].min() == 0.0
    wet = x[:, 1][x[:, 1] > 0]
    assert wet.min() >= np.float32(DRY)


def test_jax_gives_the_same_with_finite_gradients(fitted):
    transform = fitted[1]
    z = np.random.default_rng(1).normal(0, 2, (7, 2, 2, 3)).astype(np.float32)
    np.testing.assert_allclose(transform.backward(jnp.asarray(z)), transform.backward(z), rtol=1e-4, atol=1e-4)
    slope = jax.grad(lambda z: jnp.sum(transform.signed(z)))(jnp.asarray(z))
    assert np.all(np.isfinite(slope))
    assert np.all(slope > 0)
    assert np.all(np.isfinite(jax.grad(lambda z: jnp.sum(transform.backward(z)))(jnp.asarray(z))))


def test_a_cell_without_rain_is_refused():
    fields = winters()
    fields.values[:, 1, 0, 0] = 0.0
    with pytest.raises(DataError, match="10 wet days of pr"):
        Anamorphosis.fit(fields, {"pr": DRY})
    with pytest.raises(DataError, match="variables among"):
        Anamorphosis.fit(fields, {"rain": DRY})


def test_dry_days_are_filled_with_the_dependence_of_the_wet_ones():
    """Latent rain of known correlation in space and from day to day: filled, it has both again.

    1200 days, half of them dry: the standard error of either correlation is below 0.03.
    """
    rng = np.random.default_rng(0)
    n, cells, phi = 1200, 6, 0.6
    place = np.arange(cells) * 100.0
    distance = np.abs(place[:, None] - place)
    root = np.linalg.cholesky(np.exp(-distance / 400.0))
    z = np.empty((n, cells))
    z[0] = root @ rng.standard_normal(cells)
    for t in range(1, n):
        z[t] = phi * z[t - 1] + np.sqrt(1 - phi**2) * root @ rng.standard_normal(cells)
    floor = np.zeros(cells)
    follows = np.arange(n) > 0
    filled = fill(np.where(z > floor, z, np.nan), floor, distance, follows, np.zeros((n, 0)), sweeps=40, seed=1)
    assert np.array_equal(filled[z > 0], z[z > 0])
    assert np.all(filled[z <= 0] <= 0)
    lag = lambda z: np.mean(z[1:] * z[:-1]) / np.mean(z**2)
    near = lambda z: np.mean([np.corrcoef(z[:, i], z[:, i + 1])[0, 1] for i in range(cells - 1)])
    np.testing.assert_allclose(lag(filled), lag(z), atol=0.06)
    np.testing.assert_allclose(near(filled), near(z), atol=0.05)
    quantiles = np.sort(filled[filled[:, 0] <= 0, 0])
    np.testing.assert_allclose(ndtr(quantiles[len(quantiles) // 2]), 0.25, atol=0.01)


def test_least_motion_maps_one_covariance_to_the_other():
    a, b = np.array([[1.0, 0.3], [0.3, 1.0]]), np.array([[1.0, -0.4], [-0.4, 1.0]])
    turn = least_motion(a, b)
    np.testing.assert_allclose(turn @ a @ turn, b, atol=1e-12)
    np.testing.assert_allclose(turn, turn.T, atol=1e-12)


def test_scores_have_the_distribution_and_the_correlations_wanted():
    rng = np.random.default_rng(0)
    model = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 2000)[..., None] ** 3
    model[:, 1] = np.maximum(model[:, 1], 0)  # ties, as of dry days
    wanted = rng.multivariate_normal([0, 0], [[1, -0.3], [-0.3, 2]], 2000)[..., None]
    ties = np.array([-np.inf, 1e-9])
    mapped = ScoreMap.fit(model, wanted, ties)(model)
    quantiles = lambda x: np.quantile(x, [0.05, 0.5, 0.95], axis=0)
    # Ties are broken anew: the standard error of a 5 % quantile of 2000 values of deviation 1.4 is 0.07.
    np.testing.assert_allclose(quantiles(mapped), quantiles(wanted), atol=0.25)
    # Standard error of a correlation of 2000 pairs: 0.022.
    np.testing.assert_allclose(np.corrcoef(mapped[..., 0].T)[0, 1], -0.3, atol=0.07)
    alone = ScoreMap.fit(model, wanted, ties, recorrelate=False)(model)
    assert np.corrcoef(alone[..., 0].T)[0, 1] > 0.2


def test_values_never_seen_before_get_scores_in_proportion():
    """Millimetres beyond the wettest day known are not standard deviations."""
    rng = np.random.default_rng(0)
    model, wanted = 10 * rng.standard_normal((1000, 1, 1)), rng.standard_normal((1000, 1, 1))
    mapped = ScoreMap.fit(model, wanted, np.array([-np.inf]))(np.array([[[40.0]], [[-45.0]]]))
    # The slope is that of quantiles 2.4 % from the end: about a fifth of its size uncertain.
    np.testing.assert_allclose(mapped.ravel(), [4.0, -4.5], rtol=0.3)


def test_sight_finds_the_mean_and_the_noise_of_what_is_not_seen():
    """Latent m given score x: mean 0.5 x, standard deviation 0.2 where x > 0 and 0.6 below; 24 bins of 2500 values."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6000, 1, 10))
    m = 0.5 * x + np.where(x > 0, 0.2, 0.6) * rng.standard_normal(x.shape)
    at = np.array([-4.0, -1.0, 1.0, 4.0]).reshape(4, 1, 1)
    y, noise = Sight.fit(x, m)(at)
    # Standard errors of a bin: its mean 0.012, its deviation 1.4 %; beyond the knots the slope counts four times.
    np.testing.assert_allclose(y[1:3].ravel(), [-0.5, 0.5], atol=0.06)
    np.testing.assert_allclose(y[[0, 3]].ravel(), [-2.0, 2.0], atol=0.4)
    np.testing.assert_allclose(noise.ravel(), [0.6, 0.6, 0.2, 0.2], rtol=0.07)


def test_correlations_between_cells_are_mapped_where_asked():
    rng = np.random.default_rng(0)
    draw = lambda r: rng.multivariate_normal(np.zeros(4), r + (1 - r) * np.eye(4), 2000).reshape(-1, 2, 2)
    model, wanted, ties = draw(0.7), draw(0.2), np.full(2, -np.inf)
    mapped = ScoreMap.fit(model, wanted, ties, everywhere=True)(model)
    apart = lambda x: np.corrcoef(x.reshape(len(x), -1).T)[np.triu_indices(4, 1)]
    np.testing.assert_allclose(apart(mapped), apart(wanted), atol=0.02)
    alone = ScoreMap.fit(model, wanted, ties, recorrelate=False)(model)
    np.testing.assert_allclose(apart(alone), apart(model), atol=0.02)


def test_weather_of_a_latent_prior_rains_as_often_as_its_data():
    """400 independent days of six cells learned from, 60 draws of four days: the share of dry cells has a standard
    error of at most 0.032 a cell, mean temperature one of 0.08; tolerances are four of them."""
    fields = winters()
    learned = LatentPrior.fit(fields, 4, {"pr": DRY}, n_modes=12, sweeps=5)
    weather = learned.draw(jax.random.key(0), 60)
    rain, known = weather[:, :, 1], fields.values[:, 1]
    assert weather.shape == (60, 4, 2, 2, 3)
    assert rain.min() == 0.0
    assert rain[rain > 0].min() >= np.float32(DRY)
    np.testing.assert_allclose((rain == 0).mean(axis=(0, 1)), (known == 0).mean(axis=0), atol=0.13)
    np.testing.assert_allclose(weather[:, :, 0].mean(), fields.values[:, 0].mean(), atol=0.32)
