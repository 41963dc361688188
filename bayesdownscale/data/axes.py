"""The axes of a variable in a file: which coordinates they are, the grid they make and the times."""

import re

import numpy as np
import xarray as xr

from .edges import edges_from_bounds, edges_from_centres
from .errors import DataError, quoted
from .grid import Grid
from .places import Place
from .rotated import RotatedPole

STRAIGHT = 1e-4  # degrees by which cells may stray from their row or column
AXES = {  # standard_name, CF spellings of the units, usual names
    "lat": ("latitude", r"degrees?_?n(orth)?", ("lat", "latitude", "nav_lat", "y")),
    "lon": ("longitude", r"degrees?_?e(ast)?", ("lon", "longitude", "nav_lon", "x")),
    "time": ("time", r"(?!)", ("time", "valid_time", "t")),
}


def find_axis(array: xr.DataArray, axis: str) -> xr.DataArray | None:
    """The coordinate of `array` along `axis`, by its CF attributes or else by its name."""
    cf_name, units, names = AXES[axis]
    coords = {str(name).lower(): coord for name, coord in array.coords.items()}
    found = [
        coord
        for coord in coords.values()
        if standard_name(coord) == cf_name or re.fullmatch(units, str(coord.attrs.get("units")), re.I)
    ]
    found = found or [coords[n] for n in names if n in coords and (len(n) > 1 or _plausible(coords[n], axis))]
    return min(found, key=lambda coord: abs(coord.ndim - 1), default=None)


def _plausible(coord: xr.DataArray, axis: str) -> bool:
    """Whether a coordinate called x, y or t can be a longitude, latitude or time, not a distance."""
    if axis == "time":
        return coord.dtype.kind in "MO"
    degrees = str(coord.attrs.get("units", "degrees")).startswith("degree") and not standard_name(coord)
    return degrees and coord.dtype.kind in "fiu" and float(abs(coord).max()) <= {"lat": 90, "lon": 360}[axis]


def standard_name(array: xr.DataArray) -> str:
    """The CF standard_name of `array`, "" if it has none."""
    name = str(array.attrs.get("standard_name", ""))
    return "" if name == "unknown" else name  # cfgrib's word for none


def straightened(lat: xr.DataArray, lon: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Latitudes and longitudes of every cell (2-d) as those of rows and columns (1-d), where each row has one latitude
    and each column one longitude; else as they are."""
    if lat.ndim != 2 or set(lat.dims) != set(lon.dims):
        return lat, lon
    for y, x in (lat.dims, lat.dims[::-1]):
        rows, columns = lat.transpose(y, x).values, lon.transpose(y, x).values
        turns = (columns - columns[:1] + 180) % 360 - 180
        varied = np.ptp(rows[:, 0]) > STRAIGHT and np.ptp(columns[0]) > STRAIGHT
        if varied and np.abs(rows - rows[:, :1]).max() < STRAIGHT and np.abs(turns).max() < STRAIGHT:
            return lat.isel({x: 0}, drop=True), lon.isel({y: 0}, drop=True)
    return lat, lon


def seam(lons: np.ndarray) -> int:
    """How many columns to move from the front to the back of ascending longitudes [degrees] that were sorted across
    the seam: of 0, 1, 358, 359 the first two."""
    steps = np.diff(lons)
    if steps.size < 2 or steps.min() <= 0:
        return 0
    most, usual = int(np.argmax(steps)), np.median(steps)
    return most + 1 if steps[most] > 1.5 * usual > lons[0] + 360 - lons[-1] else 0


def rotated_axes(array: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray] | None:
    """The latitudes and longitudes of `array` on a rotated sphere, by standard_name or as rlat and rlon."""
    found = []
    for cf_name, name in (("grid_latitude", "rlat"), ("grid_longitude", "rlon")):
        own = [coord for coord in array.coords.values() if coord.ndim == 1 and standard_name(coord) == cf_name]
        own = own or [coord for key, coord in array.coords.items() if key == name and coord.dims == (name,)]
        if len(own) != 1:
            return None
        found.append(own[0])
    return found[0], found[1]


def read_pole(array: xr.DataArray, rlat: xr.DataArray, rlon: xr.DataArray, path: Place) -> RotatedPole:
    """The rotated pole of `array`, from its CF grid mapping or else from the places of its cells."""
    mapping = array.coords.get(array.encoding.get("grid_mapping", array.attrs.get("grid_mapping")))
    known = {} if mapping is None else mapping.attrs
    if {"grid_north_pole_latitude", "grid_north_pole_longitude"} <= set(known):
        pole = known["grid_north_pole_latitude"], known["grid_north_pole_longitude"]
        return RotatedPole(float(pole[0]), float(pole[1]), float(known.get("north_pole_grid_longitude", 0.0)))
    lat, lon = find_axis(array, "lat"), find_axis(array, "lon")
    dims = (*rlat.dims, *rlon.dims)
    if lat is None or lon is None or set(lat.dims) != set(dims) or set(lon.dims) != set(dims):
        raise DataError(
            f"expected a grid mapping with the north pole of '{rlat.name}' and '{rlon.name}', or the latitude and "
            f"longitude of every cell, for '{array.name}' in {path}, got {quoted(array.coords)}; add one of them"
        )
    try:
        lats, lons = lat.transpose(*dims).values, lon.transpose(*dims).values
        return RotatedPole.fit(rlat.values, rlon.values, lats, lons)
    except ValueError as error:
        raise DataError(f"'{array.name}' in {path}: {error}; regrid it first") from error


def regular_grid(
    ds: xr.Dataset, lat: xr.DataArray, lon: xr.DataArray, path: Place, pole: RotatedPole | None = None
) -> Grid:
    """The grid in the file's order, longitudes without a jump, edges from the file's bounds if it has any."""
    lats, lons = _decimal(lat.values), np.unwrap(_decimal(lon.values), period=360)
    lons = lons - 360 * (lons.max() > 360) + 360 * (lons.min() < -180)
    edges = []
    try:
        for coord, centres in ((lat, lats), (lon, lons)):
            name = coord.encoding.get("bounds", coord.attrs.get("bounds", f"{coord.name}_bnds"))
            found = name in ds.variables and ds[name].shape == (centres.size, 2)
            bounds = _decimal(ds[name].values) if found else None
            edges.append(edges_from_centres(centres) if bounds is None else edges_from_bounds(centres, bounds))
    except ValueError as error:
        raise DataError(f"{lat.name!r} and {lon.name!r} in {path}: {error}") from error
    return Grid(lats, lons, edges[0], edges[1], pole)


def _decimal(values: np.ndarray) -> np.ndarray:
    """float64 degrees, single precision read as the decimal number that was meant (359.9, not 359.899994)."""
    return values.astype(str).astype(np.float64) if values.dtype == np.float32 else values.astype(np.float64)
