"""Scores against closed forms, calibration against exchangeability, and a report that holds what it says.

Random tests use fixed seeds; "fails once in n" is the rate at which another seed would fail a correct program.
"""

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest, norm
from trees import DRAWS, LAT, LON, TIME, calibrated_tree

from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords, Grid, Variable
from bayesdownscale.diagnostics.baselines import bilinear
from bayesdownscale.diagnostics.calibration import (
    LEVELS,
    _spread,
    central_coverage,
    chance_range,
    histogram,
    pit_curves,
    pit_curves_by_period,
)
from bayesdownscale.diagnostics.coastlines import coastlines_in
from bayesdownscale.diagnostics.figures import hours_since_observed, time_series, widest_point
from bayesdownscale.diagnostics.layout import add_truth, read_fields
from bayesdownscale.diagnostics.maps import is_signed, maps, unobserved_time
from bayesdownscale.diagnostics.report import number
from bayesdownscale.diagnostics.scores import coverage, crps, mae, pit, rmse, spread, spread_skill
from bayesdownscale.diagnostics.style import degrees, period, units_of

FIVE_SIGMA = 5.0  # two-sided: fails once in 1.7 million


@pytest.fixture(scope="module")
def tree():
    return calibrated_tree()


@pytest.fixture(scope="module")
def field(tree):
    (field,), total, bad = read_fields(tree)
    assert (total, bad) == (DRAWS, 0)
    return field


def cells(values, draws=False):
    dims = ("draw", "cell") if draws else ("cell",)
    return xr.DataArray(np.asarray(values, dtype=np.float64), dims=dims)


@pytest.mark.parametrize("offset", [0.0, 280.0])
def test_crps_is_the_fair_formula(offset):
    rng = np.random.default_rng(1)
    x, y = offset + rng.normal(size=(7, 50)), offset + rng.normal(size=50)
    pairs = np.abs(x[:, None] - x[None]).sum(axis=(0, 1)) / (7 * 6)
    assert_allclose(crps(cells(x, True), cells(y)), np.abs(x - y).mean(axis=0) - pairs / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("draws", [2, 40])
def test_crps_has_the_mean_of_the_gaussian_closed_form(draws):
    rng = np.random.default_rng(2)
    y, x = rng.normal(size=20_000), rng.normal(size=(draws, 20_000))
    closed = y * (2 * norm.cdf(y) - 1) + 2 * norm.pdf(y) - 1 / np.sqrt(np.pi)
    difference = crps(cells(x, True), cells(y)).values - closed
    assert abs(difference.mean()) < FIVE_SIGMA * difference.std() / np.sqrt(y.size)


@pytest.mark.parametrize("draws", [1, 2, 5, 19, 20])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.99])
def test_coverage_is_nominal_for_every_size(draws, level):
    """Each of the M + 1 ranks once: the definition of calibration."""
    truth = cells(np.arange(draws + 1) - 0.5)
    ensemble = cells(np.repeat(np.arange(draws)[:, None], draws + 1, axis=1), True)
    assert_allclose(coverage(ensemble, truth, level), level, atol=1e-12)


def test_coverage_of_ties_is_nominal():
    rng = np.random.default_rng(3)
    rain = np.maximum(rng.normal(size=(10, 20_000)), 0)
    assert_allclose(coverage(cells(rain[1:], True), cells(rain[0]), 0.9), 0.9, atol=FIVE_SIGMA * 0.3 / np.sqrt(20_000))


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_of_a_calibrated_ensemble(field, level):
    tolerance = FIVE_SIGMA * np.sqrt(level * (1 - level) / field.truth.size)
    assert_allclose(coverage(field.ensemble, field.truth, level), level, atol=tolerance)


def test_spread_equals_error_when_calibrated(field):
    assert_allclose(spread_skill(field.ensemble, field.truth), 1.0, atol=FIVE_SIGMA * np.sqrt(0.55 / field.truth.size))
    assert spread_skill(field.ensemble, field.truth, ["lat", "lon"]).dims == ("time",)
    assert spread(field.ensemble).attrs["units"] == "K"


def test_spread_skill_of_two_members_needs_the_factor():
    rng = np.random.default_rng(4)
    sample = rng.normal(size=(3, 40_000))
    assert_allclose(spread_skill(cells(sample[1:], True), cells(sample[0])), 1.0, atol=0.03)  # 5 standard errors


@pytest.mark.parametrize("ties", [False, True])
def test_pit_is_uniform(ties):
    sample = np.random.default_rng(5).normal(size=(10, 5_000))
    sample = np.maximum(sample, 0) if ties else sample
    values = pit(cells(sample[1:], True), cells(sample[0]), key=0)
    assert values.min() >= 0
    assert values.max() <= 1
    assert kstest(values.values, "uniform").pvalue > 1e-5  # fails once in 100 000
    assert_array_equal(values, pit(cells(sample[1:], True), cells(sample[0]), key=0))


def test_errors_weight_cells_by_area():
    lat = xr.DataArray([0.0, 60.0], {"lat": [0.0, 60.0]}, ("lat",))
    zero = xr.zeros_like(lat)
    assert_allclose(mae(zero, lat), 60 * 0.5 / 1.5)
    assert_allclose(rmse(zero, lat), np.sqrt(3600 * 0.5 / 1.5))


def test_missing_truth_is_left_out(field):
    truth = field.truth.where(field.truth["lat"] > 55)
    north = {"lat": field.truth["lat"].values > 55}
    for score in (coverage, spread_skill):
        want = score(field.ensemble.isel(north), field.truth.isel(north))
        assert_allclose(score(field.ensemble, truth), want, rtol=1e-6)
    assert int(crps(field.ensemble, truth).notnull().sum()) == int(truth.notnull().sum())


def test_scores_refuse_what_they_cannot_score(field):
    with pytest.raises(ValueError, match="at least two draws"):
        crps(field.ensemble.isel(draw=[0]), field.truth)
    with pytest.raises(ValueError, match="level between 0 and 1"):
        coverage(field.ensemble, field.truth, 90)
    with pytest.raises(ValueError, match="dimension draw"):
        pit(field.ensemble.rename(draw="member"), field.truth, key=0)


def test_pit_curves_agree_with_coverage_and_are_uniform_over_the_pool(field):
    curves = pit_curves(field.ensemble, field.truth)
    assert_allclose(central_coverage(curves, 0.9)[0], coverage(field.ensemble, field.truth, 0.9), atol=1e-9)
    assert_allclose(curves.mean("item"), LEVELS, atol=1e-9)  # each cell gives every rank once
    assert_allclose(histogram(curves, 20).mean("bin"), 1.0)
    assert_allclose(pit_curves(field.ensemble, field.truth, 0)[0], curves[0])


def test_pit_curves_by_period(field, monkeypatch):
    seen = np.arange(field.truth.sizes["time"]) % 6 == 0
    periods = {"all": slice(None), "observed": seen, "between": ~seen}
    curves = pit_curves_by_period(field.ensemble, field.truth, periods)
    assert_allclose(curves["all"], pit_curves(field.ensemble, field.truth), atol=1e-12)
    assert_allclose(curves["observed"], pit_curves(field.ensemble.isel(time=seen), field.truth.isel(time=seen)))
    gone = pit_curves_by_period(field.ensemble, field.truth.where(xr.DataArray(seen, dims="time")), periods)
    assert sorted(gone) == ["all", "observed"]
    monkeypatch.setattr("bayesdownscale.diagnostics.calibration._RANKED", 10 * 100)
    assert len(_spread(np.arange(300), 100)) == 10
    assert _spread(np.arange(9), 100) == list(range(9))
    assert len({t % 6 for t in _spread(np.arange(60), 100)}) > 3  # not in step with a cycle


def test_chance_range_holds_a_calibrated_truth_and_no_other(field):
    for scale, inside in ((1.0, True), (0.6, False)):
        ensemble = field.ensemble.mean("draw") + scale * (field.ensemble - field.ensemble.mean("draw"))
        covered = central_coverage(pit_curves(ensemble, field.truth), 0.9)
        low, high = chance_range(covered, 0.99)
        assert bool(low <= covered[0] <= high) is inside


def test_bilinear_is_exact_on_linear_functions(field):
    linear = lambda time, lat, lon: 280 + (time - TIME[0]) / np.timedelta64(1, "h") + 2 * lat - 3 * lon
    coarse = linear(field.coarse["time_coarse"], field.coarse["lat_coarse"], field.coarse["lon_coarse"])
    for shift in (0.0, 360.0):
        got = bilinear(coarse.assign_coords(lon_coarse=coarse["lon_coarse"] + shift), field.ensemble)
        inner = got.isel(lat=slice(1, -1), lon=slice(2, -2))  # the outer cells lie beyond the coarse centres
        want = linear(inner["time"], inner["lat"], inner["lon"])
        assert_allclose(inner, want.transpose(*inner.dims), rtol=0, atol=1e-9)
    assert_allclose(got[0, 0, 0], coarse[0, 0, 0])


def test_bilinear_fills_missing_cells_from_the_nearest(field):
    constant = xr.full_like(field.coarse, 5.0)
    constant[0, 0, 0] = np.nan
    constant[1] = np.nan
    assert_allclose(bilinear(constant, field.ensemble), 5.0)
    with pytest.raises(ValueError, match="at least one coarse value"):
        bilinear(xr.full_like(field.coarse, np.nan), field.ensemble)


def test_coastlines_are_found_in_every_convention():
    here, turned = coastlines_in(-10, 2, 50, 58), coastlines_in(350, 362, 50, 58)
    assert len(here) == len(turned) > 5
    for line, other in zip(here, turned, strict=True):
        assert np.isfinite(line).all()
        assert_allclose(line + np.array([360.0, 0.0]), other)
    dover = np.array([1.35, 51.15])
    assert min(np.hypot(*(line - dover).T).min() for line in here) < 0.15
    assert coastlines_in(170, 190, -20, -15)  # Fiji, across the antimeridian
    assert not coastlines_in(-35, -33, 40, 42)  # open sea
    with pytest.raises(ValueError, match="lon_min < lon_max"):
        coastlines_in(2, -10, 50, 58)


def test_words(field):
    said = [degrees(-5.0, "EW"), degrees(355.0, "EW"), degrees(52.5, "NS"), degrees(0.0, "EW"), period(TIME)]
    assert said == ["5°W", "5°W", "52.5°N", "0°", "25 March 2019"]
    assert units_of(xr.DataArray(0, attrs={"units": "kg m-2 s-1"})) == "kg m⁻² s⁻¹"
    assert [number(v) for v in (None, 0.0, 32.0, 0.90217, -1.234, 1e-7)] == ["–", "0", "32", "0.902", "−1.23", "1e-07"]
    assert is_signed(xr.DataArray(0, attrs={"standard_name": "eastward_wind"}))
    assert not is_signed(field.ensemble)


def test_observed_hours(field):
    assert_array_equal(np.flatnonzero(field.observed), [0, 6, 12])
    assert unobserved_time(field.ensemble["time"], field.observed) in (TIME[3], TIME[9])
    assert_array_equal(hours_since_observed(field.observed), [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0])


def test_truth_is_brought_to_the_posterior(tree, field):
    bare = calibrated_tree(truth=False)
    fine = tree["truth"]["t2m"]
    other = fine.isel(lat=slice(None, None, -1)).assign_coords(lon=fine["lon"] + 360) - 273.15
    other = other.rename(lat="latitude", lon="longitude").assign_attrs(units="degC").isel(time=slice(2, None))
    truth = read_fields(add_truth(bare, other))[0][0].truth
    assert_allclose(truth[2:], field.truth[2:], atol=1e-3)
    assert bool(truth[:2].isnull().all())
    coords = Coords(TIME, (Variable("t2m", "K"),), Grid(LAT, LON))
    given = Fields(fine.values[:, None].astype(np.float32), coords)
    assert_allclose(read_fields(add_truth(bare, given))[0][0].truth, field.truth, rtol=1e-6)
    with pytest.raises(ValueError, match="regrid it"):
        add_truth(bare, fine.assign_coords(lat=fine["lat"] + 0.1))
    with pytest.raises(ValueError, match="rename its variables"):
        add_truth(bare, fine.rename("tas").to_dataset())
    with pytest.raises(ValueError, match="convertible"):
        add_truth(bare, fine.assign_attrs(units="m s-1"))


def test_figures_of_a_chosen_point_and_time(field):
    lat, lon = widest_point(field.ensemble)
    assert lat in LAT[4:-4]
    assert lon in LON[4:-4]
    title = time_series(field.ensemble, (55.01, -4.0), field.truth, field.coarse).get_suptitle()
    assert title == "2 metre temperature at 55°N 4°W"
    assert "25 March 2019 05:00 UTC" in maps(field.ensemble, TIME[5], field.truth).get_suptitle()
