"""Files in and out: every awkward file is handled, or refused in one sentence that names it."""

import sys

import numpy as np
import pytest
import xarray as xr

from bayesdownscale.data import datasets
from bayesdownscale.data.errors import DataError
from bayesdownscale.data.grid import Coords, Fields, Grid, Variable, edges_from_bounds
from bayesdownscale.data.read import check_overlap, open_coarse, open_fields
from bayesdownscale.data.write import check_output, to_cf, write_atomic

TIMES = np.datetime64("2019-03-01T00", "ns") + np.arange(4) * np.timedelta64(6, "h")
T2M = Variable("t2m", "K", "air_temperature", "2 metre temperature")
PSL = Variable("psl", "Pa", "air_pressure_at_mean_sea_level")


def domain(lon_west=-10.0):
    """A prior's labels: 8 x 8 cells of a quarter degree, from 58 N southwards."""
    return Coords(TIMES, (T2M,), Grid(58 - 0.25 * np.arange(8), lon_west + 0.25 * np.arange(8)))


def weather(shape, seed=0):
    return np.random.default_rng(seed).normal(280, 5, shape).astype(np.float32)


def coarse_dataset(name="tas", units="K", lon_west=-10.0, n_lat=2, n_lon=2):
    """Blocks of 4 x 4 cells of `domain`, south to north, with bounds."""
    grid = domain(lon_west).grid.coarsen(4)
    lat, lon = np.sort(grid.lat)[:n_lat], grid.lon[:n_lon]
    values = weather((4, 2, 2))[:, :n_lat, :n_lon]
    data = xr.DataArray(values, {"time": TIMES, "lat": lat, "lon": lon}, ["time", "lat", "lon"])
    data.attrs = {"standard_name": "air_temperature"} | ({"units": units} if units else {})
    ds = data.to_dataset(name=name)
    for axis in ("lat", "lon"):
        centres = ds[axis].values
        ds[f"{axis}_bnds"] = ((axis, "bnds"), np.stack([centres - 0.5, centres + 0.5], axis=1))
        ds[axis].attrs = {"bounds": f"{axis}_bnds"}
    return ds


def saved(ds, path):
    ds.to_netcdf(path)
    return path


@pytest.fixture
def nc(tmp_path):
    """Save a dataset to a fresh file."""
    count = iter(range(99))
    return lambda ds: saved(ds, tmp_path / f"file{next(count)}.nc")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no file at .*absent\.nc"):
        open_fields(tmp_path / "absent.nc")


def test_file_of_another_kind_is_named(tmp_path):
    path = tmp_path / "notes.nc"
    path.write_text("hello")
    with pytest.raises(DataError, match=r"expected a readable NetCDF, Zarr or GRIB file at .*notes\.nc"):
        open_fields(path)
    with pytest.raises(DataError, match="No group found"):
        open_fields(tmp_path)


def test_grib_without_cfgrib_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "weather.grib"
    path.write_bytes(b"GRIB")
    monkeypatch.setitem(sys.modules, "cfgrib", None)
    with pytest.raises(DataError, match=r"pip install 'bayesdownscale\[grib\]'"):
        open_fields(path)


def test_fields_of_all_variables_with_time_lat_lon(nc):
    ds = coarse_dataset().assign(orog=(("lat", "lon"), np.ones((2, 2))))
    ds["pr"] = ds.tas * 0
    fields = open_fields(nc(ds))
    assert [v.name for v in fields.variables] == ["tas", "pr"]
    assert fields.values.dtype == np.float32
    np.testing.assert_array_equal(fields.values[:, 0], ds.tas.values)
    np.testing.assert_array_equal(fields.times, TIMES)
    np.testing.assert_allclose(fields.grid.lat_bounds, [56.125, 57.125, 58.125])


def test_variables_are_picked_in_order_or_listed(nc):
    path = nc(coarse_dataset().assign(pr=coarse_dataset().tas * 0))
    assert [v.name for v in open_fields(path, ["pr", "tas"]).variables] == ["pr", "tas"]
    assert [v.name for v in open_fields(path, "pr").variables] == ["pr"]
    with pytest.raises(DataError, match=r"expected 'wind' in .*file0\.nc, got .*'tas'"):
        open_fields(path, ["wind"])


def test_no_weather_in_file(nc):
    with pytest.raises(
        DataError, match=r"expected variables on time, latitude and longitude .*'orog\(lat, lon\)'"
    ):
        open_fields(nc(coarse_dataset().drop_vars("tas").assign(orog=(("lat", "lon"), np.ones((2, 2))))))


def test_usual_names_and_single_extra_dimensions(nc):
    ds = coarse_dataset().drop_vars(["lat_bnds", "lon_bnds"])
    for names in ({"lat": "latitude", "lon": "longitude"}, {"lat": "y", "lon": "x", "time": "valid_time"}):
        other = ds.rename(names).expand_dims({"height": [2.0]}, axis=1)
        for axis in ("lat", "lon"):
            other[names[axis]].attrs = {}
        np.testing.assert_array_equal(open_fields(nc(other)).values[:, 0], ds.tas.values)


def test_cf_attributes_find_unusual_names(nc):
    ds = (
        coarse_dataset()
        .drop_vars(["lat_bnds", "lon_bnds"])
        .rename({"lat": "phi", "lon": "lam", "time": "when"})
    )
    ds.phi.attrs, ds.lam.attrs = {"units": "degrees_north"}, {"standard_name": "longitude"}
    ds.when.attrs = {"standard_name": "time"}
    np.testing.assert_array_equal(open_fields(nc(ds)).values[:, 0], ds.tas.values)


def test_one_snapshot_keeps_its_time(nc):
    fields = open_fields(nc(coarse_dataset().isel(time=2)))
    assert fields.values.shape == (1, 1, 2, 2)
    np.testing.assert_array_equal(fields.times, TIMES[2:3])


def test_damaged_chunks_are_named(tmp_path):
    path = tmp_path / "damaged.zarr"
    coarse_dataset().to_zarr(path, zarr_format=3, consolidated=False)
    (path / "tas" / "c" / "0" / "0" / "0").write_bytes(b"not a chunk")
    with pytest.raises(DataError, match=r"expected to read 'tas' in .*damaged\.zarr"):
        open_fields(path)


def test_levels_and_other_grids_are_refused(nc):
    ds = coarse_dataset().drop_vars(["lat_bnds", "lon_bnds"])
    with pytest.raises(DataError, match=r"'tas' in .* got also 'plev \(2\)'"):
        open_fields(nc(ds.expand_dims({"plev": [850.0, 500.0]})))
    turned = ds.rename({"lat": "rlat", "lon": "rlon"})
    turned = turned.assign_coords(
        lat=(("rlat", "rlon"), np.ones((2, 2))), lon=(("rlat", "rlon"), np.ones((2, 2)))
    )
    with pytest.raises(DataError, match=r"expected a regular grid .* 'tas'"):
        open_fields(nc(turned))
    cells = ds.stack(cell=("lat", "lon")).reset_index("cell")
    with pytest.raises(DataError, match="expected a regular grid"):
        open_fields(nc(cells))
    metres = ds.rename({"lat": "y", "lon": "x"}).assign_coords(y=[1e6, 2e6], x=[1e6, 2e6])
    metres.y.attrs, metres.x.attrs = {"units": "m"}, {"units": "m"}
    with pytest.raises(DataError, match="expected latitude and longitude coordinates for 'tas'"):
        open_fields(nc(metres), ["tas"])


def test_uneven_cells_and_gaps_are_refused(nc):
    ds = coarse_dataset()
    ds.lat_bnds[1] += 0.2
    with pytest.raises(DataError, match=r"file0\.nc.* to touch"):
        open_fields(nc(ds))
    np.testing.assert_allclose(
        edges_from_bounds(np.array([0.0, 2.0]), np.array([[359.0, 1.0], [1.0, 3.0]])), [-1, 1, 3]
    )


def test_times_are_sorted_and_chosen(nc):
    ds = coarse_dataset()
    path = nc(ds.isel(time=[2, 0, 3, 1]))
    fields = open_fields(path)
    np.testing.assert_array_equal(fields.times, TIMES)
    np.testing.assert_array_equal(fields.values[:, 0], ds.tas.values)
    some = open_fields(path, times=slice("2019-03-01T06", "2019-03-01T12"))
    np.testing.assert_array_equal(some.values[:, 0], ds.tas.values[1:3])
    with pytest.raises(DataError, match=r"expected times from 2020-01-01 to 2020-02-01 .* 2019-03-01T00:00"):
        open_fields(path, times=slice("2020-01-01", "2020-02-01"))


def test_repeated_times_are_named(nc):
    with pytest.raises(DataError, match="2019-03-01T06:00 twice"):
        open_fields(nc(coarse_dataset().isel(time=[0, 1, 1, 2])))


def test_other_calendars_and_undated_files_are_refused(nc):
    ds = coarse_dataset()
    for calendar in ("360_day", "noleap"):
        times = xr.date_range("2019-01-01", periods=4, calendar=calendar, use_cftime=True)
        with pytest.raises(DataError, match=rf"got the {calendar} calendar"):
            open_fields(nc(ds.assign_coords(time=times)))
    with pytest.raises(DataError, match="got undated int64 values"):
        open_fields(nc(ds.assign_coords(time=np.arange(4))))


def test_hours_as_fractions_of_days_are_exact(nc):
    ds = coarse_dataset().assign_coords(time=np.arange(4) / 24 + 43000.0)
    ds.time.attrs = {"units": "days since 1900-01-01", "calendar": "standard"}
    start = np.datetime64("1900-01-01", "h") + 43000 * 24
    np.testing.assert_array_equal(open_fields(nc(ds)).times, start + np.arange(4))


def test_packed_integers_infinities_and_fill_values(nc, tmp_path):
    ds = coarse_dataset()
    ds.tas[0, 0, 0] = np.nan
    packed = tmp_path / "packed.nc"
    encoding = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}
    ds.to_netcdf(packed, encoding={"tas": encoding})
    values = open_fields(packed).values
    assert np.isnan(values[0, 0, 0, 0])
    np.testing.assert_allclose(values[:, 0], ds.tas.values, atol=0.006)
    infinite = ds.copy(deep=True)
    infinite.tas[1, 1, 1], infinite.tas[2, 1, 1] = np.inf, -np.inf
    values = open_fields(nc(infinite)).values
    assert np.isnan(values[[1, 2], 0, 1, 1]).all()
    assert np.isfinite(values).sum() == 13


def test_single_precision_coordinates_mean_their_decimals(nc):
    lon = np.arange(350.1, 351.0, 0.1).astype(np.float32)
    ds = xr.DataArray(
        weather((4, 2, lon.size)), {"time": TIMES, "lat": [50.0, 50.1], "lon": lon}, ["time", "lat", "lon"]
    )
    np.testing.assert_allclose(
        open_fields(nc(ds.to_dataset(name="tas"))).grid.lon, np.arange(350.1, 351, 0.1), rtol=1e-14
    )


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
    with pytest.raises(DataError, match="expected among the prior's 'psl', 't2m', got 'tas'"):
        open_coarse(path, like, ["tas"])


def test_coarse_without_the_variable_or_with_two(nc):
    ds = coarse_dataset()
    with pytest.raises(
        DataError, match=r"named 't2m' .*standard_name 'air_temperature' in .*, got 'tas', 'tasmax'"
    ):
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


def same(a, b):
    assert a.coords == b.coords
    np.testing.assert_array_equal(a.values, b.values)


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
    world = coarse_dataset().interp(lon=np.arange(0.0, 361.0, 10.0)).drop_vars("lon_bnds")
    with pytest.raises(DataError, match=r"file0\.nc: expected each cell once"):
        open_coarse(nc(world), domain(lon_west=-1.0))


def test_cells_partly_inside_are_missing_and_those_outside_go(nc):
    world = xr.DataArray(
        weather((4, 5, 5)),
        {"time": TIMES, "lat": 57.4 + np.arange(-2, 3.0), "lon": -9.6 + np.arange(-2, 3.0)},
        ["time", "lat", "lon"],
        attrs={"units": "K"},
    ).to_dataset(name="t2m")
    fields = open_coarse(nc(world), domain())  # 56.125 to 58.125 N, 10.125 to 8.125 W
    np.testing.assert_allclose(fields.grid.lat, [58.4, 57.4, 56.4])
    np.testing.assert_allclose(fields.grid.lon, [-10.6, -9.6, -8.6])
    expected = np.full((4, 3, 3), np.nan)
    expected[:, 1, 1] = world.t2m[:, 2, 2]  # the only cell wholly inside
    np.testing.assert_array_equal(fields.values[:, 0], expected)


def test_rounding_does_not_make_a_cell_partly_inside(nc):
    ds = coarse_dataset()
    for shift, missing in ((5e-7, 0), (5e-6, 8)):
        moved = ds.assign_coords(lat=ds.lat + shift)
        moved["lat_bnds"] = moved.lat_bnds + shift
        moved.lat.attrs = ds.lat.attrs
        assert np.isnan(open_coarse(nc(moved), domain()).values).sum() == missing


def test_outside_the_domain_names_both_extents(nc):
    far = coarse_dataset(lon_west=30.0)
    with pytest.raises(
        DataError, match=r"outside the prior's domain.*lon -10\.125 to -8\.125.*lon 29\.875 to 31\.875"
    ):
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
    with pytest.raises(DataError, match="2019-03-01T00:00 to 2019-03-01T18:00, got 2020-"):
        check_overlap(TIMES + np.timedelta64(366, "D"), TIMES)
    with pytest.raises(DataError, match="got no times"):
        check_overlap(TIMES[:0], TIMES)


def draws(seed=0):
    values = weather((3, 4, 1, 8, 8), seed)
    values[0, 0, 0, 0, 0] = np.nan
    return values


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_roundtrip_keeps_values_units_and_dimensions(tmp_path, suffix):
    values, coords = draws(), domain()
    attrs = {"seed": np.int64(3), "likelihood": {"noise": 0.5}, "exact": False, "institution": None}
    path = write_atomic(to_cf(values, coords, attrs), tmp_path / f"out{suffix}")
    options = {"engine": "zarr", "consolidated": False} if suffix == ".zarr" else {}
    with xr.open_dataset(path, decode_coords="all", **options) as ds:
        assert list(ds.data_vars) == ["t2m"]
        assert ds.t2m.dims == ("realization", "time", "lat", "lon")
        np.testing.assert_array_equal(ds.t2m.values, values[:, :, 0])
        assert ds.t2m.attrs["units"] == "K"
        assert ds.t2m.attrs["cell_methods"] == "time: point"
        assert ds.t2m.encoding["_FillValue"] == np.float32(1e20)
        assert ds.realization.attrs["standard_name"] == "realization"
        assert "axis" not in ds.realization.attrs
        assert ds.lat.dtype == ds.lon_bnds.dtype == np.float64
        assert ds.attrs["Conventions"] == "CF-1.11"
        assert (ds.attrs["seed"], ds.attrs["likelihood"], ds.attrs["exact"]) == (3, '{"noise": 0.5}', "false")
        assert not {"institution", "coordinates"} & set(ds.attrs)
    one = tmp_path / f"one{suffix}"
    write_atomic(to_cf(values[:1], coords), one)
    back = open_fields(one)
    assert back.coords == coords
    np.testing.assert_array_equal(back.values, values[0])
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_fields_to_dataset_and_back(nc):
    fields = Fields(draws()[0], domain(), "made here")
    back = open_fields(nc(fields.to_dataset()))
    same(fields, back)
    same(
        fields.isel_times(slice(1, 3)).crop(3, 2),
        open_fields(nc(fields.to_dataset().isel(time=[1, 2], lat=slice(3), lon=slice(2)))),
    )
    assert fields.isel_times(-1).values.shape == (1, 1, 8, 8)


def test_draws_of_other_shapes_are_refused():
    with pytest.raises(DataError, match="expected draws of shape"):
        to_cf(draws()[..., :-1], domain())
    with pytest.raises(DataError, match=r"expected draws of \['t2m'\], got \['tas'\]"):
        to_cf({"tas": draws()[:, :, 0]}, domain())
    by_name = to_cf({"t2m": draws()[:, :, 0]}, domain())
    np.testing.assert_array_equal(by_name.t2m, to_cf(draws(), domain()).t2m)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_existing_output_is_kept_unless_told(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    old, new = to_cf(draws(0), domain()), to_cf(draws(1)[:2], domain())
    write_atomic(old, path)
    with pytest.raises(DataError, match=r"out\.\w+ exists; choose another --out or pass --overwrite"):
        write_atomic(new, path)
    assert len(_read(path)) == 3
    write_atomic(new, path, overwrite=True)
    assert len(_read(path)) == 2
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt])
def test_failing_write_leaves_nothing_and_the_old_output(tmp_path, monkeypatch, suffix, error):
    path = tmp_path / f"out{suffix}"
    whole = to_cf(draws(), domain())
    write_atomic(whole, path)
    real = {".nc": xr.Dataset.to_netcdf, ".zarr": xr.Dataset.to_zarr}[suffix]

    def fail(self, *args, **kwargs):
        real(self, *args, **kwargs)
        raise error("disk full")

    monkeypatch.setattr(xr.Dataset, real.__name__, fail)
    with pytest.raises(DataError if error is OSError else error, match="disk full"):
        write_atomic(to_cf(draws(1)[:2], domain()), path, overwrite=True)
    assert list(tmp_path.iterdir()) == [path]
    assert len(_read(path)) == 3


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_trees_are_written_too(tmp_path, suffix):
    theta = xr.Dataset({"sigma": (("chain", "draw"), np.ones((1, 3)))}, {"site": ["a", "bb"]})
    tree = xr.DataTree.from_dict({"/posterior": theta, "/fields": to_cf(draws(), domain())})
    path = write_atomic(tree, tmp_path / f"tree{suffix}")
    options = {"engine": "zarr", "consolidated": False} if suffix == ".zarr" else {}
    with xr.open_datatree(path, **options) as back:
        assert back["/fields/t2m"].shape == (3, 4, 8, 8)
        assert list(back["/posterior/site"].values) == ["a", "bb"]


def test_output_paths_are_checked(tmp_path):
    with pytest.raises(DataError, match=r"ending in \.nc .* or \.zarr"):
        check_output(tmp_path / "out.csv")
    with pytest.raises(DataError, match=r"expected the folder .*absent to exist"):
        check_output(tmp_path / "absent" / "out.nc")
    assert check_output(str(tmp_path / "out.nc")) == tmp_path / "out.nc"


def _read(path):
    options = {"engine": "zarr", "consolidated": False} if path.suffix == ".zarr" else {}
    with xr.open_dataset(path, **options) as ds:
        return ds.t2m.load()


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No data set on this machine and no network."""

    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(datasets, "_folders", lambda: [tmp_path / "data"])
    monkeypatch.setattr(datasets.pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setattr(datasets.pooch, "retrieve", offline)
    return tmp_path


def test_dataset_with_another_checksum_is_named(nowhere):
    for path in ("data/era5-2mt-2019-03-uk.grib", "cache/era5-2mt-2019-03-uk.grib"):
        file = nowhere / path
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"GRIB but another")
        with pytest.raises(DataError, match=rf"expected sha256 e5e82609\.\.\. for .*{path}, got another"):
            datasets.fetch("era5-uk")
        file.unlink()


def test_dataset_absent_and_offline_says_where_to_put_it(nowhere):
    for download in (True, False):
        with pytest.raises(DataError, match=r"https://github\.com/.*BAYESDOWNSCALE_DATA"):
            datasets.fetch("era5-uk", download=download)
    with pytest.raises(DataError, match=r"among \['era5-uk'\], got 'era5'"):
        datasets.fetch("era5")


def test_named_folder_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("BAYESDOWNSCALE_DATA", str(tmp_path))
    assert datasets._folders()[0] == tmp_path


def test_era5_uk_and_its_split():
    try:
        datasets.fetch("era5-uk", download=False)
    except DataError as reason:
        pytest.skip(str(reason))
    fields = datasets.era5_uk()
    assert fields.values.shape == (744, 1, 32, 48)
    assert fields.variables == (T2M,)
    assert np.isfinite(fields.values).all()
    np.testing.assert_allclose(fields.grid.lat[[0, -1]], [58.0, 50.25])
    np.testing.assert_allclose(fields.grid.lon[[0, -1]], [-10.0, 1.75])
    train, test = datasets.split(fields)
    assert (train.times.size, test.times.size) == (24 * 24, 7 * 24)
    np.testing.assert_array_equal(np.concatenate([train.times, test.times]), fields.times)
    with pytest.raises(DataError, match="expected times from 2019-03-25"):
        datasets.split(train)
