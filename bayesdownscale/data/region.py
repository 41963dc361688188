"""The part of a coarse grid that a fine domain covers, whatever the poles of the two."""

import numpy as np

from .grid import Grid
from .regrid import observed_cells
from .rotated import RotatedPole

POINTS = 9  # a side of a cell, for the box around a turned domain


def within(coarse: Grid, domain: Grid) -> tuple[np.ndarray, np.ndarray, Grid, np.ndarray]:
    """The rows and columns of `coarse` that have cells wholly in `domain`, the grid they form, in the order and the
    convention of longitudes of `domain` where both have one pole, and which of its cells (lat, lon) lie wholly inside.

    Raises `ValueError` where there is none, where they do not lie side by side, or near a pole.
    """
    if coarse.pole == domain.pole:
        rows, columns, grid = coarse.restrict(domain)
        return rows, columns, grid, np.ones(grid.shape, bool)
    rows, columns, grid = coarse.restrict(box_around(domain, coarse.pole))
    inside = observed_cells(domain, grid)
    if not inside.any():
        raise ValueError(
            f"coarse grid outside the prior's domain: expected whole cells within {domain.extent()} of a rotated "
            f"pole, got {coarse.extent()}; choose files of one region"
        )
    i, j = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    i, j = np.arange(i[0], i[-1] + 1), np.arange(j[0], j[-1] + 1)
    edges = lambda bounds, index: bounds[index[0] : index[-1] + 2]
    cut = Grid(grid.lat[i], grid.lon[j], edges(grid.lat_bounds, i), edges(grid.lon_bounds, j), grid.pole)
    return rows[i], columns[j], cut, inside[np.ix_(i, j)]


def box_around(grid: Grid, pole: RotatedPole | None) -> Grid:
    """One cell in the coordinates of `pole` (None: the true ones) that holds all cells of `grid`."""
    cut = lambda b: np.interp(np.arange(POINTS * (b.size - 1) + 1) / POINTS, np.arange(b.size), b)
    lat, lon = np.meshgrid(cut(grid.lat_bounds), cut(grid.lon_bounds), indexing="ij")
    lat, lon = (lat, lon) if grid.pole is None else grid.pole.to_geographic(lat, lon)
    lat, lon = (lat, lon) if pole is None else pole.from_geographic(lat, lon)
    lon = np.unwrap(np.unwrap(lon, period=360, axis=1), period=360, axis=0)
    limits = [np.asarray([each.min(), each.max()]) for each in (lat, lon)]
    return Grid(limits[0].mean(keepdims=True), limits[1].mean(keepdims=True), *limits, pole=pole)


def in_box(grid: Grid, box: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray, Grid]:
    """The rows and columns of `grid` with centres in a `box` of true south, north, west and east [degrees], and the
    grid they form, its longitudes in the convention of the box. On a rotated pole, those around all such cells.

    Raises `ValueError` where there is none or a column is there twice.
    """
    south, north, west, east = box
    lat, lon = grid.places()
    lon = lon + 360.0 * np.round(((west + east) / 2 - lon) / 360.0)
    inside = (lat >= south) & (lat <= north) & (lon >= west) & (lon <= east)
    if not inside.any():
        raise ValueError(
            f"expected cells in lat {south:g} to {north:g} and lon {west:g} to {east:g} (south, north, west, east), "
            f"got {grid.extent()}; choose another region"
        )
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    shift = np.zeros(columns.size)
    if grid.pole is None:
        shift = lon[rows[0], columns] - grid.lon[columns]
        order = np.argsort(lon[rows[0], columns])
        order = order if grid.lon[0] <= grid.lon[-1] else order[::-1]
        columns, shift = columns[order], np.round(shift[order] / 360.0) * 360.0
    else:
        rows, columns = (np.arange(index[0], index[-1] + 1) for index in (rows, columns))
        shift = np.zeros(columns.size)
    edges = [grid.lon_bounds[columns] + shift, grid.lon_bounds[columns + 1] + shift]
    if not np.allclose(edges[0][1:], edges[1][:-1], rtol=0, atol=1e-3 * np.ptp(edges, axis=0).max()):
        raise ValueError("expected each cell once, side by side, got gaps or repeated cells; cut the grid")
    lat_bounds = np.append(grid.lat_bounds[rows], grid.lat_bounds[rows[-1] + 1])
    cut = Grid(grid.lat[rows], grid.lon[columns] + shift, lat_bounds, np.append(edges[0], edges[1][-1]), grid.pole)
    return rows, columns, cut
