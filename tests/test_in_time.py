"""Snapshots or means: the operator in time that a coarse file asks for."""

import jax
import numpy as np
import pytest
from data_files import PSL, T2M, coarse_dataset, domain, saved, weather
from numpy.testing import assert_allclose, assert_array_equal

from bayesdownscale.data.coarse import open_coarse
from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords
from bayesdownscale.data.intervals import interval_bounds
from bayesdownscale.likelihood.in_time import seen_in_time

HOUR = np.timedelta64(1, "h")
SIX = np.datetime64("2019-03-01T00", "ns") + 6 * HOUR * np.arange(4)
HOURLY = SIX[0] + HOUR * np.arange(24)
X = jax.random.normal(jax.random.key(0), (24, 1, 2, 3))
MEANS = np.asarray(X).reshape(4, 6, 1, 2, 3).mean(1)


def opened(folder, method="", stamps=SIX, bounds=None):
    """What a file says, read back: cell_methods, stamps, and bounds."""
    ds = coarse_dataset().assign_coords(time=stamps)
    ds.time.encoding["units"] = "minutes since 2019-01-01"
    if method:
        ds.tas.attrs["cell_methods"] = method
    if bounds is not None:
        ds["time_bnds"] = (("time", "bnds"), bounds)
        ds.time.attrs["bounds"] = "time_bnds"
    return open_coarse(saved(ds, folder), domain())


SIX_HOURS = np.stack([SIX, SIX + 6 * HOUR], axis=1)


@pytest.mark.parametrize(
    ("method", "stamps", "bounds", "mean"),
    [
        ("", SIX, None, False),
        ("area: mean time: point", SIX, None, False),
        ("time: point", SIX, SIX_HOURS, False),  # bounds that contradict: the words count
        ("time: point", SIX, np.stack([SIX, SIX], axis=1), False),
        ("area: mean time: mean", SIX, SIX_HOURS, True),
        ("time: mean", SIX + 3 * HOUR, SIX_HOURS, True),
        ("time: mean", SIX + 6 * HOUR, SIX_HOURS, True),
        ("time: mean", SIX + 3 * HOUR, None, True),  # stamped at the middle
        ("", SIX + 3 * HOUR, SIX_HOURS, True),
    ],
)
def test_the_operator_is_the_files(tmp_path, method, stamps, bounds, mean):
    fields = opened(tmp_path, method, stamps, bounds)
    got = seen_in_time(HOURLY, fields)(X)
    assert_allclose(got, MEANS if mean else X[::6], atol=1e-6)
    first, last = fields.first_and_last(HOUR)
    assert (first, last) == (HOURLY[0], HOURLY[-1] if mean else SIX[-1])


def test_means_without_bounds_are_refused_until_it_is_said_when(tmp_path):
    fields = opened(tmp_path, "time: mean")
    with pytest.raises(ValueError, match=r"expected time_bnds with the means in .*file0\.nc, got none.*stamped_at"):
        seen_in_time(HOURLY, fields)
    said = fields.stamped_at("start")
    assert_allclose(seen_in_time(HOURLY, said)(X), MEANS, atol=1e-6)
    assert_allclose(seen_in_time(HOURLY, said.stamped_at("point"))(X), X[::6], atol=1e-6)


@pytest.mark.parametrize(("method", "word"), [("time: maximum", "maximum"), ("time: sum", "sum")])
def test_what_is_no_mean_is_refused(tmp_path, method, word):
    with pytest.raises(ValueError, match=f"all to be means .*got {word}; leave variables out"):
        seen_in_time(HOURLY, opened(tmp_path, method, bounds=SIX_HOURS))


def test_variables_that_differ_are_refused():
    coords = Coords(SIX, (T2M, PSL), domain().grid)
    fields = Fields(weather((4, 2, 8, 8)), coords, "esm.nc", SIX_HOURS, ("point", "mean"))
    with pytest.raises(ValueError, match=r"all variables of esm\.nc .*got mean, point"):
        seen_in_time(HOURLY, fields)


@pytest.mark.parametrize(("stamp", "hours"), [("start", 0), ("middle", 3), ("end", 6)])
def test_bounds_from_stamps(stamp, hours):
    assert_array_equal(interval_bounds(SIX + hours * HOUR, stamp), SIX_HOURS)


def test_bounds_from_uneven_stamps_are_refused():
    with pytest.raises(ValueError, match=r"evenly spaced times and a stamp among .*got 2 different steps"):
        interval_bounds(SIX[[0, 1, 3]])
    with pytest.raises(ValueError, match=r"among \['end', 'middle', 'start'\], .*'noon'"):
        interval_bounds(SIX, "noon")
