"""What a field must be for its structure to be measured: labelled, complete in time, in known units."""

import numpy as np
import xarray as xr

FIELD_DIMS = ("time", "lat", "lon")


def labelled(field: xr.DataArray, times: int = 1) -> xr.DataArray:
    """`field` itself; ValueError where it is not ((draw,) time, lat, lon) with coordinates and so many times."""
    if set(field.dims) - {"draw"} != set(FIELD_DIMS) or not set(FIELD_DIMS) <= set(field.coords) or not field.size:
        raise ValueError(
            f"expected a field over time, lat and lon with coordinates, with draw or without, got {dict(field.sizes)} "
            f"with {sorted(map(str, field.coords))}; rename, label or select"
        )
    if field.sizes["time"] < times:
        raise ValueError(f"expected at least {times} times, got {field.sizes['time']}; take a longer period")
    return field


def hours_apart(field: xr.DataArray, fewest: int = 2) -> float:
    """The step of the times of `field` [h]; ValueError where they are fewer than `fewest` or unequal."""
    time = labelled(field, fewest)["time"]
    if time.dtype.kind != "M":
        raise ValueError(f"expected times as datetime64, got {time.dtype}; decode or convert them")
    steps = np.diff(time.values) / np.timedelta64(1, "h")
    if steps.min() <= 0 or np.ptp(steps) > 1e-3 * steps.min():
        raise ValueError(
            f"expected times in order at equal steps, got steps from {steps.min():g} to {steps.max():g} h; "
            "select a part without gaps"
        )
    return float(steps.mean())


def squared(field: xr.DataArray, times: str = "") -> str:
    """The units of the square of `field`, times those of `times`; "" where it has none."""
    units = str(field.attrs.get("units", ""))
    if units in ("", "1"):
        return times if units else ""
    return f"{units}2 {times}".strip() if units.isalpha() else f"({units})2 {times}".strip()
