"""Fit a coarse file to a prior: its variables, units, order and domain."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import xarray as xr

from .axes import standard_name
from .concatenated import as_slice
from .errors import DataError, quoted, span
from .fields import Fields
from .grid import Coords, Grid, Variable
from .places import Paths, Place, place_of
from .read import Layers, label, load, opened, read_layers
from .region import within
from .units import convert


@runtime_checkable
class HasCoords(Protocol):
    """Anything that knows the labels of its fields, such as a prior or `Fields`."""

    @property
    def coords(self) -> Coords: ...


def open_coarse(
    path: Paths,
    like: HasCoords | Coords,
    variables: Sequence[str] | Mapping[str, str] | None = None,
    times: slice | None = None,
    units: Mapping[str, str] | None = None,
    at: Mapping[str, object] | None = None,
) -> Fields:
    """Read a coarse file the way a prior needs it.

    **Arguments:** `path` as in `open_fields`; `like` a prior, or anything with `coords`, or `Coords` (its
    times are not used); `variables` which of the prior's variables to read (all when not given), or a
    mapping from the prior's names to the file's. Other names match by name, then by CF standard_name; `times`
    the dates to read, both ends included (all when not given), of which all may be missing; `units` of some variables,
    by the prior's or the file's name, where the file has none or wrong ones; `at` as in `open_fields`.

    **Returns:** values (time, variable, lat, lon) with the prior's variables, units, order of latitudes
    and convention of longitudes. Cells not wholly in the prior's domain are cropped: they average weather
    that the prior does not know. On grids of two poles the cells at the corners that are not inside become NaN.
    Missing values stay NaN.

    **Raises:** `DataError` as `open_fields`, and for a variable that is not there or matches twice, missing
    or inconvertible units, no cell wholly inside the domain, or a variable with no value inside it.
    """
    place = place_of(path)
    coords = like if isinstance(like, Coords) else like.coords
    with opened(place, at=at) as ds:
        found = find_coarse(ds, place, coords, variables, times)
        values = []
        rows, columns = as_slice(found.rows), as_slice(found.columns)
        for variable, array in zip(found.variables, found.layers.arrays, strict=True):
            where = f"'{array.name}' in {place}"
            data = load(array.isel(dict(zip(array.dims[1:], (rows, columns), strict=True))), place)
            given = label(array)
            told = (units or {}).get(variable.name, (units or {}).get(given.name, given.units))
            data = convert(data, replace(given, units=told), variable, where)
            data = np.where(found.inside, data, np.float32(np.nan))
            if times is None and np.isnan(data).all():
                raise DataError(
                    f"expected values in the prior's domain, got only missing ones for {where}; check its "
                    "_FillValue and its region"
                )
            values.append(data)
    labels = Coords(found.layers.times, found.variables, found.grid)
    return Fields(np.stack(values, axis=1), labels, str(place), found.layers.bounds, found.layers.methods)


class Found(NamedTuple):
    """What a prior needs of an open coarse file, not yet loaded: its `layers`, the prior's `variables` they are, and
    the `rows` and `columns` with cells in the prior's domain, the `grid` they make, and which cells lie `inside`."""

    layers: Layers
    variables: tuple[Variable, ...]
    rows: np.ndarray
    columns: np.ndarray
    grid: Grid
    inside: np.ndarray


def find_coarse(
    ds: xr.Dataset,
    path: Place,
    coords: Coords,
    variables: Sequence[str] | Mapping[str, str] | None = None,
    times: slice | None = None,
) -> Found:
    """Find in the open file `ds` what `open_coarse` reads; raises as it does."""
    variables = [variables] if isinstance(variables, str) else variables
    chosen = {v.name for v in coords.variables} if variables is None else set(variables)
    wanted = tuple(v for v in coords.variables if v.name in chosen)
    if not wanted or len(wanted) < len(chosen):
        known = quoted(v.name for v in coords.variables)
        raise DataError(
            f"expected variables among the prior's {known} to read from {path}, got {quoted(chosen)}; "
            "choose among the prior's"
        )
    renamed = variables if isinstance(variables, Mapping) else {}
    names = [_match(ds, variable, renamed.get(variable.name), path) for variable in wanted]
    layers = read_layers(ds, names, path, times)
    try:
        place = within(layers.grid, coords.grid)
    except ValueError as error:
        raise DataError(f"{quoted(names)} in {path}: {error}") from error
    return Found(layers, wanted, *place)


def check_overlap(times_coarse: np.ndarray, times_fine: np.ndarray, where: str = "the coarse file") -> None:
    """Raise `DataError` when the coarse times and the fine times, both datetime64, do not overlap; `where`
    names the coarse variable and file in the message."""
    coarse, fine = np.asarray(times_coarse), np.asarray(times_fine)
    if not coarse.size or not fine.size or coarse.max() < fine.min() or fine.max() < coarse.min():
        raise DataError(
            f"expected times of {where} that overlap the fine times {span(fine)}, got {span(coarse)}; "
            "choose files of the same period"
        )


def _match(ds: xr.Dataset, variable: Variable, name: str | None, path: Place) -> str:
    """The file's name for the prior's `variable`."""
    name = name or variable.name
    if name in ds.data_vars:
        return name
    named = [str(n) for n, array in ds.data_vars.items() if standard_name(array) == variable.standard_name]
    if variable.standard_name and name == variable.name and len(named) == 1:
        return named[0]
    found = quoted(named if variable.standard_name and named else ds.data_vars)
    raise DataError(
        f"expected one variable named '{name}' or with standard_name '{variable.standard_name}' in {path}, "
        f"got {found}; pass the file's name for it, as in variables={{'{variable.name}': ...}} or "
        f"--name {variable.name}=..."
    )
