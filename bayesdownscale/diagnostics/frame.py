"""The frame of a map: the coordinates of its grid, true or of a rotated pole, and what else is drawn in them.

A field on a rotated pole is drawn in its own coordinates, in which its cells are squares; the input, on another pole,
coastlines, meridians and parallels are turned into them.
"""

import numpy as np
import xarray as xr

from bayesdownscale.data.edges import edges_from_centres
from bayesdownscale.data.grid import Grid
from bayesdownscale.data.rotated import RotatedPole
from bayesdownscale.diagnostics.coastlines import coastlines_in

POINTS = 61  # along meridians, parallels and sides of a map


def pole_of(field: xr.DataArray | xr.Dataset) -> RotatedPole | None:
    """The pole that the coordinates lat and lon of fine fields, or lat_coarse and lon_coarse of an input, refer to."""
    name = "lat" if "lat" in field.coords else "lat_coarse"
    return RotatedPole.from_attrs(field[name].attrs) if name in field.coords else None


def turned(
    lat: np.ndarray, lon: np.ndarray, own: RotatedPole | None, wanted: RotatedPole | None
) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes [degrees] of points given on the pole `own` on the pole `wanted`; as they are where
    these are one."""
    if own == wanted:
        return lat, lon
    lat, lon = (lat, lon) if own is None else own.to_geographic(lat, lon)
    return (lat, lon) if wanted is None else wanted.from_geographic(lat, lon)


def true_place(field: xr.DataArray, lat: float, lon: float) -> tuple[float, float]:
    """The true latitude and longitude of a point given in the coordinates of `field`, turned ones to 0.01 degrees."""
    if (pole := pole_of(field)) is None:
        return lat, lon
    found = pole.to_geographic(np.asarray([lat]), np.asarray([lon]))
    return round(float(found[0][0]), 2), round(float(found[1][0]), 2)


def grid_of(field: xr.DataArray) -> Grid:
    """The grid of a field (..., lat, lon), fine or coarse, with its pole."""
    lat, lon = (field[str(dim)].values for dim in field.dims[-2:])
    return Grid(lat, lon, pole=pole_of(field))


def map_edges(field: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Cell edges along longitude and latitude [degrees] of a field (..., lat, lon), coarse or fine, on its own pole."""
    lat, lon = (str(dim) for dim in field.dims[-2:])
    return tuple(  # type: ignore[return-value]
        edges_from_centres(field[dim].values) if field.sizes[dim] > 1 else field[dim].values + np.array([-90.0, 90.0])
        for dim in (lon, lat)
    )


def corners(field: xr.DataArray, like: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Longitudes and latitudes of the corners of the cells of `field` in the frame of `like`: edges (n + 1,) of
    columns and rows where the two have one pole, else of every corner (lat + 1, lon + 1)."""
    own_lon, own_lat = map_edges(field)
    middle = float(map_edges(like)[0].mean())
    # Of one frame by their dimensions: what is computed from fine fields lies on their pole.
    own, wanted = (pole_of(like if field.dims[-2:] == like.dims[-2:] else field)), pole_of(like)
    if own == wanted:
        return own_lon + 360.0 * np.round((middle - own_lon.mean()) / 360.0), own_lat
    lat, lon = turned(*np.meshgrid(own_lat, own_lon, indexing="ij"), own, wanted)
    return near(lon, middle), lat


def near[Longitudes: (np.ndarray, xr.DataArray)](lon: Longitudes, middle: float) -> Longitudes:
    """Longitudes [degrees] in the convention that is nearest to `middle`."""
    return (lon - middle + 180.0) % 360.0 - 180.0 + middle


def coast_of(like: xr.DataArray) -> list[np.ndarray]:
    """Coastlines, each (points, 2) of longitude and latitude, within the domain of `like`, in its frame."""
    south, north, west, east = true_box(like)
    true = coastlines_in(west, east, south, north)
    if (pole := pole_of(like)) is None:
        return true
    middle, lines = float(map_edges(like)[0].mean()), []
    for line in true:
        rlat, rlon = pole.from_geographic(line[:, 1], line[:, 0])
        moved = np.stack([near(rlon, middle), rlat], axis=1)
        lines += np.split(moved, np.flatnonzero(np.abs(np.diff(moved[:, 0])) > 180.0) + 1)
    return [line for line in lines if len(line) > 1]


def true_box(like: xr.DataArray) -> tuple[float, float, float, float]:
    """The true south, north, west and east [degrees] around the cells of `like`; all longitudes where it holds a
    pole."""
    lon, lat = map_edges(like)
    pole = pole_of(like)
    if pole is None:
        return float(lat.min()), float(lat.max()), float(lon.min()), float(lon.max())
    side = lambda edges: np.linspace(edges.min(), edges.max(), POINTS)
    true_lat, true_lon = pole.to_geographic(*np.meshgrid(side(lat), side(lon), indexing="ij"))
    south, north = float(true_lat.min()), float(true_lat.max())
    for true in (90.0, -90.0):
        rlat, rlon = pole.from_geographic(np.array([true]), np.array([0.0]))
        inside = lat.min() <= rlat[0] <= lat.max() and lon.min() <= near(rlon, lon.mean())[0] <= lon.max()
        if inside:
            return (south, 90.0, -180.0, 180.0) if true > 0 else (-90.0, north, -180.0, 180.0)
    true_lon = np.unwrap(np.unwrap(true_lon, period=360, axis=1), period=360, axis=0)
    return south, north, float(true_lon.min()), float(true_lon.max())


def meridian(like: xr.DataArray, lon: float, between: tuple[float, float]) -> np.ndarray:
    """Points (points, 2), longitude and latitude in the frame of `like`, of a true meridian between two latitudes."""
    return _line(like, np.linspace(*between, POINTS), np.full(POINTS, lon))


def parallel(like: xr.DataArray, lat: float, between: tuple[float, float]) -> np.ndarray:
    """Points (points, 2), longitude and latitude in the frame of `like`, of a true parallel between two longitudes."""
    return _line(like, np.full(POINTS, lat), np.linspace(*between, POINTS))


def _line(like: xr.DataArray, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    rlat, rlon = turned(lat, lon, None, pole_of(like))
    return np.stack([near(rlon, float(like["lon"].mean())), rlat], axis=1)


def crossings(at: np.ndarray, values: np.ndarray, level: float) -> list[float]:
    """Where among positions `at` (n,) angles `values` (n,) [degrees] pass through `level`, linear in between."""
    apart = (values - level + 180.0) % 360.0 - 180.0
    first, second = apart[:-1], apart[1:]
    passed = np.flatnonzero((first <= 0) != (second <= 0))
    passed = passed[np.abs(second - first)[passed] < 90.0]
    return [float(np.interp(0.0, sorted((first[k], second[k])), at[k : k + 2][:: 1 if first[k] < second[k] else -1]))
            for k in passed]  # fmt: skip
