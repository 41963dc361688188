"""Overlap of the cells of two grids on the sphere, also where one of them has a rotated pole.

In the longitude and the sine of the latitude of the coarse grid's own frame areas are true (Lambert's cylindrical
projection) and coarse cells are boxes. Fine cells become polygons: their sides, parallels and meridians of another
frame, are cut into chords. Areas from n and 2 n chords a side are extrapolated (Richardson), which leaves an error of
order n^-4. First-order conservative remapping with these areas: Jones 1999,
doi:10.1175/1520-0493(1999)127<2204:FASOCR>2.0.CO;2.
"""

import numpy as np
import shapely
from scipy import sparse

from .grid import Grid

CHORDS = 8


def overlap_areas(coarse: Grid, fine: Grid) -> sparse.csr_array:
    """Areas (coarse cell, fine cell) [sr] that cells have in common, cells in row-major order.

    The sum over the cells of one grid is the area of a cell of the other that they cover, to 1e-12 of it.
    **Raises:** ValueError where the fine grid comes near a pole of the coarse one or goes around it.
    """
    once, twice = (_areas(coarse, fine, n) for n in (CHORDS, 2 * CHORDS))
    return sparse.csr_array((4.0 * twice - once) / 3.0)


def mean_weights(coarse: Grid, fine: Grid) -> tuple[sparse.csr_array, np.ndarray]:
    """Weights (coarse cell, fine cell) of means over coarse cells, by area, and the part (coarse cell,) of each coarse
    cell that the fine ones cover: rows sum to 1, or to 0 where that is 0."""
    areas = overlap_areas(coarse, fine)
    total = areas.sum(axis=1)
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    return sparse.csr_array(areas.multiply(scale[:, None])), total / coarse.cell_areas().ravel()


def _areas(coarse: Grid, fine: Grid, n: int) -> sparse.coo_array:
    """Areas with `n` chords a side."""
    middle = (coarse.lon_bounds[0] + coarse.lon_bounds[-1]) / 2
    polygons = np.asarray(shapely.polygons(np.stack(_outlines(coarse, fine, n, middle), axis=-1)))
    lon, s = np.deg2rad(coarse.lon_bounds - middle), np.sin(np.deg2rad(coarse.lat_bounds))
    (west, south), (east, north) = np.meshgrid(lon[:-1], s[:-1]), np.meshgrid(lon[1:], s[1:])
    boxes = np.asarray(shapely.box(west.ravel(), south.ravel(), east.ravel(), north.ravel()))
    row, column = shapely.STRtree(polygons).query(boxes, predicate="intersects")
    area = np.asarray(shapely.area(shapely.intersection(boxes[row], polygons[column])))
    return sparse.coo_array((area, (row, column)), shape=(boxes.size, polygons.size))


def _outlines(coarse: Grid, fine: Grid, n: int, middle: float) -> tuple[np.ndarray, np.ndarray]:
    """Longitudes from `middle` [rad] and sines of latitudes (cell, 4 n) around each fine cell, in the coarse frame."""
    lat, lon = _around(fine.lat_bounds, fine.lon_bounds, n)
    if fine.pole != coarse.pole:
        lat, lon = (lat, lon) if fine.pole is None else fine.pole.to_geographic(lat, lon)
        lat, lon = (lat, lon) if coarse.pole is None else coarse.pole.from_geographic(lat, lon)
    lon = (lon - middle + 180.0) % 360.0 - 180.0
    if np.ptp(lon, axis=1).max() > 180.0 or np.abs(lat).max() > 89.0:
        raise ValueError(
            f"expected a region away from the poles and less than half around the globe, got {fine.extent()} against "
            f"{coarse.extent()}; crop the grids"
        )
    return np.deg2rad(lon), np.sin(np.deg2rad(lat))


def _around(lat_bounds: np.ndarray, lon_bounds: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes (cell, 4 n) of points around each cell, from corner to corner in `n` steps."""
    south, west = (bounds.ravel() for bounds in np.meshgrid(lat_bounds[:-1], lon_bounds[:-1], indexing="ij"))
    north, east = (bounds.ravel() for bounds in np.meshgrid(lat_bounds[1:], lon_bounds[1:], indexing="ij"))
    along = lambda a, b: a[:, None] + (b - a)[:, None] * np.arange(n) / n
    lat = np.concatenate([along(south, south), along(south, north), along(north, north), along(north, south)], axis=1)
    lon = np.concatenate([along(west, east), along(east, east), along(east, west), along(west, west)], axis=1)
    return lat, lon
