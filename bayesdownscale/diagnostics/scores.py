"""Scores of an ensemble against a truth: CRPS, errors, coverage, spread-skill and PIT.

An ensemble has the dimension `draw`, a truth has the other dimensions; coordinates must be equal. Means over
latitude weight each cell by the cosine of its latitude, that is, by its area. A NaN in the truth gives NaN
where a score keeps that cell and is left out where it averages over it.

The members X_1..X_M of a calibrated ensemble and the truth Y are exchangeable, so the rank of Y among the
members takes each of its M + 1 values with probability 1 / (M + 1). PIT and coverage rest on that alone and
are exact for every M.
"""

from collections.abc import Hashable, Iterable

import numpy as np
import scoringrules
import xarray as xr

from bayesdownscale.diagnostics.blocks import by_cell


def crps(ensemble: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
    """Continuous ranked probability score of each cell, fair: its mean does not depend on the ensemble size.

    E|X - Y| - E|X - X'| / 2 with the second mean over distinct members (Ferro 2014, QJRMS 140, 1917), by
    sorting (probability-weighted moments: Zamo & Naveau 2018, Math. Geosci. 50, 209).

    **Arguments:** `ensemble` (draw, ...) with at least two draws; `truth` (...).
    **Returns:** (...) in the units of the ensemble; it may be slightly negative, as unbiased estimates are.
    """
    at_least_two(ensemble)
    out = by_cell(fair_crps, ensemble, truth)
    return out.where(truth.notnull()).rename("crps").assign_attrs(long_name="CRPS", units=raw_units(ensemble))


def fair_crps(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The score of members `x` (M, n) at `y` (n,), both float32 or float64: float64 (n,)."""
    difference = (x - y).astype(x.dtype)  # which the score alone depends on, and whose digits float32 fields still have
    in_order = np.sort(difference, axis=0).astype(np.float64)
    zero = np.zeros(y.shape)
    options = {"m_axis": 0, "estimator": "pwm", "sorted_ensemble": True, "backend": "numpy"}
    return scoringrules.crps_ensemble(zero, in_order, **options)


def cell_scores(ensemble: xr.DataArray, truth: xr.DataArray) -> xr.Dataset:
    """What most scores are made of, of each cell and in one pass over an ensemble that may be larger than memory.

    **Arguments:** `ensemble` (draw, ...) with at least two draws; `truth` (...), NaN where unknown.
    **Returns:** `crps`, `mean` and `variance` of the members, `low` and `high`, the ends of the PIT (`pit_interval`),
    each (...), NaN where the truth is unknown.
    """
    members = at_least_two(ensemble)

    def of_cells(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
        moments = x.mean(axis=0, dtype=np.float64), x.var(axis=0, ddof=1, dtype=np.float64)
        return fair_crps(x, y), *moments, *_pit_interval(x, y)

    names = ("crps", "mean", "variance", "low", "high")
    known = truth.notnull()
    found = zip(names, by_cell(of_cells, ensemble, truth), strict=True)
    attrs = {"members": members, "units": raw_units(ensemble)}
    return xr.Dataset({name: values.where(known) for name, values in found}, attrs=attrs)


def mae(forecast: xr.DataArray, truth: xr.DataArray, over: Iterable[Hashable] | None = None) -> xr.DataArray:
    """Mean absolute error of one `forecast` (...), over `over` (all dimensions), in its units."""
    return domain_mean(abs(_difference(forecast, truth)), over).assign_attrs(units=raw_units(forecast))


def rmse(forecast: xr.DataArray, truth: xr.DataArray, over: Iterable[Hashable] | None = None) -> xr.DataArray:
    """Root mean square error of one `forecast` (...), over `over` (all dimensions), in its units."""
    return (domain_mean(_difference(forecast, truth) ** 2, over) ** 0.5).assign_attrs(units=raw_units(forecast))


def ensemble_mean(ensemble: xr.DataArray) -> xr.DataArray:
    """Mean (...) of the members (draw, ...), in double precision; units of the ensemble."""
    return ensemble.mean("draw", dtype=np.float64, keep_attrs=True)


def variance(ensemble: xr.DataArray) -> xr.DataArray:
    """Unbiased variance (...) of the members (draw, ...), in double precision; squared units."""
    at_least_two(ensemble)
    return by_cell(lambda x: x.var(axis=0, ddof=1, dtype=np.float64), ensemble)


def spread(ensemble: xr.DataArray, over: Iterable[Hashable] | None = None) -> xr.DataArray:
    """Root mean of the ensemble variance times (M + 1) / M, over the dimensions `over` (all).

    The factor accounts for the error of the mean of M members, so that the spread of a calibrated ensemble
    equals the RMSE of its mean (Fortin et al. 2014, J. Hydrometeorol. 15, 1708).
    """
    members = n_members(ensemble)
    out = (domain_mean(variance(ensemble), over) * (members + 1) / members) ** 0.5
    return out.assign_attrs(units=raw_units(ensemble))


def spread_skill(ensemble: xr.DataArray, truth: xr.DataArray, over: Iterable[Hashable] | None = None) -> xr.DataArray:
    """Spread over RMSE of the ensemble mean, over `over` (all dimensions): 1 when calibrated, below 1 when
    overconfident (Fortin et al. 2014, J. Hydrometeorol. 15, 1708). Dimensionless."""
    known = ensemble.where(truth.notnull()) if bool(truth.isnull().any()) else ensemble
    return (spread(known, over) / rmse(ensemble_mean(ensemble), truth, over)).assign_attrs(units="1")


def coverage(
    ensemble: xr.DataArray, truth: xr.DataArray, level: float = 0.9, over: Iterable[Hashable] | None = None
) -> xr.DataArray:
    """How often the truth lies in the central interval of probability `level`, over `over` (all dimensions).

    The interval reaches from the order statistic (M + 1) p of the members to the order statistic
    (M + 1)(1 - p), p = (1 - level) / 2, the truth being exchangeable with them. Where (M + 1) p is no whole
    number, the hits of the two neighbouring intervals are interpolated (not their end points), and order
    statistics 0 and M + 1 are the ends of the line: a calibrated ensemble then covers with probability
    `level` exactly, for every M and every distribution. Ties count by the part of their ranks inside.

    **Arguments:** `ensemble` (draw, ...), `truth` (...), `level` between 0 and 1.
    **Returns:** a fraction, dimensionless.
    """
    return domain_mean(covered(*pit_interval(ensemble, truth), level), over).assign_attrs(units="1")


def covered(low: xr.DataArray, high: xr.DataArray, level: float) -> xr.DataArray:
    """By which part each cell lies in the central interval of probability `level`, given the ends of its PIT."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"expected a level between 0 and 1, got {level}; 0.9 stands for the 90 % interval")
    tail = (1.0 - level) / 2.0
    return (high.clip(max=1.0 - tail) - low.clip(min=tail)).clip(min=0.0) / (high - low)


def pit(ensemble: xr.DataArray, truth: xr.DataArray, key: int) -> xr.DataArray:
    """Probability integral transform of each cell, (rank + u) / (M + 1) with u uniform, in [0, 1].

    Uniform for a calibrated ensemble of any size. Ties, as in dry hours, are broken at random with the seed
    `key` (Czado, Gneiting & Held 2009, Biometrics 65, 1254). **Returns:** (...) dimensionless.
    """
    low, high = pit_interval(ensemble, truth)
    u = np.random.default_rng(key).uniform(size=low.shape)
    return (low + u * (high - low)).rename("pit").assign_attrs(long_name="PIT", units="1")


def pit_interval(ensemble: xr.DataArray, truth: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """The two ends of the PIT of each cell: members below, and members not above plus one, over M + 1."""
    n_members(ensemble)
    low, high = by_cell(_pit_interval, ensemble, truth)
    return low.where(truth.notnull()), high.where(truth.notnull())


def _pit_interval(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    members = len(x)
    return np.sum(x < y, axis=0) / (members + 1), (np.sum(x <= y, axis=0) + 1) / (members + 1)


def domain_mean(field: xr.DataArray, over: Iterable[Hashable] | None = None) -> xr.DataArray:
    """Mean over the dimensions `over` (all), cells weighted by area where latitude is among them."""
    dims = list(field.dims) if over is None else list(over)
    if "lat" in dims and "lat" in field.coords:
        return field.weighted(area_weights(field["lat"])).mean(dims)
    return field.mean(dims)


def area_weights(lat: xr.DataArray) -> xr.DataArray:
    """Cell areas (lat,) on a regular grid up to a factor: cosines of the latitudes [degrees]."""
    return lat.copy(data=np.cos(np.deg2rad(lat.values)))


def _difference(forecast: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
    forecast, truth = xr.align(forecast, truth, join="exact")
    return forecast.astype(np.float64) - truth.astype(np.float64)


def n_members(ensemble: xr.DataArray) -> int:
    if "draw" not in ensemble.dims:
        raise ValueError(f"expected an ensemble with the dimension draw, got {ensemble.dims}; rename it")
    return ensemble.sizes["draw"]


def at_least_two(ensemble: xr.DataArray) -> int:
    if n_members(ensemble) < 2:
        raise ValueError("expected at least two draws to measure spread, got 1; draw more")
    return ensemble.sizes["draw"]


def raw_units(field: xr.DataArray) -> str:
    return str(field.attrs.get("units", ""))
