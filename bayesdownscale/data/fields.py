"""Values with their labels: what is read from files, handed to models and written."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .grid import Coords, Grid, Variable

if TYPE_CHECKING:
    import xarray as xr

FILL_VALUE = np.float32(1e20)  # what stands for a missing value in files, as in CMIP


@dataclass(frozen=True, eq=False)
class Fields:
    """Values with their labels: `values` (time, variable, lat, lon) float32, NaN where missing; `source`
    says where they came from."""

    values: np.ndarray
    coords: Coords
    source: str = ""

    def __post_init__(self):
        if self.values.shape != self.coords.shape:
            raise ValueError(f"expected values of shape {self.coords.shape}, got {self.values.shape}")

    @property
    def times(self) -> np.ndarray:
        return self.coords.times

    @property
    def grid(self) -> Grid:
        return self.coords.grid

    @property
    def variables(self) -> tuple[Variable, ...]:
        return self.coords.variables

    def isel_times(self, index: "slice | int | np.ndarray | list[int]") -> "Fields":
        """The fields at the times `index` (positions); a single position keeps the time axis."""
        index = np.atleast_1d(np.arange(self.times.size)[index])
        return replace(self, values=self.values[index], coords=replace(self.coords, times=self.coords.times[index]))

    def crop(self, n_lat: int, n_lon: int) -> "Fields":
        """The first `n_lat` rows and `n_lon` columns."""
        coords = replace(self.coords, grid=self.coords.grid.crop(n_lat, n_lon))
        return replace(self, values=self.values[:, :, :n_lat, :n_lon], coords=coords)

    def to_dataset(self) -> "xr.Dataset":
        """A CF dataset with one data variable (time, lat, lon) in its own units per `Variable`."""
        import xarray as xr

        data = {
            variable.name: xr.Variable(
                ("time", "lat", "lon"),
                self.values[:, k],
                variable.cf_attrs(),
                {"dtype": "float32", "_FillValue": FILL_VALUE},
            )
            for k, variable in enumerate(self.variables)
        }
        attrs = {"Conventions": "CF-1.11"} | ({"source": self.source} if self.source else {})
        return xr.Dataset(data, coords=self.coords.to_xarray(), attrs=attrs)
