"""Land-sea masks: which part of each cell is land."""

import os

import numpy as np

from .axes import find_axis, read_pole, regular_grid, rotated_axes, standard_name, straightened
from .errors import DataError, quoted
from .grid import Grid, Variable
from .overlap import mean_weights
from .places import place_of
from .read import label, load, opened
from .regrid import WHOLE
from .units import convert

NAMES = ("sftlf", "lsm", "land_sea_mask", "landmask")
STANDARD_NAMES = ("land_area_fraction", "land_binary_mask")


def land_fraction(path: str | os.PathLike[str], grid: Grid) -> np.ndarray:
    """The part of each cell of `grid` that is land, (lat, lon) float32 from 0 to 1.

    `path` holds it as CF's land_area_fraction (in % or as 1) or land_binary_mask, or under a usual name (sftlf, lsm),
    on any grid: it is averaged over the cells of `grid` by area, NaN in those that it does not cover wholly.

    **Raises:** `DataError` where the file holds no such field or more than one, or values that are no parts;
    ValueError near a pole.
    """
    place = place_of(path)
    with opened(place, ["land_area_fraction"]) as ds:
        found = [n for n, a in ds.data_vars.items() if standard_name(a) in STANDARD_NAMES]
        found = found or [n for n in ds.data_vars if str(n).lower() in NAMES]
        if len(found) != 1:
            raise DataError(
                f"expected one field of standard_name {STANDARD_NAMES[0]} in {place}, got "
                f"{quoted(found or ds.data_vars)}; set its standard_name"
            )
        array = ds[found[0]]
        lat, lon = rotated_axes(array) or (find_axis(array, "lat"), find_axis(array, "lon"))
        lat, lon = (None, None) if lat is None or lon is None else straightened(lat, lon)
        if lat is None or lon is None or lat.ndim != 1 or lon.ndim != 1:
            raise DataError(f"expected a regular or rotated grid for '{array.name}' in {place}, got others; regrid it")
        pole = None if rotated_axes(array) is None else read_pole(array, lat, lon, place)
        own = regular_grid(ds, lat, lon, place, pole)
        over = {d: 0 for d in array.dims if d not in (lat.dims[0], lon.dims[0])}  # a time, say: masks do not change
        array = array.isel(over).transpose(lat.dims[0], lon.dims[0])
        given, values = label(array), load(array, place)
    if given.units and given.units != "1":
        part = Variable("land", "1")
        values = convert(values, given, part, f"'{given.name}' in {place}")
    elif not given.units and np.nanmax(values) > 1.5:  # % without saying so
        values = values / np.float32(100.0)
    if np.nanmin(values) < -1e-4 or np.nanmax(values) > 1 + 1e-4:
        raise DataError(
            f"expected parts of 0 to 1 for '{given.name}' in {place}, got {np.nanmin(values):g} to "
            f"{np.nanmax(values):g} {given.units}; correct its units"
        )
    values = np.clip(values, 0.0, 1.0)
    if own == grid:
        return values
    weights, covered = mean_weights(grid, own)
    means = np.where(covered > 1.0 - WHOLE, weights @ values.ravel().astype(np.float64), np.nan)
    return means.reshape(grid.shape).astype(np.float32)
