"""Statistics of structure against closed forms of Gaussian processes, numpy's correlations and loops over cells.

Random tests use fixed seeds; "fails once in n" is the rate at which another seed would fail a correct program.
"""

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from scipy.signal import lfilter

from bayesdownscale.data.grid import Grid
from bayesdownscale.diagnostics import blocks
from bayesdownscale.diagnostics.structure import (
    coarse_consistency,
    correlation_map,
    cross_correlation,
    jerk_ratio,
    lag1_autocorrelation,
    second_difference_energy,
    spatial_correlation,
)

BINS = [10.0, 60.0, 100.0, 150.0]


def as_field(values, step=0.5):
    """`values` ((draw,) time, lat, lon) on a grid that starts at 50 N, 359 E, every hour."""
    n_time, n_lat, n_lon = values.shape[-3:]
    time = np.datetime64("2020-01-01", "ns") + np.arange(n_time) * np.timedelta64(1, "h")
    place = {"time": time, "lat": 50.0 + step * np.arange(n_lat), "lon": 359.0 + step * np.arange(n_lon)}
    dims = ("draw", "time", "lat", "lon")[-values.ndim :]
    return xr.DataArray(values, place, dims, "t2m", {"units": "K"})


def every(n, field):
    """Every n-th hour (time,) bool."""
    return xr.DataArray(np.arange(field.sizes["time"]) % n == 0, {"time": field["time"]}, ("time",))


def red_noise(r, shape, seed):
    """Stationary AR(1) processes of variance 1 along the last axis."""
    noise = np.random.default_rng(seed).normal(size=shape)
    noise[..., 1:] *= np.sqrt(1 - r**2)
    return np.asarray(lfilter([1.0], [1.0, -r], noise))


def independent(values):
    """400 series (400, time) as 50 draws of 8 cells in a row."""
    return as_field(np.moveaxis(values.reshape(50, 8, 1, -1), -1, 1).swapaxes(2, 3))


def near(estimates, exact, bias=0.0):
    """The mean of 50 estimates is within five standard errors of `exact`: fails once in 100 000."""
    assert abs(estimates.values.mean() - exact) < 5 * estimates.values.std() / np.sqrt(estimates.size - 1) + bias


@pytest.fixture(scope="module")
def ensemble():
    rng = np.random.default_rng(0)
    return as_field((280 + rng.normal(size=(3, 13, 5, 4)).cumsum(axis=1).cumsum(axis=2)).astype(np.float32))


@pytest.fixture(scope="module")
def coarse(ensemble):
    """Every 6 h, 2 x 2 cells in the other convention of longitudes, each with a missing value at another time."""
    at = {"time_coarse": ensemble["time"].values[[0, 6, 12]], "lat_coarse": [52.0, 50.5], "lon_coarse": [-0.75, 0.25]}
    values = 280 + np.random.default_rng(1).normal(size=(3, 2, 2))
    values[0, 1, 0], values[1] = np.nan, np.nan
    return xr.DataArray(values, at, ("time_coarse", "lat_coarse", "lon_coarse"))


STATISTICS = {
    "lag1": lambda x, _: lag1_autocorrelation(x),
    "lag1 at": lambda x, _: lag1_autocorrelation(x, every(6, x)),
    "energy": lambda x, _: second_difference_energy(x),
    "jerk": lambda x, _: jerk_ratio(x, every(6, x)),
    "map": lambda x, _: correlation_map(x, (51.0, 0.1)),
    "cross": lambda x, _: cross_correlation(x, x**2),
    "spatial": lambda x, _: spatial_correlation(x, BINS, points=7),
    "coarse": lambda x, coarse: coarse_consistency(x, coarse, 0.3)["rms_by_time"],
}


@pytest.fixture(params=STATISTICS)
def statistic(request, coarse):
    return lambda x: STATISTICS[request.param](x, coarse)


def test_every_draw_has_the_statistics_it_has_alone(ensemble, statistic):
    together = statistic(ensemble)
    assert together.sizes["draw"] == 3
    for i in range(3):
        alone = statistic(ensemble.isel(draw=i))
        assert "draw" not in alone.dims
        assert_allclose(together.isel(draw=i), alone, rtol=1e-9)


@pytest.mark.parametrize(("block", "chunks"), [(600, None), (60, None), (1, None), (600, {"draw": 2, "lat": 3})])
def test_parts_of_a_file_give_what_the_whole_gives(ensemble, statistic, block, chunks, tmp_path, monkeypatch):
    if chunks:
        pytest.importorskip("dask")
    whole = statistic(ensemble)
    ensemble.transpose("lon", "draw", "lat", "time").to_netcdf(tmp_path / "draws.nc")
    monkeypatch.setattr(blocks, "BLOCK", block)
    with xr.open_dataarray(tmp_path / "draws.nc", chunks=chunks) as lazy:
        assert_allclose(statistic(lazy).transpose(*whole.dims), whole, rtol=1e-9)


def test_missing_values_and_one_time_are_errors(ensemble, statistic):
    with pytest.raises(ValueError, match="without missing values"):
        statistic(ensemble.where(ensemble["time"] != ensemble["time"][12]))
    with pytest.raises(ValueError, match=r"at least [23] times, got 1|at times of the ensemble, got none"):
        statistic(ensemble.isel(time=[1]))
    with pytest.raises(ValueError, match="expected a field over time, lat and lon"):
        statistic(ensemble.isel(lon=0))


@pytest.mark.parametrize("chosen", [False, True])
def test_lag1_is_the_loop_over_cells(ensemble, chosen):
    pairs = range(0, 12, 6) if chosen else range(12)
    x, total, area = ensemble.values[1].astype(float), 0.0, np.cos(np.deg2rad(ensemble["lat"].values))
    for i, j in np.ndindex(5, 4):
        a = x[:, i, j] - x[:, i, j].mean()
        sums = [sum(a[t + m] * a[t + n] for t in pairs) for m, n in ((0, 1), (0, 0), (1, 1))]
        total += area[i] * sums[0] / np.sqrt(sums[1] * sums[2])
    got = lag1_autocorrelation(ensemble.isel(draw=1), every(6, ensemble) if chosen else None)
    assert_allclose(got, total / (4 * area.sum()), rtol=1e-9)


def test_lag1_of_red_noise():
    """Less its bias, about (1 + 3 r) / n."""
    near(lag1_autocorrelation(independent(red_noise(0.7, (400, 2000), 2))), 0.7 - 3.1 / 2000, bias=3e-4)


def test_constant_cells_count_in_no_mean(ensemble):
    still = ensemble.copy(data=np.where(np.arange(4) == 2, np.float32(280.1), ensemble.values))
    assert_allclose(lag1_autocorrelation(still), lag1_autocorrelation(ensemble.isel(lon=[0, 1, 3])), rtol=1e-9)
    assert np.isnan(correlation_map(still, (50.0, 359.0)).isel(lon=2)).all()
    assert np.isnan(lag1_autocorrelation(still.isel(lon=[2]))).all()
    assert np.isnan(jerk_ratio(still.isel(lon=[2]), every(6, still))).all()
    assert np.isfinite(spatial_correlation(still, BINS)).all()


def test_energy_is_the_second_difference(ensemble):
    area = np.cos(np.deg2rad(ensemble["lat"].values))[:, None] * np.ones(4)
    d = np.diff(ensemble.values.astype(float), n=2, axis=1)
    by_time = (d**2 * area).sum(axis=(2, 3)) / area.sum()
    assert_allclose(second_difference_energy(ensemble), by_time.mean(axis=1), rtol=1e-9)
    assert_allclose(second_difference_energy(ensemble, every(6, ensemble)), by_time[:, 5], rtol=1e-9)
    others = np.delete(by_time, 5, axis=1).mean(axis=1)
    assert_allclose(jerk_ratio(ensemble, every(6, ensemble)), by_time[:, 5] / others, rtol=1e-9)
    assert second_difference_energy(ensemble).attrs["units"] == "K2"


@pytest.mark.parametrize("r", [0.0, 0.5, 0.95])
def test_energy_of_red_noise(r):
    """s^2 (6 - 8 r + 2 r^2), and no jerk at any hour."""
    field = independent(2 * red_noise(r, (400, 302), 3))
    near(second_difference_energy(field), 4 * (6 - 8 * r + 2 * r**2))
    near(jerk_ratio(field, every(6, field)), 1.0, bias=0.003)  # of a ratio of means


def test_energy_of_a_random_walk():
    near(second_difference_energy(independent(np.random.default_rng(4).normal(size=(400, 200)).cumsum(axis=1))), 2.0)


@pytest.mark.parametrize("j", [0.3, 1.0])
def test_jerks_at_observed_hours_are_seen(j):
    """Noise of deviation j at every 6th hour adds 4 j^2 there and j^2 at both neighbours, 100 of 250 other hours."""
    series = red_noise(0.9, (400, 302), 5)
    series[:, ::6] += j * np.random.default_rng(6).normal(size=series[:, ::6].shape)
    field, smooth = independent(series), 6 - 8 * 0.9 + 2 * 0.9**2
    seen, unseen = smooth + 4 * j**2, smooth + 0.4 * j**2
    near(second_difference_energy(field, every(6, field)), seen)
    near(second_difference_energy(field, ~every(6, field)), unseen)
    near(jerk_ratio(field, every(6, field)), seen / unseen, bias=0.003 * seen / unseen)


def test_correlations_are_those_of_numpy(ensemble):
    x = ensemble.values[2].astype(float).reshape(13, -1)
    r = np.corrcoef(np.concatenate([x, x**2], axis=1).T)
    got = correlation_map(ensemble.isel(draw=2), (51.1, -0.4))
    assert_allclose(got, r[2 * 4 + 1, :20].reshape(5, 4), atol=1e-9)
    assert got.attrs["point"] == [51.0, 359.5]
    squares = ensemble.astype(np.float64) ** 2
    assert_allclose(cross_correlation(ensemble, squares)[2], np.diag(r, 20).reshape(5, 4), atol=1e-9)
    d, lat = Grid(ensemble["lat"].values, ensemble["lon"].values).distances_km(), np.repeat(ensemble["lat"].values, 4)
    weight = np.cos(np.deg2rad(lat))[:, None] * np.cos(np.deg2rad(lat))
    got = spatial_correlation(ensemble.isel(draw=2), BINS)
    for k in range(3):
        inside = (d >= BINS[k]) & (d < BINS[k + 1])
        assert_allclose(got[k], (weight * r[:20, :20])[inside].sum() / weight[inside].sum(), atol=1e-9)
        assert got["pairs"][k] == inside.sum()


def test_correlation_of_a_field_with_known_covariance():
    """exp(-d / 100 km), from 10 of 42 points."""
    grid = Grid(50.0 + 0.5 * np.arange(6), 359.0 + 0.5 * np.arange(7))
    root = np.linalg.cholesky(np.exp(-(d := grid.distances_km()) / 100))
    field = as_field((np.random.default_rng(7).normal(size=(50, 400, 42)) @ root.T).reshape(50, 400, 6, 7))
    got = spatial_correlation(field, [30, 60, 120, 240], points=10, key=1)
    chosen = np.sort(np.random.default_rng(1).permutation(42)[:10])
    weight = np.repeat(np.cos(np.deg2rad(grid.lat)), 7)
    for k, (low, high) in enumerate([(30, 60), (60, 120), (120, 240)]):
        use = (d[chosen] >= low) & (d[chosen] < high)
        pairs = (weight[chosen, None] * weight)[use]
        near(got.isel(distance=k), (np.exp(-d[chosen] / 100)[use] * pairs).sum() / pairs.sum(), bias=5e-4)


def test_coarse_consistency_is_the_loop_over_cells(ensemble, coarse):
    """Rows 50, 50.5 and 51 belong to 50.5; rows 51.5 and 52 to 52."""
    x, area = ensemble.values.astype(float), np.cos(np.deg2rad(ensemble["lat"].values))
    rows, columns = [[3, 4], [0, 1, 2]], [[0, 1], [2, 3]]
    noise = xr.DataArray([[0.5, 1.0], [2.0, 0.25]], {d: coarse[d] for d in coarse.dims[1:]}, coarse.dims[1:])
    residual = np.full((3, 2, 2, 2), np.nan)
    for t, (at, row) in enumerate([(0, 0), (12, 2)]):
        for i, j in np.ndindex(2, 2):
            means = np.average(x[:, at][:, rows[i]][:, :, columns[j]].mean(axis=-1), axis=1, weights=area[rows[i]])
            residual[:, t, i, j] = (means - coarse.values[row, i, j]) / noise.values[i, j]
    got = coarse_consistency(ensemble, coarse, noise)
    assert_allclose(got["rms"], np.sqrt(np.nanmean(residual**2, axis=(1, 2, 3))), rtol=1e-9)
    assert_allclose(got["rms_by_time"], np.sqrt(np.nanmean(residual**2, axis=(2, 3))), rtol=1e-9)
    assert list(got["time_coarse"].values) == list(coarse["time_coarse"].values[[0, 2]])
    by_draw, plain = xr.DataArray([1.0, 2.0, 4.0], dims="draw"), coarse_consistency(ensemble, coarse)["rms"]
    assert_allclose(coarse_consistency(ensemble, coarse, by_draw)["rms"], plain / by_draw, rtol=1e-9)
    beyond = ensemble.pad(lat=(0, 2), mode="edge").assign_coords(lat=[*ensemble["lat"].values, 53.0, 53.5])
    assert_allclose(coarse_consistency(beyond, coarse)["rms"], plain, rtol=1e-9)


def test_requests_that_cannot_be_met_are_errors(ensemble, coarse):
    gap, sixth = ensemble.isel(time=[0, 1, 2, 4]), every(6, ensemble)
    requests = {
        r"lat 55 outside 50 to 52; give \(lat, lon\) inside": lambda: correlation_map(ensemble, (55.0, 0.0)),
        "equal dimensions": lambda: cross_correlation(ensemble, ensemble.isel(draw=0)),
        "increasing bin edges": lambda: spatial_correlation(ensemble, [3.0, 2.0]),
        "two cells at a distance in a bin": lambda: spatial_correlation(ensemble, [1.0, 2.0]),
        "none for .10.0, 60.0": lambda: spatial_correlation(ensemble.isel(lat=[0], lon=[0]), BINS),
        "steps from 1 to 2 h": lambda: jerk_ratio(gap, every(6, gap)),
        "chosen time inside the period": lambda: jerk_ratio(ensemble, ~every(20, ensemble)),
        "at each time of the field, got bool": lambda: lag1_autocorrelation(ensemble, sixth.isel(time=slice(5))),
        "at each time of the field, got float": lambda: jerk_ratio(ensemble, sixth.astype(float)),
        "noise_sd above 0": lambda: coarse_consistency(ensemble, coarse, 0.0),
        "means over time": lambda: coarse_consistency(ensemble, coarse.assign_attrs(cell_methods="time: mean")),
        "labelled time_coarse": lambda: coarse_consistency(ensemble, ensemble),
        "hold fine cells": lambda: coarse_consistency(ensemble, coarse.assign_coords(lat_coarse=[20.0, 18.0])),
    }
    for words, request in requests.items():
        with pytest.raises(ValueError, match=words):
            request()
