"""Named functionals of a field: numbers one asks of weather, small enough to rank, to trace and to diagnose.

Each is a reduction over space, then one over time, so that a field is read once. They take arrays of NumPy or of JAX,
one variable at a time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from bayesdownscale.diagnostics.blocks import blocks


class Functional(NamedTuple):
    """`space` reduces (..., lat, lon) to (...), `time` reduces (..., time) to (...); `words` say what it is."""

    space: Callable[[Any], Any]
    time: Callable[[Any], Any]
    words: str


def _mean(x: Any) -> Any:
    return x.mean((-2, -1))


def _gradient(x: Any) -> Any:
    """The mean size of differences between neighbours in longitude; zero of one column."""
    return abs(x[..., 1:] - x[..., :-1]).mean((-2, -1)) if x.shape[-1] > 1 else _mean(0 * x)


def _change(series: Any) -> Any:
    """The mean size of changes from one time to the next; zero of one time."""
    return abs(series[..., 1:] - series[..., :-1]).mean(-1) if series.shape[-1] > 1 else series[..., 0] * 0


FUNCTIONALS: dict[str, Functional] = {
    "mean": Functional(_mean, lambda s: s.mean(-1), "mean over cells and times"),
    "maximum": Functional(lambda x: x.max((-2, -1)), lambda s: s.max(-1), "largest value"),
    "minimum": Functional(lambda x: x.min((-2, -1)), lambda s: s.min(-1), "smallest value"),
    "gradient": Functional(_gradient, lambda s: s.mean(-1), "mean difference of neighbours in longitude"),
    "change": Functional(_mean, _change, "mean change of the domain mean from time to time"),
    "middle_hour": Functional(_mean, lambda s: s[..., s.shape[-1] // 2], "domain mean of the middle time"),
    "middle_cell": Functional(
        lambda x: x[..., x.shape[-2] // 2, x.shape[-1] // 2],
        lambda s: s[..., s.shape[-1] // 2],
        "one cell in the middle of space and time",
    ),
}


def of_array(x: Any, functionals: dict[str, Functional] = FUNCTIONALS) -> dict[str, Any]:
    """Every functional of fields (..., time, lat, lon) of one variable: (...) by name."""
    return {name: f.time(f.space(x)) for name, f in functionals.items()}


def of_ensemble(ensemble: xr.DataArray, functionals: dict[str, Functional] = FUNCTIONALS) -> xr.Dataset:
    """Every functional of the draws (draw, time, lat, lon): (draw,) by name, in memory or lazy, read once."""
    ensemble = ensemble.transpose("draw", "time", "lat", "lon")
    series: dict[str, list[np.ndarray]] = {name: [] for name in functionals}
    for part in blocks(ensemble):
        x = ensemble.isel(part).values.astype(np.float64)
        for name, functional in functionals.items():
            series[name].append(np.array(functional.space(x)))  # a copy: a view would keep its block in memory
    values = {name: f.time(np.concatenate(series[name], axis=-1)) for name, f in functionals.items()}
    attrs = {name: {"long_name": f.words, "units": ensemble.attrs.get("units", "")} for name, f in functionals.items()}
    return xr.Dataset({name: ("draw", value, attrs[name]) for name, value in values.items()})
