"""Files in: every awkward file is read as it is meant, or refused in one sentence that names it."""

import sys
from functools import partial

import numpy as np
import pytest
import xarray as xr
from data_files import TIMES, coarse_dataset, domain, saved, weather

from bayesdownscale.data.coarse import open_coarse
from bayesdownscale.data.errors import DataError
from bayesdownscale.data.grid import Coords, Variable
from bayesdownscale.data.read import open_fields
from bayesdownscale.data.rotated import RotatedPole


@pytest.fixture
def nc(tmp_path):
    return partial(saved, folder=tmp_path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no file at .*absent\.nc; check the path"):
        open_fields(tmp_path / "absent.nc")
    with pytest.raises(DataError, match=r"no file at .*absent\.nc to read 'tas' from; check the path"):
        open_fields(tmp_path / "absent.nc", ["tas"])


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
    with pytest.raises(DataError, match=r"expected variables on time, latitude and longitude .*'orog\(lat, lon\)'"):
        open_fields(nc(coarse_dataset().drop_vars("tas").assign(orog=(("lat", "lon"), np.ones((2, 2))))))


def test_usual_names_and_single_extra_dimensions(nc):
    ds = coarse_dataset().drop_vars(["lat_bnds", "lon_bnds"])
    for names in ({"lat": "latitude", "lon": "longitude"}, {"lat": "y", "lon": "x", "time": "valid_time"}):
        other = ds.rename(names).expand_dims({"height": [2.0]}, axis=1)
        for axis in ("lat", "lon"):
            other[names[axis]].attrs = {}
        np.testing.assert_array_equal(open_fields(nc(other)).values[:, 0], ds.tas.values)


def test_cf_attributes_find_unusual_names(nc):
    ds = coarse_dataset().drop_vars(["lat_bnds", "lon_bnds"]).rename({"lat": "phi", "lon": "lam", "time": "when"})
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
    with pytest.raises(DataError, match=r"'tas' in .* got also 'plev' with 850, 500; choose one"):
        open_fields(nc(ds.expand_dims({"plev": [850.0, 500.0]})))
    curved = ds.rename({"lat": "j", "lon": "i"}).drop_vars(["j", "i"])
    curved = curved.assign_coords(lat=(("j", "i"), np.ones((2, 2))), lon=(("j", "i"), np.ones((2, 2))))
    with pytest.raises(DataError, match=r"expected a grid regular in lat and lon, or in rlat and rlon .* 'tas'"):
        open_fields(nc(curved))
    cells = ds.stack(cell=("lat", "lon")).reset_index("cell")
    with pytest.raises(DataError, match="expected a grid regular in lat and lon"):
        open_fields(nc(cells))
    metres = ds.rename({"lat": "y", "lon": "x"}).assign_coords(y=[1e6, 2e6], x=[1e6, 2e6])
    metres.y.attrs, metres.x.attrs = {"units": "m"}, {"units": "m"}
    with pytest.raises(DataError, match="expected latitude and longitude coordinates for 'tas'"):
        open_fields(nc(metres), ["tas"])


def rotated_dataset(places=True, mapping=True):
    """A grid of EURO-CORDEX: coordinates rlat and rlon, a grid mapping, the places of all cells, or either alone."""
    pole = RotatedPole(39.25, -162.0)
    rlat, rlon = -10.0 + 0.44 * np.arange(4), -15.0 + 0.44 * np.arange(5)
    dims = ("time", "rlat", "rlon")
    ds = xr.Dataset({"tas": (dims, weather((4, 4, 5)), {"units": "K"})}, {"time": TIMES, "rlat": rlat, "rlon": rlon})
    if places:
        found = pole.to_geographic(*np.meshgrid(rlat, rlon, indexing="ij"))
        ds = ds.assign_coords({name: (dims[1:], each) for name, each in zip(("lat", "lon"), found, strict=True)})
    if mapping:
        ds["crs"] = ((), 0, pole.cf_attrs())
        ds["tas"].attrs["grid_mapping"] = "crs"
    return ds


@pytest.mark.parametrize(("places", "mapping"), [(True, True), (False, True), (True, False)])
def test_rotated_grids_are_read_with_their_pole(nc, places, mapping):
    ds = rotated_dataset(places, mapping)
    fields = open_fields(nc(ds))
    assert fields.grid.pole == RotatedPole(39.25, -162.0)
    np.testing.assert_allclose(fields.grid.lat, ds["rlat"])
    np.testing.assert_array_equal(fields.values[:, 0], ds["tas"])
    with pytest.raises(DataError, match=r"outside the prior's domain"):
        open_coarse(nc(ds), Coords(TIMES, (Variable("tas", "K"),), domain().grid))


def test_rotated_grids_without_a_pole_are_refused(nc):
    with pytest.raises(DataError, match="expected a grid mapping with the north pole of 'rlat' and 'rlon'"):
        open_fields(nc(rotated_dataset(False, False)))
    wrong = rotated_dataset(True, False)
    wrong["lat"] = wrong["lat"] * 1.1
    with pytest.raises(DataError, match="expected a rotated pole to explain"):
        open_fields(nc(wrong))


def test_uneven_cells_and_gaps_are_refused(nc):
    ds = coarse_dataset()
    ds.lat_bnds[1] += 0.2
    with pytest.raises(DataError, match=r"file0\.nc.* to touch"):
        open_fields(nc(ds))


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


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "julian", "all_leap"])
def test_dates_of_other_calendars_keep_their_names_or_their_place_in_the_year(nc, calendar):
    """Six-hourly dates across the end of February keep their names, those that a year lacks go; daily ones of 360 days
    are spread over the year."""
    start, n = "2019-02-27", 12
    times = xr.date_range(start, periods=n, freq="6h", calendar=calendar, use_cftime=True)
    ds = coarse_dataset().isel(time=[0] * n).assign_coords(time=times)
    ds["tas"] = ds.tas * 0 + xr.DataArray(np.arange(float(n)), {"time": times}, ["time"])
    fields = open_fields(nc(ds))
    names = [str(t).replace(" ", "T") for t in times]
    want = [i for i, name in enumerate(names) if name[5:10] not in ("02-29", "02-30") and name[:10] != "2019-02-29"]
    np.testing.assert_array_equal(fields.values[:, 0, 0, 0], want)
    np.testing.assert_array_equal(fields.times, np.array([names[i] for i in want], "datetime64[ns]"))


def test_days_of_360_are_spread_over_the_year(nc):
    times = xr.date_range("2019-01-01", periods=720, freq="D", calendar="360_day", use_cftime=True)
    ds = coarse_dataset().isel(time=[0] * 720).assign_coords(time=times)
    fields = open_fields(nc(ds))
    day = np.arange(360)
    want = [np.datetime64(f"{y}-01-01") + np.round((day + 1) * n / 360).astype(int) - 1
            for y, n in ((2019, 365), (2020, 366))]  # fmt: skip
    np.testing.assert_array_equal(fields.times, np.concatenate(want))


def test_undated_files_are_refused(nc):
    with pytest.raises(DataError, match="got undated int64 values"):
        open_fields(nc(coarse_dataset().assign_coords(time=np.arange(4))))


METHODS = {
    "area: mean time: mean": "mean",
    "area: time: mean": "mean",
    "time: point": "point",
    "area: mean": "",
    "time: mean (interval: 1 hour comment: sampled) area: mean": "mean",
    "time: maximum within days time: mean over days": "maximum",
    "time: sum": "sum",
    "": "",
}


@pytest.mark.parametrize("text", METHODS)
def test_methods_in_time_are_read(nc, text):
    ds = coarse_dataset()
    ds.tas.attrs["cell_methods"] = text
    assert open_fields(nc(ds)).methods == (METHODS[text],)


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_bounds_of_times_go_with_their_times(nc, calendar):
    stamps = xr.date_range("2019-03-01T12", periods=4, freq="D", calendar=calendar, use_cftime=True)
    half = np.array([-12, 12]).astype("timedelta64[h]").astype(object)
    ds = coarse_dataset().assign_coords(time=stamps)
    ds["time_bnds"] = (("time", "bnds"), stamps.values[:, None] + half)
    ds.time.attrs["bounds"] = "time_bnds"
    ds.time.encoding["units"] = "hours since 2019-01-01"
    fields = open_fields(nc(ds.isel(time=[2, 0, 3, 1])))
    np.testing.assert_array_equal(fields.bounds, fields.times[:, None] + np.array([-12, 12]).astype("timedelta64[h]"))
    one = open_fields(nc(ds.isel(time=1)))
    np.testing.assert_array_equal(one.bounds, fields.bounds[1:2])
    assert fields.isel_times([1, 3]).bounds.shape == (2, 2)
    if calendar == "standard":
        back = open_fields(nc(fields.to_dataset()))
        np.testing.assert_array_equal(back.bounds, fields.bounds)


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
