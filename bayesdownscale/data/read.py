"""Read weather from NetCDF, Zarr and GRIB: fields on time, latitude and longitude."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .axes import AXES, find_axis, read_pole, regular_grid, rotated_axes, sorted_times, standard_name
from .errors import DataError, quoted
from .fields import Fields
from .grid import Coords, Grid, Variable


@dataclass(frozen=True)
class Layers:
    """Variables of one open file, not yet loaded: `arrays` (time, lat, lon), on one grid and sorted times."""

    arrays: list[xr.DataArray]
    grid: Grid
    times: np.ndarray


def open_fields(
    path: str | os.PathLike[str], variables: Sequence[str] | None = None, *, times: slice | None = None
) -> Fields:
    """Read fields on a regular latitude-longitude grid from a NetCDF, Zarr or GRIB file.

    **Arguments:** `path` a file, or the folder of a Zarr store; `variables` the names to read, in order (all
    those on time, latitude and longitude when not given); `times` the dates to keep, both ends included, for
    example `slice("2019-03-01", "2019-03-24")`.

    **Returns:** values (time, variable, lat, lon) in the file's units, in time order, NaN where missing or
    infinite; `Variable.units` is "" where the file gives none.

    **Raises:** `DataError` for a missing or unreadable file, a missing variable, a calendar other than the
    standard one, repeated times, a grid that is not regular, or a dimension of more than one level.
    """
    path = Path(path)
    variables = [variables] if isinstance(variables, str) else variables
    with open_dataset(path, variables or ()) as ds:
        layers = read_layers(ds, _names(ds, variables, path), path, times)
        labels = tuple(label(array) for array in layers.arrays)
        values = np.stack([load(array, path) for array in layers.arrays], axis=1)
    return Fields(values, Coords(layers.times, labels, layers.grid), source=str(path))


def open_dataset(path: Path, wanted: Sequence[str] = ()) -> xr.Dataset:
    """The file at `path`, decoded but not loaded; `wanted` are the variables to name if there is none."""
    if not path.exists():
        reading = f" to read {quoted(wanted)} from" if wanted else ""
        raise DataError(f"no file at {path}{reading}; check the path")
    options: dict[str, Any] = {"engine": "netcdf4"}
    if path.is_dir():
        options = {"engine": "zarr", "consolidated": False}
    elif _is_grib(path):
        options = {"engine": "cfgrib", "backend_kwargs": {"indexpath": ""}}
        try:
            import cfgrib  # noqa: F401
        except (ImportError, RuntimeError) as error:  # RuntimeError: cfgrib without the ecCodes library
            raise DataError(
                f"expected cfgrib to read the GRIB file {path}, got no working one; "
                "run: pip install 'bayesdownscale[grib]'"
            ) from error
    decode_times = xr.coders.CFDatetimeCoder(time_unit="us")
    try:
        with warnings.catch_warnings():  # bounds or grid mappings lost when somebody cut the file
            warnings.filterwarnings("ignore", r"Variable\(s\) referenced in \w+ not in variables")
            return xr.open_dataset(
                path, decode_coords="all", decode_times=decode_times, decode_timedelta=False, **options
            )
    except (OSError, ValueError, EOFError, KeyError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"expected a readable NetCDF, Zarr or GRIB file at {path}, got: {reason}; get the file again or convert it"
        ) from error


def _is_grib(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GRIB"


def _names(ds: xr.Dataset, variables: Sequence[str] | None, path: Path) -> list[str]:
    """The variables asked for, or all numeric ones that have time, latitude and longitude."""
    if variables is None:
        numeric = [str(name) for name, array in ds.data_vars.items() if array.dtype.kind in "fiub"]
        names = [name for name in numeric if _on_axes(ds[name])]
        if not names:
            shapes = quoted(f"{name}({', '.join(map(str, a.dims))})" for name, a in ds.data_vars.items())
            raise DataError(
                f"expected variables on time, latitude and longitude in {path}, got {shapes}; choose another "
                "file or set the standard_name of its coordinates"
            )
        return names
    missing = [name for name in variables if name not in ds.data_vars]
    if missing or not variables:
        found = quoted(ds.data_vars)
        raise DataError(f"expected {quoted(missing)} in {path}, got {found}; choose among these")
    return list(variables)


def _on_axes(array: xr.DataArray) -> bool:
    """Whether `array` has time and two axes of space."""
    known = [axis for axis in AXES if find_axis(array, axis) is not None]
    return len(known) == len(AXES) or ("time" in known and rotated_axes(array) is not None)


def read_layers(ds: xr.Dataset, names: list[str], path: Path, period: slice | None = None) -> Layers:
    """Find the axes of each variable and check that they are the same."""
    found = [_layer(ds[name], path) for name in names]
    _, lat, lon, time = found[0]
    for name, (_, *axes) in zip(names, found, strict=True):
        if not all(a.variable.equals(b.variable) for a, b in zip(axes, (lat, lon, time), strict=True)):
            raise DataError(
                f"expected one grid and one set of times in {path}, got others for '{name}' than for "
                f"'{names[0]}'; read them one at a time"
            )
    times, order = sorted_times(time, period, path)
    arrays = [array.isel({array.dims[0]: order}) for array, *_ in found]
    pole = None if rotated_axes(arrays[0]) is None else read_pole(ds[names[0]], lat, lon, path)
    return Layers(arrays, regular_grid(ds, lat, lon, path, pole), times)


def _layer(array: xr.DataArray, path: Path) -> tuple[xr.DataArray, ...]:
    """The variable as (time, lat, lon), and its three coordinates."""
    where = f"'{array.name}' in {path}"
    lat, lon = rotated_axes(array) or (find_axis(array, "lat"), find_axis(array, "lon"))
    if lat is None or lon is None:
        raise DataError(
            f"expected latitude and longitude coordinates for {where}, got {quoted(array.coords)}; add the "
            "coordinates or set their standard_name"
        )
    if lat.ndim != 1 or lon.ndim != 1 or lat.dims == lon.dims:
        raise DataError(
            f"expected a grid regular in lat and lon, or in rlat and rlon of a rotated pole, for {where}, got lat "
            f"{lat.dims} and lon {lon.dims}; regrid it first"
        )
    horizontal = (lat.dims[0], lon.dims[0])
    array = array.squeeze([d for d in array.dims if array.sizes[d] == 1 and d not in horizontal])
    time = find_axis(array, "time")
    if time is None or time.ndim > 1:
        raise DataError(
            f"expected one time axis for {where}, got the coordinates {quoted(array.coords)}; add it or set "
            "its standard_name"
        )
    if time.ndim == 0:
        dim = str(time.name)
        array = array.drop_vars(dim).expand_dims({dim: 1})
        time = time.expand_dims({dim: 1})
    extra = [f"{d} ({array.sizes[d]})" for d in array.dims if d not in (time.dims[0], *horizontal)]
    if extra:
        raise DataError(
            f"expected the dimensions time, lat and lon for {where}, got also {quoted(extra)}; "
            "select one level in the file, or name other variables"
        )
    return array.transpose(time.dims[0], *horizontal), lat, lon, time


def load(array: xr.DataArray, path: Path) -> np.ndarray:
    """Values in float32, NaN where missing, infinite or beyond float32."""
    try:
        values = np.asarray(array.values)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"expected to read '{array.name}' in {path}, got: {error}; get the file again") from error
    if values.dtype.kind == "f":
        values = np.where(np.abs(values) <= np.finfo(np.float32).max, values, np.nan)
    return values.astype(np.float32)


def label(array: xr.DataArray) -> Variable:
    """The name, units and CF names of `array`."""
    units, long_name = (str(array.attrs.get(key, "")) for key in ("units", "long_name"))
    return Variable(str(array.name), units, standard_name(array), long_name)
