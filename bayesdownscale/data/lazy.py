"""Fields that stay on disk and are read a stretch of time at a time: for training on data larger than memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from .fields import Labelled
from .grid import Coords
from .places import Paths, Place, place_of
from .read import label, load, names_of, open_dataset, read_layers


@dataclass(frozen=True, eq=False)
class OnDisk:
    """Values (time, variable, lat, lon) of `arrays` (time, lat, lon), one a variable, read when a slice of time is
    taken: float32, NaN where missing."""

    arrays: tuple[xr.DataArray, ...]
    place: Place

    @property
    def shape(self) -> tuple[int, ...]:
        n_time, *cells = self.arrays[0].shape
        return n_time, len(self.arrays), *cells

    def __getitem__(self, steps: slice) -> np.ndarray:
        """The values at these time steps. Raises `DataError` where the file is damaged there."""
        return np.stack([load(array[steps], self.place) for array in self.arrays], axis=1)


@dataclass(frozen=True, eq=False)
class LazyFields(Labelled):
    """What `Fields` is for values in memory, for values on disk: `values` gives an array for a slice of time."""

    values: OnDisk
    coords: Coords
    source: str = ""


def open_lazy(
    path: Paths, variables: Sequence[str] | None = None, at: Mapping[str, object] | None = None
) -> LazyFields:
    """Fields on a regular latitude-longitude grid, or that of a rotated pole, left on disk.

    **Arguments:** as of `open_fields`. Windows are read at random: chunks much longer in time than a window are
    read many times over.
    **Raises:** `DataError` as `open_fields`, for what can be seen without reading the values.
    """
    place = place_of(path)
    ds = open_dataset(place, variables or (), at)
    layers = read_layers(ds, names_of(ds, variables, place), place)
    coords = Coords(layers.times, tuple(label(array) for array in layers.arrays), layers.grid)
    return LazyFields(OnDisk(tuple(layers.arrays), place), coords, str(place))
