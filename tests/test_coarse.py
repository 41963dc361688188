"""A coarse file fitted to a prior: variables, units, order and domain."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from data_files import PSL, T2M, TIMES, coarse_dataset, domain, same, saved, weather

from bayesdownscale.data.coarse import check_overlap, open_coarse
from bayesdownscale.data.errors import DataError
from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords, Grid, Variable
from bayesdownscale.data.read import open_fields
from bayesdownscale.data.rotated import RotatedPole
from bayesdownscale.data.units import convert
from bayesdownscale.likelihood.operators import area_mean


@pytest.fixture
def nc(tmp_path):
    return partial(saved, folder=tmp_path)


def test_coarse_has_the_priors_variables_units_and_order(nc):
    ds = coarse_dataset(units="degC")
    ds["psl"] = (ds.tas.dims, np.full(ds.tas.shape, 1000.0), {"units": "hPa"})
    ds.tas.values -= np.float32(273.15)
    like = Coords(TIMES, (PSL, T2M), domain().grid)
    fields = open_coarse(nc(ds), like)
    assert fields.variables == (PSL, T2M)
    np.testing.assert_allclose(fields.values[:, 0], 1e5)
    np.testing.assert_allclose(fields.values[:, 1], weather((4, 2, 2))[:, ::-1], atol=1e-3)
    assert fields.grid.lat[0] > fields.grid.lat[1]


def test_coarse_takes_anything_with_coords_and_a_choice_of_variables(nc):
    like = Fields(weather((4, 2, 8, 8)), Coords(TIMES, (PSL, T2M), domain().grid))
    path = nc(coarse_dataset())
    assert open_coarse(path, like, ["t2m"]).variables == (T2M,)
    assert open_coarse(path, like, {"t2m": "tas"}).variables == (T2M,)
    with pytest.raises(DataError, match=r"among the prior's 'psl', 't2m' .*file0\.nc, got 'tas'"):
        open_coarse(path, like, ["tas"])


def test_coarse_without_the_variable_or_with_two(nc):
    ds = coarse_dataset()
    with pytest.raises(DataError, match=r"named 't2m' .*standard_name 'air_temperature' in .*, got 'tas', 'tasmax'"):
        open_coarse(nc(ds.assign(tasmax=ds.tas)), domain())
    other = ds.rename(tas="wind")
    del other.wind.attrs["standard_name"]
    with pytest.raises(DataError, match=r"named 't2m' .*got .*'wind'"):
        open_coarse(nc(other), domain())


@pytest.mark.parametrize("units", ["mm/d", "W m-2", "furlongs per fortnight", "a(b", "10-3"])
def test_wrong_units_are_refused(nc, units):
    with pytest.raises(DataError, match=r"expected units convertible to K for 'tas' in .*got '"):
        open_coarse(nc(coarse_dataset(units=units)), domain())


def test_missing_units_say_what_to_set(nc):
    with pytest.raises(DataError, match="got none; set its 'units' attribute"):
        open_coarse(nc(coarse_dataset(units=None)), domain())
    unset = Coords(TIMES, (Variable("tas", ""),), domain().grid)
    with pytest.raises(DataError, match="the prior's, which are not set"):
        open_coarse(nc(coarse_dataset()), unset)


@pytest.mark.parametrize(
    ("given", "wanted", "factor", "offset"),
    [
        ("degrees_C", "K", 1, 273.15),
        ("mm day-1", "m s-1", 1e-3 / 86400, 0),
        ("kg m-2 s-1", "kg m**-2 day**-1", 86400, 0),
        ("W.m-2", "kg s-3", 1, 0),
        ("km/h", "m s^-1", 1 / 3.6, 0),
        ("%", "1", 0.01, 0),
        ("(0 - 1)", "%", 100, 0),
        ("m2 s-2", "J kg-1", 1, 0),
    ],
)
def test_units_as_cf_spells_them(nc, given, wanted, factor, offset):
    like = Coords(TIMES, (Variable("tas", wanted),), domain().grid)
    values = open_coarse(nc(coarse_dataset(units=given)), like).values
    np.testing.assert_allclose(values[:, 0, ::-1], weather((4, 2, 2)) * factor + offset, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "standard", "given", "wanted", "factor"),
    [
        ("pr", "", "kg m-2 s-1", "mm d-1", 86400),
        ("x", "precipitation_flux", "mm day-1", "kg m-2 s-1", 1 / 86400),
        ("tp", "", "m", "kg m-2", 1000),
        ("pressure", "", "kg m-2 s-1", "mm d-1", None),
        ("hfls", "surface_upward_latent_heat_flux", "W m-2", "mm d-1", None),
    ],
)
def test_mass_and_depth_of_water_are_one_and_nothing_else_is(name, standard, given, wanted, factor):
    convert_one = lambda: convert(np.ones(1, np.float32), Variable(name, given, standard), Variable(name, wanted), "it")
    if factor:
        np.testing.assert_allclose(convert_one(), factor, rtol=1e-6)
    else:
        with pytest.raises(DataError, match="expected units convertible to mm d-1"):
            convert_one()


def test_order_of_latitudes_does_not_matter(nc):
    ds = coarse_dataset()
    down = open_coarse(nc(ds.isel(lat=[1, 0])), domain())
    same(open_coarse(nc(ds), domain()), down)
    bare = ds.drop_vars(["lat_bnds", "lon_bnds"])  # still referred to by lat and lon
    same(open_coarse(nc(bare), domain()), open_coarse(nc(bare.isel(lat=[1, 0])), domain()))
    rising = Coords(TIMES, (T2M,), Grid(domain().grid.lat[::-1], domain().grid.lon))
    np.testing.assert_array_equal(open_coarse(nc(ds), rising).values, down.values[:, :, ::-1])


@pytest.mark.parametrize("west", [-10.0, 350.0])
def test_convention_of_longitudes_does_not_matter(nc, west):
    ds = coarse_dataset()
    turned = ds.assign_coords(lon=ds.lon + 360)
    turned["lon_bnds"] = turned.lon_bnds + 360
    turned.lon.attrs = ds.lon.attrs
    a, b = open_coarse(nc(ds), domain(west)), open_coarse(nc(turned), domain(west))
    same(a, b)
    np.testing.assert_allclose(a.grid.lon_bounds, west - 0.125 + np.arange(3))


def test_domain_across_the_seam(nc):
    world = xr.DataArray(
        weather((4, 3, 360)),
        {"time": TIMES, "lat": [56.625, 57.625, 58.625], "lon": np.arange(360.0) + 0.375},
        ["time", "lat", "lon"],
        attrs={"units": "K", "standard_name": "air_temperature"},
    ).to_dataset(name="tas")
    like = domain(lon_west=-1.0)  # its edges: 1.125 W to 0.875 E
    fields = open_coarse(nc(world), like)
    np.testing.assert_allclose(fields.grid.lon, [-0.625, 0.375])
    np.testing.assert_array_equal(fields.values[:, 0], world.tas.values[:, 1::-1][:, :, [-1, 0]])
    centred = world.assign_coords(lon=(world.lon + 180) % 360 - 180).sortby("lon")
    same(fields, open_coarse(nc(centred), like))
    cut = open_fields(nc(world.isel(lon=[358, 359, 0, 1])))
    np.testing.assert_allclose(cut.grid.lon, [-1.625, -0.625, 0.375, 1.375])


def test_repeated_column_of_a_world_map_is_refused(nc):
    world = coarse_dataset().interp(lon=np.arange(0.0, 360.5, 0.5)).drop_vars("lon_bnds")
    with pytest.raises(DataError, match=r"file0\.nc: expected each cell once"):
        open_coarse(nc(world), domain(lon_west=-1.0))


def test_only_cells_wholly_inside_are_kept(nc):
    world = xr.DataArray(
        weather((4, 5, 5)),
        {"time": TIMES, "lat": 57.4 + np.arange(-2, 3.0), "lon": -9.6 + np.arange(-2, 3.0)},
        ["time", "lat", "lon"],
        attrs={"units": "K"},
    ).to_dataset(name="t2m")
    fields = open_coarse(nc(world), domain())  # 56.125 to 58.125 N, 10.125 to 8.125 W
    np.testing.assert_allclose(fields.grid.lat_bounds, [57.9, 56.9])
    np.testing.assert_allclose(fields.grid.lon_bounds, [-10.1, -9.1])
    np.testing.assert_array_equal(fields.values[:, 0], world.t2m[:, 2:3, 2:3])
    means = area_mean(domain().grid, fields.grid)(jnp.ones(domain().shape))
    np.testing.assert_allclose(means, np.ones(fields.values.shape), rtol=1e-6)


def test_rounding_does_not_make_a_cell_partly_inside(nc):
    ds = coarse_dataset()
    for shift, rows in ((5e-7, 2), (5e-6, 1)):
        moved = ds.assign_coords(lat=ds.lat + shift)
        moved["lat_bnds"] = moved.lat_bnds + shift
        moved.lat.attrs = ds.lat.attrs
        assert open_coarse(nc(moved), domain()).grid.shape == (rows, 2)


def test_outside_the_domain_names_both_extents(nc):
    far = coarse_dataset(lon_west=30.0)
    extents = r"lon -10\.125 to -8\.125.*lon 29\.875 to 31\.875; choose files of one region"
    with pytest.raises(DataError, match=rf"'tas' in .*file0\.nc: .* outside the prior's domain.*{extents}"):
        open_coarse(nc(far), domain())


def test_missing_values_stay_missing(nc):
    ds = coarse_dataset()
    ds.tas[1, 0, 1] = np.nan
    values = open_coarse(nc(ds), domain()).values
    assert np.isnan(values[1, 0, 1, 1])
    assert np.isnan(values).sum() == 1


def test_all_missing_is_refused(nc):
    ds = coarse_dataset()
    ds.tas[:] = np.nan
    with pytest.raises(DataError, match=r"got only missing ones for 'tas' in .*file0\.nc"):
        open_coarse(nc(ds), domain())


def test_times_that_do_not_overlap():
    check_overlap(TIMES[2:], TIMES[:3])
    message = r"of 'tas' in esm\.nc .* 2019-03-01T00:00 to 2019-03-01T18:00, got 2020-.*; choose files"
    with pytest.raises(DataError, match=message):
        check_overlap(TIMES + np.timedelta64(366, "D"), TIMES, "'tas' in esm.nc")
    with pytest.raises(DataError, match="got no times"):
        check_overlap(TIMES[:0], TIMES)


def test_a_rotated_domain_takes_the_cells_that_it_covers(nc):
    """A prior on a rotated grid, a regular coarse file: cells wholly inside keep their values, in a box; others are
    missing. Against the place of each coarse cell's corners and middles of sides, in the rotated frame."""
    pole = RotatedPole(39.25, -162.0)
    fine = Grid(-12.0 + 0.44 * np.arange(8), -20.0 + 0.44 * np.arange(10), pole=pole)
    lat, lon = 30.45 + 0.9 * np.arange(15), 340.6 + 1.1 * np.arange(30)
    world = xr.DataArray(
        weather((4, 15, 30)),
        {"time": TIMES, "lat": lat, "lon": lon % 360},
        ["time", "lat", "lon"],
        attrs={"units": "K"},
    ).to_dataset(name="t2m")
    fields = open_coarse(nc(world), Coords(TIMES, (T2M,), fine))
    around = np.array([(a, b) for a in (-0.45, 0, 0.45) for b in (-0.55, 0, 0.55)]).T
    rlat, rlon = pole.from_geographic(
        *np.broadcast_arrays(lat[:, None, None] + around[0], lon[None, :, None] + around[1])
    )
    inside = (
        (rlat >= fine.lat_bounds[0])
        & (rlat <= fine.lat_bounds[-1])
        & (rlon >= fine.lon_bounds[0])
        & (rlon <= fine.lon_bounds[-1])
    ).all(-1)
    i, j = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    want = np.where(inside, world.t2m.values, np.nan)[:, i[0] : i[-1] + 1, j[0] : j[-1] + 1]
    assert 3 < inside.sum() < want[0].size
    np.testing.assert_array_equal(fields.values[:, 0], want)
    np.testing.assert_allclose(fields.grid.lat, lat[i[0] : i[-1] + 1])
    np.testing.assert_allclose(fields.grid.lon + 360, lon[j[0] : j[-1] + 1])
    assert area_mean(fine, fields.grid)(jnp.ones(fine.shape)).shape == fields.grid.shape
