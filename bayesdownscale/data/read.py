"""Read weather from NetCDF, Zarr and GRIB: fields on time, latitude and longitude."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .axes import AXES, find_axis, read_pole, regular_grid, rotated_axes, seam, standard_name, straightened
from .concatenated import as_slice
from .errors import DataError, quoted
from .fields import Fields
from .grib import with_rotated_axes
from .grid import Coords, Grid, Variable
from .intervals import bounds_around
from .places import Files, Paths, Place, fetched, is_store, options_of, place_of, unreachable
from .region import in_box
from .several import choose, how_to_choose, joined, listed
from .times import read_times, time_method

LARGEST = 9e19  # beyond it values are missing: 1e20 (CMIP), 9.97e36 (NetCDF), infinity
UNDECLARED = (-9999.0, -99999.0, -32768.0, -32767.0)  # that files use for missing values and do not say so


@dataclass(frozen=True)
class Layers:
    """Variables of one open file, not yet loaded: `arrays` (time, lat, lon), on one grid and sorted times; the
    `bounds` (time, 2) of these, None without, and the `methods` of CF's cell_methods in time by variable."""

    arrays: list[xr.DataArray]
    grid: Grid
    times: np.ndarray
    bounds: np.ndarray | None = None
    methods: tuple[str, ...] = ()


def open_fields(
    path: Paths,
    variables: Sequence[str] | Mapping[str, str] | None = None,
    *,
    times: slice | None = None,
    region: tuple[float, float, float, float] | None = None,
    at: Mapping[str, object] | None = None,
) -> Fields:
    """Read fields on a regular latitude-longitude grid, or that of a rotated pole, from a NetCDF, Zarr or GRIB file.

    **Arguments:** `path` a file, the folder of a Zarr store, or an address that fsspec opens ("gs://....zarr"), or
    several of these, as a list or with wildcards ("tas_*.nc"), which follow each other in time or hold other variables;
    `variables` names or CF standard names to read, in order, or a mapping from the names you want to those in the file
    (`{"tas": "t2m"}`); all variables on time, latitude and longitude when not given; `times` the dates to keep, both
    ends included, for example `slice("2019-03-01", "2019-03-24")`; `region`, the south, north, west and east [degrees]
    between which cell centres are kept; `at` the value of each other dimension of more than one, such as
    `{"plev": 85000}` or `{"member": 0}`. Only what is kept is read.

    **Returns:** values (time, variable, lat, lon) in the file's units, in time order, NaN where missing or
    infinite; `Variable.units` is "" where the file gives none. Dates of other calendars as `read_times` converts them.

    **Raises:** `DataError` for a missing or unreadable file, a missing or empty variable, undated or repeated times, a
    grid that is not regular, a dimension of more than one level that is not in `at`, or files that do not go together.
    """
    place = place_of(path)
    variables = [variables] if isinstance(variables, str) else variables
    chosen = list(variables.values()) if isinstance(variables, Mapping) else variables
    with opened(place, chosen or (), at) as ds:
        layers = read_layers(ds, names_of(ds, chosen, place), place, times)
        labels, arrays, grid = [label(array) for array in layers.arrays], layers.arrays, layers.grid
        if region is not None:
            try:
                rows, columns, grid = in_box(grid, region)
            except ValueError as error:
                raise DataError(f"{place}: {error}") from error
            arrays = [a.isel({a.dims[1]: as_slice(rows), a.dims[2]: as_slice(columns)}) for a in arrays]
        values = np.stack([load(array, place) for array in arrays], axis=1)
    for k, variable in enumerate(labels):
        if np.isnan(values[:, k]).all():
            raise DataError(
                f"expected values of '{variable.name}' in {place}, got only missing ones; check its _FillValue"
            )
    if isinstance(variables, Mapping):
        labels = [
            Variable(name, v.units, v.standard_name, v.long_name) for name, v in zip(variables, labels, strict=True)
        ]
    coords = Coords(layers.times, tuple(labels), grid)
    return Fields(values, coords, str(place), layers.bounds, layers.methods)


@contextmanager
def opened(place: Place, wanted: Sequence[str] = (), at: Mapping[str, object] | None = None) -> Iterator[xr.Dataset]:
    """`open_dataset`, closed at the end; what a library says of a damaged file meanwhile becomes a `DataError`."""
    with open_dataset(place, wanted, at) as ds:
        try:
            yield ds
        except (OSError, RuntimeError, EOFError) as error:
            raise _unreadable(place, error) from error


def open_dataset(place: Place, wanted: Sequence[str] = (), at: Mapping[str, object] | None = None) -> xr.Dataset:
    """The file or files at `place`, decoded but not loaded; `wanted` are the variables to name if there is none, `at`
    the values of other dimensions to choose."""
    if isinstance(place, Files):
        parts = []
        try:
            for part in place.parts:
                parts.append(_open(part, wanted))
            ds = joined(parts, place)
        except BaseException:
            for part in parts:
                part.close()
            raise
    else:
        ds = _open(place, wanted)
    if not at:
        return ds
    try:
        chosen = choose(ds, at, place)
    except DataError:
        ds.close()
        raise
    chosen.set_close(ds.close)
    return chosen


def _open(path: Path | str, wanted: Sequence[str] = ()) -> xr.Dataset:
    """One file, store or address."""
    file = fetched(path) if isinstance(path, str) and not is_store(path) else path
    if isinstance(file, Path) and not file.exists():
        reading = f" to read {quoted(wanted)} from" if wanted else ""
        raise DataError(f"no file at {path}{reading}; check the path")
    options: dict[str, Any] = {"engine": "netcdf4"}
    if is_store(file):
        options = {"engine": "zarr", "consolidated": False}
        if isinstance(file, str):  # many requests without the consolidated metadata
            options = {"engine": "zarr", "consolidated": None, "storage_options": options_of(file) or None}
    elif _is_grib(Path(file)):
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
        with warnings.catch_warnings():
            # Bounds or grid mappings lost when somebody cut the file, and a store without consolidated metadata.
            warnings.filterwarnings("ignore", r"Variable\(s\) referenced in \w+ not in variables")
            warnings.filterwarnings("ignore", "Failed to open Zarr store with consolidated", RuntimeWarning)
            # Fill values of another type, two of them, or outside the range of a packed one: the values are read.
            warnings.filterwarnings("ignore", category=xr.SerializationWarning)
            ds = xr.open_dataset(
                file, decode_coords="all", decode_times=decode_times, decode_timedelta=False, **options
            )
            return with_rotated_axes(ds) if options["engine"] == "cfgrib" else ds
    except Exception as error:
        if isinstance(file, str):
            raise unreachable(file, error) from error
        if not isinstance(error, OSError | ValueError | EOFError | KeyError | RuntimeError | TypeError):
            raise
        raise _unreadable(path, error) from error


def _unreadable(path: Place, error: Exception) -> DataError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(
        f"expected a readable NetCDF, Zarr or GRIB file at {path}, got: {reason}; get the file again or convert it"
    )


def _is_grib(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GRIB"


def names_of(ds: xr.Dataset, variables: Sequence[str] | None, path: Place) -> list[str]:
    """The variables asked for, by name or else by standard name, or all numeric ones that have time, latitude and
    longitude."""
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
    by_name = {str(name): str(name) for name in ds.data_vars}
    for name in set(variables) - set(by_name):
        called = [str(n) for n, array in ds.data_vars.items() if standard_name(array) == name]
        if len(called) > 1:
            raise DataError(f"expected one '{name}' in {path}, got {quoted(called)}; choose one of these by name")
        if called:
            by_name[name] = called[0]
    missing = [name for name in variables if name not in by_name]
    if missing or not variables:
        found = quoted(ds.data_vars)
        raise DataError(f"expected {quoted(missing)} in {path}, got {found}; choose among these")
    return [by_name[name] for name in variables]


def _on_axes(array: xr.DataArray) -> bool:
    """Whether `array` has time and two axes of space."""
    known = [axis for axis in AXES if find_axis(array, axis) is not None]
    return len(known) == len(AXES) or ("time" in known and rotated_axes(array) is not None)


def read_layers(ds: xr.Dataset, names: list[str], path: Place, period: slice | None = None) -> Layers:
    """Find the axes of each variable and check that they are the same."""
    found = [_layer(ds[name], path) for name in names]
    _, lat, lon, time = found[0]
    for name, (_, *axes) in zip(names, found, strict=True):
        if not all(a.variable.equals(b.variable) for a, b in zip(axes, (lat, lon, time), strict=True)):
            raise DataError(
                f"expected one grid and one set of times in {path}, got others for '{name}' than for "
                f"'{names[0]}'; read them one at a time"
            )
    times = read_times(ds, time, period, path)
    arrays = [array.isel({array.dims[0]: as_slice(times.order)}) for array, *_ in found]
    pole = None if rotated_axes(arrays[0]) is None else read_pole(ds[names[0]], lat, lon, path)
    front = seam(np.asarray(lon.values, np.float64)) if pole is None else 0
    if front:
        columns = np.roll(np.arange(lon.size), -front)
        lon, arrays = lon.isel({lon.dims[0]: columns}), [a.isel({a.dims[2]: columns}) for a in arrays]
        ds = ds.isel({lon.dims[0]: columns})
    methods = tuple(time_method(array) for array in arrays)
    bounds = times.bounds if times.bounds is not None or "mean" not in methods else bounds_around(times.stamps)
    return Layers(arrays, regular_grid(ds, lat, lon, path, pole), times.stamps, bounds, methods)


def _layer(array: xr.DataArray, path: Place) -> tuple[xr.DataArray, ...]:
    """The variable as (time, lat, lon), and its three coordinates."""
    where = f"'{array.name}' in {path}"
    if array.dtype.kind not in "fiub":
        got = {"M": "dates", "m": "lengths of time", "c": "complex numbers"}.get(array.dtype.kind, "text")
        raise DataError(f"expected numbers for {where}, got {got}; choose another variable")
    lat, lon = rotated_axes(array) or (find_axis(array, "lat"), find_axis(array, "lon"))
    if lat is None or lon is None:
        raise DataError(
            f"expected latitude and longitude coordinates for {where}, got {quoted(array.coords)}; add the "
            "coordinates or set their standard_name"
        )
    lat, lon = straightened(lat, lon)
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
    extra = [str(d) for d in array.dims if d not in (time.dims[0], *horizontal)]
    if extra:
        more = " and ".join(f"'{d}' with {listed(array, d)}" for d in extra)
        raise DataError(
            f"expected the dimensions time, lat and lon for {where}, got also {more}; choose one, as in "
            f"{how_to_choose(array, extra[0])}"
        )
    return array.transpose(time.dims[0], *horizontal), lat, lon, time


def load(array: xr.DataArray, path: Place) -> np.ndarray:
    """Values in float32, NaN where missing: the file says so, or they are infinite or beyond 9e19. Raises `DataError`
    where -9999 or the like stands for missing values and the file does not say so."""
    try:
        values = np.asarray(array.values)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"expected to read '{array.name}' in {path}, got: {error}; get the file again") from error
    if values.dtype.kind == "f":
        values = np.where(np.abs(values) <= LARGEST, values, np.nan)
    for stand_in in UNDECLARED:
        if values.size and float(np.nanmin(values, initial=0.0)) == stand_in:
            raise DataError(
                f"expected a _FillValue or missing_value for '{array.name}' in {path}, got values of {stand_in:g} "
                "without one; set its _FillValue"
            )
    return values.astype(np.float32)


def label(array: xr.DataArray) -> Variable:
    """The name, units and CF names of `array`."""
    units, long_name = (str(array.attrs.get(key, "")) for key in ("units", "long_name"))
    return Variable(str(array.name), units, standard_name(array), long_name)
