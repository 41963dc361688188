"""Awkward files: a table from a name to what makes the file and what happens to it; `test_awkward_files.py` reads it."""

# ruff: noqa: E501  (the table reads better with one case a line)

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import xarray as xr

from bayesdownscale.data.grid import Coords, Grid, Variable
from bayesdownscale.data.rotated import RotatedPole

TIMES = np.datetime64("2019-03-01T00", "ns") + np.arange(4) * np.timedelta64(6, "h")
TAS = Variable("t2m", "K", "air_temperature")
TRUTH = np.random.default_rng(0).normal(280, 5, (4, 3, 4)).astype(np.float32)  # north to south
POLE = RotatedPole(39.25, -162.0)


def like(west=-10.0, variable=TAS):
    """A prior's labels: 12 x 16 cells of a quarter degree, in which the 3 x 4 cells of the files fit exactly."""
    fine = Grid(58 - 0.25 * np.arange(12), west + 0.25 * np.arange(16))
    return Coords(TIMES, (variable,), fine)


def plain(west=-10.0) -> xr.Dataset:
    """The file as it should be, south to north."""
    grid = like(west).grid.coarsen(4)
    ds = xr.Dataset({"tas": (("time", "lat", "lon"), TRUTH[:, ::-1].copy(), {"units": "K"})})
    ds = ds.assign_coords(time=TIMES, lat=grid.lat[::-1], lon=grid.lon)
    ds["tas"].attrs["standard_name"] = "air_temperature"
    for name in ("lat", "lon"):
        ds[name].attrs = {"units": f"degrees_{'north' if name == 'lat' else 'east'}", "bounds": f"{name}_bnds"}
        ds[f"{name}_bnds"] = ((name, "bnds"), np.stack([ds[name] - 0.5, ds[name] + 0.5], axis=1))
    ds["time"].encoding["units"] = "hours since 2019-01-01"
    return ds


def bare() -> xr.Dataset:
    return plain().drop_vars(["lat_bnds", "lon_bnds"]).assign_coords(lat=plain().lat.values, lon=plain().lon.values)


@dataclass(frozen=True)
class Case:
    """`make` writes the file into a folder and returns its place, or returns a dataset to be written as it is. `what`
    happens, in words; `says`, part of the sentence, for what is refused. `options` of `open_coarse`; `expect`, what
    differs from the truth: "values" (4, 3, 4), "times", "lat", "lon", "atol", "bounds", "methods", "pole"."""

    make: Callable[[Path], Any]
    what: str = "read"
    says: str = ""
    options: dict = field(default_factory=dict)
    expect: dict = field(default_factory=dict)
    like: Coords = field(default_factory=like)


def netcdf(ds, folder, **options) -> Path:
    path = folder / "esm.nc"
    ds.to_netcdf(path, **options)
    return path


def of(change, **options):
    """A file after a change of the plain dataset."""
    return lambda folder: netcdf(change(plain()), folder, **options)


def zarr(version):
    def make(folder):
        plain().to_zarr(folder / "esm.zarr", zarr_format=version, consolidated=False)
        return folder / "esm.zarr"

    return make


def in_memory(folder):
    address = f"memory://{uuid.uuid4().hex}.zarr"
    plain().to_zarr(address, zarr_format=3, consolidated=False)
    return address


def at_address(folder):
    with fsspec.open(f"memory://{(name := uuid.uuid4().hex)}.nc", "wb") as file:
        file.write(netcdf(plain(), folder).read_bytes())
    return f"memory://{name}.nc"


def written(name, content):
    def make(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return make


def cut(format):
    def make(folder):
        ds = xr.concat([plain()] * 50, "member") if format == "NETCDF4" else plain()
        path = netcdf(ds.drop_vars(["lat_bnds", "lon_bnds"]), folder, format=format)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        return path

    return make


def dated(calendar, start="2019-03-01", **kwargs):
    def change(ds):
        times = xr.date_range(start, periods=4, freq=kwargs.pop("freq", "6h"), calendar=calendar, use_cftime=True)
        return ds.assign_coords(time=times)

    return of(change)


def raw_time(values, **attrs):
    return of(lambda ds: ds.assign_coords(time=("time", np.asarray(values), attrs)))


def holes(ds, value, where=(1, 0, 1)):
    ds["tas"][where] = value
    return ds


HOLE = TRUTH.copy()
HOLE[1, 2, 1] = np.nan


def coded(**encoding):
    return of(lambda ds: holes(ds, np.nan), encoding={"tas": encoding})


def gone(name):
    return lambda ds: ds.drop_vars(name)


def turned(ds, west_first):
    """Longitudes of 0 to 360 or -180 to 180 sorted, of a region across 0 or 180."""
    return ds.assign_coords(lon=ds.lon % 360 if west_first else (ds.lon + 180) % 360 - 180).sortby("lon")


def no_lon_bounds(west):
    return plain(west).drop_vars(["lon_bnds"]).assign_coords(lon=plain(west).lon.values)


def every_place(ds, curved=0.0):
    """Rows j and columns i, with the latitude and longitude of every cell."""
    lat, lon = xr.broadcast(ds.lat, ds.lon)
    ds = ds.drop_vars(["lat_bnds", "lon_bnds"]).rename(lat="j", lon="i").drop_vars(["i", "j"])
    return ds.assign_coords(nav_lat=(("j", "i"), lat.values + curved * (lon.values - lon.values[0, 0])),
                            nav_lon=(("j", "i"), lon.values))  # fmt: skip


def rotated(mapping, places):
    def make(folder):
        rlat, rlon = -1.5 + np.arange(3.0), 4.0 + np.arange(4.0)
        ds = xr.Dataset({"tas": (("time", "rlat", "rlon"), TRUTH, {"units": "K", "standard_name": "air_temperature"})},
                        {"time": TIMES, "rlat": rlat, "rlon": rlon})  # fmt: skip
        if places:
            found = POLE.to_geographic(*np.meshgrid(rlat, rlon, indexing="ij"))
            ds = ds.assign_coords({n: (("rlat", "rlon"), x) for n, x in zip(("lat", "lon"), found, strict=True)})
        if mapping:
            ds["crs"] = ((), 0, POLE.cf_attrs())
            ds["tas"].attrs["grid_mapping"] = "crs"
        return netcdf(ds, folder)

    return make


ROTATED = {"lat": -1.5 + np.arange(3.0), "lon": 4.0 + np.arange(4.0), "pole": POLE}
ON_POLE = Coords(TIMES, (TAS,), Grid(-1.875 + 0.25 * np.arange(12), 3.625 + 0.25 * np.arange(16), pole=POLE))


def means(ds):
    ds = said_means(ds.assign_coords(time=("time", TIMES + np.timedelta64(3, "h"), {"bounds": "time_bnds"})))
    ds["time"].encoding["units"] = "hours since 2019-01-01"
    return ds.assign(time_bnds=(("time", "bnds"), np.stack([TIMES, TIMES + np.timedelta64(6, "h")], axis=1)))


def said_means(ds):
    ds["tas"].attrs["cell_methods"] = "area: time: mean"
    return ds


def units(given, shift=0.0, factor=1.0):
    def change(ds):
        ds["tas"] = (ds.tas * np.float32(factor) + np.float32(shift)).assign_attrs(ds.tas.attrs | {"units": given})
        return ds

    return of(change)


def rain(ds):
    ds = ds.rename(tas="pr")
    ds["pr"] = (ds.pr / np.float32(86400)).assign_attrs(standard_name="precipitation_flux", units="kg m-2 s-1")
    return ds


def metres(ds):
    ds = ds.drop_vars(["lat_bnds", "lon_bnds"]).rename(lat="y", lon="x")
    return ds.assign_coords(y=("y", 1e5 * np.arange(3), {"units": "m"}), x=("x", 1e5 * np.arange(4), {"units": "m"}))


def single(ds):
    for name in ("lat", "lon", "lat_bnds", "lon_bnds"):
        ds[name] = ds[name].astype(np.float32)
    return ds


def words(ds):
    return ds.assign(tas=(ds.tas.dims, np.full(ds.tas.shape, "warm")))


def gaps(ds):
    ds["lat_bnds"][1] += 0.2
    return ds


def levels(ds):
    ds = ds.assign(tas=ds.tas.expand_dims(plev=[85000.0, 50000.0]) + xr.DataArray([0.0, -30.0], dims="plev"))
    ds["tas"].attrs = plain().tas.attrs
    return ds.assign_coords(plev=("plev", ds.plev.values, {"units": "Pa"}))


def members(ds, names=None):
    """Three members, the second of them the truth."""
    dim = "member" if names is None else "member_id"
    ds = ds.assign(tas=ds.tas.expand_dims({dim: 3}) + xr.DataArray([-1.0, 0.0, 1.0], dims=dim))
    ds["tas"].attrs = plain().tas.attrs
    return ds if names is None else ds.assign_coords(member_id=names)


def many(*changes, names="ba"):
    """A file for each change of the plain dataset, called after it in disorder, and wildcards for all."""

    def make(folder):
        for name, change in zip(names, changes, strict=True):
            change(plain()).to_netcdf(folder / f"tas_{name}.nc")
        return str(folder / "tas_*.nc")

    return make


def part(*index, change=lambda ds: ds):
    return lambda ds: change(ds.isel(time=list(index)))


def in_celsius(ds):
    return ds.assign(tas=(ds.tas - 273.15).assign_attrs(ds.tas.attrs | {"units": "degC"}))


def no_leap(ds):
    return ds.assign_coords(time=ds.time.convert_calendar("noleap", use_cftime=True).time)


def other_variable(ds):
    ds = ds.rename(tas="pr").assign_coords(height=2.0)
    ds["pr"].attrs = {"units": "kg m-2 s-1", "standard_name": "precipitation_flux"}
    return ds


MISSING = {"values": HOLE}
THIRD = Coords(TIMES, (TAS,), Grid(58.075 - 0.25 * np.arange(12), -9.925 + 0.25 * np.arange(16)))


def tenths(ds):
    """Cells whose centres have no exact single precision."""
    ds = ds.assign_coords(lat=ds.lat + 0.075, lon=ds.lon + 0.075)
    return single(ds.assign(lat_bnds=ds.lat_bnds + 0.075, lon_bnds=ds.lon_bnds + 0.075))


CASES = {
    "as it should be": Case(of(lambda ds: ds)),
    "latitudes from north to south": Case(of(lambda ds: ds.isel(lat=slice(None, None, -1))), "turned to the prior's order"),
    "longitudes of 0 to 360": Case(of(lambda ds: ds.assign_coords(lon=ds.lon + 360).drop_vars("lon_bnds")), "turned to the prior's convention"),
    "a region across 0, longitudes of 0 to 360 sorted": Case(
        lambda f: netcdf(turned(no_lon_bounds(-2.0), True), f), "columns put side by side again", like=like(-2.0)),
    "a region across 180, longitudes of -180 to 180 sorted": Case(
        lambda f: netcdf(turned(no_lon_bounds(178.0), False), f), "columns put side by side again", like=like(178.0)),
    "a world map with one column twice": Case(
        lambda f: netcdf(plain().drop_vars(["lon_bnds"]).interp(lon=np.arange(0.0, 360.5, 0.5)), f), says="expected each cell once", like=like(-1.0)),
    "no bounds": Case(of(gone(["lat_bnds", "lon_bnds"])), "edges half-way between centres"),
    "bounds with gaps": Case(of(gaps), says="expected neighbouring cells to touch"),
    "single precision coordinates": Case(of(tenths), "read as the decimals that were meant", like=THIRD),
    "dimensions (time, lon, lat)": Case(of(lambda ds: ds.transpose("time", "lon", "lat", "bnds")), "transposed"),
    "dimensions (lat, lon, time)": Case(of(lambda ds: ds.transpose("lat", "lon", "time", "bnds")), "transposed"),
    "coordinates called nav_lat and nav_lon": Case(lambda f: netcdf(bare().rename(lat="nav_lat", lon="nav_lon"), f), "known by their names"),
    "coordinates called y and x, in degrees": Case(lambda f: netcdf(bare().rename(lat="y", lon="x"), f), "known by their names and ranges"),
    "coordinates y and x in metres": Case(of(metres), says="expected latitude and longitude coordinates"),
    "2-d latitudes and longitudes of a regular grid": Case(of(every_place), "one latitude a row, one longitude a column"),
    "a curvilinear grid": Case(of(lambda ds: every_place(ds, 0.1)), says="expected a grid regular in lat and lon"),
    "a rotated pole with its grid mapping": Case(rotated(True, True), "read with its pole", like=ON_POLE, expect=ROTATED),
    "a rotated pole, no grid mapping": Case(rotated(False, True), "the pole is found from latitudes and longitudes", like=ON_POLE, expect=ROTATED),
    "a rotated pole, no mapping, no latitudes": Case(rotated(False, False), says="expected a grid mapping with the north pole", like=ON_POLE),
    "a grid outside the prior's domain": Case(of(lambda ds: ds), says="coarse grid outside the prior's domain", like=like(40.0)),
    "packed in 16 bits": Case(coded(dtype="int16", scale_factor=0.01, add_offset=280.0, _FillValue=-32768), "unpacked", expect=MISSING | {"atol": 6e-3}),
    "packed in unsigned 8 bits": Case(coded(dtype="uint8", scale_factor=0.25, add_offset=250.0, _FillValue=255), "unpacked", expect=MISSING | {"atol": 0.13}),
    "missing values are NaN, no _FillValue": Case(coded(_FillValue=None), "missing", expect=MISSING),
    "_FillValue 1e20": Case(coded(_FillValue=np.float32(1e20)), "missing", expect=MISSING),
    "1e20 for missing values, no _FillValue": Case(of(lambda ds: holes(ds, 1e20), encoding={"tas": {"_FillValue": None}}), "missing, as all beyond 9e19", expect=MISSING),
    "-9999 for missing values, no _FillValue": Case(
        of(lambda ds: holes(ds, -9999.0), encoding={"tas": {"_FillValue": None}}), says="expected a _FillValue or missing_value"),
    "missing_value instead of _FillValue": Case(coded(_FillValue=None, missing_value=np.float32(-999.0)), "missing", expect=MISSING),
    "infinite values": Case(of(lambda ds: holes(ds, np.inf)), "missing", expect=MISSING),
    "all values missing": Case(of(lambda ds: holes(ds, np.nan, slice(None))), says="got only missing ones"),
    "unlimited times, unsorted": Case(of(lambda ds: ds.isel(time=[2, 0, 3, 1]), unlimited_dims=["time"]), "sorted"),
    "times twice": Case(of(lambda ds: ds.isel(time=[0, 1, 1, 2])), says="expected each time once"),
    "uneven times": Case(of(lambda ds: ds.isel(time=[0, 1, 3])), "read as they are", expect={"values": TRUTH[[0, 1, 3]], "times": TIMES[[0, 1, 3]]}),
    "one time step": Case(of(lambda ds: ds.isel(time=[2])), "read", expect={"values": TRUTH[2:3], "times": TIMES[2:3]}),
    "one time step, time a scalar": Case(of(lambda ds: ds.isel(time=2)), "read", expect={"values": TRUTH[2:3], "times": TIMES[2:3]}),
    "no time at all": Case(of(lambda ds: ds.isel(time=0, drop=True)), says="expected one time axis"),
    "the 360_day calendar, 6-hourly": Case(dated("360_day"), "dates keep their names; those that a year lacks are dropped"),
    "the 360_day calendar, daily": Case(
        dated("360_day", "2019-07-01", freq="D"), "spread over the 365 or 366 days",
        expect={"times": np.array(["2019-07-03", "2019-07-04", "2019-07-05", "2019-07-06"], "datetime64[ns]")}),
    "30 February, 6-hourly": Case(
        dated("360_day", "2019-02-30T12"), "dropped", expect={"values": TRUTH[2:], "times": TIMES[:2]}),
    "the noleap calendar": Case(dated("noleap"), "dates keep their names"),
    "times in days with fractions": Case(
        raw_time(43523 + np.arange(4) / 4, units="days since 1899-12-31", calendar="standard"), "to the nearest millisecond",
        expect={"times": np.datetime64("1899-12-31", "ns") + np.timedelta64(43523 * 24, "h") + np.arange(4) * np.timedelta64(6, "h")}),
    "times without units": Case(raw_time(np.arange(4)), says="got undated int64 values"),
    "times as numbers such as 20190301": Case(raw_time(20190301 + np.arange(4), units="day as %Y%m%d.%f"), says="got undated int64 values"),
    "a time that is missing": Case(raw_time([0.0, 6.0, np.nan, 18.0], units="hours since 2019-03-01"), says="got none, missing or other ones"),
    "years before 1678": Case(raw_time([0, 6, 12, 18], units="hours since 0850-01-01", calendar="proleptic_gregorian"), says="expected dates from 1678"),
    "time means with bounds": Case(
        of(means), "read as means: `seen_in_time` makes time means of them",
        expect={"times": TIMES + np.timedelta64(3, "h"), "methods": ("mean",), "bounds": np.stack([TIMES, TIMES + np.timedelta64(6, "h")], 1)}),
    "time means without bounds": Case(of(said_means), "read; `seen_in_time` asks what the times mark (--stamp)", expect={"methods": ("mean",)}),
    "a scalar height": Case(of(lambda ds: ds.assign_coords(height=2.0)), "left out"),
    "one level as a dimension": Case(of(lambda ds: ds.assign(tas=ds.tas.expand_dims(height=[2.0]))), "left out"),
    "several levels": Case(of(levels), says="got also 'plev' with 85000, 50000 [Pa]; choose one, as in at={'plev': 85000.0} or --at plev=85000"),
    "several levels, one of them chosen": Case(of(levels), "that one is read (--at)", options={"at": {"plev": 85000}}),
    "several levels, another one chosen": Case(of(levels), says="expected one 'plev' of 70000", options={"at": {"plev": 70000}}),
    "no levels, but one is chosen": Case(of(lambda ds: ds), says="expected a dimension 'plev'", options={"at": {"plev": 85000}}),
    "an ensemble": Case(of(members), says="got also 'member' with 0, 1, 2; choose one"),
    "an ensemble, one member chosen": Case(of(members), "that one is read (--at)", options={"at": {"member": "1"}}),
    "an ensemble with names, one chosen": Case(
        of(lambda ds: members(ds, ["r1i1p1f1", "r2i1p1f1", "r3i1p1f1"])), "that one is read (--at)", options={"at": {"member_id": "r2i1p1f1"}}),
    "a file a year, given by wildcards": Case(many(part(2, 3), part(0, 1)), "joined in time, none of them loaded whole"),
    "a file a time, time a scalar": Case(many(*(lambda ds, k=k: ds.isel(time=k) for k in range(4)), names="badc"), "joined in time"),
    "a file a year, some with single precision coordinates": Case(many(part(2, 3), part(0, 1, change=single)), "joined in time"),
    "a file a variable, with the same times": Case(many(lambda ds: ds, other_variable), "joined"),
    "files that overlap in time": Case(many(part(1, 2, 3), part(0, 1)), says="expected files that follow each other in time"),
    "files of two grids": Case(many(part(2, 3), part(0, 1, change=lambda ds: ds.isel(lon=[0, 1, 2]))), says="expected one grid in"),
    "files of two grids of one size": Case(many(part(2, 3), part(0, 1, change=lambda ds: ds.assign_coords(lat=ds.lat + 0.5))), says="expected one grid in"),
    "files of two calendars": Case(many(part(2, 3), part(0, 1, change=no_leap)), says="expected one calendar in"),
    "files of two units": Case(many(part(2, 3), part(0, 1, change=in_celsius)), says="expected one unit of 'tas' in"),
    "files of two variables at other times": Case(
        many(part(2, 3), part(0, 1, change=other_variable)), says="expected the same times of all variables in"),
    "wildcards that match no file": Case(lambda f: f / "tas_*.nc", says="no file at"),
    "degrees Celsius": Case(units("degC", -273.15), "converted", expect={"atol": 1e-4}),
    "degrees Fahrenheit": Case(units("degF", -459.67, 1.8), "converted", expect={"atol": 1e-3}),
    "mm/d for a temperature": Case(units("mm/d"), says="expected units convertible to K"),
    "kg m-2 s-1 for mm d-1 of precipitation": Case(
        of(rain), "converted, 1 kg m-2 of water for 1 mm", like=like(variable=Variable("pr", "mm d-1")), expect={"atol": 1e-3}),
    "no units": Case(units(""), says="expected units convertible to K"),
    "no units, but the user says": Case(units(""), "believed (--units)", options={"units": {"tas": "K"}}),
    "no attributes at all, but the user says": Case(
        lambda f: netcdf(bare().assign(tas=(("time", "lat", "lon"), TRUTH[:, ::-1])).rename(tas="T"), f), "names and units believed (--name, --units)",
        options={"variables": {"t2m": "T"}, "units": {"t2m": "K"}}),
    "another name, no standard_name": Case(
        of(lambda ds: ds.assign(tas=ds.tas.assign_attrs(standard_name="")).rename(tas="T")), says="pass the file's name for it"),
    "two variables of one standard_name": Case(of(lambda ds: ds.assign(tasmax=ds.tas)), says="got 'tas', 'tasmax'"),
    "words for values": Case(of(words), says="expected numbers", options={"variables": {"t2m": "tas"}}),
    "NetCDF 3": Case(of(lambda ds: ds, format="NETCDF3_CLASSIC"), "read"),
    "Zarr 2": Case(zarr(2)),
    "Zarr 3": Case(zarr(3)),
    "Zarr at an address": Case(in_memory, "read through fsspec"),
    "NetCDF at an address": Case(at_address, "fetched through fsspec, then read"),
    "an address of no known protocol": Case(lambda f: "nowhere://bucket/esm.nc", says="expected to open nowhere://bucket/esm.nc"),
    "no such file": Case(lambda f: f / "esm.nc", says="no file at"),
    "an empty file": Case(written("esm.nc", b""), says="expected a readable NetCDF, Zarr or GRIB file"),
    "a file that is no data": Case(written("esm.nc", b"<html>404</html>"), says="expected a readable NetCDF, Zarr or GRIB file"),
    "half a NetCDF 4 file": Case(cut("NETCDF4"), says="expected a readable NetCDF, Zarr or GRIB file"),
    "half a NetCDF 3 file": Case(cut("NETCDF3_CLASSIC"), says="expected"),
    "half a GRIB file": Case(written("esm.grib", b"GRIB\x00\x00\x10\x01"), says="expected"),
    "a folder that is no Zarr store": Case(lambda f: f, says="expected a readable NetCDF, Zarr or GRIB file"),
}  # fmt: skip
