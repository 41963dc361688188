"""Several files as one: a file a year or a file a variable, as CMIP6 has it, joined along time without being loaded."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import xarray as xr

from .axes import find_axis
from .concatenated import concatenated
from .errors import DataError, quoted
from .places import Files, Place

SAME = 1e-4  # degrees by which the cells of two files may differ


def joined(parts: list[xr.Dataset], files: Files) -> xr.Dataset:
    """One dataset of open `parts`, in the order of `files.parts`: those with the same variables one after another in
    time, those with others beside them.

    **Raises:** `DataError` where files overlap in time, or have other grids, calendars, units or (of other variables)
    times.
    """
    groups: dict[tuple[str, ...], list[tuple[xr.Dataset, Place]]] = {}
    for ds, place in zip(parts, files.parts, strict=True):
        names = tuple(sorted(str(n) for n, array in ds.data_vars.items() if find_axis(array, "time") is not None))
        if not names:
            raise DataError(f"expected variables with a time axis in {place}, got none; leave it out of {files}")
        groups.setdefault(names, []).append((ds, place))
    every = [(_along_time(names, group, files), group[0][1]) for names, group in groups.items()]
    (first, name), *others = every
    for other, place in others:
        _check_grid(first, other, name, place, files)
        if not np.array_equal(_time(first).values, _time(other).values):
            raise DataError(
                f"expected the same times of all variables in {files}, got {_period(first)} in {name} and after, and "
                f"{_period(other)} in {place} and after; choose files of one period"
            )
        first = first.assign({n: other[n].variable for n in other.data_vars if n not in first.variables})

    def close() -> None:
        for ds in parts:
            ds.close()

    whole = first.copy()
    whole.set_close(close)
    return whole


def choose(ds: xr.Dataset, at: Mapping[str, object], path: Place) -> xr.Dataset:
    """`ds` at one level, member or the like of each dimension (or its coordinate) named in `at`.

    **Raises:** `DataError` for a dimension that is not there, or a value that it does not have.
    """
    for name, wanted in at.items():
        if name not in ds.dims and (name not in ds.coords or ds[name].ndim > 1):
            raise DataError(f"expected a dimension '{name}' in {path}, got {quoted(ds.sizes)}; leave it out")
        values = np.atleast_1d(ds[name].values) if name in ds.coords else np.arange(ds.sizes[name])
        found = [k for k, value in enumerate(values.tolist()) if _is(value, wanted)]
        if len(found) != 1:
            raise DataError(
                f"expected one '{name}' of {wanted} in {path}, got {listed(ds, name)}; choose one, as in "
                f"{how_to_choose(ds, name)}"
            )
        dims = (name,) if name in ds.dims else ds[name].dims
        ds = ds.isel({dim: found[0] for dim in dims})
    return ds


def listed(ds: xr.Dataset | xr.DataArray, name: str, most: int = 8) -> str:
    """The values of a dimension in words, with units: 85000, 50000 [Pa]."""
    values = np.atleast_1d(ds[name].values) if name in ds.coords else np.arange(ds.sizes[name])
    words = [_word(value) for value in values[:most].tolist()] + (["..."] if values.size > most else [])
    units = str(ds[name].attrs.get("units", "")) if name in ds.coords else ""
    return ", ".join(words) + (f" [{units}]" if units not in ("", "1") else "")


def how_to_choose(ds: xr.Dataset | xr.DataArray, name: str) -> str:
    """What to write to choose a value of a dimension, in Python and on the command line."""
    value = np.atleast_1d(ds[name].values)[0].tolist() if name in ds.coords else 0
    return f"at={{'{name}': {value!r}}} or --at {name}={_word(value)}"


def _word(value: object) -> str:
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def _is(value: object, wanted: object) -> bool:
    """Whether a coordinate's `value` is the one `wanted`, a number or its words."""
    try:
        return bool(np.isclose(float(value), float(wanted), rtol=1e-6, atol=0))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value) == str(wanted)


def _with_time(ds: xr.Dataset, name: str, dim: str) -> xr.Dataset:
    """The coordinates of `ds` with its time, called `name`, along `dim`, also where it holds one time only."""
    ds = ds.drop_vars(list(ds.data_vars))
    time = ds[name]
    if time.ndim:
        return ds.rename({time.dims[0]: dim}) if time.dims[0] != dim else ds
    bounds = str(time.encoding.get("bounds", time.attrs.get("bounds", f"{name}_bnds")))
    ends = {bounds: ds[bounds].expand_dims(dim)} if bounds in ds.variables else {}
    return ds.drop_vars(list(ends)).assign_coords({name: time.expand_dims(dim)} | ends)


def _along_time(names: tuple[str, ...], group: list[tuple[xr.Dataset, Place]], files: Files) -> xr.Dataset:
    """Parts with the variables `names`, one after another."""
    if len(group) == 1:
        return group[0][0]
    (first, name), *others = group
    for other, place in others:
        if _time(first).name != _time(other).name:
            raise DataError(
                f"expected one name of the times in {files}, got '{_time(first).name}' in {name} and "
                f"'{_time(other).name}' in {place}; rename one"
            )
        _check_grid(first, other, name, place, files)
        for variable in names:
            own, their = (str(ds[variable].attrs.get("units", "")) for ds in (first, other))
            if own != their:
                raise DataError(
                    f"expected one unit of '{variable}' in {files}, got '{own}' in {name} and '{their}' in {place}; "
                    "correct the 'units' attribute or read them one at a time"
                )
    time = _time(first)
    dim = str(time.dims[0] if time.ndim else time.name)
    if all(_time(ds).dtype.kind in "MO" for ds, _ in group):  # others are undated, and refused when they are read
        group = _in_order(group, files)
    places = [_with_time(ds, str(time.name), dim) for ds, _ in group]
    whole = xr.concat(
        places, dim, data_vars="minimal", coords="minimal", compat="override", join="override", combine_attrs="override"
    )
    for name in whole.variables:
        whole[name].encoding = dict(first[name].encoding)
    series = {name: concatenated([ds[name].variable for ds, _ in group], dim) for name in names}
    return whole.assign({name: array.variable for name, array in first.data_vars.items()} | series)


def _in_order(group: list[tuple[xr.Dataset, Place]], files: Files) -> list[tuple[xr.Dataset, Place]]:
    """Parts sorted by time; raises `DataError` where two have other calendars or overlap."""
    (first, name), *others = group
    for other, place in others:
        own, their = (_time(ds).dt.calendar for ds in (first, other))
        if own != their:
            raise DataError(
                f"expected one calendar in {files}, got '{own}' in {name} and '{their}' in {place}; read them one at a "
                "time"
            )
    group = sorted(group, key=lambda part: _time(part[0]).values.min())
    for (before, name), (after, place) in pairwise(group):
        if _time(before).values.max() >= _time(after).values.min():
            raise DataError(
                f"expected files that follow each other in time in {files}, got {_period(before)} in {name} and "
                f"{_period(after)} in {place}; leave one out"
            )
    return group


def _check_grid(first: xr.Dataset, other: xr.Dataset, name: Place, place: Place, files: Files) -> None:
    """Raise `DataError` where the coordinates in space, or of levels and the like, are not those of `first`."""
    own, their = first[_timed(first)], other[_timed(other)]
    both = (first, own), (other, their)
    sizes = [{str(d): x.sizes[d] for d in x.dims if d not in _time(ds).dims} for ds, x in both]
    dims, same = list(sizes[0]), sizes[0] == sizes[1]
    for key in [*dims, *(str(c.name) for axis in ("lat", "lon") if (c := find_axis(own, axis)) is not None)]:
        if not same or key not in first.coords:
            continue
        same = key in other.coords and _alike(first[key].values, other[key].values)
    if not same:
        raise DataError(
            f"expected one grid in {files}, got another in {place} ({_sizes(their)}) than in {name} ({_sizes(own)}); "
            "regrid one, or read them one at a time"
        )


def _sizes(array: xr.DataArray) -> str:
    """The dimensions in words, with their first and last values: lat 3 from 55.6 to 57.6."""
    ends = lambda d: f" from {_word(array[d].values[0].item())} to {_word(array[d].values[-1].item())}"
    known = [str(d) for d in array.dims if array[d].dtype.kind in "fiu"]
    return ", ".join(f"{d} {array.sizes[d]}{ends(d) if d in array.coords else ''}" for d in known)


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape or a.dtype.kind not in "fiu" or b.dtype.kind not in "fiu":
        return np.array_equal(a, b)
    return bool(np.allclose(a, b, rtol=1e-6, atol=SAME))


def _timed(ds: xr.Dataset) -> str:
    """The first variable with a time axis."""
    return next(str(n) for n, array in ds.data_vars.items() if find_axis(array, "time") is not None)


def _time(ds: xr.Dataset) -> xr.DataArray:
    time = find_axis(ds[_timed(ds)], "time")
    assert time is not None
    return time


def _period(ds: xr.Dataset) -> str:
    values = _time(ds).values
    return f"{str(values.min())[:16]} to {str(values.max())[:16]}"
