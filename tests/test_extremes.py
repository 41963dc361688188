"""Extremes against the algebra of L-moments, loops over pairs and clusters, and scipy's distributions.

Random tests use fixed seeds; "fails once in n" is the rate at which another seed would fail a correct program.
"""

from itertools import combinations

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from scipy.special import gamma
from scipy.stats import genextreme, genpareto

from bayesdownscale.diagnostics import blocks
from bayesdownscale.diagnostics.extremes import (
    annual_return_level,
    exceedances,
    generalised_extreme_value,
    generalised_pareto,
    l_moments,
    peaks_over,
    return_levels,
)


def as_field(values):
    """`values` ((draw,) time, lat, lon), daily."""
    n_time, n_lat, n_lon = values.shape[-3:]
    time = np.datetime64("2000-01-01", "ns") + np.arange(n_time) * np.timedelta64(1, "D")
    place = {"time": time, "lat": 50.0 + np.arange(n_lat), "lon": 3.0 + np.arange(n_lon)}
    dims = ("draw", "time", "lat", "lon")[-values.ndim :]
    return xr.DataArray(values, place, dims, "pr", {"units": "mm/d"})


@pytest.fixture(scope="module")
def rain():
    """Two draws of 2000 days, dry half of the time."""
    rng = np.random.default_rng(0)
    return as_field(np.where(rng.random((2, 2000, 3, 4)) < 0.5, 0, rng.gamma(0.8, 6.0, (2, 2000, 3, 4))))


def test_l_moments_are_means_over_pairs_and_triples():
    """l2 is half the mean difference, l3 a third of the mean of x3 - 2 x2 + x1 (Hosking 1990)."""
    x = 280 + np.random.default_rng(1).gumbel(size=(2, 9))
    x[1, [3, 5]] = np.nan
    for i, row in enumerate(x):
        known = np.sort(row[np.isfinite(row)])
        exact = [known.mean(), np.mean([b - a for a, b in combinations(known, 2)]) / 2]
        exact.append(np.mean([c - 2 * b + a for a, b, c in combinations(known, 3)]) / 3)
        assert_allclose([moment[i] for moment in l_moments(x)], exact, rtol=1e-9, atol=1e-12)
    assert all(np.isnan(moment).all() for moment in l_moments(np.array([[1.0, 2.0, np.nan], [np.nan] * 3])))


def test_fits_have_the_l_moments_of_the_sample():
    """GPD: l1 = sigma / (1 - xi), l2 = l1 / (2 - xi). GEV: l1, l2 exact, l3 / l2 to the formula's 9e-4 in k."""
    x = np.random.default_rng(2).gamma(0.7, size=(50, 200))
    l1, l2, l3 = l_moments(x)
    sigma, xi = generalised_pareto(x)
    assert_allclose(sigma / (1 - xi), l1, rtol=1e-12)
    assert_allclose(l1 / (2 - xi), l2, rtol=1e-12)
    mu, sigma, xi = generalised_extreme_value(x)
    assert_allclose(mu + sigma * (gamma(1 - xi) - 1) / xi, l1, rtol=1e-9)
    assert_allclose(sigma * (2**xi - 1) * gamma(1 - xi) / xi, l2, rtol=1e-9)
    assert np.all(abs(xi) < 0.5)
    assert_allclose(2 * (3**xi - 1) / (2**xi - 1) - 3, l3 / l2, atol=9e-4)


@pytest.mark.parametrize("xi", [-0.3, 0.0, 0.2])
def test_quantiles_of_large_samples_are_those_of_scipy(xi):
    """Samples as even as can be, the quantiles of (i - 1/2) / n: no chance in it."""
    p = (np.arange(200_000)[None] + 0.5) / 200_000
    sigma, shape = generalised_pareto(genpareto.ppf(p, xi, scale=2.0))
    assert_allclose([sigma[0], shape[0]], [2.0, xi], atol=3e-4)
    mu, sigma, shape = generalised_extreme_value(genextreme.ppf(p, -xi, 10.0, 2.0))
    assert_allclose([mu[0], sigma[0], shape[0]], [10.0, 2.0, xi], atol=3e-3)  # the formula's 9e-4 in k
    level = annual_return_level(genextreme.ppf(p, -xi, 10.0, 2.0), 20.0)
    assert_allclose(level, genextreme.ppf(0.95, -xi, 10.0, 2.0), atol=5e-3)


def level_error(xi, n, q, period):
    """Standard error of the level, by the delta method: of the fit (Hosking & Wallis 1987, their k = -xi), and of the
    part (1 - q) above the empirical threshold, for unit scale at 0."""
    k, peaks = -xi, n * (1 - q)
    sigma = (1 - q) ** -xi  # above the threshold
    y = np.log(period * (1 - q))
    of_sigma, of_k = np.expm1(xi * y) / xi, sigma * (np.expm1(xi * y) / xi - y * np.exp(xi * y)) / xi
    factor = 1 / ((1 + 2 * k) * (3 + 2 * k) * peaks)
    var_sigma = sigma**2 * (7 + 18 * k + 11 * k**2 + 2 * k**3)
    var_k = (1 + k) * (2 + k) ** 2 * (1 + k + 2 * k**2)
    both = sigma * (2 + k) * (2 + 6 * k + 7 * k**2 + 2 * k**3)
    fit = factor * (of_sigma**2 * var_sigma + of_k**2 * var_k + 2 * of_sigma * of_k * both)
    return np.sqrt(fit + sigma**2 * np.exp(2 * xi * y) * q / peaks)


@pytest.mark.parametrize("xi", [-0.2, 0.15])
def test_return_levels_are_those_of_scipy(xi):
    """Of 24 cells within five standard errors of theory; and the spread of 240 cells is that of theory to 25 %, five
    standard errors too. Fails once in 30 000."""
    n, q, periods = 40_000, 0.95, np.array([1.0, 20.0])
    x = np.asarray(genpareto.rvs(xi, size=(n, 2, 12), random_state=3))
    levels = return_levels(as_field(x), periods, 365.25, q)
    assert levels.dims == ("period", "lat", "lon")
    for i, period in enumerate(periods * 365.25):
        exact, error = genpareto.ppf(1 - 1 / period, xi), level_error(xi, n, q, period)
        assert np.all(abs(levels[i] - exact) < 5 * error)
        small = return_levels(as_field(x.reshape(4000, 20, 12)), periods, 365.25, q)[i]
        assert_allclose(small.std(), level_error(xi, 4000, q, period), rtol=0.25)


@pytest.mark.parametrize("run_length", [0, 1, 4])
def test_peaks_are_the_loop_over_clusters(run_length):
    x = np.random.default_rng(4).gamma(1.0, size=(6, 60))
    x[5] = 0.0  # never above
    u = np.full(6, 1.2)
    got = peaks_over(x, u, run_length)
    for row, found in zip(x, got, strict=True):
        clusters, quiet = [], None
        for value in row:
            if value <= 1.2:
                quiet = None if quiet is None else quiet + 1
            elif quiet is None or quiet >= run_length:
                clusters.append(value)
                quiet = 0
            else:
                clusters[-1] = max(clusters[-1], value)
                quiet = 0
        assert_allclose(found[np.isfinite(found)], clusters)
    assert (run_length == 0) == (np.isfinite(got).sum() == (x > 1.2).sum())


def test_clusters_count_once():
    """Every storm lasts for three days, the highest in the middle: declustered, as of single days with a third of
    the rate."""
    storms = np.asarray(genpareto.rvs(0.1, size=(3000, 1, 1), random_state=5))
    days = np.stack([0.9 * storms, storms, 0.9 * storms, *[0 * storms] * 7], axis=1).reshape(-1, 1, 1)
    clustered = return_levels(as_field(days), [50.0], 365.0, 0.95, run_length=1)
    u = np.quantile(days, 0.95)
    sigma, xi = generalised_pareto(storms[storms > u][None] - u)
    rate = (storms > u).sum() / 3000 * 36.5
    assert_allclose(clustered.squeeze(), u + sigma[0] / xi[0] * ((50 * rate) ** xi[0] - 1), rtol=1e-9)


def test_exceedances_are_counted(rain):
    threshold = xr.DataArray(np.linspace(1, 9, 12).reshape(3, 4), {d: rain[d] for d in ("lat", "lon")}, ("lat", "lon"))
    assert_allclose(exceedances(rain, threshold), (rain.values > threshold.values).mean(axis=1))
    assert_allclose(exceedances(rain, 5), (rain.values > 5).mean(axis=1))
    assert exceedances(rain, 5.0).attrs["units"] == "1"


STATISTICS = {
    "exceedances": lambda x: exceedances(x, 5.0),
    "return_levels": lambda x: return_levels(x, [5.0, 50.0], 365.25),
    "declustered": lambda x: return_levels(x, [5.0, 50.0], 365.25, 0.9, run_length=2),
}


@pytest.mark.parametrize("statistic", STATISTICS.values(), ids=STATISTICS)
@pytest.mark.parametrize(("block", "chunks"), [(24_000, None), (8000, None), (24_000, {"draw": 1, "lat": 2})])
def test_draws_and_parts_give_what_the_whole_gives(rain, statistic, block, chunks, tmp_path, monkeypatch):
    if chunks:
        pytest.importorskip("dask")
    whole = statistic(rain)
    for i in range(2):
        assert_allclose(whole[i], statistic(rain.isel(draw=i)), rtol=1e-9)
    rain.transpose("lat", "time", "draw", "lon").to_netcdf(tmp_path / "draws.nc")
    monkeypatch.setattr(blocks, "BLOCK", block)
    with xr.open_dataarray(tmp_path / "draws.nc", chunks=chunks) as lazy:
        assert_allclose(statistic(lazy), whole, rtol=1e-9)


def test_cells_without_a_tail_have_no_level(rain):
    dry = rain.where(rain["lat"] > 50, 0.0).where(rain["lat"] < 52, (rain > 5) * 3.0)
    levels = return_levels(dry, [10.0], 365.25)
    assert np.isnan(levels.sel(lat=[50, 52])).all()  # never above, and all alike
    assert np.isfinite(levels.sel(lat=51)).all()
    one = return_levels(rain.isel(lat=[1], lon=[2]), [10.0], 365.25)
    assert_allclose(one.squeeze(), return_levels(rain, [10.0], 365.25)[:, 0, 1, 2], rtol=1e-12)


def test_requests_that_cannot_be_met_are_errors(rain):
    requests = {
        "at least 10 values above it, got 0.95 of 1 times": lambda: return_levels(rain.isel(time=[0]), [5], 365.0),
        "at least 10 values above it, got 0.999": lambda: return_levels(rain, [5], 365.0, 0.999),
        "between 0 and 1": lambda: return_levels(rain, [5], 365.0, -1.0),
        "more than one peak in a period, got 0.01 years": lambda: return_levels(rain, [0.01], 365.0),
        "a run length from 0": lambda: return_levels(rain, [5], 365.0, run_length=-1),
        "a list of periods": lambda: return_levels(rain, [], 365.0),
        "without missing values, got": lambda: return_levels(rain.where(rain < 30), [5], 365.0),
        "without missing values, got 1": lambda: exceedances(rain, np.nan),
        "expected a field over time": lambda: exceedances(rain.isel(lat=0), 1.0),
    }
    for words, request in requests.items():
        with pytest.raises(ValueError, match=words):
            request()
