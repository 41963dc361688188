"""Baselines against brute force, dense Gaussian conditionals, simulated fields and exact identities.

Random tests use fixed seeds; "fails once in n" is the rate at which another seed would fail a correct program.
"""

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.stats import norm

from bayesdownscale.diagnostics import baselines
from bayesdownscale.diagnostics.baselines import bcsd, climatological_mean, climatology, means_over, quantile_map
from bayesdownscale.diagnostics.kriging import gaussian_crps, kriging
from bayesdownscale.diagnostics.scores import area_weights

FIVE_SIGMA = 5.0  # two-sided: fails once in 1.7 million
HOUR, DAY, START = np.timedelta64(1, "h"), np.timedelta64(1, "D"), np.datetime64("2019-03-25T00", "ns")
LAT, LON = 58.0 - 0.5 * np.arange(6), -6.0 + 0.5 * np.arange(8)
COARSE = ("time_coarse", "lat_coarse", "lon_coarse")
GIVEN: dict = {"sd": 1.5, "length_km": 120.0, "tau_h": 6.0, "noise_sd": 0.2}

grid = lambda time, lat=LAT, lon=LON: xr.Dataset(coords={"time": time, "lat": lat, "lon": lon})
hourly = lambda n, start=START, every=1: start + every * HOUR * np.arange(n)
memory = lambda when, then, tau_h: np.exp(-np.abs((when.values[:, None] - then.values) / HOUR) / tau_h)
without = lambda x, *at: x.where(~np.isin(x, np.hstack([x.values[i].ravel() for i in at])))  # its values differ


def blocks(field, every=1):
    """Means of the known ones of 2 x 2 cells, weighted by area, at every `every`-th time."""
    mean = lambda x: x.coarsen(lat=2, lon=2).mean()
    weights = area_weights(field["lat"]) * (0 * field + 1)
    out = (mean(field * weights) / mean(weights)).isel(time=slice(None, None, every))
    out = out.assign_coords(lat=field["lat"].coarsen(lat=2).mean().values)
    return out.rename(time="time_coarse", lat="lat_coarse", lon="lon_coarse").transpose(*COARSE)


def weather(time, seed=0):
    """A daily cycle that differs from cell to cell, and red weather, [K]."""
    rng, hours = np.random.default_rng(seed), ((time - time[0].astype("datetime64[D]")) / HOUR)[:, None, None]
    cycle = rng.normal(2.0, 1.0, (LAT.size, LON.size)) * np.sin(2 * np.pi * hours / 24)
    days = rng.normal(size=int(hours[-1, 0, 0] // 24) + 1)[(hours // 24).astype(int)]
    values = 280 + cycle + 3 * days + rng.normal(size=(time.size, LAT.size, LON.size))
    return xr.DataArray(values, grid(time).coords, ("time", "lat", "lon"), "t2m", {"units": "K"})


def correlation(like, length_km):
    """Of all cells (lat lon, lat lon), one by one: Matern, 3/2, of straight distances."""
    lat, lon = (np.deg2rad(each.ravel()) for each in np.meshgrid(like["lat"], like["lon"], indexing="ij"))
    xyz = 6371.0 * np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    r = np.sqrt(3 * ((xyz[:, :, None] - xyz[:, None]) ** 2).sum(axis=0)) / length_km
    return (1 + r) * np.exp(-r)


def conditional(coarse, like, sd, length_km, tau_h, noise_sd):
    """Mean and covariance of the fine cells given the data, and the restricted likelihood, by dense matrices."""
    near = lambda dim: abs((like[dim].values - coarse[f"{dim}_coarse"].values[:, None] + 180) % 360 - 180) < 0.6
    means = np.kron(near("lat") * area_weights(like["lat"]).values, near("lon"))
    means, in_space = means / means.sum(axis=1, keepdims=True), correlation(like, length_km)
    when, then, known = like["time"], coarse["time_coarse"], coarse.notnull().values.ravel()
    data = sd**2 * np.kron(memory(then, then, tau_h), means @ in_space @ means.T)
    data = (data + noise_sd**2 * np.eye(len(data)))[np.ix_(known, known)]
    across = sd**2 * np.kron(memory(when, then, tau_h), in_space @ means.T)[:, known]
    y, one, inverse = coarse.values.ravel()[known], np.ones(known.sum()), np.linalg.inv(data)
    precision = one @ inverse @ one
    level, left = one @ inverse @ y / precision, 1 - across @ inverse @ one
    mean = level + across @ inverse @ (y - level)
    covariance = sd**2 * np.kron(memory(when, when, tau_h), in_space) - across @ inverse @ across.T
    projected = inverse - np.outer(inverse @ one, one @ inverse) / precision
    determinants = np.linalg.slogdet(data)[1] + np.log(precision) + (y.size - 1) * np.log(2 * np.pi)
    return mean, covariance + np.outer(left, left) / precision, -(y @ projected @ y + determinants) / 2


def simulated(like, seed, every, sd=1.5, length_km=120.0, tau_h=6.0, noise_sd=0.2):
    """A Gaussian field (time, lat, lon) and its noisy block means."""
    rng = np.random.default_rng(seed)
    roots = [np.linalg.cholesky(c) for c in (memory(like["time"], like["time"], tau_h), correlation(like, length_km))]
    values = 280 + sd * roots[0] @ rng.normal(size=(len(roots[0]), len(roots[1]))) @ roots[1].T
    truth = xr.DataArray(values.reshape([*like.sizes.values()]), like.coords, ("time", "lat", "lon"))
    coarse = blocks(truth, every=every)
    return truth, coarse + noise_sd * rng.normal(size=coarse.shape)


TRAINING, LIKE, SEVEN = weather(hourly(20 * 24, START - 20 * DAY)), grid(hourly(25)), grid(hourly(7))
COARSE_DAY = blocks(weather(hourly(25), 1), every=6).assign_attrs(units="K")
SEEN, MANY = simulated(SEVEN, 1, every=3)[1], simulated(grid(hourly(120)), 0, every=1)[1]
CASES = {  # coarse data (3 times, 3 x 4 cells), and the cells that are wanted
    "gaps": (without(SEEN, (0, 1, 2), (2, 0, 0)), SEVEN),
    "a whole time": (without(SEEN, 1), SEVEN),
    "a whole cell": (without(SEEN, (slice(None), 1, 2), (2, 0, 0)), SEVEN),
    "unequal longitudes": (SEEN, grid(hourly(7), lon=LON + 0.1 * np.random.default_rng(0).uniform(-1, 1, 8))),
    "ascending latitudes": (SEEN, grid(hourly(7), lat=LAT[::-1])),
    "across 0": (SEEN.assign_coords(lon_coarse=SEEN["lon_coarse"] + 4), grid(hourly(7), lon=(LON + 4) % 360)),
    "any order": (SEEN[[2, 0, 1]], SEVEN.isel(time=[3, 0, 5])),
    "other times": (SEEN, grid(hourly(7, START - 9 * HOUR, 5))),
}


@pytest.mark.parametrize("numbers", [1, 2**22], ids=["row by row", "at once"])
@pytest.mark.parametrize("case", CASES)
def test_kriging_is_the_dense_conditional(case, numbers, monkeypatch):
    monkeypatch.setattr("bayesdownscale.diagnostics.kriging.NUMBERS", numbers)
    found = kriging(*CASES[case], **GIVEN)
    mean, covariance, log_likelihood = conditional(*CASES[case], **GIVEN)
    assert_allclose(found["mean"].values.ravel(), mean, rtol=0, atol=1e-6 * GIVEN["sd"])
    assert_allclose(found["sd"].values.ravel(), np.sqrt(np.diag(covariance)), rtol=1e-6)
    assert_allclose(found.attrs["log_likelihood"], log_likelihood, rtol=1e-6)


def test_parameters_are_recovered_and_likelier_than_the_truth():
    wide, ratios, some = grid(hourly(48), 58 - 0.5 * np.arange(12), -6 + 0.5 * np.arange(16)), [], {"sd": GIVEN["sd"]}
    for seed in range(5):
        many, few = simulated(wide, seed, every=2)[1], without(simulated(LIKE, seed, every=6)[1], (seed, 0, 0))
        for coarse, like, given in ((few, LIKE, {}), (few, LIKE, some), (many, wide, {})):
            found, true = (kriging(coarse, like.isel(time=[0]), **each).attrs for each in (given, GIVEN))
            assert found["log_likelihood"] >= true["log_likelihood"]
            assert given.items() <= found.items()
        ratios.append([found[name] / GIVEN[name] for name in GIVEN])  # of many
    sd = np.array([0.050, 0.054, 0.112, 0.071])  # of the logarithms, over 200 seeds: no ratio below 0.76, above 1.32
    assert np.all(np.abs(np.log(ratios).mean(axis=0)) < FIVE_SIGMA * sd / np.sqrt(5))


def test_intervals_cover():
    z = []
    for seed in range(60):
        truth, coarse = simulated(SEVEN, seed, every=3)
        found = kriging(coarse, SEVEN, **GIVEN)
        z.append(((truth - found["mean"]) / found["sd"]).values.ravel())
    for each, want in ((np.abs(z) < 1.645, 0.9), (np.square(z), 1.0)):
        of_seed = np.mean(each, axis=1)  # cells are dependent, seeds are not
        assert abs(of_seed.mean() - want) < FIVE_SIGMA * of_seed.std(ddof=1) / np.sqrt(60)


def test_draws_are_from_the_conditional():
    """Means and variances of every cell and along 20 directions, 212 of each: fails about once in 3000."""
    coarse, like, n, noise = CASES["gaps"][0], grid(hourly(4, every=2)), 2000, 0.01
    found, (mean, covariance, _) = kriging(coarse, like, **GIVEN, draws=n), conditional(coarse, like, **GIVEN)
    along = np.hstack([np.eye(mean.size), np.random.default_rng(0).normal(size=(mean.size, 20))])
    z = (found["draws"].values.reshape(n, -1) - mean) @ along / np.sqrt(np.sum(along * (covariance @ along), axis=0))
    assert np.abs(z.mean(axis=0)).max() < FIVE_SIGMA / np.sqrt(n)
    assert np.abs(z.var(axis=0) - 1).max() < FIVE_SIGMA * np.sqrt(2 / n)
    assert_array_equal(found["draws"][:3], kriging(coarse, like, **GIVEN, draws=3)["draws"])
    assert np.all(found["draws"][0] != kriging(coarse, like, **GIVEN, draws=1, seed=1)["draws"][0])
    draws = kriging(SEEN, SEVEN, 1.5, 120.0, 6.0, noise, draws=100)["draws"]
    z = np.stack([blocks(draw, every=3) - SEEN for draw in draws]) / noise  # so little that it alone sets them apart
    assert abs((z**2).mean() - 1) < FIVE_SIGMA * np.sqrt(2 / z.size)


@pytest.mark.parametrize(("m", "s", "y"), [(0.0, 1.0, 0.0), (1.0, 0.1, 2.0), (-2.0, 3.0, -9.0), (3.0, 2.0, 3.5)])
def test_gaussian_crps_is_its_integral(m, s, y):
    below = quad(lambda x: norm.cdf(x, m, s) ** 2, min(m, y) - 12 * s, y, epsabs=1e-12)[0]
    above = quad(lambda x: norm.sf(x, m, s) ** 2, y, max(m, y) + 12 * s, epsabs=1e-12)[0]
    assert_allclose(gaussian_crps(*(xr.DataArray([x], dims="cell") for x in (m, s, y))), below + above, rtol=1e-9)


def test_climatology_is_the_training_fields_at_that_hour():
    found, lazy = climatology(TRAINING, LIKE), climatology(TRAINING.chunk(time=48), LIKE)
    assert_array_equal(found, TRAINING.values.reshape(20, 24, 6, 8)[:, np.arange(25) % 24])
    mixed = TRAINING[::-1, ::-1].assign_coords(lon=LON + 360)
    assert_array_equal(climatology(mixed[7:], LIKE), found[:-1])  # the last day has no evening: left out
    assert_allclose(climatology(TRAINING, LIKE.assign_attrs(units="degC")), found - 273.15)
    assert lazy.chunks is not None
    assert_array_equal(lazy, found)


def test_climatology_of_years_is_from_around_that_day():
    time = hourly(4 * 1461, np.datetime64("2015-03-01", "ns"), 6)
    since = xr.DataArray((time - START) / HOUR, {"time": time}, ["time"]).expand_dims(lat=LAT, lon=LON)
    same = [[f"{y}-{'02-29' if y == 2016 else '03-01'}T06", f"{y}-03-01T12"] for y in range(2015, 2020)]
    for days, draws in ((0, 4), (3, 4 + 3 * 7 + 3)):  # the record begins with a 1 March and ends before one
        want = np.array(same, "datetime64[ns]")[:, None] + DAY * np.arange(-days, days + 1)[:, None]
        want = want[np.isin(want, time).all(axis=2)]
        assert len(want) == draws
        found = climatology(since, grid(np.array(["2020-02-29T06", "2020-03-01T12"], "datetime64[ns]")), days)
        assert_array_equal(found[:, :, 0, 1], np.subtract(want, START) / HOUR)


def test_climatological_mean_is_the_mean_of_the_draws():
    training = without(TRAINING, (6, 0, 0), (slice(None), 2, 3))  # a cell once, another always
    for each in (training, training.chunk(time=48)):
        assert_allclose(mean := climatological_mean(each, LIKE), climatology(training, LIKE).mean("draw"), rtol=1e-13)
        assert_allclose(usual := baselines.coarse_climatology(COARSE_DAY, LIKE, each), blocks(mean, 6), rtol=1e-13)
        assert_array_equal(bcsd(usual, LIKE, each, correct=False), mean)
        assert_allclose(bcsd(usual, LIKE, each, correct=False, multiplicative=True), mean, rtol=1e-13)


@pytest.mark.parametrize("ratio", [False, True])
def test_quantile_map(ratio):
    own, x = np.random.default_rng(0).gamma(2.0, size=(300, 2)), np.linspace(0, 20, 50)[:, None] * np.ones(2)
    for changed in (lambda z: z, (lambda z: 2.5 * z) if ratio else (lambda z: z + 3)):
        assert_allclose(quantile_map(x, own, changed(own), ratio), changed(x), rtol=1e-12, atol=1e-12)
    few, (a, b), (c, d) = own[:150], np.sort(own[:2], axis=0), np.sort(own[2:4], axis=0)
    assert_allclose(np.sort(quantile_map(few, few, own[::2] ** 2, ratio), axis=0), np.sort(own[::2] ** 2, axis=0))
    assert_allclose(quantile_map(0.3 * a[None] + 0.7 * b, own[:2], own[2:4], ratio), [0.3 * c + 0.7 * d])
    for dry, wanted in ((own - 2, few - 1), (own - 1, few**2 - 3), (0 * own, few - 2)):
        dry, gaps, wanted = dry.clip(0), np.insert(dry.clip(0), 5, np.nan, axis=0), wanted[::-1].clip(0)
        gaps[:, 1] = np.nan
        found, with_gaps = (quantile_map(np.insert(x, 9, np.nan, axis=0), each, wanted, ratio) for each in (dry, gaps))
        assert_array_equal(found[0], 0)
        assert (np.diff(np.delete(found, 9, axis=0), axis=0) >= -1e-12).all()
        assert_array_equal(with_gaps, np.where([True, False], found, np.nan))


@pytest.mark.parametrize("ratio", [False, True])
def test_bcsd_removes_the_bias_of_each_cell_and_month(ratio):
    scale = lambda y: y["time_coarse"].dt.month + y["lat_coarse"] - 5 * y["lon_coarse"] - 60
    biased = lambda y: y * scale(y) if ratio else y + scale(y)
    years = weather(hourly(4 * 730, np.datetime64("2016-12-01", "ns"), 6))
    for training, like, every in ((TRAINING, LIKE, 6), (years, grid(hourly(9, START + 6 * DAY, 6)), 1)):
        truth, training = ((x - 280).clip(0) if ratio else x for x in (weather(like["time"].values, 1), training))
        coarse = blocks(truth, every)
        found = bcsd(biased(coarse), like, training, True, ratio, history=biased(blocks(training, every)))
        assert_allclose(found, bcsd(coarse, like, training, False, ratio), atol=1e-9)
        assert not ratio or found.min() >= 0


@pytest.mark.parametrize("east", [0.0, 4.0, 184.0])  # across 0 and across the date line
def test_longitudes_in_any_convention(east):
    like, field = LIKE.assign_coords(lon=(LON + east) % 360), TRAINING.assign_coords(lon=LON + east - 360)
    coarse = COARSE_DAY.assign_coords(lon_coarse=(COARSE_DAY["lon_coarse"] + east + 180) % 360 - 180)
    in_lat, in_lon = means_over(coarse, like)
    assert_allclose(in_lat @ TRAINING.values @ in_lon.T, blocks(TRAINING), rtol=1e-13)
    assert_array_equal(np.isnan(means_over(coarse, like.isel(lat=slice(2)))[0]).all(axis=1), [False, True, True])
    assert_allclose(bcsd(coarse, like, field, False), bcsd(COARSE_DAY, LIKE, TRAINING, False), rtol=1e-12)


ERRORS = {
    "parameters above 0, got sd -1": lambda: kriging(SEEN, LIKE, sd=-1.0),
    "at most 4096 cells to draw": lambda: kriging(SEEN, grid(hourly(1), np.arange(65.0), np.arange(64.0)), draws=1),
    "got 720 values and 720 gaps": lambda: kriging(without(MANY, np.s_[::2, 0], np.s_[1::2, 1:]), LIKE),
    "got 0 values and 0 gaps": lambda: kriging(SEEN[:0], LIKE),
    "give sd, tau_h": lambda: kriging(SEEN[:1], LIKE, None, 100.0, None, 0.1),
    "deviations above 0": lambda: gaussian_crps(SEEN, 0 * SEEN, SEEN),
    "cannot align": lambda: gaussian_crps(SEEN, SEEN, SEEN[:1]),
    "got none at 01:00": lambda: climatology(TRAINING[::6], LIKE),
    "day with every time of day": lambda: climatology(TRAINING[[*range(12), *range(36, 48)]], LIKE),
    "from 0 to 182 days, got 200": lambda: climatology(TRAINING, LIKE, 200),
    "training fields of 't2m' at every lat": lambda: climatology(TRAINING[:, 1:], LIKE),
    "at least 20 times of the coarse history": lambda: bcsd(COARSE_DAY, LIKE, TRAINING),
    "at least 0 to take ratios": lambda: bcsd(COARSE_DAY - 280, LIKE, TRAINING, multiplicative=True),
    "'lat_coarse'": lambda: bcsd(COARSE_DAY, LIKE, TRAINING, history=blocks(TRAINING)[:, 1:]),
    "hold fine cells": lambda: means_over(SEEN, grid(hourly(1), LAT - 20)),
}


@pytest.mark.parametrize("phrase", ERRORS)
def test_errors_say_what_is_wrong(phrase):
    with pytest.raises(ValueError, match=phrase):
        ERRORS[phrase]()
