"""Climate indices of each cell, under the codes of the VALUE framework for validating downscaling.

Maraun et al. 2015, Earth's Future 3, 1, doi:10.1002/2014EF000259; Gutierrez et al. 2019, Int. J. Climatol. 39, 3750,
doi:10.1002/joc.5462. They are of the whole period as it is: no season is selected and no annual cycle removed. A day
is wet from 1 mm/d. A year counts where it holds 350 days of values; spells are cut at its ends.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bayesdownscale.diagnostics.blocks import by_part
from bayesdownscale.diagnostics.checks import hours_apart, labelled, squared
from bayesdownscale.diagnostics.extremes import annual_return_level

WET = 1.0  # mm/d
DAYS_OF_A_YEAR = 350
MM_PER_DAY = ("mm/d", "mm/day", "mm d-1", "mm day-1", "mm d^-1", "mm day^-1", "mm d**-1", "mm day**-1")
TEMPERATURE = ("K", "kelvin", "degC", "°C", "C", "celsius", "Celsius", "deg_C", "degree_Celsius", "degrees_Celsius")


@dataclass(frozen=True, eq=False)
class Series:
    """Values (time, lat, lon), leading draws as well, of equal steps of `days`; the year (time,) of each; `complete`,
    the years that count."""

    values: np.ndarray
    years: np.ndarray
    complete: np.ndarray
    days: float


@dataclass(frozen=True, eq=False)
class Index:
    """One index: `function` of a Series to an array (..., lat, lon), the `kinds` of variables that it is for, its
    long name, its units (None: those of the variable; "2": their square), and how many whole years it needs."""

    function: Callable[[Series], np.ndarray]
    kinds: tuple[str, ...]
    long_name: str
    units: str | None = None
    needs_years: int = 0


def indices(field: xr.DataArray, codes: Iterable[str] | None = None) -> xr.Dataset:
    """The indices `codes` (all that suit the variable) of each cell.

    Units tell the kind of a variable: K or degC is a temperature, mm/d precipitation. NaN in a cell where an index is
    not defined, as the mean of wet days where there is none; everywhere, with the reason in the attribute `comment`,
    where the period holds too few years.

    **Arguments:** `field` ((draw,) time, lat, lon), daily or other equal steps, at least 4; `codes` of `INDICES`.
    **Returns:** a variable ((draw,) lat, lon) for each code, with its long name and units.
    **Raises:** ValueError for missing values, unequal steps, precipitation not in mm/d, and codes that are unknown or
    do not suit the variable.
    """
    kind, days = _kind(labelled(field)), hours_apart(field, 4) / 24.0
    chosen = [code for code, index in INDICES.items() if kind in index.kinds] if codes is None else list(codes)
    if isinstance(codes, str) or not chosen or not set(chosen) <= set(INDICES):
        raise ValueError(f"expected a list of codes among {', '.join(INDICES)}, got {codes!r}; choose among these")
    for code in chosen:
        if kind not in INDICES[code].kinds:
            wanted = "precipitation in mm/d" if INDICES[code].kinds == WET_ONLY else " or ".join(INDICES[code].kinds)
            raise ValueError(
                f"expected {wanted} for the index {code}, got units '{field.attrs.get('units', '')}'; "
                "convert the field and set its units, or leave the code out"
            )
    years = field["time"].values.astype("datetime64[Y]").astype(int) + 1970
    each, number = np.unique(years, return_counts=True)
    complete = each[number * days >= DAYS_OF_A_YEAR]

    def of_cells(part: xr.DataArray) -> xr.Dataset:
        series, like = Series(part.values, years, complete, days), part.isel(time=0, drop=True)
        enough = {code: INDICES[code].needs_years <= complete.size for code in chosen}
        values = {code: INDICES[code].function(series) if enough[code] else np.nan for code in chosen}
        return xr.Dataset({code: like.copy(data=np.broadcast_to(v, like.shape)) for code, v in values.items()})

    out = by_part(of_cells, field, along="lat")
    for code in chosen:
        index, units = INDICES[code], str(field.attrs.get("units", ""))
        own = {None: units, "2": squared(field)}.get(index.units, index.units)
        out[code].attrs = {"long_name": index.long_name, "units": own}
        if index.needs_years > complete.size:
            out[code].attrs["comment"] = f"needs {index.needs_years} whole years or more, got {complete.size}"
    return out


def _skewness(s: Series) -> np.ndarray:
    a = _anomalies(s)
    return _ratio((a**3).mean(axis=-3), (a**2).mean(axis=-3) ** 1.5)


def _autocorrelation(lag: int) -> Callable[[Series], np.ndarray]:
    """sum a_t a_(t+lag) / sum a_t^2, as R's acf."""

    def function(s: Series) -> np.ndarray:
        a = _anomalies(s)
        return _ratio((a[..., :-lag, :, :] * a[..., lag:, :, :]).sum(axis=-3), (a**2).sum(axis=-3))

    return function


def _quantile(q: float) -> Callable[[Series], np.ndarray]:
    return lambda s: np.quantile(s.values, q, axis=-3)


def _wet_quantile(q: float) -> Callable[[Series], np.ndarray]:
    """The quantile of wet days; NaN without any."""

    def function(s: Series) -> np.ndarray:
        wet = s.values >= WET
        ordered = np.sort(np.where(wet, s.values, np.inf), axis=-3)
        number = wet.sum(axis=-3, keepdims=True)
        place = np.maximum(number - 1, 0) * q
        low = np.floor(place).astype(int)
        below, above = (np.take_along_axis(ordered, i, axis=-3) for i in (low, np.minimum(low + 1, number - 1).clip(0)))
        known = number > 0
        below, above = np.where(known, below, np.nan), np.where(known, above, np.nan)
        return (below + (place - low) * (above - below))[..., 0, :, :]

    return function


def _wet_mean(s: Series) -> np.ndarray:
    wet = s.values >= WET
    return _ratio((s.values * wet).sum(axis=-3), wet.sum(axis=-3))


def _wet_after(wet_before: bool) -> Callable[[Series], np.ndarray]:
    """The probability of a wet day after a wet, or a dry, one."""

    def function(s: Series) -> np.ndarray:
        wet = s.values >= WET
        before = wet[..., :-1, :, :] == wet_before
        return _ratio((before & wet[..., 1:, :, :]).sum(axis=-3), before.sum(axis=-3))

    return function


def _longest_spell(inside: Callable[[np.ndarray], np.ndarray]) -> Callable[[Series], np.ndarray]:
    """Median over years of the longest run of values that are `inside` [d]."""

    def function(s: Series) -> np.ndarray:
        within, longest = np.moveaxis(inside(s.values), -3, 0), []
        for year in s.complete:
            run = np.zeros(within.shape[1:])
            best = run
            for now in within[s.years == year]:
                run = (run + 1) * now
                best = np.maximum(best, run)
            longest.append(best)
        return np.median(longest, axis=0) * s.days

    return function


def _return_value(sign: int) -> Callable[[Series], np.ndarray]:
    """What annual maxima (sign 1) or minima (-1) pass once in 20 years, by a GEV distribution and L-moments."""

    def function(s: Series) -> np.ndarray:
        yearly = [(sign * s.values[..., s.years == year, :, :]).max(axis=-3) for year in s.complete]
        return sign * annual_return_level(np.stack(yearly, axis=-1), 20.0)

    return function


def _anomalies(s: Series) -> np.ndarray:
    """The values less their mean, exactly zero where they are constant."""
    a = s.values - s.values[..., :1, :, :]
    return a - a.mean(axis=-3, keepdims=True)


def _above_quantile(x: np.ndarray) -> np.ndarray:
    return x > np.quantile(x, 0.9, axis=-3, keepdims=True)


def _below_quantile(x: np.ndarray) -> np.ndarray:
    return x < np.quantile(x, 0.1, axis=-3, keepdims=True)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, NaN where b is zero."""
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0)


def _kind(field: xr.DataArray) -> str:
    """temperature, precipitation or other."""
    units = str(field.attrs.get("units", ""))
    words = " ".join(str(field.attrs.get(key, "")) for key in ("standard_name", "long_name")).lower()
    if units not in MM_PER_DAY and ("precipitation" in words or "rainfall" in words):
        remedy = "multiply by 86400" if units == "kg m-2 s-1" else "convert the values"
        raise ValueError(f"expected precipitation in mm/d, got units '{units}'; {remedy} and set the units to 'mm/d'")
    return "precipitation" if units in MM_PER_DAY else "temperature" if units in TEMPERATURE else "other"


WET_ONLY = ("precipitation",)
NOT_WET = ("temperature", "other")
WARM_OR_COLD = ("temperature",)
ALL = (*NOT_WET, *WET_ONLY)
INDICES = {
    "Mean": Index(lambda s: s.values.mean(axis=-3), ALL, "mean"),
    "Var": Index(lambda s: s.values.var(axis=-3, ddof=1), ALL, "variance", "2"),
    "Skew": Index(_skewness, ALL, "skewness", "1"),
    "P02": Index(_quantile(0.02), NOT_WET, "2nd percentile"),
    "P98": Index(_quantile(0.98), ALL, "98th percentile"),
    "P98Wet": Index(_wet_quantile(0.98), WET_ONLY, "98th percentile of wet days"),
    "R01": Index(lambda s: (s.values >= WET).mean(axis=-3), WET_ONLY, "frequency of wet days", "1"),
    "SDII": Index(_wet_mean, WET_ONLY, "mean of wet days"),
    "AC1": Index(_autocorrelation(1), ALL, "lag-1 autocorrelation", "1"),
    "AC2": Index(_autocorrelation(2), ALL, "lag-2 autocorrelation", "1"),
    "WWProb": Index(_wet_after(True), WET_ONLY, "probability of a wet day after a wet one", "1"),
    "DWProb": Index(_wet_after(False), WET_ONLY, "probability of a wet day after a dry one", "1"),
    "WetAnnualMaxSpell": Index(
        _longest_spell(lambda x: x >= WET), WET_ONLY, "median longest wet spell of a year", "d", 1
    ),
    "DryAnnualMaxSpell": Index(
        _longest_spell(lambda x: x < WET), WET_ONLY, "median longest dry spell of a year", "d", 1
    ),
    "WarmAnnualMaxSpell": Index(
        _longest_spell(_above_quantile), WARM_OR_COLD, "median longest warm spell of a year", "d", 1
    ),
    "ColdAnnualMaxSpell": Index(
        _longest_spell(_below_quantile), WARM_OR_COLD, "median longest cold spell of a year", "d", 1
    ),
    "RV20_max": Index(_return_value(1), ALL, "20-year return value of maxima", None, 10),
    "RV20_min": Index(_return_value(-1), NOT_WET, "20-year return value of minima", None, 10),
}
