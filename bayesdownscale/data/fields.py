"""Values with their labels: what is read from files, handed to models and written."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .errors import DataError, quoted
from .grid import Coords, Grid, Variable
from .intervals import interval_bounds

if TYPE_CHECKING:
    import xarray as xr

FILL_VALUE = np.float32(1e20)  # what stands for a missing value in files, as in CMIP


class Labelled:
    """The labels of values that have `coords`."""

    coords: Coords

    @property
    def times(self) -> np.ndarray:
        return self.coords.times

    @property
    def grid(self) -> Grid:
        return self.coords.grid

    @property
    def variables(self) -> tuple[Variable, ...]:
        return self.coords.variables


@dataclass(frozen=True, eq=False)
class Fields(Labelled):
    """Values with their labels: `values` (time, variable, lat, lon) float32, NaN where missing; `source`
    says where they came from; `bounds` (time, 2) datetime64[ns], the start and end of what each time stands for, None
    where that is not known; `methods`, how each variable's values stand for it, in the words of CF's cell_methods
    ("point", "mean", "maximum", ...; "" or an empty tuple: not known)."""

    values: np.ndarray
    coords: Coords
    source: str = ""
    bounds: np.ndarray | None = None
    methods: tuple[str, ...] = ()

    def __post_init__(self):
        if self.bounds is not None and self.bounds.shape != (self.coords.times.size, 2):
            raise ValueError(f"expected bounds of {self.coords.times.size} times, got {self.bounds.shape}")
        if self.values.shape != self.coords.shape:
            raise ValueError(f"expected values of shape {self.coords.shape}, got {self.values.shape}")

    def only(self, names: Sequence[str]) -> "Fields":
        """The variables `names`, in that order. Raises `DataError` for one that is not there."""
        known = [v.name for v in self.variables]
        missing = [name for name in names if name not in known]
        if missing or not names:
            got = f"in {self.source or 'the fields'}, got {quoted(known)}"
            raise DataError(f"expected {quoted(missing) if missing else 'a variable'} {got}; give a file with it")
        place = [known.index(name) for name in names]
        coords = replace(self.coords, variables=tuple(self.variables[k] for k in place))
        methods = tuple(self.methods[k] for k in place) if self.methods else ()
        return replace(self, values=self.values[:, place], coords=coords, methods=methods)

    def isel_times(self, index: "slice | int | np.ndarray | list[int]") -> "Fields":
        """The fields at the times `index` (positions); a single position keeps the time axis."""
        index = np.atleast_1d(np.arange(self.times.size)[index])
        bounds = None if self.bounds is None else self.bounds[index]
        coords = replace(self.coords, times=self.coords.times[index])
        return replace(self, values=self.values[index], coords=coords, bounds=bounds)

    def means_over(self, bounds: np.ndarray) -> "Fields":
        """The same values, known to be means over `bounds` (time, 2), start included, end not: for files that do not
        say so."""
        return replace(self, bounds=np.asarray(bounds, "datetime64[ns]"), methods=("mean",) * len(self.variables))

    def stamped_at(self, stamp: str) -> "Fields":
        """The same values, known to be at a "point" in time, or means of which the times mark the "start", "middle" or
        "end". Raises `ValueError` as `interval_bounds`."""
        if stamp == "point":
            return replace(self, bounds=None, methods=("point",) * len(self.variables))
        return self.means_over(interval_bounds(self.times, stamp))

    def first_and_last(self, step: np.timedelta64) -> np.ndarray:
        """The first and the last time (2,) that a fine field of this `step` needs, for `prior.spanning`: those of the
        values, or of the stretches of time they stand for."""
        if self.bounds is None or set(self.methods) == {"point"}:
            return np.stack([self.times.min(), self.times.max()])
        return np.stack([self.bounds.min(), max(self.bounds.max() - step, self.bounds.min())])

    def crop(self, n_lat: int, n_lon: int) -> "Fields":
        """The first `n_lat` rows and `n_lon` columns."""
        coords = replace(self.coords, grid=self.coords.grid.crop(n_lat, n_lon))
        return replace(self, values=self.values[:, :, :n_lat, :n_lon], coords=coords)

    def to_dataset(self) -> "xr.Dataset":
        """A CF dataset with one data variable (time, lat, lon) in its own units per `Variable`."""
        import xarray as xr

        methods = self.methods or ("",) * len(self.variables)
        data = {
            variable.name: xr.Variable(
                ("time", "lat", "lon"),
                self.values[:, k],
                variable.cf_attrs() | ({"cell_methods": f"time: {method}"} if method else {}),
                {"dtype": "float32", "_FillValue": FILL_VALUE},
            )
            for k, (variable, method) in enumerate(zip(self.variables, methods, strict=True))
        }
        coords = self.coords.to_xarray()
        if self.bounds is not None:
            coords["time"].encoding["bounds"] = "time_bnds"
            as_time = {key: coords["time"].encoding[key] for key in ("units", "calendar")}
            coords["time_bnds"] = xr.Variable(
                ("time", "bnds"), self.bounds, {}, as_time | {"dtype": "float64", "_FillValue": None}
            )
        attrs = {"Conventions": "CF-1.11"} | ({"source": self.source} if self.source else {})
        return xr.Dataset(data, coords=coords, attrs=attrs)
