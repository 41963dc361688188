"""Recipes of public data sets, on stand-ins of their structure: names, dimensions, order, attributes."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from numpy.testing import assert_allclose, assert_array_equal

from bayesdownscale.cli import main
from bayesdownscale.data import catalogue
from bayesdownscale.data.catalogue import RECIPES, described, list_data, open_data
from bayesdownscale.data.errors import DataError
from bayesdownscale.data.read import open_fields
from bayesdownscale.data.rotated import RotatedPole

HOURS = np.datetime64("2019-03-01T00", "ns") + np.arange(3) * np.timedelta64(1, "h")
ERA5 = {"2m_temperature": "K", "mean_sea_level_pressure": "Pa", "10m_u_component_of_wind": "m s**-1",
        "10m_v_component_of_wind": "m s**-1"}  # fmt: skip


def arco(folder):
    """The globe from 90 N, longitudes from 0, levels beside the surface; Zarr of format 2."""
    lat, lon = np.arange(90.0, -90.1, -30), np.arange(0.0, 360, 30)
    rng, place = np.random.default_rng(0), {"time": HOURS, "latitude": lat, "longitude": lon, "level": [500, 850]}
    ds = xr.Dataset({n: (("time", "latitude", "longitude"), rng.normal(280, 5, (3, 7, 12)).astype("f4"),
                         {"units": u, "long_name": n}) for n, u in ERA5.items()}, place)  # fmt: skip
    ds["temperature"] = (("time", "level", "latitude", "longitude"), np.zeros((3, 2, 7, 12), "f4"), {"units": "K"})
    ds["latitude"].attrs, ds["longitude"].attrs = {"units": "degrees_north"}, {"units": "degrees_east"}
    ds.to_zarr(folder / "era5.zarr", zarr_format=2, consolidated=True)
    return folder / "era5.zarr", ds


def weatherbench(folder):
    """Averages over cells, dimensions (time, longitude, latitude), from south to north."""
    _, ds = arco(folder)
    ds = ds.isel(latitude=slice(5, 0, -1)).transpose("time", "longitude", "latitude", "level")
    ds.to_zarr(folder / "coarse.zarr", zarr_format=2, consolidated=True)
    return folder / "coarse.zarr", ds


@pytest.mark.parametrize(("name", "make"), [("arco-era5", arco), ("weatherbench2-era5", weatherbench)])
def test_era5_around_greenwich(name, make, tmp_path):
    path, ds = make(tmp_path)
    fields = open_data(name, ["tas", "uas"], region=(-35, 65, -40, 40), address=str(path))
    assert [(v.name, v.standard_name) for v in fields.variables] == [
        ("tas", "air_temperature"),
        ("uas", "eastward_wind"),
    ]
    want = ds.sel(longitude=[330, 0, 30], latitude=[lat for lat in ds.latitude.values if -35 <= lat <= 65])
    for k, theirs in enumerate(("2m_temperature", "10m_u_component_of_wind")):
        assert_array_equal(fields.values[:, k], want[theirs].transpose("time", "latitude", "longitude"))
    assert_allclose(fields.grid.lon, [-30, 0, 30])
    assert_allclose(fields.grid.lon_bounds, [-45, -15, 15, 45])
    some = open_data(name, times=slice("2019-03-01T01", "2019-03-01T02"), region=(0, 65, 100, 200), address=str(path))
    assert some.values.shape[:2] == (2, 4)
    assert_array_equal(some.times, HOURS[1:])


def test_cmip6_days_are_means_of_the_models_own_calendar(tmp_path):
    stamps = xr.date_range("2000-02-27T12", periods=4, freq="D", calendar="noleap", use_cftime=True)
    half = np.array([-12, 12]).astype("timedelta64[h]").astype(object)
    lat, lon = np.arange(-60.0, 61, 30), np.arange(0.0, 360, 60)
    attrs = {"units": "kg m-2 s-1", "standard_name": "precipitation_flux", "cell_methods": "area: time: mean"}
    ds = xr.Dataset({"pr": (("time", "lat", "lon"), np.ones((4, 5, 6), "f4"), attrs)},
                    {"time": stamps, "lat": lat, "lon": lon, "height": 2.0})  # fmt: skip
    ds["time_bnds"] = (("time", "bnds"), stamps.values[:, None] + half)
    ds["lat_bnds"] = (("lat", "bnds"), np.stack([lat - 15, lat + 15], 1))
    ds["time"].attrs, ds["lat"].attrs = {"bounds": "time_bnds"}, {"bounds": "lat_bnds", "units": "degrees_north"}
    ds["time"].encoding["units"] = "days since 1850-01-01"
    ds.to_zarr(tmp_path / "pr", zarr_format=2, consolidated=True)
    fields = open_data("cmip6-day", address=str(tmp_path / "pr"), variable="pr")
    assert fields.methods == ("mean",)
    days = np.array(["2000-02-27", "2000-02-28", "2000-03-01", "2000-03-02"], "datetime64[ns]")
    assert_array_equal(fields.bounds, np.stack([days, days + np.timedelta64(1, "D")], 1))
    with pytest.raises(DataError, match="expected variables of 'cmip6-day' among 'pr', got 'tas'"):
        open_data("cmip6-day", ["tas"], variable="pr")


def test_cosmo_rea6_is_read_with_its_rotated_pole(tmp_path):
    """A GRIB file of ecCodes' own rotated sample, with COSMO's south pole."""
    eccodes = pytest.importorskip("eccodes", reason="needs the extra grib")
    values = np.random.default_rng(0).normal(280, 5, (3, 4, 5))
    path = tmp_path / "T_2M.grb"
    keys = {"Ni": 5, "Nj": 4, "latitudeOfFirstGridPointInDegrees": -10.0, "longitudeOfFirstGridPointInDegrees": -12.0,
            "latitudeOfLastGridPointInDegrees": -8.5, "longitudeOfLastGridPointInDegrees": -10.0,
            "iDirectionIncrementInDegrees": 0.5, "jDirectionIncrementInDegrees": 0.5, "jScansPositively": 1,
            "latitudeOfSouthernPoleInDegrees": -39.25, "longitudeOfSouthernPoleInDegrees": 18.0,
            "dataDate": 19950101, "paramId": 167, "typeOfLevel": "heightAboveGround", "level": 2}  # fmt: skip
    with path.open("wb") as file:
        for hour in range(3):
            message = eccodes.codes_grib_new_from_samples("rotated_ll_sfc_grib1")
            for key, value in (keys | {"dataTime": 100 * hour}).items():
                eccodes.codes_set(message, key, value)
            eccodes.codes_set_values(message, values[hour].ravel())
            eccodes.codes_write(message, file)
            eccodes.codes_release(message)
    fields = open_data("cosmo-rea6", address=str(path))
    assert fields.grid.pole == RotatedPole(39.25, -162.0)
    assert_allclose(fields.grid.lat, -10 + 0.5 * np.arange(4))
    assert_allclose(fields.grid.lon, -12 + 0.5 * np.arange(5))
    assert_allclose(fields.values[:, 0], values, atol=1e-2)
    assert_array_equal(fields.times, np.datetime64("1995-01-01", "ns") + np.arange(3) * np.timedelta64(1, "h"))
    with xr.open_dataset(path, engine="cfgrib", backend_kwargs={"indexpath": ""}) as ds:  # ecCodes' own places
        assert_allclose(fields.grid.places()[0], ds["latitude"], atol=2e-3)
        assert_allclose((fields.grid.places()[1] - ds["longitude"].values + 180) % 360, 180, atol=2e-3)


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(catalogue.pooch, "retrieve", refuse)


def test_offline_and_wrong_names_are_one_sentence(offline):
    with pytest.raises(
        DataError, match=r"expected to download https://opendata\.dwd\.de/.*199502\.grb\.bz2, got OSErr"
    ):
        open_data("cosmo-rea6", month="199502")
    with pytest.raises(DataError, match="expected parts of the address of 'cosmo-rea6' among 'month', got 'year'"):
        open_data("cosmo-rea6", year="1995")
    with pytest.raises(DataError, match=r"expected a data set among 'era5-uk', 'arco-era5'.*got 'era5'"):
        open_data("era5")


@pytest.mark.skipif(__import__("importlib.util").util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_a_missing_driver_is_named():
    with pytest.raises(DataError, match=r"expected the package gcsfs to open gs://.*run: pip install gcsfs"):
        open_data("arco-era5")


def run(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_on_the_command_line(tmp_path, offline):
    code, output = run("data", "list")
    assert code == 0
    assert all(name in output for name in list_data())
    path, ds = arco(tmp_path)
    out = tmp_path / "uk.nc"
    words = ["--variable", "tas", "--region", "0,65,-40,40", "--times", "2019-03-01T00/2019-03-01T01"]
    code, output = run("data", "get", "arco-era5", "--out", out, "--address", path, *words)
    assert code == 0, output
    fields = open_fields(out)
    assert_array_equal(fields.values[:, 0], ds["2m_temperature"].sel(longitude=[330, 0, 30], latitude=[60, 30, 0])[:2])
    code, output = run("data", "get", "cosmo-rea6", "--out", tmp_path / "rea6.nc")
    assert code == 1
    assert output.startswith("Error: expected to download https://opendata.dwd.de/")
    code, output = run("data", "get", "arco-era5")
    assert code == 1
    assert "--out" in output


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_says_what_a_user_must_know(name):
    recipe = RECIPES[name]
    assert set(recipe.names) == {v.name for v in recipe.variables}
    assert recipe.licence
    assert "{" not in recipe.address.format(**recipe.fields)
    assert all(v.units and v.standard_name for v in recipe.variables)
    code, output = run("data", "show", name)
    assert code == 0
    assert recipe.address in output


PAGE = Path(__file__).parents[1] / "docs" / "data.md"
HEAD = """# Data sets

What `bayesdownscale data list` lists and `bayesdownscale data get` and `bd.open_data` open. The recipes are tested on
stand-ins of the same structure, without a network. Addresses and names are those of the publishers and of public code
that uses them; only era5-uk has been opened from here, so look before you build on another.
`python tests/test_catalogue.py` writes this page.
"""


def page() -> str:
    return HEAD + "".join(
        f"\n## {name}\n\n{described(name).replace(chr(10) + '  ', chr(10) + '- ')}\n" for name in list_data()
    )


def test_the_page_says_what_the_recipes_say():
    assert PAGE.read_text() == page(), "run: python tests/test_catalogue.py"


if __name__ == "__main__":
    PAGE.write_text(page())
