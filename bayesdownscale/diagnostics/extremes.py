"""Extremes of each cell: how often a threshold is exceeded, and what is exceeded once in so many years.

Tails are fitted by L-moments, linear combinations of the ordered values, which are unbiased, exist wherever the mean
does and are computed for all cells at once (Hosking 1990, J. R. Stat. Soc. B 52, 105). The shape xi is positive for
heavy tails; Hosking writes k = -xi. Values to be fitted are (cells, n), rows filled up with NaN; cells may be several
dimensions.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.special import gamma

from bayesdownscale.diagnostics.blocks import by_part
from bayesdownscale.diagnostics.checks import labelled

FEWEST_PEAKS = 10  # of a fit


def exceedances(field: xr.DataArray, threshold: float | xr.DataArray) -> xr.DataArray:
    """The part of the times at which each cell is above `threshold`, in units of `field`, one or (lat, lon).

    **Arguments:** `field` ((draw,) time, lat, lon).
    **Returns:** ((draw,) lat, lon) dimensionless. **Raises:** ValueError for missing values.
    """
    limit = threshold if isinstance(threshold, xr.DataArray) else xr.DataArray(float(threshold))
    out = by_part(lambda part, u: (part > u).mean("time"), field, limit, along="lat")
    return out.rename("exceedances").assign_attrs(long_name="frequency of exceedance", units="1")


def return_levels(
    field: xr.DataArray,
    periods_years: Sequence[float] | np.ndarray,
    per_year: float,
    threshold_quantile: float = 0.95,
    run_length: int = 0,
) -> xr.DataArray:
    """What each cell exceeds once in `periods_years` on average, by peaks over a threshold of its own.

    x(T) = u + sigma ((r T)^xi - 1) / xi, with u the quantile of the cell, r the peaks per year, and a generalised
    Pareto distribution of the excess over u (Hosking & Wallis 1987, Technometrics 29, 339). Of
    values above u with fewer than `run_length` others in a row between them only the largest is a peak (runs
    declustering: Coles 2001, An Introduction to Statistical Modeling of Extreme Values, ch. 5.3); 0 keeps them all.

    **Arguments:** `field` ((draw,) time, lat, lon), in order of time; `per_year`, how many times make a year (365.25
    for days).
    **Returns:** ((draw,) period, lat, lon) in units of `field`, over the period [years]; NaN where a cell has fewer
    than 10 peaks, peaks all alike, or less than one peak in a period.
    **Raises:** ValueError for missing values, a quantile outside 0 to 1, too few times or too short a period.
    """
    periods = np.asarray(periods_years, dtype=np.float64)
    above = (1.0 - threshold_quantile) * labelled(field).sizes["time"]
    if not 0.0 < threshold_quantile < 1.0 or above < FEWEST_PEAKS:
        raise ValueError(
            f"expected a quantile with at least {FEWEST_PEAKS} values above it, got {threshold_quantile:g} of "
            f"{field.sizes['time']} times; take a lower one between 0 and 1 or a longer period"
        )
    if periods.ndim != 1 or not periods.size or not per_year > 0 or run_length < 0:
        got = f"{periods.tolist()}, {per_year} and {run_length}"
        raise ValueError(f"expected a list of periods, times in a year and a run length from 0, got {got}; correct it")
    if periods.min() * per_year * (1.0 - threshold_quantile) <= 1.0:
        raise ValueError(f"expected more than one peak in a period, got {periods.min():g} years; take a longer one")
    years = field.sizes["time"] / per_year

    def of_cells(part: xr.DataArray) -> xr.DataArray:
        x = np.moveaxis(part.values, -3, -1)
        u = np.quantile(x, threshold_quantile, axis=-1)
        excess = peaks_over(x.reshape(-1, x.shape[-1]), u.ravel(), run_length) - u.reshape(-1, 1)
        number = np.isfinite(excess).sum(axis=-1)
        sigma, xi = generalised_pareto(np.where(number[:, None] >= FEWEST_PEAKS, excess, np.nan))
        peaks = number / years * periods[:, None]  # (period, cell)
        growth = _growth(np.log(np.where(peaks > 1.0, peaks, np.nan)), xi)
        levels = np.moveaxis((u.ravel() + sigma * growth).reshape(-1, *u.shape), 0, -3)
        like = part.isel(time=0, drop=True)
        return like.expand_dims({"period": periods.size}, -3).copy(data=levels)

    attrs = {"long_name": "return level", "units": str(field.attrs.get("units", ""))}
    period = ("period", periods, {"long_name": "return period", "units": "year"})
    return by_part(of_cells, field, along="lat").assign_coords(period=period).rename("return_level").assign_attrs(attrs)


def peaks_over(x: np.ndarray, u: np.ndarray, run_length: int) -> np.ndarray:
    """The maxima (cells, n) of the clusters of `x` (cells, time) above `u` (cells,), in order and filled with NaN.

    A cluster ends where `run_length` values in a row are not above u; with 0 each value is one of its own.
    """
    above = x > u[:, None]
    places = np.arange(x.shape[1])
    last = np.maximum.accumulate(np.where(above, places, -x.shape[1]), axis=1)
    before = np.concatenate([np.full((len(x), 1), -x.shape[1]), last[:, :-1]], axis=1)
    first = above & (places - before > run_length)
    number = first.sum(axis=1)
    out = np.full((len(x), max(1, number.max())), np.nan)
    if first.any():
        maxima = np.maximum.reduceat(x[above], np.flatnonzero(first[above]))  # cell after cell
        out[np.arange(out.shape[1]) < number[:, None]] = maxima
    return out


def l_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first three sample L-moments (cells,) of `x` (cells, n), NaN left out; NaN of fewer than 3 values.

    l1 = b0, l2 = 2 b1 - b0, l3 = 6 b2 - 6 b1 + b0, with the unbiased probability-weighted moments
    b_r = mean_j x_(j) (j - 1) ... (j - r) / ((n - 1) ... (n - r)) of the ordered values.
    """
    n = np.isfinite(x).sum(axis=-1, keepdims=True)
    n = np.where(n >= 3, n, np.nan)
    ordered, j = np.sort(x, axis=-1), np.arange(x.shape[-1])
    least = ordered[..., :1]
    over = np.nan_to_num(ordered - least)  # exactly zero where all are alike
    mean = lambda weight: (over * weight).sum(axis=-1) / n[..., 0]
    b0, b1, b2 = mean(1.0), mean(j / (n - 1)), mean(j * (j - 1) / ((n - 1) * (n - 2)))
    return least[..., 0] + b0, 2 * b1 - b0, 6 * b2 - 6 * b1 + b0


def generalised_pareto(excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale sigma and shape xi (cells,) of a generalised Pareto distribution from 0, of the excesses (cells, n).

    k = l1 / l2 - 2, sigma = (1 + k) l1, xi = -k (Hosking & Wallis 1987); NaN where all are alike or fewer than 3.
    """
    l1, l2, _ = l_moments(excess)
    k = l1 / np.where(l2 > 0, l2, np.nan) - 2
    return (1 + k) * l1, -k


def generalised_extreme_value(maxima: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Location mu, scale sigma and shape xi (cells,) of a generalised extreme value distribution of maxima (cells, n).

    k = 7.8590 c + 2.9554 c^2 with c = 2 / (3 + l3 / l2) - ln 2 / ln 3, within 9e-4 of the solution for |k| < 0.5
    (Hosking, Wallis & Wood 1985, Technometrics 27, 251); NaN where all are alike or fewer than 3.
    """
    l1, l2, l3 = l_moments(maxima)
    l2 = np.where(l2 > 0, l2, np.nan)
    c = 2 / (3 + l3 / l2) - np.log(2) / np.log(3)
    k = 7.8590 * c + 2.9554 * c**2
    k = np.where(np.abs(k) < 1e-7, 1e-7, k)
    sigma = l2 * k / ((1 - 2.0**-k) * gamma(1 + k))
    return l1 - sigma * (1 - gamma(1 + k)) / k, sigma, -k


def annual_return_level(maxima: np.ndarray, years: float) -> np.ndarray:
    """The level (cells,) that annual maxima (cells, n) exceed once in `years` (above 1), by their GEV distribution."""
    mu, sigma, xi = generalised_extreme_value(maxima)
    return mu + sigma * _growth(np.asarray(-np.log(-np.log1p(-1 / years))), xi)


def _growth(y: np.ndarray, xi: np.ndarray) -> np.ndarray:
    """(exp(xi y) - 1) / xi, which is y where xi is zero."""
    small = np.abs(xi) < 1e-9
    return np.where(small, y, np.expm1(np.where(small, 1.0, xi) * y) / np.where(small, 1.0, xi))
