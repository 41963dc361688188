"""Brier scores, reliability and tails against closed forms, integrals, brute force and scoringrules.

Random tests use fixed seeds; "fails once in n" is the rate at which another seed would fail a correct program.
"""

from itertools import pairwise

import numpy as np
import pytest
import scoringrules
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.stats import norm

from bayesdownscale.diagnostics import blocks
from bayesdownscale.diagnostics.events import brier, exceedance, reliability, tw_crps
from bayesdownscale.diagnostics.scores import area_weights, crps, domain_mean

FIVE_SIGMA = 5.0  # two-sided: fails once in 1.7 million
TIME = np.datetime64("2019-03-25T00", "ns") + np.arange(4) * np.timedelta64(1, "h")
PLACE = {"time": TIME, "lat": 60.0 - 10 * np.arange(5), "lon": 3.0 * np.arange(6)}
UPPER_LOWER = pytest.mark.parametrize("tail", ["upper", "lower"])


def cells(values, draws=False):
    dims = ("draw", "cell") if draws else ("cell",)
    return xr.DataArray(np.asarray(values, dtype=np.float64), dims=dims)


def wetness(seed=0, members=8):
    """An ensemble and a truth (time, lat, lon) in float32, many of them exactly 0, with correlated centres."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(4, 5, 6))
    values = np.maximum(centre + rng.normal(size=(members + 1, 4, 5, 6)), 0).astype(np.float32)
    ensemble = xr.DataArray(values[1:], PLACE, ("draw", "time", "lat", "lon"), attrs={"units": "mm"})
    return ensemble, xr.DataArray(values[0], PLACE, ("time", "lat", "lon"))


def integral(x, y, low, high):
    """The integral of the fair Brier score over thresholds from `low` to `high` (cells,), piece by piece."""
    ends = np.sort(np.clip(np.vstack([x, y[None], low[None], high[None]]), low, high), axis=0)
    score = lambda t: brier(cells(x, True), cells(y), cells(t)).values
    return sum((b - a) * score((a + b) / 2) for a, b in pairwise(ends))


def test_brier_is_the_fair_formula():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(7, 50)), rng.normal(size=50)
    events, happened = (x > 0.3).astype(float), (y > 0.3).astype(float)
    pairs = ((events[:, None] - events[None]) ** 2).sum(axis=(0, 1)) / (7 * 6)
    got = brier(cells(x, True), cells(y), 0.3)
    assert_allclose(got, ((events - happened) ** 2).mean(axis=0) - pairs / 2, rtol=0, atol=1e-12)
    p = exceedance(cells(x, True), 0.3)
    assert_allclose(got + p * (1 - p) / 6, scoringrules.brier_score(happened, p.values), rtol=0, atol=1e-12)


@pytest.mark.parametrize("members", [2, 40])
def test_brier_has_the_mean_of_the_closed_form(members):
    rng = np.random.default_rng(2)
    y, x = rng.normal(size=40_000), 0.5 + rng.normal(size=(members, 40_000))
    p, q = norm.sf(1.0 - 0.5), norm.sf(1.0)
    score = brier(cells(x, True), cells(y), 1.0)
    assert abs(float(score.mean()) - (p - q) ** 2 - q * (1 - q)) < FIVE_SIGMA * float(score.std()) / 200


def test_brier_integrates_to_the_crps():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(6, 40)), 2 * rng.normal(size=40)
    low, high = np.full(40, -20.0), np.full(40, 20.0)
    assert_allclose(integral(x, y, low, high), crps(cells(x, True), cells(y)), rtol=0, atol=1e-12)


@UPPER_LOWER
def test_tail_is_the_integral_beyond_the_threshold(tail):
    rng = np.random.default_rng(4)
    x, y, t = rng.normal(size=(6, 40)), 2 * rng.normal(size=40), rng.normal(size=40)
    low, high = (t, np.full(40, 20.0)) if tail == "upper" else (np.full(40, -20.0), t)
    assert_allclose(tw_crps(cells(x, True), cells(y), cells(t), tail), integral(x, y, low, high), rtol=0, atol=1e-12)


@UPPER_LOWER
def test_tail_agrees_with_scoringrules(tail):
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(9, 40)), rng.normal(size=40)
    low, high = (0.4, np.inf) if tail == "upper" else (-np.inf, 0.4)
    want = scoringrules.twcrps_ensemble(y, x, low, high, m_axis=0, estimator="fair", backend="numpy")
    assert_allclose(tw_crps(cells(x, True), cells(y), 0.4, tail), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("members", [2, 40])
@pytest.mark.parametrize(("tail", "limits"), [("upper", (0.8, np.inf)), ("lower", (-np.inf, 0.8))])
def test_tail_has_the_mean_of_the_closed_form(members, tail, limits):
    sample = np.random.default_rng(6).normal(size=(members + 1, 40_000))
    score = tw_crps(cells(sample[1:], True), cells(sample[0]), 0.8, tail)
    closed, _ = quad(lambda z: norm.cdf(z) * norm.sf(z), *limits)
    assert abs(float(score.mean()) - closed) < FIVE_SIGMA * float(score.std()) / 200


def test_two_tails_sum_to_the_crps():
    ensemble, truth = wetness()
    upper, lower = (tw_crps(ensemble, truth, 0.7, tail) for tail in ("upper", "lower"))
    assert_allclose(upper + lower, crps(ensemble, truth), rtol=0, atol=1e-6)
    assert upper.attrs["units"] == "mm"
    assert_array_equal(tw_crps(ensemble, truth, -1e6), crps(ensemble, truth))
    assert_array_equal(tw_crps(ensemble, truth, 1e6), 0.0)


def test_a_threshold_may_differ_between_cells():
    ensemble, truth = wetness()
    climate = truth.quantile(0.6, "time").transpose("lon", "lat")  # float64, with a label of its own
    for score in (brier, tw_crps, lambda x, y, t: exceedance(x, t)):
        got = score(ensemble, truth, climate)
        assert got.dims == truth.dims
        assert set(got.coords) == {"time", "lat", "lon"}
        for i, j in ((0, 0), (3, 5)):
            one = {"lat": i, "lon": j}
            assert_allclose(got.isel(one), score(ensemble.isel(one), truth.isel(one), float(climate.isel(one))))


def test_a_value_on_the_threshold_is_no_event_in_every_precision():
    single = np.full((3, 2), 0.1, np.float32)
    ensemble = xr.DataArray(single, dims=("draw", "cell"))
    for truth in (single[0], single[0].astype(np.float64), np.full(2, 0.1)):
        assert_array_equal(brier(ensemble, xr.DataArray(truth, dims="cell"), 0.1), 0.0)
    assert_array_equal(exceedance(ensemble, 0.1), 0.0)
    assert_array_equal(exceedance(ensemble, 0.0999), 1.0)


def test_what_is_unknown_stays_unknown():
    ensemble, truth = wetness()
    truth[0, 0, 0] = ensemble[3, 1, 0, 0] = np.nan
    threshold = xr.full_like(truth[0], 0.5, np.float64)
    threshold[4, 5] = np.nan
    want = np.ones(truth.shape, bool)
    want[:2, 0, 0] = want[:, 4, 5] = False
    for score in (brier, tw_crps):
        assert_array_equal(score(ensemble, truth, threshold).notnull(), want)
    want[0, 0, 0] = True
    assert_array_equal(exceedance(ensemble, threshold).notnull(), want)


@pytest.mark.parametrize("bins", [1, 7, 10])
def test_reliability_is_an_exact_decomposition(bins):
    ensemble, truth = wetness()
    truth[1, 2:] = np.nan
    found = reliability(ensemble, truth, 0.5, bins)
    part, event = exceedance(ensemble, 0.5), (truth > 0.5).where(truth.notnull())
    bin_of = np.minimum((part.values * 8).round().astype(int) * bins // 8, bins - 1)
    score = domain_mean((event - found["forecast"].values[bin_of]) ** 2)
    total = float(found["reliability"] - found["resolution"] + found["uncertainty"])
    assert_allclose(total, score, rtol=0, atol=1e-12)
    weight = (area_weights(truth["lat"]) * truth.notnull()).transpose(*truth.dims).values
    for k in range(bins):
        here = np.where(bin_of == k, weight, 0.0)
        assert_allclose(found["share"][k], here.sum() / weight.sum(), atol=1e-12)
        if here.sum() > 0:
            assert_allclose(found["forecast"][k], np.average(part, weights=here), atol=1e-12)
            assert_allclose(found["observed"][k], np.average(event.fillna(0), weights=here), atol=1e-12)
        else:
            assert np.isnan([found["forecast"][k], found["observed"][k]]).all()
    assert_allclose(found["bin"], (np.arange(bins) + 0.5) / bins)


def test_reliability_of_a_calibrated_ensemble():
    """Probabilities uniform in [0, 1], each with 10 members: after k events, the next has (k + 1) / 12."""
    rng = np.random.default_rng(7)
    p, u = rng.uniform(size=60_000), rng.uniform(size=(11, 60_000))
    found = reliability(cells(u[1:] < p, True), cells(u[0] < p), 0.5, 11)
    k = np.arange(11)
    assert_allclose(found["forecast"], k / 10)
    want = (k + 1) / 12
    tolerance = FIVE_SIGMA * np.sqrt(want * (1 - want) / (60_000 * found["share"].values))
    assert (abs(found["observed"].values - want) < tolerance).all()  # fails once in 150 000


def test_bins_have_exact_ends():
    members = np.arange(100)[:, None] < np.arange(101)  # 0 to 100 of 100 members
    found = reliability(cells(members, True), cells(np.zeros(101)), 0.5, 100)
    assert_allclose(found["forecast"][:99] * 100, np.arange(99), rtol=1e-12)
    assert_allclose(found["share"] * 101, [1] * 99 + [2], rtol=1e-12)


def test_blocks_and_files_change_nothing(tmp_path, monkeypatch):
    ensemble, truth = wetness()
    scores = {
        "exceedance": lambda x: exceedance(x, 0.5).transpose(*truth.dims),
        "brier": lambda x: brier(x, truth, 0.5),
        "tail": lambda x: tw_crps(x, truth, truth.mean("time")),
        "reliability": lambda x: reliability(x, truth, 0.5),
    }
    whole = {name: score(ensemble) for name, score in scores.items()}
    ensemble.rename("rain").to_netcdf(tmp_path / "rain.nc")
    monkeypatch.setattr(blocks, "BLOCK", 2 * ensemble[:, 0].size)
    with xr.open_dataarray(tmp_path / "rain.nc", cache=False) as lazy:
        for name, score in scores.items():
            xr.testing.assert_allclose(score(lazy), whole[name], rtol=1e-12)
            xr.testing.assert_allclose(score(ensemble.transpose("lon", "draw", ...)), whole[name], rtol=1e-12)


def test_events_refuse_what_they_cannot_score():
    ensemble, truth = wetness()
    for score in (brier, tw_crps):
        with pytest.raises(ValueError, match="at least two draws"):
            score(ensemble.isel(draw=[0]), truth, 0.5)
    with pytest.raises(ValueError, match="dimension draw"):
        exceedance(ensemble.rename(draw="member"), 0.5)
    with pytest.raises(ValueError, match="'upper' or 'lower', got 'both'"):
        tw_crps(ensemble, truth, 0.5, "both")
    with pytest.raises(ValueError, match="at least one bin"):
        reliability(ensemble, truth, 0.5, 0)
    with pytest.raises(ValueError, match="are known, got none"):
        reliability(ensemble, truth * np.nan, 0.5)
    for threshold in (np.nan, np.inf):
        with pytest.raises(ValueError, match=f"finite threshold, got {threshold}"):
            exceedance(ensemble, threshold)
    with pytest.raises(ValueError, match="finite threshold, got a field"):
        exceedance(ensemble, truth.where(truth > 0, np.inf))
    with pytest.raises(ValueError, match="some of the dimensions"):
        exceedance(ensemble, truth[0].rename(lat="latitude"))
    with pytest.raises(ValueError, match="cannot align"):
        exceedance(ensemble, truth.assign_coords(lat=truth["lat"] + 1))
