"""Events and tails: probabilities that a threshold is exceeded, their scores, and the CRPS of one tail.

The event is 'value > threshold'; a value on the threshold is no event, and the opposite event has the same
Brier score. A threshold is a number or a field (...) with some of the dimensions of the cells, such as a
quantile of the climate of each cell, in the units of the ensemble; the result is NaN where it is NaN. Values
and thresholds are compared in the precision of the ensemble, so that 0.1 mm stored as float32 is not above 0.1.
"""

from typing import Any

import numpy as np
import xarray as xr

from bayesdownscale.diagnostics.blocks import by_cell
from bayesdownscale.diagnostics.scores import area_weights, at_least_two, fair_crps, n_members, raw_units

Threshold = float | xr.DataArray


def exceedance(ensemble: xr.DataArray, threshold: Threshold) -> xr.DataArray:
    """The part of the members above `threshold` in each cell: the forecast probability of the event.

    **Arguments:** `ensemble` (draw, ...); `threshold`, a number or a field, finite or NaN, in its units.
    **Returns:** (...) dimensionless, NaN where a member or the threshold is NaN.
    **Raises:** ValueError where the threshold does not fit the cells.
    """
    out = by_cell(_part_above, ensemble, _in_cells(ensemble, threshold))
    return out.rename("exceedance").assign_attrs(long_name="probability of exceedance", units="1")


def brier(ensemble: xr.DataArray, truth: xr.DataArray, threshold: Threshold) -> xr.DataArray:
    """Brier score of the event in each cell, fair: its mean does not depend on the ensemble size.

    (p - o)^2 - p (1 - p) / (M - 1), p the part of the M members above the threshold, o whether the truth is
    (Ferro 2014, QJRMS 140, 1917). Its integral over all thresholds is the fair CRPS.

    **Arguments:** `ensemble` (draw, ...) with at least two draws; `truth` (...); `threshold`, a number or a field.
    **Returns:** (...) dimensionless, NaN where the truth is; it may be negative, as unbiased estimates are.
    **Raises:** ValueError for one draw, or where truth or threshold do not fit the cells.
    """
    at_least_two(ensemble)

    def score(x, y, t):
        p, o = _part_above(x, t), _part_above(y[None].astype(x.dtype), t)
        return (p - o) ** 2 - p * (1 - p) / (len(x) - 1)

    out = by_cell(score, ensemble, truth, _in_cells(ensemble, threshold))
    return out.rename("brier").assign_attrs(long_name="Brier score", units="1")


def reliability(ensemble: xr.DataArray, truth: xr.DataArray, threshold: Threshold, bins: int = 10) -> xr.Dataset:
    """How often the event happens when it is forecast with a certain probability, and what that says.

    Cells are weighted by area, and left out where the truth is NaN. With every probability replaced by the mean
    f_k of its bin, of weight w_k and observed frequency o_k, the plain Brier score is exactly

        reliability - resolution + uncertainty = sum w_k (f_k - o_k)^2 - sum w_k (o_k - o)^2 + o (1 - o),

    o the frequency of all (Murphy 1973, J. Appl. Meteorol. 12, 595). Not fair: with few members, even those of
    a calibrated ensemble, probabilities are too extreme (Richardson 2001, QJRMS 127, 2473).

    **Arguments:** `ensemble` (draw, ...), `truth` (...), `threshold`, a number or a field; `bins`, the number
    of equal parts of [0, 1], each with its lower end, the last with both.
    **Returns:** over the centres `bin`: `forecast`, `observed`, NaN where the bin is empty, and `share`, the
    weight w_k; and the three scalars. All dimensionless.
    **Raises:** ValueError without a bin or a known cell, or where truth or threshold do not fit the cells.
    """
    if bins < 1:
        raise ValueError(f"expected at least one bin, got {bins}; 10 are usual")
    members, level = n_members(ensemble), _in_cells(ensemble, threshold)
    both = lambda x, y, t: (_part_above(x, t), _part_above(y[None].astype(x.dtype), t))
    p, o = by_cell(both, ensemble, truth, level)
    known = (p.notnull() & o.notnull()).values
    if not known.any():
        raise ValueError("expected a cell where truth, threshold and members are known, got none; choose other times")
    area = area_weights(truth["lat"]) if "lat" in truth.dims and "lat" in truth.coords else 1.0
    weight = (xr.ones_like(p) * area).values[known]
    weight, p, o = weight / weight.sum(), p.values[known], o.values[known]
    index = np.minimum(np.rint(p * members).astype(int) * bins // members, bins - 1)  # whole numbers: no rounding
    share, base = np.bincount(index, weight, bins), weight @ o

    def mean(values):
        return np.divide(np.bincount(index, weight * values, bins), share, np.full(bins, np.nan), where=share > 0)

    forecast, observed = mean(p), mean(o)
    by_bin = {"forecast": forecast, "observed": observed, "share": share}
    scalars = {
        "reliability": np.nansum(share * (forecast - observed) ** 2),
        "resolution": np.nansum(share * (observed - base) ** 2),
        "uncertainty": base * (1 - base),
    }
    out = xr.Dataset({name: ("bin", values) for name, values in by_bin.items()} | scalars)
    for name in out.data_vars:
        out[name].attrs["units"] = "1"
    return out.assign_coords(bin=(np.arange(bins) + 0.5) / bins)


def tw_crps(ensemble: xr.DataArray, truth: xr.DataArray, threshold: Threshold, tail: str = "upper") -> xr.DataArray:
    """CRPS of one tail of each cell, fair: the CRPS of max(X, t), or of min(X, t) for the lower tail.

    The integral of the Brier scores of all thresholds beyond t (Gneiting & Ranjan 2011, JBES 29, 411), as the
    score of values chained to t (Allen, Ginsbourger & Ziegel 2023, SIAM/ASA JUQ 11, 906). The two tails of
    one threshold sum to the CRPS.

    **Arguments:** `ensemble` (draw, ...) with at least two draws; `truth` (...); `threshold`, a number or a
    field; `tail`, "upper" or "lower".
    **Returns:** (...) in the units of the ensemble, NaN where the truth is; it may be slightly negative.
    **Raises:** ValueError for one draw or another tail, or where truth or threshold do not fit the cells.
    """
    at_least_two(ensemble)
    chains = {"upper": np.maximum, "lower": np.minimum}
    if tail not in chains:
        raise ValueError(f"expected the tail 'upper' or 'lower', got {tail!r}; choose one")
    v = chains[tail]

    def score(x, y, t):
        t = t.astype(x.dtype)
        return fair_crps(v(x, t), v(y, t))

    out = by_cell(score, ensemble, truth, _in_cells(ensemble, threshold))
    long_name = f"threshold-weighted CRPS, {tail} tail"
    return out.rename("tw_crps").assign_attrs(long_name=long_name, units=raw_units(ensemble))


def _part_above(x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The part (n,) of values `x` (M, n) above `t` (n,), NaN where one of them is NaN."""
    unknown = np.isnan(x).any(axis=0) | np.isnan(t)
    return np.where(unknown, np.nan, (x > t.astype(x.dtype)).mean(axis=0))


def _in_cells(ensemble: xr.DataArray, threshold: Threshold) -> xr.DataArray:
    """The threshold in each cell (...) of an ensemble (draw, ...): a view, not a copy."""
    n_members(ensemble)
    cells, level = ensemble.isel(draw=0, drop=True), xr.DataArray(threshold)
    if bool(np.isinf(level).any()) or bool(level.isnull().all()):
        raise ValueError(f"expected a finite threshold, got {_words(level)}; give a value the field may exceed")
    level, _ = xr.align(level, cells, join="exact", copy=False)
    if not set(level.dims) <= set(cells.dims):
        raise ValueError(
            f"expected a threshold with some of the dimensions {cells.dims}, got {level.dims}; rename or select"
        )
    return xr.DataArray(level.variable.set_dims(dict(cells.sizes)), cells.coords)


def _words(level: xr.DataArray) -> Any:
    return level.item() if level.size == 1 else "a field with infinite or without known values"
