"""Coastlines for maps, shipped with the package, so that maps need no network and no cartographic library.

Natural Earth 4.1.0, 1:50m (public domain, naturalearthdata.com); `tools/make_coastlines.py` made the file.
"""

from functools import cache
from importlib.resources import files

import numpy as np

_FILE = "coastlines_50m.npz"


@cache
def _lines() -> tuple[np.ndarray, ...]:
    """All coastlines, each (points, 2) float64: longitude, unbroken along a line, latitude [degrees]."""
    with (
        files("bayesdownscale.diagnostics").joinpath(_FILE).open("rb") as stream,
        np.load(stream, allow_pickle=False) as stored,
    ):
        steps, starts, lengths = (stored[name] for name in ("steps", "starts", "lengths"))
        scale, origin = stored["scale"], stored["origin"]
    pieces = np.split(steps.astype(np.int64), np.cumsum(lengths)[:-1])
    return tuple(
        origin + scale * (start + np.cumsum(piece, axis=0)) for start, piece in zip(starts, pieces, strict=True)
    )


def _inside(line: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[np.ndarray]:
    """The parts of `line` (points, 2) whose segments may touch the box from `low` (2,) to `high` (2,)."""
    if np.any(line.max(axis=0) < low) or np.any(line.min(axis=0) > high):
        return []
    first, second = line[:-1], line[1:]
    touches = np.all((np.maximum(first, second) >= low) & (np.minimum(first, second) <= high), axis=1)
    runs = np.split(np.arange(touches.size), np.flatnonzero(np.diff(touches.astype(np.int8))) + 1)
    return [line[run[0] : run[-1] + 2] for run in runs if touches[run[0]]]


@cache
def coastlines_in(lon_min: float, lon_max: float, lat_min: float, lat_max: float) -> list[np.ndarray]:
    """The coastlines that cross a longitude-latitude box.

    **Arguments:** the box in degrees; longitudes in any convention (-180..180, 0..360, or across either
    seam), with `lon_min` < `lon_max`.

    **Returns:** polylines, each (points, 2) float64 with columns longitude (in the convention of the box) and
    latitude [degrees]. A line that leaves the box ends one point outside it.

    **Raises:** ValueError for an empty box or one wider than the globe.
    """
    if not (lon_min < lon_max <= lon_min + 360.0 and lat_min < lat_max):
        raise ValueError(
            f"expected a box with lon_min < lon_max <= lon_min + 360 and lat_min < lat_max, got longitudes "
            f"{lon_min} to {lon_max} and latitudes {lat_min} to {lat_max}; swap or wrap them"
        )
    low, high = np.array([lon_min, lat_min]), np.array([lon_max, lat_max])
    turns = range(int((lon_min - 180) // 360) - 1, int((lon_max + 180) // 360) + 2)
    return [
        part for turn in turns for line in _lines() for part in _inside(line + np.array([360.0 * turn, 0.0]), low, high)
    ]
