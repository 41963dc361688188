"""Reading back what this package wrote, and the truth to hold against it."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesdownscale.data.coarse import check_overlap, open_coarse
from bayesdownscale.data.errors import DataError
from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords, Grid, Variable
from bayesdownscale.data.rotated import RotatedPole


def open_posterior(path: str | Path) -> xr.DataTree:
    """The DataTree of a posterior written by this package (.zarr or .nc), lazily: fields are read when they are used,
    in parts. Raises `DataError` for anything else."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: expected a posterior, found no file there; check the path")
    engine = "zarr" if path.is_dir() else "netcdf4"
    options: dict[str, Any] = {"consolidated": False} if engine == "zarr" else {}
    try:
        tree = xr.open_datatree(path, engine=engine, chunks={}, **options)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path}: expected a posterior written by bayesdownscale, could not read it ({error}); give such a file"
        ) from None
    if "posterior" not in tree.children:
        raise DataError(f"{path}: expected a group 'posterior', got {sorted(tree.children)}; give a posterior file")
    return tree


def coords_of(tree: xr.DataTree) -> Coords:
    """The labels of the fields in a posterior; raises `DataError` where it holds none."""
    posterior = tree["posterior"].to_dataset() if "posterior" in tree.children else xr.Dataset()
    fields = [v for v in posterior.data_vars.values() if {"time", "lat", "lon"} <= set(v.dims)]
    if not fields:
        raise DataError(f"expected fields (time, lat, lon) in a group 'posterior', got {sorted(tree.children)}")
    text = lambda v, name: str(v.attrs.get(name, ""))
    variables = [
        Variable(str(v.name), text(v, "units"), text(v, "standard_name"), text(v, "long_name")) for v in fields
    ]
    pole = RotatedPole.from_attrs(posterior["lat"].attrs)
    grid = Grid(posterior["lat"].values, posterior["lon"].values, pole=pole)
    return Coords(posterior["time"].values, tuple(variables), grid)


def open_truth(path: str | Path, tree: xr.DataTree) -> Fields:
    """Fine fields to score a posterior against, in its units, on its grid and at its times; raises `DataError`
    when they are on another grid or lack some of its times."""
    coords = coords_of(tree)
    truth = open_coarse(path, coords)
    if truth.grid.shape != coords.grid.shape or not np.allclose(truth.grid.lat, coords.grid.lat, atol=1e-4):
        raise DataError(
            f"{path}: expected the truth on the posterior's grid {coords.grid.shape}, got {truth.grid.shape}; "
            "regrid or crop it"
        )
    check_overlap(truth.times, coords.times)
    index = np.searchsorted(truth.times, coords.times)
    present = truth.times[np.minimum(index, truth.times.size - 1)] == coords.times
    if not present.all():
        raise DataError(
            f"{path}: expected the truth at every time of the posterior, {coords.times[~present][0]} is missing"
        )
    return truth.isel_times(index)


def open_statics(path: str | Path, grid: Grid) -> np.ndarray:
    """All fields (lat, lon) of a NetCDF file on `grid`, such as orography: (lat, lon, n)."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: expected static fields, found no file there; check the path")
    with xr.open_dataset(path) as ds:
        layers = [v.values for v in ds.data_vars.values() if v.squeeze().shape == grid.shape]
    if not layers:
        raise DataError(f"{path}: expected fields of shape {grid.shape}, the grid of the data, got none; regrid them")
    return np.stack([np.squeeze(layer) for layer in layers], axis=-1)
