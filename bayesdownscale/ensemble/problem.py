"""What is downscaled: a prior, coarse data that are read a block at a time, and a program with fixed parameters."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from bayesdownscale.data.coarse import find_coarse, open_coarse
from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords
from bayesdownscale.data.read import opened
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

    def __post_init__(self):
        check_snapshots(self.fields.bounds, self.fields.methods, self.fields.source or "the coarse fields")

    @property
    def coords(self) -> Coords:
        return self.fields.coords

    def rows(self, low: int, high: int) -> np.ndarray:
        return self.fields.values[low:high]


@dataclass(frozen=True)
class CoarseFile:
    """A NetCDF, Zarr or GRIB file of coarse fields fitted to a prior as by `open_coarse`, of which each job reads
    only its own times; `names` and `units` as its `variables` and `units`. Raises `DataError` as `open_coarse`."""

    path: Path
    like: FieldPrior = field(repr=False, compare=False)
    names: Mapping[str, str] | None = None
    units: Mapping[str, str] | None = None

    @property
    def coords(self) -> Coords:
        return self._coords

    @cached_property
    def _coords(self) -> Coords:
        with opened(self.path) as ds:
            found = find_coarse(ds, self.path, self.like.coords, self.names)
            check_snapshots(found.layers.bounds, found.layers.methods, str(self.path))
            return Coords(found.layers.times, found.variables, found.grid)

    def rows(self, low: int, high: int) -> np.ndarray:
        times = self.coords.times[low:high]
        if not times.size:
            return np.zeros((0, *self.coords.shape[1:]), np.float32)
        period = slice(times[0], times[-1])
        return open_coarse(self.path, self.like, self.names, period, self.units).values


def check_snapshots(bounds: np.ndarray | None, methods: tuple[str, ...], where: str) -> None:
    """Raise `ValueError` for coarse values that are not snapshots, as far as their file says."""
    kinds = {method or ("point" if bounds is None else "mean") for method in methods or ("",)}
    if kinds != {"point"}:
        raise ValueError(
            f"expected snapshots (cell_methods 'time: point') in {where}, got {', '.join(sorted(kinds))}; ensembles "
            "do not take means in time yet: use `downscale` on a shorter span"
        )


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
