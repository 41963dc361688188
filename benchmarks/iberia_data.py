"""The files of `benchmarks.iberia`, as winters of 90 days on two grids."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import bayesdownscale as bd
from bayesdownscale.data import datasets
from bayesdownscale.data.overlap import overlap_areas
from benchmarks.iberia_statistics import winters_of

FINE, COARSE = "iberia/CORDEX_EUR44_Iberia_DJF.nc", "iberia/CMIP5_Iberia_DJF.nc"
LENGTH = 90  # days of a winter
FIRST_TEST = np.datetime64("1995-06-01")


@dataclass(frozen=True, eq=False)
class Data:
    """Winters of 90 days: `fine` and `coarse`, the model, and `perfect`, the fine fields on the model's cells; all
    (day, variable, lat, lon). `inside` (coarse lat, coarse lon): wholly within the fine grid. `test`, the first day."""

    fine: bd.Fields
    coarse: bd.Fields
    perfect: bd.Fields
    inside: np.ndarray
    test: int


def find(name: str) -> Path | None:
    """The file, in the folder that BAYESDOWNSCALE_DATA names or beside the checkout."""
    return next((folder / name for folder in datasets._folders() if (folder / name).is_file()), None)


def load() -> Data | None:
    """Both files, or None where they are not on this machine."""
    paths = [find(name) for name in (FINE, COARSE)]
    if None in paths:
        return None
    fine, coarse = (bd.open_fields(path, ["tas", "pr"]) for path in paths if path is not None)
    days = np.concatenate([w for w in winters_of(fine.times) if w.size == LENGTH])
    assert np.array_equal(fine.times, coarse.times)
    fine, coarse = fine.isel_times(days), coarse.isel_times(days)
    # The file gives no units: K and kg m-2 s-1.
    own = coarse.values * np.array([1.0, 86400.0])[:, None, None] + np.array([-273.15, 0.0])[:, None, None]
    coarse = replace(
        coarse, values=own.astype(np.float32), coords=replace(coarse.coords, variables=fine.coords.variables)
    )
    perfect = bd.conservative_mean(fine, coarse.grid)
    inside = np.isfinite(perfect.values[0, 0])
    return Data(fine, coarse, perfect, inside, int(np.searchsorted(fine.times, FIRST_TEST)))


def scored_cells(data: Data) -> np.ndarray:
    """Fine cells (cell,) that lie within the coarse cells used."""
    areas = overlap_areas(data.coarse.grid, data.fine.grid)
    covered = np.asarray(areas[np.flatnonzero(data.inside.ravel())].sum(axis=0)).ravel()
    return covered > 0.99 * data.fine.grid.cell_areas().ravel()
