"""Bias correction against what each method promises exactly, and against xsdba. All samples have fixed seeds."""

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

from bayesdownscale.data.bias import BiasCorrection, _in_proportion
from bayesdownscale.data.errors import DataError
from bayesdownscale.data.quantiles import between, map_between, plotting_positions, sample_quantiles
from bayesdownscale.data.seasons import in_season, season_of

LAT, LON = np.array([40.0, 41.0]), np.array([-5.0, -4.0, -3.0])
PAST = np.arange("1981-01-01", "1991-01-01", dtype="datetime64[D]").astype("datetime64[ns]")
FUTURE = PAST + np.timedelta64(40 * 365 + 10, "D")


def cells(values, times=PAST, units="K", name="tas"):
    return xr.DataArray(values, {"time": times, "lat": LAT, "lon": LON}, ("time", "lat", "lon"), name, {"units": units})


def temperature(seed, times=PAST, mean=285.0, sd=3.0):
    """A year's cycle and weather without memory."""
    rng = np.random.default_rng(seed)
    cycle = 8 * np.sin(2 * np.pi * np.arange(times.size) / 365.25)[:, None, None]
    return cells(mean + cycle + sd * rng.standard_normal((times.size, 2, 3)) + np.arange(3), times)


def rain(seed, times=PAST, wet=0.4, scale=5.0):
    rng = np.random.default_rng(seed)
    shape = (times.size, 2, 3)
    return cells(rng.gamma(0.8, scale, shape) * (rng.random(shape) < wet), times, "mm/day", "pr")


MODEL, REFERENCE = temperature(1, mean=288.0, sd=4.0), temperature(2)
DRIZZLE, RAIN = rain(3, wet=0.7, scale=2.0), rain(4)


@pytest.mark.parametrize("method", ["eqm", "dqm", "qdm"])
@pytest.mark.parametrize("window", [None, 61])
def test_the_past_gets_the_quantiles_of_the_reference(method, window):
    """By month up to the distance of neighbouring values: 0.25 K in the tails, 0.02 K in the mean. A window holds
    weeks of other months: 0.05 K in the mean of all."""
    levels = plotting_positions(100)
    corrected = BiasCorrection.fit(MODEL, REFERENCE, method, window=window)(MODEL)
    for month in (1, 7):
        got, want = (x.sel(time=x["time"].dt.month == month).values for x in (corrected, REFERENCE))
        if window is None:
            apart = np.abs(sample_quantiles(got, levels) - sample_quantiles(want, levels))[5:-5]
            assert apart.max() < 0.25
            assert apart.mean() < 0.02
            assert_allclose(got.mean(axis=0), want.mean(axis=0), atol=0.02)
    assert_allclose(corrected.mean("time"), REFERENCE.mean("time"), atol=0.05)


@pytest.mark.parametrize("method", ["eqm", "dqm", "qdm"])
def test_a_model_without_bias_stays_as_it_is(method):
    assert_allclose(BiasCorrection.fit(MODEL, MODEL, method)(MODEL), MODEL, atol=1e-9)
    ratios = BiasCorrection.fit(RAIN, RAIN, method, multiplicative=True)(RAIN)
    assert_allclose(ratios, RAIN, atol=1e-9)


def july(x):
    return x.sel(time=x["time"].dt.month == 7).values


def changes(method, future):
    """Of the quantiles of July (level, lat, lon), from the past to the `future`, corrected."""
    correct = BiasCorrection.fit(MODEL, REFERENCE, method) if method else lambda x: x
    past, later = (sample_quantiles(july(correct(x)), plotting_positions(100)) for x in (MODEL, future))
    return later - past


def test_trends():
    """3 K warmer: DQM and QDM keep it, EQM shrinks it, as the reference is narrower than the model. Half as wide
    again: QDM keeps the change of each quantile."""
    warmer = MODEL.assign_coords(time=FUTURE) + 3.0
    assert_allclose(changes("dqm", warmer), 3.0, atol=1e-6)
    assert_allclose(changes("qdm", warmer), 3.0, atol=1e-6)
    assert np.all(changes("eqm", warmer).mean(axis=0) < 2.9)
    wider = 1.5 * MODEL.assign_coords(time=FUTURE) - 144.0
    assert_allclose(changes("qdm", wider), changes(None, wider), atol=0.1)


def test_ratios_of_rain_are_kept_and_dry_days_stay_dry():
    """A sum over all is kept within 1 %, as is that of the reference."""
    future = DRIZZLE.assign_coords(time=FUTURE) * 1.3
    correct = BiasCorrection.fit(DRIZZLE, RAIN, "qdm", multiplicative=True)
    past, later = correct(DRIZZLE), correct(future.assign_attrs(units="mm/day"))
    assert float(later.min()) == 0.0
    assert_allclose(later.mean() / past.mean(), 1.3, rtol=0.01)
    assert_allclose(past.mean(), RAIN.mean(), rtol=0.01)
    assert_allclose((past > 1).mean(), (RAIN > 1).mean(), atol=0.01)


def test_a_model_that_is_too_dry_gets_wet_days():
    """Frequencies of 72 cells and months of about 300 days, whose sampling error is 0.03: without adaptation they
    miss by 0.09 on average."""
    dry = rain(5, wet=0.2, scale=8.0)
    for wet, far in ((None, True), (1.0, False)):
        corrected = BiasCorrection.fit(dry, RAIN, "eqm", multiplicative=True, wet=wet)(dry)
        wrong = abs((corrected > 1.0).groupby("time.month").mean() - (RAIN > 1.0).groupby("time.month").mean())
        assert (float(wrong.mean()) > 0.03) is far
        assert (float(wrong.max()) > 0.1) is far
    assert_array_equal(corrected, BiasCorrection.fit(dry, RAIN, "eqm", multiplicative=True, wet=1.0)(dry))


def traces(seed, times=PAST, wet=0.5, scale=4.0):
    """Rain of a model that never has a dry day, only traces of 1e-18 to 1e-4 mm/day, as CNRM-CM5 has."""
    rng = np.random.default_rng(seed)
    true = rain(seed + 100, times, wet, scale)
    return true.where(true > 0.2, 10.0 ** rng.uniform(-18, -4, true.shape))


def test_traces_of_rain_do_not_blow_up():
    """The model's past is dry more often than the reference and than its future: the ratios of its traces know
    nothing. The past becomes what EQM makes of it; the future, a tenth wetter, is as much wetter at its 98th percentile
    (standard error 0.06: 310 days in each of six cells)."""
    levels, often = plotting_positions(100), rain(4, wet=0.6)
    model, later = traces(11), (1.1 * traces(12, FUTURE, wet=0.6)).assign_attrs(units="mm/day")
    correct = BiasCorrection.fit(model, often, "qdm", multiplicative=True)
    now, own, wanted = (sample_quantiles(july(x), levels) for x in (later, model, often))
    assert (now * wanted / own).max() > 1e4  # mm/day
    assert_allclose(correct(model), BiasCorrection.fit(model, often, "eqm", multiplicative=True)(model), atol=1e-9)
    assert july(correct(later)).max() < 1.5 * july(often).max()
    top = lambda x: np.quantile(july(x), 0.98, axis=0).mean()
    assert_allclose(top(correct(later)) / top(often), top(later) / top(model), rtol=0.1)


def test_limits_of_ratios():
    """Below ten traces at most twice the reference; without bias, or with a reference that is dry too, as it is; an
    exact ratio above. Columns: now, past, reference, made; trace 0.05."""
    now, own, wanted, made = np.array([
        [4e-4, 5e-10, 0.011, 0.011],  # traces: the reference's
        [0.4, 1e-9, 0.011, 0.4 * 0.5],  # dry before: at the ratio of the next level
        [0.4, 0.2, 0.1, 0.2],  # the exact ratio
        [4.0, 0.3, 3.0, 6.0],  # at most twice the reference
        [9.0, 0.4, 0.5, 9.0],  # or what it is
        [9.0, 3.0, 4.0, 12.0],
    ]).T[..., None]  # fmt: skip
    assert_allclose(_in_proportion(now, own, wanted, 0.05), made, rtol=1e-12)


def test_an_unbiased_model_keeps_its_future():
    """Whatever becomes of its traces and its wet days."""
    model = traces(11)
    later = (2.0 * traces(12, FUTURE, wet=0.7)).assign_attrs(units="mm/day")
    corrected = BiasCorrection.fit(model, model, "qdm", multiplicative=True)(later)
    assert_allclose(corrected, later, atol=0.05, rtol=1e-9)


def test_the_trace_has_the_units_of_the_reference():
    for units, factor in (("mm/day", 1.0), ("kg m-2 s-1", 1 / 86400), ("m s-1", 1e-3 / 86400)):
        reference = (RAIN * factor).assign_attrs(units=units)
        fitted = BiasCorrection.fit(reference, reference, multiplicative=True).parameters
        assert_allclose(fitted.attrs["trace"], 0.05 * factor, rtol=1e-6)
    wind = RAIN.assign_attrs(units="K").rename("speed")
    fitted = BiasCorrection.fit(wind, wind, multiplicative=True).parameters
    assert_allclose(fitted.attrs["trace"], 0.02 * RAIN.mean(), rtol=1e-6)


@pytest.mark.slow  # numba compiles for minutes
@pytest.mark.parametrize(("method", "kind"), [("eqm", "+"), ("qdm", "+"), ("eqm", "*"), ("qdm", "*")])
def test_agrees_with_xsdba(method, kind):
    """xsdba has another rule for quantiles: 0.06 K apart on average, 0.08 mm/day of rain, and 0.04 in the mean. Its
    QDM of rain replaces traces by random numbers, as Cannon et al. 2015 do (`jitter_under_thresh`)."""
    xsdba = pytest.importorskip("xsdba")
    own, wanted = (MODEL, REFERENCE) if kind == "+" else (DRIZZLE, RAIN)
    own, wanted = (x.isel(lat=0, lon=0, drop=True) for x in (own, wanted))
    future = (own + 2 if kind == "+" else own * 1.2).assign_coords(time=FUTURE).assign_attrs(own.attrs)
    adjust = {"eqm": xsdba.EmpiricalQuantileMapping, "qdm": xsdba.QuantileDeltaMapping}[method]
    own_, wanted_, future_ = own, wanted, future
    if (method, kind) == ("qdm", "*"):
        np.random.seed(0)  # noqa: NPY002 (xsdba's)
        own_, wanted_, future_ = (
            xsdba.processing.jitter_under_thresh(x, thresh="0.05 mm/day") for x in (own, wanted, future)
        )
    fitted = adjust.train(wanted_, own_, nquantiles=100, kind=kind, group="time.month")
    other = fitted.adjust(future_, interp="nearest", extrapolation="constant").transpose("time")
    apart = BiasCorrection.fit(own, wanted, method, kind == "*")(future) - other
    assert float(abs(apart).mean()) < (0.06 if kind == "+" else 0.08)
    assert abs(float(apart.mean())) < (0.004 if kind == "+" else 0.04)


def test_seasons():
    times = np.arange("1983-01-01", "1985-01-01", dtype="datetime64[D]")
    assert_array_equal(season_of(times, None), times.astype("datetime64[M]").astype(int) % 12 + 1)
    for window in (None, 5, 91):
        mine = season_of(times, window)
        for season in np.unique(mine).tolist():
            assert np.all(in_season(times, season, window)[mine == season])
    assert in_season(times, 1, 91).sum() == 46 + 45 + 46 + 44  # around 1 January; 1983 has no day 366


def test_a_winter_record_corrects_winters():
    winter = lambda x: x.sel(time=x["time"].dt.month.isin([12, 1, 2]))
    correct = BiasCorrection.fit(winter(MODEL), winter(REFERENCE))
    assert correct.parameters.sizes["season"] == 3
    assert bool(correct(winter(MODEL)).notnull().all())
    with pytest.raises(ValueError, match=r"seasons '1', '2', '12' that were fitted, got some in 3"):
        correct(MODEL)


def test_units_order_and_missing_values():
    celsius = (REFERENCE - 273.15).assign_attrs(units="degC")
    model = MODEL.where(MODEL["lon"] > -4.5).transpose("lon", "time", "lat").isel(lat=[1, 0])
    corrected = BiasCorrection.fit(model, celsius)(model)
    assert corrected.attrs["units"] == "degC"
    assert corrected.dims == ("time", "lat", "lon")
    want = BiasCorrection.fit(MODEL, REFERENCE)(MODEL) - 273.15
    assert_allclose(corrected[..., 1:], want[..., 1:], atol=1e-4)
    assert bool(corrected[..., 0].isnull().all())


def test_saved_and_loaded(tmp_path):
    correct = BiasCorrection.fit(DRIZZLE, RAIN, "dqm", multiplicative=True, window=91, wet=1.0)
    path = correct.save(tmp_path / "correction.nc")
    assert_array_equal(BiasCorrection.load(path)(DRIZZLE), correct(DRIZZLE))
    with pytest.raises(DataError, match="exists"):
        correct.save(path)
    MODEL.to_netcdf(tmp_path / "other.nc")
    for other in ("other.nc", "none.nc"):
        with pytest.raises(DataError, match=r"expected a (saved )?bias correction"):
            BiasCorrection.load(tmp_path / other)


def test_between_knots():
    knots, values = np.array([0.0, 0.0, 1.0, 3.0])[:, None], np.array([5.0, 6.0, 7.0, 9.0])[:, None]
    x = np.array([-1.0, 0.0, 0.5, 1.0, 2.0, 4.0, np.nan])[:, None]
    assert_allclose(between(x, knots, values)[:, 0], [5, 5, 6.5, 7, 8, 9, np.nan])
    assert_allclose(map_between(x, knots, 2 * knots, True)[:, 0], [-1, 0, 1, 2, 4, 8, np.nan])
    assert_allclose(map_between(x, knots, knots + 1)[:, 0], x[:, 0] + 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"method": "cdf"}, "a method among 'eqm', 'dqm', 'qdm', got 'cdf'"),
        ({"window": 0}, "a window of 1 to 366 days, got 0"),
        ({"multiplicative": True, "model": MODEL - 300}, "values of at least 0 to keep ratios"),
        (
            {"model": MODEL.isel(time=slice(15))},
            "at least 20 values of model and reference in season 1, got 15 and 310",
        ),
        ({"model": MODEL.isel(lon=slice(2))}, "on the same cells, got others"),
        ({"model": MODEL.rename(lat="y")}, r"the dimensions \('time', 'lat', 'lon'\)"),
        ({"model": MODEL.assign_attrs(units="m")}, "units convertible to K for the model, got 'm'"),
        ({"model": MODEL.isel(time=[]), "reference": REFERENCE.isel(time=[])}, "got no time"),
    ],
    ids=["method", "window", "negative", "short", "cells", "dims", "units", "empty"],
)
def test_what_cannot_be_fitted(arguments, says):
    with pytest.raises(ValueError, match=says):
        BiasCorrection.fit(**{"model": MODEL, "reference": REFERENCE} | arguments)
