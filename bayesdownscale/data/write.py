"""Write posterior draws as CF files: NetCDF or Zarr, whole or not at all."""

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .errors import DataError
from .fields import FILL_VALUE
from .grid import Coords, Grid
from .rotated import RotatedPole

CONVENTIONS = "CF-1.11"
ON_SCALE = ("K", "degC", "degree_Celsius", "degF")  # temperatures; in other contexts a difference may be meant
CHUNK_BYTES = 4 * 2**20


def to_cf(
    fields: Mapping[str, np.ndarray] | np.ndarray,
    coords: Coords,
    attrs: Mapping[str, Any] | None = None,
    method: str = "point",
) -> xr.Dataset:
    """Draws of fields as a CF-1.11 dataset.

    **Arguments:** `fields` draws (realization, time, variable, lat, lon) in the units of `coords.variables`,
    or a mapping from each variable's name to its draws (realization, time, lat, lon), NaN where missing;
    `attrs` global attributes, such as title, institution and provenance: what is no text or number is
    stored as JSON, None is left out; `method`, how values stand for their time (CF cell_methods), "" to say nothing.

    **Returns:** one float32 data variable (realization, time, lat, lon) per variable, its encoding set for
    compressed NetCDF in chunks of one realization; on a rotated pole the last two are rlat and rlon, beside a grid
    mapping `crs` and the latitude and longitude of every cell.

    **Raises:** `DataError` when the shapes or names are not those of `coords`.
    """
    if not isinstance(fields, Mapping):
        fields = np.asarray(fields)
        if fields.ndim != 5 or fields.shape[1:] != coords.shape:
            raise DataError(f"expected draws of shape (realization, *{coords.shape}), got {fields.shape}")
        fields = {variable.name: fields[:, :, k] for k, variable in enumerate(coords.variables)}
    if set(fields) != {variable.name for variable in coords.variables}:
        raise DataError(f"expected draws of {[v.name for v in coords.variables]}, got {list(fields)}")
    draws = len(next(iter(fields.values())))
    shape = (draws, coords.shape[0], *coords.grid.shape)
    data = {}
    for variable in coords.variables:
        values = np.asarray(fields[variable.name], dtype=np.float32)
        if values.shape != shape:
            raise DataError(f"expected draws of shape {shape} for '{variable.name}', got {values.shape}")
        data[variable.name] = xr.Variable(
            ("realization", "time", "lat", "lon"),
            values,
            variable.cf_attrs() | ({"cell_methods": f"time: {method}"} if method else {}),
        )
    realization = xr.Variable(
        "realization", np.arange(draws, dtype=np.int32), {"standard_name": "realization", "units": "1"}
    )
    place = {"realization": realization} | coords.to_xarray()
    title = "Posterior draws of fine-scale weather given a coarse climate model"
    return as_cf(xr.Dataset(data, place), coords.grid, {"title": title} | dict(attrs or {}))


def as_cf(ds: xr.Dataset, grid: Grid, attrs: Mapping[str, Any] | None = None) -> xr.Dataset:
    """A dataset on (..., time, lat, lon), such as `Fields.to_dataset`, as CF-1.11 wants it in a file: global attributes
    (`attrs`: what is no text or number is stored as JSON, None is left out), compression, chunks and fill values, and
    the names and the grid mapping of a rotated pole."""
    given = {key: _attribute(value) for key, value in (ds.attrs | dict(attrs or {})).items() if value is not None}
    written = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    said = f"\n{given['history']}" if given.get("history") else ""  # the newest first
    standard = {"title": "Weather fields", "source": f"bayesdownscale {_version()}"}
    history = {"history": f"{written} written by bayesdownscale {_version()}{said}"}
    ds = ds.copy().assign_attrs(standard | given | history | {"Conventions": CONVENTIONS})
    if grid.pole is not None:
        ds = _rotated(ds, grid, grid.pole)
    if "time" in ds.variables and ds["time"].encoding.get("calendar"):
        ds["time"].attrs["units_metadata"] = "leap_seconds: none"
    for name in ds.data_vars:
        array = ds[name]
        if not {"time"} < set(array.dims):
            continue
        if not {"standard_name", "long_name"} & set(array.attrs):
            array.attrs["long_name"] = str(name)
        if str(array.attrs.get("units", "")) in ON_SCALE:
            array.attrs["units_metadata"] = "temperature: on_scale"
        size = [array.sizes[dim] for dim in array.dims]
        leading = 4 * int(np.prod(size[-2:]))
        time = max(1, min(size[-3], CHUNK_BYTES // leading))
        chunks = (*[1] * (len(size) - 3), time, *size[-2:])
        array.encoding = {"dtype": "float32", "_FillValue": FILL_VALUE, "zlib": True, "complevel": 4}
        array.encoding |= {"shuffle": True, "chunksizes": chunks, "chunks": chunks}
    return ds


def _rotated(ds: xr.Dataset, grid: Grid, pole: RotatedPole) -> xr.Dataset:
    """Rows and columns called rlat and rlon, a grid mapping and the latitude and longitude of every cell (CF-1.11,
    section 5.6)."""
    for name in ("lat", "lon"):
        ds[name].attrs = {key: value for key, value in ds[name].attrs.items() if key not in pole.cf_attrs()}
        ds[name].encoding["bounds"] = f"r{name}_bnds"
    own = [str(name) for name in ds.data_vars if {"lat", "lon"} <= set(ds[name].dims)]
    ds = ds.rename({name: f"r{name}" for name in ("lat", "lon", "lat_bnds", "lon_bnds") if name in ds.variables})
    hygiene = {"dtype": "float64", "_FillValue": None, "coordinates": None}
    for name, long_name, units, values in zip(
        ("lat", "lon"), ("latitude", "longitude"), ("degrees_north", "degrees_east"), grid.places(), strict=True
    ):
        attrs = {"standard_name": long_name, "long_name": long_name, "units": units}
        ds = ds.assign_coords({name: xr.Variable(("rlat", "rlon"), values, attrs, dict(hygiene))})
    ds["crs"] = xr.Variable((), np.int32(0), pole.cf_attrs())
    for name in own:
        ds[name].attrs |= {"grid_mapping": "crs", "coordinates": "lat lon"}  # xarray takes lat for a part of rlat_bnds
    return ds


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """The path to write, or `DataError` for a suffix other than .nc and .zarr, a missing folder, or an
    output that exists when `overwrite` is False. Call it before a long computation."""
    path = Path(path)
    if path.suffix not in (".nc", ".zarr"):
        raise DataError(f"expected an output ending in .nc (NetCDF) or .zarr (Zarr), got {path}; rename it")
    if not path.parent.is_dir():
        raise DataError(f"expected the folder {path.parent} to exist for the output {path}; make it first")
    if os.path.lexists(path) and not overwrite:
        raise DataError(f"{path} exists; choose another --out or pass --overwrite")
    return path


def write_atomic(data: xr.Dataset | xr.DataTree, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write a dataset or a tree to NetCDF (.nc) or Zarr (.zarr), whole or not at all.

    The output is written beside `path` under a name starting with "." and renamed when complete; only then
    an older output goes. A failure removes what was written and leaves the older output as it was.

    **Returns:** the path written.

    **Raises:** `DataError` as `check_output`, and when the file system refuses.
    """
    path = check_output(path, overwrite)
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex}{path.suffix}")
    try:
        if path.suffix == ".nc":
            data.to_netcdf(temporary, engine="netcdf4")
        else:
            data.to_zarr(temporary, zarr_format=3, consolidated=False)
        _replace(temporary, path, overwrite)
    except OSError as error:
        raise DataError(f"expected to write {path}, got: {error}; free space or choose another --out") from error
    finally:
        _remove(temporary)
    return path


def _replace(new: Path, path: Path, overwrite: bool) -> None:
    """Rename `new` to `path`; a folder cannot replace a folder, so an older output steps aside first."""
    check_output(path, overwrite)  # again: writing takes long enough for another run to have finished
    if not new.is_dir() and not (path.is_dir() and not path.is_symlink()):
        os.replace(new, path)
        return
    if not os.path.lexists(path):
        os.rename(new, path)
        return
    old = path.with_name(f"{new.stem}-old{path.suffix}")
    os.rename(path, old)
    try:
        os.rename(new, path)
    except BaseException:
        os.rename(old, path)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _attribute(value: Any) -> Any:
    """A value that NetCDF and Zarr attributes can hold."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    return json.dumps(value, default=str)


def _version() -> str:
    try:
        return version("bayesdownscale")
    except PackageNotFoundError:  # a checkout that is not installed
        return "(not installed)"
