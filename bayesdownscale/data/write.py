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
from .grid import Coords


def to_cf(
    fields: Mapping[str, np.ndarray] | np.ndarray, coords: Coords, attrs: Mapping[str, Any] | None = None
) -> xr.Dataset:
    """Draws of fields as a CF-1.11 dataset.

    **Arguments:** `fields` draws (realization, time, variable, lat, lon) in the units of `coords.variables`,
    or a mapping from each variable's name to its draws (realization, time, lat, lon), NaN where missing;
    `attrs` global attributes, such as title, institution and provenance: what is no text or number is
    stored as JSON, None is left out.

    **Returns:** one float32 data variable (realization, time, lat, lon) per variable, its encoding set for
    compressed NetCDF.

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
            variable.cf_attrs() | {"cell_methods": "time: point"},
            {"dtype": "float32", "_FillValue": FILL_VALUE, "zlib": True, "complevel": 4},
        )
    realization = xr.Variable(
        "realization", np.arange(draws, dtype=np.int32), {"standard_name": "realization", "units": "1"}
    )
    given = {key: _attribute(value) for key, value in (attrs or {}).items() if value is not None}
    written = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    standard = {
        "Conventions": "CF-1.11",
        "title": "Posterior draws of fine-scale weather given a coarse climate model",
        "source": f"bayesdownscale {_version()}",
        "history": f"{written} written by bayesdownscale {_version()}",
    }
    return xr.Dataset(data, coords={"realization": realization} | coords.to_xarray(), attrs=standard | given)


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
