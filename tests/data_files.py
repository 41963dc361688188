"""Small files and labels that the tests of the data edge share."""

import numpy as np
import xarray as xr

from bayesdownscale.data.grid import Coords, Grid, Variable

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


def same(a, b):
    assert a.coords == b.coords
    np.testing.assert_array_equal(a.values, b.values)


def saved(ds, folder):
    """Save a dataset to the next of file0.nc, file1.nc, ... in `folder`."""
    path = folder / f"file{len(list(folder.glob('file*.nc')))}.nc"
    ds.to_netcdf(path)
    return path
