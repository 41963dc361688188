"""Indices of the VALUE framework against scipy, loops over days and spells, and a chain with known probabilities.

Random tests use fixed seeds; "fails once in n" is the rate at which another seed would fail a correct program.
"""

from itertools import groupby, pairwise

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from scipy import stats

from bayesdownscale.diagnostics import blocks
from bayesdownscale.diagnostics.extremes import annual_return_level
from bayesdownscale.diagnostics.indices import INDICES, indices

YEARS = np.arange(2001, 2013)


def as_field(values, units, start="2001-01-01", hours=24):
    """`values` ((draw,) time, lat, lon) from `start`, every `hours` h."""
    n_time, n_lat, n_lon = values.shape[-3:]
    time = np.datetime64(start, "ns") + np.arange(n_time) * np.timedelta64(hours, "h")
    place = {"time": time, "lat": 50.0 + np.arange(n_lat), "lon": 3.0 + np.arange(n_lon)}
    dims = ("draw", "time", "lat", "lon")[-values.ndim :]
    return xr.DataArray(values, place, dims, "x", {"units": units})


@pytest.fixture(scope="module")
def rain():
    """Two draws of twelve years of days with dry and wet spells."""
    rng = np.random.default_rng(0)
    spells = np.repeat(rng.random((2, 1500, 2, 3)) < 0.4, 3, axis=1)[:, :4383]
    return as_field(np.where(spells, rng.gamma(0.8, 6.0, (2, 4383, 2, 3)), 0.0), "mm/d")


@pytest.fixture(scope="module")
def warmth():
    """Two draws of twelve years of days with an annual cycle."""
    noise = np.random.default_rng(1).normal(size=(2, 4383, 2, 3))
    noise[:, 1:] += noise[:, :-1]
    return as_field(280 + 8 * np.sin(np.arange(4383) * 2 * np.pi / 365.25)[:, None, None] + 3 * noise, "K")


def autocorrelation(x, lag):
    a = x - x.mean()
    return np.dot(a[:-lag], a[lag:]) / np.dot(a, a)


def longest(inside):
    """The median over whole years of the longest spell, spells cut at the ends of years."""
    year = (np.datetime64("2001-01-01") + np.arange(inside.size)).astype("datetime64[Y]").astype(int) + 1970
    each = [max([len(list(run)) for wet, run in groupby(inside[year == y]) if wet], default=0) for y in YEARS]
    return np.median(each)


def extreme(x, function):
    year = (np.datetime64("2001-01-01") + np.arange(x.size)).astype("datetime64[Y]").astype(int) + 1970
    return np.array([[function(x[year == y]) for y in YEARS]])


EXACT = {
    "Mean": np.mean,
    "Var": lambda x: np.var(x, ddof=1),
    "Skew": stats.skew,
    "P02": lambda x: np.percentile(x, 2),
    "P98": lambda x: np.percentile(x, 98),
    "P98Wet": lambda x: np.percentile(x[x >= 1], 98),
    "R01": lambda x: np.mean(x >= 1),
    "SDII": lambda x: x[x >= 1].mean(),
    "AC1": lambda x: autocorrelation(x, 1),
    "AC2": lambda x: autocorrelation(x, 2),
    "WWProb": lambda x: np.mean([now >= 1 for before, now in pairwise(x) if before >= 1]),
    "DWProb": lambda x: np.mean([now >= 1 for before, now in pairwise(x) if before < 1]),
    "WetAnnualMaxSpell": lambda x: longest(x >= 1),
    "DryAnnualMaxSpell": lambda x: longest(x < 1),
    "WarmAnnualMaxSpell": lambda x: longest(x > np.percentile(x, 90)),
    "ColdAnnualMaxSpell": lambda x: longest(x < np.percentile(x, 10)),
    "RV20_max": lambda x: annual_return_level(extreme(x, np.max), 20.0)[0],
    "RV20_min": lambda x: -annual_return_level(-extreme(x, np.min), 20.0)[0],
}


def test_every_index_has_its_loop():
    assert set(EXACT) == set(INDICES)


@pytest.mark.parametrize("code", INDICES)
def test_indices_are_loops_over_days(rain, warmth, code):
    field = warmth if "temperature" in INDICES[code].kinds else rain
    got = indices(field, [code])[code]
    assert got.dims == ("draw", "lat", "lon")
    assert_allclose(got, np.apply_along_axis(EXACT[code], 1, field.values), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["rain", "warmth"])
def test_all_indices_that_suit_are_there_with_names_and_units(kind, request):
    field, name = request.getfixturevalue(kind), {"rain": "precipitation", "warmth": "temperature"}[kind]
    got = indices(field)
    assert set(got.data_vars) == {code for code, index in INDICES.items() if name in index.kinds}
    units = {"Mean": "K", "Var": "K2", "Skew": "1", "AC1": "1", "RV20_min": "K", "WarmAnnualMaxSpell": "d"}
    units = units if kind == "warmth" else {"SDII": "mm/d", "Var": "(mm/d)2", "R01": "1", "WetAnnualMaxSpell": "d"}
    assert {code: got[code].attrs["units"] for code in units} == units
    assert all(got[code].attrs["long_name"] for code in got.data_vars)
    wind = indices(field.assign_attrs(units="m s-1"))
    assert set(wind.data_vars) == {code for code, index in INDICES.items() if "other" in index.kinds}


@pytest.mark.parametrize("kind", ["rain", "warmth"])
@pytest.mark.parametrize(("block", "chunks"), [(30_000, None), (13_000, None), (30_000, {"draw": 1, "time": 999})])
def test_draws_and_parts_give_what_the_whole_gives(kind, block, chunks, request, tmp_path, monkeypatch):
    if chunks:
        pytest.importorskip("dask")
    field = request.getfixturevalue(kind)
    whole = indices(field)
    for i in range(2):
        xr.testing.assert_allclose(whole.isel(draw=i), indices(field.isel(draw=i)))
    field.transpose("lon", "time", "draw", "lat").to_netcdf(tmp_path / "draws.nc")
    monkeypatch.setattr(blocks, "BLOCK", block)
    with xr.open_dataarray(tmp_path / "draws.nc", chunks=chunks) as lazy:
        xr.testing.assert_allclose(indices(lazy), whole)
        assert indices(lazy)["Mean"].attrs == whole["Mean"].attrs


def test_a_markov_chain_has_its_probabilities():
    """P(wet | wet) 0.7 and P(wet | dry) 0.2, wet two days in five; fails once in 500 000."""
    u = np.random.default_rng(2).random((20_000, 10, 10))
    wet = u[0] < 0.4
    days = [wet]
    for now in u[1:]:
        wet = now < np.where(wet, 0.7, 0.2)
        days.append(wet)
    got = indices(as_field(3.0 * np.array(days), "mm/d", "1950-01-01"), ["WWProb", "DWProb", "R01", "SDII"])
    for code, exact in {"WWProb": 0.7, "DWProb": 0.2, "R01": 0.4}.items():
        assert abs(got[code].mean() - exact) < 5 * got[code].std() / 10
    assert_allclose(got["SDII"], 3.0)


def test_hours_count_as_parts_of_days():
    """Spells of 30 and 18 h, in days; the frequency of wet values stays that of values."""
    hourly = np.zeros((366 * 4, 1, 1))
    hourly[[10, 11, 12, 13, 14, 20, 21, 22]] = 2.0
    got = indices(as_field(hourly, "mm day-1", "2020-01-01", hours=6))
    assert_allclose(got["WetAnnualMaxSpell"], 1.25)
    assert_allclose(got["R01"], 8 / (366 * 4))


def test_indices_that_are_not_defined_are_missing_and_say_why(rain):
    short = indices(rain.isel(time=slice(200, 800)))  # the rest of 2001, 2002, some of 2003
    assert np.isnan(short["RV20_max"]).all()
    assert short["RV20_max"].attrs["comment"] == "needs 10 whole years or more, got 1"
    assert np.isfinite(short["WetAnnualMaxSpell"]).all()
    assert "comment" not in short["WetAnnualMaxSpell"].attrs
    assert indices(rain.isel(time=slice(0, 300)))["DryAnnualMaxSpell"].attrs["comment"] == (
        "needs 1 whole years or more, got 0"
    )
    dry = indices(rain.where(rain["lat"] > 50, 0.1))
    for code in ("P98Wet", "SDII", "WWProb", "Skew", "AC1", "RV20_max"):
        assert np.isnan(dry[code].isel(lat=0)).all()
        assert np.isfinite(dry[code].isel(lat=1)).all()
    assert_allclose(dry["DryAnnualMaxSpell"].isel(lat=0), 365)


def test_requests_that_cannot_be_met_are_errors(rain, warmth):
    flux = rain.assign_attrs(units="kg m-2 s-1", standard_name="precipitation_flux")
    gap = warmth.isel(time=[0, 1, 2, 3, 7])
    requests = {
        "precipitation in mm/d, got units 'kg m-2 s-1'; multiply by 86400": lambda: indices(flux),
        "precipitation in mm/d for the index R01, got units 'K'": lambda: indices(warmth, ["Mean", "R01"]),
        "precipitation in mm/d for the index SDII, got units ''": lambda: indices(
            rain.assign_attrs(units=""), ["SDII"]
        ),
        "temperature for the index WarmAnnualMaxSpell": lambda: indices(rain, ["WarmAnnualMaxSpell"]),
        "temperature or other for the index P02, got units 'mm/d'": lambda: indices(rain, ["P02"]),
        "a list of codes among Mean, Var": lambda: indices(rain, ["Mean", "CDD"]),
        "a list of codes among Mean, .* got 'Mean'": lambda: indices(rain, "Mean"),
        "without missing values": lambda: indices(rain.where(rain < 9)),
        "at least 4 times, got 1": lambda: indices(rain.isel(time=[0])),
        "steps from 24 to 96 h": lambda: indices(gap),
        "expected a field over time": lambda: indices(rain.isel(lat=0)),
    }
    for words, request in requests.items():
        with pytest.raises(ValueError, match=words):
            request()
