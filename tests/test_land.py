"""Land-sea masks of any grid, as parts of cells."""

import numpy as np
import pytest
import xarray as xr
from data_files import saved
from numpy.testing import assert_allclose, assert_array_equal

from bayesdownscale.data.errors import DataError
from bayesdownscale.data.grid import Grid
from bayesdownscale.data.land import land_fraction

GRID = Grid(57.5 - np.arange(3.0), -9.5 + np.arange(4.0))
LAND = np.random.default_rng(0).integers(0, 5, (3, 4)) / np.float32(4)


def mask(values=LAND, grid=GRID, name="sftlf", **attrs):
    return xr.Dataset({name: (("lat", "lon"), values, attrs)}, {"lat": grid.lat, "lon": grid.lon})


@pytest.mark.parametrize(
    ("name", "factor", "attrs"),
    [
        ("sftlf", 100, {"units": "%"}),
        ("sftlf", 100, {}),
        ("sftlf", 1, {"units": "1"}),
        ("lsm", 1, {"units": "(0 - 1)"}),
        ("land", 1, {"standard_name": "land_area_fraction"}),
    ],
)
def test_parts_however_they_are_given(tmp_path, name, factor, attrs):
    path = saved(mask(LAND * factor, name=name, **attrs), tmp_path)
    assert_allclose(land_fraction(path, GRID), LAND, rtol=1e-6)


def test_a_finer_mask_is_averaged_and_uncovered_cells_are_missing(tmp_path):
    fine = Grid(57.75 - 0.5 * np.arange(6), -9.75 + 0.5 * np.arange(6))  # three of the four columns
    path = saved(mask(np.kron(LAND[:, :3], np.ones((2, 2), np.float32)), fine).expand_dims(time=2), tmp_path)
    got = land_fraction(path, GRID)
    assert_allclose(got[:, :3], LAND[:, :3], atol=1e-6)
    assert_array_equal(np.isnan(got), [[False, False, False, True]] * 3)


def test_what_is_no_mask_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"expected one field of standard_name land_area_fraction in .*, got 'orog'"):
        land_fraction(saved(mask(name="orog"), tmp_path), GRID)
    with pytest.raises(DataError, match=r"expected parts of 0 to 1 for 'sftlf' in .*, got 0 to 5"):
        land_fraction(saved(mask(LAND * 5, units="1"), tmp_path), GRID)
