"""Read weather from NetCDF, Zarr and GRIB, and fit a coarse file to a prior: names, units, order, domain."""

import os
import re
import tokenize
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pint
import xarray as xr

from .errors import DataError
from .grid import Coords, Fields, Grid, Variable, edges_from_bounds, edges_from_centres

_AXES = {  # standard_name, CF spellings of the units, usual names
    "lat": ("latitude", r"degrees?_?n(orth)?", ("lat", "latitude", "nav_lat", "y")),
    "lon": ("longitude", r"degrees?_?e(ast)?", ("lon", "longitude", "nav_lon", "x")),
    "time": ("time", r"(?!)", ("time", "valid_time", "t")),
}
_UNIT_NAMES = {  # UDUNITS spellings that pint does not know
    r"deg(ree|rees)?_?C(elsius)?|Celsius": "degC",
    r"Kelvin|deg_?K": "kelvin",
    r"fraction": "dimensionless",
}
_REGISTRY: pint.UnitRegistry = pint.UnitRegistry()


@runtime_checkable
class HasCoords(Protocol):
    """Anything that knows the labels of its fields, such as a prior or `Fields`."""

    @property
    def coords(self) -> Coords: ...


@dataclass(frozen=True)
class _Layers:
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
    with _open(path) as ds:
        layers = _layers(ds, _names(ds, variables, path), path, times)
        labels = tuple(_variable(array) for array in layers.arrays)
        values = np.stack([_load(array, path) for array in layers.arrays], axis=1)
    return Fields(values, Coords(layers.times, labels, layers.grid), source=str(path))


def open_coarse(
    path: str | os.PathLike[str],
    like: HasCoords | Coords,
    variables: Sequence[str] | Mapping[str, str] | None = None,
) -> Fields:
    """Read a coarse file the way a prior needs it.

    **Arguments:** `path` as in `open_fields`; `like` a prior, or anything with `coords`, or `Coords` (its
    times are not used); `variables` which of the prior's variables to read (all when not given), or a
    mapping from the prior's names to the file's. Other names match by name, then by CF standard_name.

    **Returns:** values (time, variable, lat, lon) with the prior's variables, units, order of latitudes
    and convention of longitudes. Cells outside the prior's domain are cropped; cells partly outside are NaN,
    since they average weather that the prior does not know; missing values stay NaN.

    **Raises:** `DataError` as `open_fields`, and for a variable that is not there or matches twice, missing
    or inconvertible units, no cell inside the domain, or a variable with no value inside it.
    """
    path = Path(path)
    coords = like if isinstance(like, Coords) else like.coords
    variables = [variables] if isinstance(variables, str) else variables
    chosen = {v.name for v in coords.variables} if variables is None else set(variables)
    wanted = tuple(v for v in coords.variables if v.name in chosen)
    if not wanted or len(wanted) < len(chosen):
        raise DataError(f"expected among the prior's {_list(coords.variables)}, got {_list(chosen)}")
    renamed = variables if isinstance(variables, Mapping) else {}
    with _open(path) as ds:
        names = [_match(ds, variable, renamed.get(variable.name), path) for variable in wanted]
        layers = _layers(ds, names, path)
        try:
            rows, columns, grid, inside = layers.grid.restrict(coords.grid)
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error
        values = []
        for variable, array in zip(wanted, layers.arrays, strict=True):
            where = f"'{array.name}' in {path}"
            data = _load(array.isel({array.dims[1]: rows, array.dims[2]: columns}), path)
            data = np.where(inside, _convert(data, _variable(array), variable, where), np.float32(np.nan))
            if np.isnan(data).all():
                raise DataError(f"expected values in the prior's domain, got only missing ones for {where}")
            values.append(data)
    return Fields(np.stack(values, axis=1), Coords(layers.times, wanted, grid), source=str(path))


def check_overlap(times_coarse: np.ndarray, times_fine: np.ndarray) -> None:
    """Raise `DataError` when the coarse times and the fine times, both datetime64, do not overlap."""
    coarse, fine = np.asarray(times_coarse), np.asarray(times_fine)
    if not coarse.size or not fine.size or coarse.max() < fine.min() or fine.max() < coarse.min():
        raise DataError(
            f"expected coarse times that overlap the fine times {_range(fine)}, got {_range(coarse)}; "
            "choose files of the same period"
        )


def _open(path: Path) -> xr.Dataset:
    if not path.exists():
        raise DataError(f"no file at {path}; check the path")
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
        raise DataError(f"expected a readable NetCDF, Zarr or GRIB file at {path}, got: {reason}") from error


def _is_grib(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GRIB"


def _names(ds: xr.Dataset, variables: Sequence[str] | None, path: Path) -> list[str]:
    """The variables asked for, or all numeric ones that have time, latitude and longitude."""
    if variables is None:
        numeric = [str(name) for name, array in ds.data_vars.items() if array.dtype.kind in "fiub"]
        names = [name for name in numeric if all(_find(ds[name], axis) is not None for axis in _AXES)]
        if not names:
            shapes = _list(f"{name}({', '.join(map(str, a.dims))})" for name, a in ds.data_vars.items())
            raise DataError(f"expected variables on time, latitude and longitude in {path}, got {shapes}")
        return names
    variables = [variables] if isinstance(variables, str) else variables
    missing = [name for name in variables if name not in ds.data_vars]
    if missing or not variables:
        raise DataError(f"expected {_list(missing)} in {path}, got {_list(ds.data_vars)}; choose among these")
    return list(variables)


def _match(ds: xr.Dataset, variable: Variable, name: str | None, path: Path) -> str:
    """The file's name for the prior's `variable`."""
    name = name or variable.name
    if name in ds.data_vars:
        return name
    named = [str(n) for n, array in ds.data_vars.items() if _standard_name(array) == variable.standard_name]
    if variable.standard_name and name == variable.name and len(named) == 1:
        return named[0]
    found = _list(named if variable.standard_name and named else ds.data_vars)
    raise DataError(
        f"expected one variable named '{name}' or with standard_name '{variable.standard_name}' in {path}, "
        f"got {found}; pass the file's name for it, as in variables={{'{variable.name}': ...}}"
    )


def _layers(ds: xr.Dataset, names: list[str], path: Path, period: slice | None = None) -> _Layers:
    """Find the axes of each variable and check that they are the same."""
    found = [_layer(ds[name], path) for name in names]
    _, lat, lon, time = found[0]
    for name, (_, *axes) in zip(names, found, strict=True):
        if not all(a.variable.equals(b.variable) for a, b in zip(axes, (lat, lon, time), strict=True)):
            raise DataError(
                f"expected one grid and one set of times in {path}, got others for '{name}' than for "
                f"'{names[0]}'; read them one at a time"
            )
    times, order = _times(time, period, path)
    arrays = [array.isel({array.dims[0]: order}) for array, *_ in found]
    return _Layers(arrays, _grid(ds, lat, lon, path), times)


def _layer(array: xr.DataArray, path: Path) -> tuple[xr.DataArray, ...]:
    """The variable as (time, lat, lon), and its three coordinates."""
    where = f"'{array.name}' in {path}"
    lat, lon = _find(array, "lat"), _find(array, "lon")
    if lat is None or lon is None:
        raise DataError(f"expected latitude and longitude coordinates for {where}, got {_list(array.coords)}")
    if lat.ndim != 1 or lon.ndim != 1 or lat.dims == lon.dims:
        raise DataError(
            f"expected a regular grid with one-dimensional lat and lon for {where}, got lat {lat.dims} and "
            f"lon {lon.dims}; rotated and other grids are not supported yet, so regrid it first"
        )
    horizontal = (lat.dims[0], lon.dims[0])
    array = array.squeeze([d for d in array.dims if array.sizes[d] == 1 and d not in horizontal])
    time = _find(array, "time")
    if time is None or time.ndim > 1:
        raise DataError(f"expected one time axis for {where}, got the coordinates {_list(array.coords)}")
    if time.ndim == 0:
        dim = str(time.name)
        array = array.drop_vars(dim).expand_dims({dim: 1})
        time = time.expand_dims({dim: 1})
    extra = [f"{d} ({array.sizes[d]})" for d in array.dims if d not in (time.dims[0], *horizontal)]
    if extra:
        raise DataError(
            f"expected the dimensions time, lat and lon for {where}, got also {_list(extra)}; "
            "select one level in the file, or name other variables"
        )
    return array.transpose(time.dims[0], *horizontal), lat, lon, time


def _find(array: xr.DataArray, axis: str) -> xr.DataArray | None:
    """The coordinate of `array` along `axis`, by its CF attributes or else by its name."""
    standard_name, units, names = _AXES[axis]
    coords = {str(name).lower(): coord for name, coord in array.coords.items()}
    found = [
        coord
        for coord in coords.values()
        if _standard_name(coord) == standard_name or re.fullmatch(units, str(coord.attrs.get("units")), re.I)
    ]
    found = found or [coords[n] for n in names if n in coords and (len(n) > 1 or _plausible(coords[n], axis))]
    return min(found, key=lambda coord: abs(coord.ndim - 1), default=None)


def _plausible(coord: xr.DataArray, axis: str) -> bool:
    """Whether a coordinate called x, y or t can be a longitude, latitude or time, not a distance."""
    if axis == "time":
        return coord.dtype.kind in "MO"
    degrees = str(coord.attrs.get("units", "degrees")).startswith("degree") and not _standard_name(coord)
    return degrees and coord.dtype.kind in "fiu" and float(abs(coord).max()) <= {"lat": 90, "lon": 360}[axis]


def _times(time: xr.DataArray, period: slice | None, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Sorted times (n,) datetime64[ns] within `period`, and their positions in the file (n,)."""
    if time.dtype.kind != "M":
        got = f"the {time.dt.calendar} calendar" if time.dtype.kind == "O" else f"undated {time.dtype} values"
        raise DataError(
            f"expected dates after 1678 of the standard calendar for '{time.name}' in {path}, got {got}; "
            "convert them first, for example with xarray's convert_calendar('standard', align_on='year')"
        )
    years = time.values.astype("datetime64[Y]").astype(int) + 1970
    if not years.size or np.isnat(time.values).any() or years.min() < 1678 or years.max() > 2261:
        raise DataError(
            f"expected dates from 1678 to 2261 in {path}, got none, missing or other ones; drop these"
        )
    # Dates stored as fractions of a day miss the hour by some microseconds.
    stamps = (time.values.astype("datetime64[us]").astype(np.int64) + 500) // 1000
    stamps = stamps.astype("datetime64[ms]")
    order = np.argsort(stamps, kind="stable")
    stamps = stamps[order].astype("datetime64[ns]")
    repeated = stamps[1:][stamps[1:] == stamps[:-1]]
    if repeated.size:
        raise DataError(f"expected each time once in {path}, got {_minute(repeated[0])} twice; drop one")
    if period is not None:
        keep = xr.DataArray(np.arange(stamps.size), {"time": stamps}, ["time"]).sel(time=period).values
        if not keep.size:
            dates = f"{period.start} to {period.stop}"
            raise DataError(f"expected times from {dates} in {path}, got {_range(stamps)}")
        stamps, order = stamps[keep], order[keep]
    return stamps, order


def _grid(ds: xr.Dataset, lat: xr.DataArray, lon: xr.DataArray, path: Path) -> Grid:
    """The grid in the file's order, longitudes without a jump, edges from the file's bounds if it has any."""
    lats, lons = _decimal(lat.values), np.unwrap(_decimal(lon.values), period=360)
    lons = lons - 360 * (lons.max() > 360) + 360 * (lons.min() < -180)
    edges = []
    try:
        for coord, centres in ((lat, lats), (lon, lons)):
            name = coord.encoding.get("bounds", coord.attrs.get("bounds", f"{coord.name}_bnds"))
            found = name in ds.variables and ds[name].shape == (centres.size, 2)
            use = (
                edges_from_bounds(centres, _decimal(ds[name].values))
                if found
                else edges_from_centres(centres)
            )
            edges.append(use)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    return Grid(lats, lons, *edges)


def _decimal(values: np.ndarray) -> np.ndarray:
    """float64 degrees, single precision read as the decimal number that was meant (359.9, not 359.899994)."""
    return values.astype(str).astype(np.float64) if values.dtype == np.float32 else values.astype(np.float64)


def _load(array: xr.DataArray, path: Path) -> np.ndarray:
    """Values in float32, NaN where missing, infinite or beyond float32."""
    try:
        values = np.asarray(array.values)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"expected to read '{array.name}' in {path}, got: {error}; get the file again"
        ) from error
    if values.dtype.kind == "f":
        values = np.where(np.abs(values) <= np.finfo(np.float32).max, values, np.nan)
    return values.astype(np.float32)


def _convert(values: np.ndarray, given: Variable, wanted: Variable, where: str) -> np.ndarray:
    """float32 values in the units `wanted`, from those `given`."""
    if not given.units:
        raise DataError(
            f"expected units convertible to {wanted.units} for {where}, got none; set its 'units' attribute"
        )
    try:
        source, target = (_REGISTRY.Unit(_to_pint(units)) for units in (given.units, wanted.units))
        if source == target:
            return values
        return _REGISTRY.Quantity(values.astype(np.float64), source).to(target).magnitude.astype(np.float32)
    except (pint.PintError, ValueError, TypeError, AttributeError, SyntaxError, tokenize.TokenError) as error:
        to = wanted.units or "the prior's, which are not set,"
        raise DataError(
            f"expected units convertible to {to} for {where}, got '{given.units}'; correct the 'units' "
            "attribute or convert the values"
        ) from error


def _to_pint(units: str) -> str:
    """Unit text in pint's syntax from UDUNITS, as CF files write it: "kg m-2 s-1" -> "kg m**-2 s**-1"."""
    units = "1" if units.strip() == "(0 - 1)" else units.strip()
    for spelling, name in _UNIT_NAMES.items():
        units = re.sub(rf"\b({spelling})(?=[-\d]|\b)", name, units)
    units = re.sub(r"(?<=\w)\.(?=[A-Za-z])", " ", units)  # "W.m-2"
    return re.sub(r"(?<=[A-Za-z])\^?([-+]?\d+)", r"**\1", units)


def _variable(array: xr.DataArray) -> Variable:
    units, long_name = (str(array.attrs.get(key, "")) for key in ("units", "long_name"))
    return Variable(str(array.name), units, _standard_name(array), long_name)


def _standard_name(array: xr.DataArray) -> str:
    name = str(array.attrs.get("standard_name", ""))
    return "" if name == "unknown" else name  # cfgrib's word for none


def _minute(time: np.datetime64) -> str:
    return str(time.astype("datetime64[m]"))


def _range(times: np.ndarray) -> str:
    return f"{_minute(times.min())} to {_minute(times.max())}" if times.size else "no times"


def _list(names: Any) -> str:
    texts = [f"'{name.name if isinstance(name, Variable) else name}'" for name in names]
    return ", ".join(texts) or "nothing"
