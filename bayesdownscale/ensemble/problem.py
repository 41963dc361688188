"""What is downscaled: a prior, coarse data that are read a block at a time, and a program with fixed parameters."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from bayesdownscale.data.coarse import find_coarse, open_coarse
from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords
from bayesdownscale.data.intervals import interval_bounds
from bayesdownscale.data.places import Paths, place_of
from bayesdownscale.data.read import opened
from bayesdownscale.prior.distribution import FieldPrior

ROWS = 4096  # times read at once where all data are read


@runtime_checkable
class CoarseData(Protocol):
    """Coarse data that need not fit in memory: their labels, and any of their rows."""

    @property
    def coords(self) -> Coords: ...

    @property
    def means(self) -> np.ndarray | None:
        """Start and end (time, 2) of what each value is the mean over; None for snapshots."""
        ...

    def rows(self, low: int, high: int) -> np.ndarray:
        """Values at the times low to high - 1: (time, variable, lat, lon), NaN where missing."""
        ...


@dataclass(frozen=True)
class CoarseInMemory:
    """Coarse fields that are already there."""

    fields: Fields

    def __post_init__(self):
        assert self.means is None or self.means.shape[1] == 2  # raises for values that are neither

    @property
    def coords(self) -> Coords:
        return self.fields.coords

    @property
    def means(self) -> np.ndarray | None:
        return bounds_of_means(self.fields.bounds, self.fields.methods, self.fields.source or "the coarse fields")

    def rows(self, low: int, high: int) -> np.ndarray:
        return self.fields.values[low:high]


@dataclass(frozen=True)
class CoarseFile:
    """A NetCDF, Zarr or GRIB file of coarse fields, or several, fitted to a prior as by `open_coarse`, of which each
    job reads only its own times; `names`, `units` and `at` as its `variables`, `units` and `at`, `stamp` as in
    `Fields.stamped_at`. Raises `DataError` as `open_coarse`."""

    path: Paths
    like: FieldPrior = field(repr=False, compare=False)
    names: Mapping[str, str] | None = None
    units: Mapping[str, str] | None = None
    stamp: str | None = None
    at: Mapping[str, object] | None = None

    @property
    def coords(self) -> Coords:
        return self._labels[0]

    @property
    def means(self) -> np.ndarray | None:
        return self._labels[1]

    @cached_property
    def _labels(self) -> tuple[Coords, np.ndarray | None]:
        place = place_of(self.path)
        with opened(place, at=self.at) as ds:
            found = find_coarse(ds, place, self.like.coords, self.names)
            layers = found.layers
            if self.stamp is None:
                means = bounds_of_means(layers.bounds, layers.methods, str(place))
            else:
                means = None if self.stamp == "point" else interval_bounds(layers.times, self.stamp)
            return Coords(layers.times, found.variables, found.grid), means

    def rows(self, low: int, high: int) -> np.ndarray:
        times = self.coords.times[low:high]
        if not times.size:
            return np.zeros((0, *self.coords.shape[1:]), np.float32)
        period = slice(times[0], times[-1])
        return open_coarse(self.path, self.like, self.names, period, self.units, self.at).values


def bounds_of_means(bounds: np.ndarray | None, methods: tuple[str, ...], where: str) -> np.ndarray | None:
    """The `bounds` of coarse values that are means, as their file says; None for snapshots. Raises `ValueError` for
    others, as `seen_in_time` does."""
    kinds = {method or ("point" if bounds is None else "mean") for method in methods or ("",)}
    if kinds == {"point"}:
        return None
    if kinds != {"mean"}:
        raise ValueError(
            f"expected snapshots (cell_methods 'time: point') or means ('time: mean') in {where}, got "
            f"{', '.join(sorted(kinds))}; leave variables out, or make means of them"
        )
    if bounds is None:
        raise ValueError(
            f"expected time_bnds with the means in {where}, got none, and times that may be their starts or ends; say "
            "which with fields.stamped_at('start'), or --stamp start"
        )
    return np.asarray(bounds, "datetime64[ns]")


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

    @cached_property
    def cadence(self) -> tuple[np.ndarray, int]:
        """When the data start (time,) and over how many steps of the prior each is a mean, 0 for snapshots.

        Raises `ValueError` for means over intervals of several lengths, as months are: blocks that hold other
        numbers of days would each have another operator.
        """
        means, step = self.coarse.means, np.diff(self.prior.times)[0].astype("timedelta64[ns]")
        if means is None:
            return self.coarse.coords.times, 0
        lengths = np.unique(means[:, 1] - means[:, 0])
        if lengths.size != 1 or lengths[0] % step or lengths[0] < step:
            hour = np.timedelta64(1, "h")
            raise ValueError(
                f"expected means over one length of time, a whole number of the prior's steps of {step / hour:g} h, "
                f"got {lengths.min() / hour:g} to {lengths.max() / hour:g} h; take daily means, or `downscale` on a "
                "shorter span"
            )
        return means[:, 0], int(lengths[0] // step)

    def every_row(self) -> Iterator[np.ndarray]:
        """All data, some thousand times at once."""
        n = self.coarse.coords.times.size
        for low in range(0, n, ROWS):
            yield self.coarse.rows(low, min(low + ROWS, n))
