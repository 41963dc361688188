"""The times of a file: dates of any calendar, sorted, and what stretch of time each value stands for."""

import re
from dataclasses import dataclass

import numpy as np
import xarray as xr

from .errors import DataError, minute, span
from .places import Place

OTHER_CALENDARS = {"noleap", "365_day", "all_leap", "366_day", "360_day", "julian"}
_GRIB_METHODS = {"instant": "point", "avg": "mean", "accum": "sum", "max": "maximum", "min": "minimum"}
DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Times:
    """Sorted `stamps` (n,) datetime64[ns], their positions in the file `order` (n,), and the start and end `bounds`
    (n, 2) datetime64[ns] of what each stands for, None where the file has none."""

    stamps: np.ndarray
    order: np.ndarray
    bounds: np.ndarray | None = None


def read_times(ds: xr.Dataset, time: xr.DataArray, period: slice | None, path: Place) -> Times:
    """The times within `period` along the axis `time` of `ds`.

    Dates of other calendars become those of the standard one. noleap, julian and all_leap dates keep their names (a
    29 February that the year lacks is dropped). 360_day dates of daily or longer steps are spread over the year
    (`align_on="year"`), so no day is lost and five or six have no value; those of shorter steps keep their names
    (`align_on="date"`), so runs of hours stay whole and 30 February, and 29 where the year lacks it, are dropped.

    **Raises:** `DataError` for undated values, dates outside 1678 to 2261, or repeated ones.
    """
    stamps, kept = _standard(time, path)
    # Dates stored as fractions of a day miss the hour by some microseconds.
    stamps = _whole_ms(stamps)
    order = np.argsort(stamps, kind="stable")
    stamps, kept = stamps[order], kept[order]
    repeated = stamps[1:][stamps[1:] == stamps[:-1]]
    if repeated.size:
        raise DataError(f"expected each time once in {path}, got {minute(repeated[0])} twice; drop one")
    if period is not None:
        chosen = xr.DataArray(np.arange(stamps.size), {"time": stamps}, ["time"]).sel(time=period).values
        if not chosen.size:
            dates = f"{period.start} to {period.stop}"
            raise DataError(f"expected times from {dates} in {path}, got {span(stamps)}; choose among these")
        stamps, kept = stamps[chosen], kept[chosen]
    ends = _bounds(ds, time)
    return Times(stamps, kept, None if ends is None else stamps[:, None] + ends[kept])


def _standard(time: xr.DataArray, path: Place) -> tuple[np.ndarray, np.ndarray]:
    """Dates (n,) datetime64 of the standard calendar, and their positions among those of the file."""
    values, kept = time.values, np.arange(time.size)
    other = time.dtype.kind == "O" and values.size > 0 and time.dt.calendar in OTHER_CALENDARS
    if time.dtype.kind != "M" and not other:
        known = time.dtype.kind == "O" and values.size > 0
        got = f"the {time.dt.calendar} calendar" if known else f"undated {time.dtype} values"
        raise DataError(
            f"expected dates after 1678 for '{time.name}' in {path}, got {got}; give it units such as "
            "'hours since 2000-01-01' and a calendar"
        )
    years = time.dt.year.values
    if not years.size or (not other and np.isnat(values).any()) or years.min() < 1678 or years.max() > 2261:
        raise DataError(f"expected dates from 1678 to 2261 in {path}, got none, missing or other ones; drop these")
    if not other:
        return values, kept
    steps = np.diff(np.sort(values))
    daily = not steps.size or steps.min() / DAY.astype(object) >= 1
    align = ("year" if daily else "date") if time.dt.calendar == "360_day" else None
    index = xr.DataArray(kept, {"time": values}, ["time"])
    turned = index.convert_calendar("standard", align_on=align, use_cftime=False)
    return turned["time"].values, turned.values


def _bounds(ds: xr.Dataset, time: xr.DataArray) -> np.ndarray | None:
    """How far the bounds of `time` lie from it, (n, 2) timedelta64, in file order; None where there are none."""
    named = time.encoding.get("bounds", time.attrs.get("bounds"))
    for name in (named, f"{time.name}_bnds", f"{time.name}_bounds"):
        if name in ds.variables and ds[name].shape in ((time.size, 2), (2,)) and ds[name].dtype.kind in "MO":
            away = ds[name].values.reshape(-1, 2) - time.values[:, None]
            away = away.astype("timedelta64[us]")
            if np.isnat(away).any() or np.all(away[:, 0] == away[:, 1]):
                return None
            return np.sort(_whole_ms(away), axis=1)
    return None


def _whole_ms(values: np.ndarray) -> np.ndarray:
    """To the nearest millisecond, in ns."""
    kind = values.dtype.kind
    known = values.astype(f"{'datetime64' if kind == 'M' else 'timedelta64'}[us]")
    rounded = (known.astype(np.int64) + 500) // 1000
    name = "datetime64" if kind == "M" else "timedelta64"
    return rounded.astype(f"{name}[ms]").astype(f"{name}[ns]")


def time_method(array: xr.DataArray) -> str:
    """How values of `array` stand for their time, from its CF cell_methods: "point", "mean", "maximum", ..., "" where
    the file says nothing. Of several methods the one that is no mean counts: the monthly mean of daily maxima is a
    "maximum"."""
    dims, found = [], []
    for word in re.sub(r"\([^)]*\)", " ", str(array.attrs.get("cell_methods", ""))).split():
        if word.endswith(":"):
            dims.append(word[:-1])
        elif dims:
            found += [word.lower()] if {"time", str(array.dims[0])} & set(dims) else []
            dims = []  # what follows qualifies the method: "within days"
    if not found:
        return _GRIB_METHODS.get(str(array.attrs.get("GRIB_stepType", "")), "")
    return next((method for method in found if method not in ("mean", "point")), found[0])
