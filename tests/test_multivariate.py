"""Energy and variogram scores against brute force, scoringrules and the closed forms of Gaussian vectors.

Random tests use fixed seeds; "fails once in n" is the rate at which another seed would fail a correct program.
"""

import tracemalloc
from itertools import combinations

import numpy as np
import pytest
import scoringrules
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import gamma
from scipy.stats import chisquare

from bayesdownscale.data.grid import Grid
from bayesdownscale.diagnostics import blocks, multivariate
from bayesdownscale.diagnostics.multivariate import NEAR, cell_pairs, energy_score, great_circle_km, variogram_score
from bayesdownscale.diagnostics.scores import area_weights, crps

FIVE_SIGMA = 5.0  # two-sided: fails once in 1.7 million
TIME = np.datetime64("2019-03-25T00", "ns") + np.arange(3) * np.timedelta64(1, "h")
LAT, LON = 60.0 - 5 * np.arange(4), 355.0 + 3 * np.arange(5)
PLACE = {"time": TIME, "lat": LAT, "lon": LON}
SCORES = pytest.mark.parametrize("score", [energy_score, variogram_score])
DIMS = ("time", "lat", "lon")


def fields(dtype="float32"):
    """An ensemble and a truth (time, lat, lon) of a temperature."""
    values = 280 + np.random.default_rng(0).normal(size=(8, 3, 4, 5)).astype(dtype)
    ensemble = xr.DataArray(values[1:], PLACE, ("draw", *DIMS), attrs={"units": "K"})
    return ensemble, xr.DataArray(values[0], PLACE, DIMS)


def vectors(values, draws=False):
    """Many Gaussian vectors (index, row, column) on a grid around the equator, where areas are equal."""
    dims = ("draw", "index", "lat", "lon")
    return xr.DataArray(values, {"lat": [-1.0, 1.0], "lon": [0.0, 5.0, 9.0]}, dims if draws else dims[1:])


def energy_by_loops(x, y, weight):
    """Over all pairs of members `x` (M, n), one after the other."""
    norm = lambda z: np.sqrt((weight * z.astype(np.float64) ** 2).sum())
    return np.mean([norm(a - y) for a in x]) - np.mean([norm(a - b) for a, b in combinations(x, 2)]) / 2


def variogram_by_loops(x, y, pairs, weight):
    total = 0.0
    for a, b, w in zip(*pairs, weight, strict=True):
        of_x, of_y = np.abs(x[:, a] - x[:, b]) ** 0.5, np.abs(y[a] - y[b]) ** 0.5
        apart = np.mean([(one - other) ** 2 for one, other in combinations(of_x, 2)])
        total += w * (np.mean((of_x - of_y) ** 2) - apart / 2)
    return total / weight.sum()


def test_energy_is_the_fair_formula_with_areas():
    ensemble, truth = fields()
    weight = np.repeat(np.cos(np.deg2rad(LAT)), 5)
    got = energy_score(ensemble, truth)
    x, y = ensemble.values.reshape(7, 3, 20), truth.values.reshape(3, 20)
    want = [energy_by_loops(x[:, t], y[t], weight * 20 / weight.sum()) for t in range(3)]
    assert_allclose(got, want, rtol=1e-6)
    assert got.dims == ("time",)
    assert got.attrs["units"] == "K"
    one = {"lat": [2], "lon": [3]}
    want = crps(ensemble, truth).isel(lat=2, lon=3)
    xr.testing.assert_allclose(energy_score(ensemble.isel(one), truth.isel(one)), want.drop_vars(["lat", "lon"]))


def test_energy_agrees_with_scoringrules_where_areas_are_equal():
    ensemble, truth = (field.drop_vars("lat") for field in fields())
    x, y = ensemble.values.reshape(7, 3, 20), truth.values.reshape(3, 20)
    want = scoringrules.energy_score(y, x, 0, 2, estimator="fair", backend="numpy")
    assert_allclose(energy_score(ensemble, truth), want, rtol=1e-6)


def test_energy_of_the_whole_episode(monkeypatch):
    ensemble, truth = fields()
    truth[1, :2] = np.nan
    weight = (area_weights(truth["lat"]) * truth.notnull()).transpose(*DIMS).values.ravel()
    weight *= (weight > 0).sum() / weight.sum()
    want = energy_by_loops(ensemble.values.reshape(7, 60), truth.fillna(0).values.ravel(), weight)
    for block in (ensemble.size, ensemble[:, 0].size):
        monkeypatch.setattr(blocks, "BLOCK", block)
        got = energy_score(ensemble, truth, DIMS)
        assert got.dims == ()
        assert_allclose(got, want, rtol=1e-6)


def test_energy_of_members_that_agree_is_the_distance():
    """Distances from inner products are exact to 1e-8 of the spread, not to the last digit."""
    ensemble, truth = fields("float64")
    same = ensemble.isel(draw=[2] * 50).drop_vars("lat")
    want = np.sqrt(((ensemble[2] - truth) ** 2).sum(["lat", "lon"]))
    assert_allclose(energy_score(same, truth.drop_vars("lat")), want, rtol=1e-7)


@pytest.mark.parametrize(("order", "lat"), [(0.5, LAT), (1.0, LAT), (0.5, LAT + 30)], ids=["root", "line", "pole"])
def test_variogram_agrees_with_scoringrules(order, lat):
    """All pairs of 20 cells, weighted by one over distance, but those of cells that meet at the pole."""
    ensemble, truth = (field.assign_coords(lat=lat) for field in fields("float64"))
    distance = Grid(lat, LON).distances_km()
    w = np.divide(1.0, distance, np.zeros_like(distance), where=distance > 1e-3)
    x, y, w = ensemble.values.reshape(7, 3, 20).swapaxes(0, 1), truth.values.reshape(3, 20), w[None] / w.sum()
    got = variogram_score(ensemble, truth, 190, order)
    assert_allclose(got, scoringrules.variogram_score(y, x, w, p=order, estimator="fair", backend="numpy"), rtol=1e-6)
    assert got.attrs["units"] == ("K" if order == 0.5 else "(K)^2")


def test_variogram_of_sampled_pairs_is_the_fair_formula():
    ensemble, truth = fields("float64")
    truth[:, 3] = np.nan
    truth[1, 0, :3] = np.nan
    pairs = np.array(cell_pairs(truth.notnull().any("time").values, 60, 3))
    distance = Grid(LAT, LON).distances_km()[*pairs]
    got = variogram_score(ensemble, truth, 60, seed=3)
    for t in range(3):
        y = truth.values[t].ravel()
        known = ~np.isnan(y[pairs]).any(axis=0)
        want = variogram_by_loops(ensemble.values[:, t].reshape(7, 20), y, pairs[:, known], 1 / distance[known])
        assert_allclose(got[t], want, rtol=1e-6)
    assert_array_equal(got, variogram_score(ensemble, truth, 60, seed=3))
    assert (got != variogram_score(ensemble, truth, 60, seed=4)).all()


@SCORES
@pytest.mark.parametrize("members", [2, 30])
def test_scores_have_the_mean_of_the_closed_form(score, members):
    """E|X - X'| / 2 and Var |X_a - X_b|^0.5 of calibrated vectors of 6 independent standard Gaussian numbers."""
    closed = gamma(3.5) / gamma(3.0) if score is energy_score else 2 / np.sqrt(np.pi) - 2 * gamma(0.75) ** 2 / np.pi
    sample = np.random.default_rng(1).normal(size=(members + 1, 8_000, 2, 3))
    found = score(vectors(sample[1:], True), vectors(sample[0]))
    assert abs(float(found.mean()) - closed) < FIVE_SIGMA * float(found.std()) / np.sqrt(8_000)


def test_variogram_sees_what_the_crps_cannot():
    """Members whose cells were shuffled, each on its own, lose their correlation and keep their marginals."""
    rng = np.random.default_rng(5)
    common = rng.normal(size=(31, 300, 1, 1)) + 0.3 * rng.normal(size=(31, 300, 2, 3))
    ensemble, truth = vectors(common[1:], True), vectors(common[0])
    shuffled = ensemble.copy(data=rng.permuted(ensemble.values, axis=0))
    assert_allclose(crps(shuffled, truth), crps(ensemble, truth), rtol=0, atol=1e-12)
    assert float(variogram_score(shuffled, truth).mean()) > 2 * float(variogram_score(ensemble, truth).mean())
    warmer = variogram_score(ensemble + 9, truth)  # blind to what all cells share
    assert_allclose(warmer, variogram_score(ensemble, truth), rtol=0, atol=1e-6)


def test_pairs_are_uniform_near_and_far():
    """p-values of two chi-square tests: fails once in 50 000."""
    known = np.ones((6, 7), bool)
    known[:2, 3:5] = False
    apart = lambda a, b: np.maximum(abs(a // 7 - b // 7), abs(a % 7 - b % 7))
    first, second = np.array(list(combinations(np.flatnonzero(known), 2))).T
    near = apart(first, second) <= NEAR
    a, b = (np.concatenate(each) for each in zip(*(cell_pairs(known, 600, seed) for seed in range(60)), strict=True))
    half = np.arange(a.size) % 600 < 300
    for part, possible in ((half, near), (~half, near | True)):
        code = np.minimum(a, b)[part] * 42 + np.maximum(a, b)[part]
        counts = np.bincount(code, minlength=42 * 42)[(first * 42 + second)[possible]]
        assert counts.sum() == part.sum()
        assert chisquare(counts).pvalue > 1e-5


def test_pairs_of_few_or_scattered_cells():
    known = np.zeros((9, 9), bool)
    known[::4, ::4] = True  # nobody within 3 cells
    a, b = cell_pairs(known, 36, 0)
    assert set(zip(a, b, strict=True)) == set(combinations(np.flatnonzero(known), 2))
    a, b = cell_pairs(known, 35, 0)
    assert (a != b).sum() == 35
    with pytest.raises(ValueError, match="at least two known cells"):
        cell_pairs(known[:3, :3], 10, 0)


def test_distances_are_those_of_the_grid():
    i, j = np.triu_indices(20, 1)
    lat, lon = np.repeat(LAT, 5), np.tile(LON, 4)
    got = great_circle_km(lat[i], lon[i], lat[j], lon[j] - 360)
    assert_allclose(got, Grid(LAT, LON).distances_km()[i, j], rtol=1e-9)


@SCORES
def test_unknown_cells_are_as_if_the_field_ended(score):
    ensemble, truth = fields()
    north = {"lat": slice(2)}
    want = score(ensemble.isel(north), truth.isel(north))
    truth[:, 2:] = np.nan
    assert_allclose(score(ensemble, truth), want, rtol=1e-6)
    truth[1] = np.nan
    ensemble[2, 2, 0, 0] = np.nan
    assert_array_equal(score(ensemble, truth).notnull(), [True, False, False])


@SCORES
def test_units_scale_the_score(score):
    kelvin = fields("float64")
    fahrenheit = (field * 1.8 - 459.67 for field in kelvin)
    assert_allclose(score(*fahrenheit), 1.8 * score(*kelvin), rtol=1e-6)


@SCORES
def test_blocks_files_and_order_change_nothing(score, tmp_path, monkeypatch):
    ensemble, truth = fields()
    whole = score(ensemble, truth)
    ensemble.rename("t2m").to_netcdf(tmp_path / "t2m.nc")
    monkeypatch.setattr(blocks, "BLOCK", 2 * ensemble[:, 0].size)
    monkeypatch.setattr(multivariate, "PRODUCTS", 40)
    with xr.open_dataarray(tmp_path / "t2m.nc", cache=False) as lazy:
        xr.testing.assert_allclose(score(lazy, truth), whole, rtol=1e-6)
    xr.testing.assert_allclose(score(ensemble.transpose("lon", "time", "draw", "lat"), truth), whole, rtol=1e-6)
    xr.testing.assert_allclose(score(ensemble[:, 1], truth[1]), whole[1], rtol=1e-6)


@SCORES
def test_a_file_is_read_in_parts(score, tmp_path, monkeypatch):
    values = np.random.default_rng(6).normal(size=(251, 24, 20, 40)).astype(np.float32)
    labels = {"lat": 60.0 - np.arange(20), "lon": np.arange(40.0)}
    xr.DataArray(values[1:], labels, ("draw", *DIMS), "t2m").to_netcdf(tmp_path / "t2m.nc")
    truth = xr.DataArray(values[0], labels, DIMS)
    monkeypatch.setattr(blocks, "BLOCK", 2 * 250 * 800)
    with xr.open_dataarray(tmp_path / "t2m.nc", cache=False) as lazy:
        tracemalloc.start()
        score(lazy, truth)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 0.7 * values.nbytes < 14e6  # differences of all members at one time: 200e6


@SCORES
def test_scores_refuse_what_they_cannot_score(score):
    ensemble, truth = fields()
    with pytest.raises(ValueError, match="at least two draws"):
        score(ensemble.isel(draw=[0]), truth)
    with pytest.raises(ValueError, match="over to name dimensions of the truth"):
        score(ensemble, truth, over=("lat", "longitude"))
    with pytest.raises(ValueError, match="those of the truth"):
        score(ensemble, truth.isel(time=0))
    with pytest.raises(ValueError, match="cannot align"):
        score(ensemble, truth.assign_coords(lat=LAT + 1))


def test_variogram_refuses_what_has_no_place_or_pair():
    for over in (DIMS, ("lat",)):
        with pytest.raises(ValueError, match="two dimensions of the coordinates lat and lon"):
            variogram_score(*fields(), over=over)
    for pairs, order in ((0, 0.5), (2000, 0.0)):
        with pytest.raises(ValueError, match="at least one pair and an order above 0"):
            variogram_score(*fields(), pairs, order)
