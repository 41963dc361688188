"""Fields averaged over the cells of another grid, by area, which need not be nested in theirs."""

from dataclasses import replace

import numpy as np

from .fields import Fields
from .grid import Coords, Grid
from .overlap import mean_weights

WHOLE = 1e-6  # of a coarse cell may be uncovered


def observed_cells(fine: Grid, coarse: Grid) -> np.ndarray:
    """Which cells (coarse lat, coarse lon) of `coarse` lie wholly inside the region of `fine`; grids may be regular or
    rotated."""
    return (mean_weights(coarse, fine)[1] > 1.0 - WHOLE).reshape(coarse.shape)


def conservative_mean(fields: Fields, coarse: Grid) -> Fields:
    """Means of `fields` over the cells of `coarse`, weighted by area (first-order conservative remapping: Jones 1999,
    doi:10.1175/1520-0493(1999)127<2204:FASOCR>2.0.CO;2); grids may be regular or rotated, nested or not.

    **Returns:** (time, variable, coarse lat, coarse lon) float32, NaN in coarse cells that fine ones with a value do
    not cover wholly.
    **Raises:** ValueError where they cover none, or near a pole.
    """
    weights, covered = mean_weights(coarse, fields.grid)
    inside = covered > 1.0 - WHOLE
    if not inside.any():
        raise ValueError(
            f"expected coarse cells wholly within {fields.grid.extent()}, got none of {coarse.extent()}; choose grids "
            "of one region"
        )
    values = fields.values.astype(np.float64).reshape(-1, fields.grid.lat.size * fields.grid.lon.size)
    means = (weights @ values.T).T  # missing values make missing means
    means[:, ~inside] = np.nan
    coords = Coords(fields.times, fields.variables, coarse)
    return replace(fields, values=means.reshape(coords.shape).astype(np.float32), coords=coords)
