"""What is downscaled: a prior, coarse data that are read a block at a time, and a program with fixed parameters."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from bayesdownscale.data.coarse import find_coarse, open_coarse
from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords
from bayesdownscale.data.read import open_dataset
from bayesdownscale.prior.distribution import FieldPrior

ROWS = 4096  # times read at once where all data are read


@runtime_checkable
class CoarseData(Protocol):
    """Coarse data that need not fit in memory: their labels, and any of their rows."""

    @property
    def coords(self) -> Coords: ...

    def rows(self, low: int, high: int) -> np.ndarray:
        """Values at the times low to high - 1: (time, variable, lat, lon), NaN where missing."""
        ...


@dataclass(frozen=True)
class CoarseInMemory:
    """Coarse fields that are already there."""

    fields: Fields

    @property
    def coords(self) -> Coords:
        return self.fields.coords

    def rows(self, low: int, high: int) -> np.ndarray:
        return self.fields.values[low:high]


@dataclass(frozen=True)
class CoarseFile:
    """A NetCDF, Zarr or GRIB file of coarse fields fitted to a prior as by `open_coarse`, of which each job reads
    only its own times. Raises `DataError` as `open_coarse`."""

    path: Path
    like: FieldPrior = field(repr=False, compare=False)

    @property
    def coords(self) -> Coords:
        return self._coords

    @cached_property
    def _coords(self) -> Coords:
        with open_dataset(self.path) as ds:
            found = find_coarse(ds, self.path, self.like.coords)
            return Coords(found.layers.times, found.variables, found.grid)

    def rows(self, low: int, high: int) -> np.ndarray:
        times = self.coords.times[low:high]
        if not times.size:
            return np.zeros((0, *self.coords.shape[1:]), np.float32)
        return open_coarse(self.path, self.like, times=slice(times[0], times[-1])).values


@dataclass(frozen=True)
class Problem:
    """A `prior` of windows, `coarse` data, and `model(prior, H, y=..., **settings)`, whose parameters must all be
    fixed by the `settings`: a parameter drawn anew in each job would jump from span to span."""

    prior: FieldPrior
    coarse: CoarseData
    model: Callable
    settings: dict[str, Any]

    @property
    def wants_coords(self) -> bool:
        return "coords" in inspect.signature(self.model).parameters

    def every_row(self) -> Iterator[np.ndarray]:
        """All data, some thousand times at once."""
        n = self.coarse.coords.times.size
        for low in range(0, n, ROWS):
            yield self.coarse.rows(low, min(low + ROWS, n))


def problem_from_files(prior: Path | None, coarse: Path, model: str, settings: dict[str, Any]) -> Problem:
    """The problem of a prior's folder (None: the shipped one), a coarse file and a program by name or path. A
    top-level function of plain arguments, so that worker processes can call it too."""
    from bayesdownscale.prior.trained import load_prior
    from bayesdownscale.recipes import find_recipe, load_recipe

    loaded = load_prior(prior)
    program = load_recipe(find_recipe("models", model)).model
    return Problem(loaded, CoarseFile(Path(coarse), loaded), program, settings)
