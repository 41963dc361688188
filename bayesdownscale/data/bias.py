"""Bias correction of a coarse climate model against a reference on the same cells: EQM, DQM and QDM.

Each cell and each season by itself. With F_h and F_r the distributions of the model and of the reference over the same
past, and F_f that of the model over the period to be corrected,

    EQM   F_r^-1(F_h(x))                               (Themessl et al. 2011, doi:10.1002/joc.2168)
    DQM   F_r^-1(F_h(x - trend)) + trend               (Cannon et al. 2015, doi:10.1175/JCLI-D-14-00754.1)
    QDM   x + F_r^-1(F_f(x)) - F_h^-1(F_f(x))          (the same)

with trend the mean of the period less that of the past; of multiplicative variables, such as precipitation, ratios
instead of differences. EQM distorts the trends of the model, DQM keeps that of the mean, QDM those of all quantiles.

A ratio of QDM has no meaning where the model's past knows traces of rain only: of quantiles of 5e-10, 4e-4 and 0.01
mm/d (past, period, reference: CNRM-CM5 in Spain) it makes 9700 mm/d. So below a `trace` all amounts of the model are
one, no rain, and where its past is below ten traces a quantile becomes at most twice the reference's, or stays as it
is if that is more. These are the limits of Cannon et al. 2015 (in their program MBC `ratio.max` = 2 and
`ratio.max.trace` = 10 traces), but for the last, by which a model without bias keeps its trends. They put random
numbers in place of traces; here nothing is random.
"""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import xarray as xr

from .errors import DataError, quoted
from .grid import Variable
from .quantiles import between, map_between, plotting_positions, sample_quantiles
from .seasons import YEAR, in_season, season_of
from .units import convert
from .write import write_atomic

METHODS = ("eqm", "dqm", "qdm")
KIND = "bayesdownscale.bias_correction/2"
FEWEST = 20  # values of a season
TRACE, OF_MEAN = Variable("pr", "mm day-1"), 0.02  # 0.05 of it, or that part of the mean of what is no such rate
MOST, TRACES = 2.0, 10.0  # times the reference's quantile, below so many traces


@dataclass(frozen=True, eq=False)
class BiasCorrection:
    """A fitted correction. Make it with `fit`, call it on the model; `save` and `load` keep it.

    `parameters`: the quantiles `model` and `reference` (season, level, ...) and the mean `model_mean` (season, ...) of
    the past; `too_dry`, the part of the dry values that become wet, and `wet_up_to`, the largest they become. In the
    units of the reference; the attributes say how it was fitted, and `trace` of a multiplicative QDM.
    """

    parameters: xr.Dataset

    @staticmethod
    def fit(
        model: xr.DataArray,
        reference: xr.DataArray,
        method: str = "qdm",
        multiplicative: bool = False,
        window: int | None = None,
        wet: float | None = None,
        levels: int = 100,
        seed: int = 0,
        trace: float | None = None,
    ) -> "BiasCorrection":
        """Learn what separates a model from a reference over the same past; their days need not match.

        **Arguments:** `model` and `reference` (time, ...) in datetime64, on the same cells, in units that convert, NaN
        where missing; `method`, "eqm", "dqm" or "qdm"; `multiplicative`, for variables of at least 0, to keep ratios;
        `window` [days], seasons are windows of that length around every fifth day of the year (calendar months when
        not given); `wet`, in the units of the reference: where the model is below it more often than the reference, as
        many of its dry values as are too many become small wet ones, at random with `seed` (frequency adaptation:
        Themessl et al. 2012, doi:10.1007/s10584-011-0224-4); `levels`, the number of quantiles; `trace`, in the units
        of the reference, below which rain is a trace to a multiplicative QDM (0.05 mm/d where that converts to these
        units, else a fiftieth of the reference's mean).
        **Raises:** ValueError for other cells or units, fewer than 20 values in a season, a season of one of the two
        only, or values below 0 where ratios are to be kept.
        """
        if method not in METHODS:
            raise ValueError(f"expected a method among {quoted(METHODS)}, got {method!r}; qdm keeps most of the trends")
        if window is not None and not 1 <= window <= YEAR:
            raise ValueError(f"expected a window of 1 to {YEAR} days, got {window}; 91 is usual")
        reference = reference.transpose("time", ...)
        model = _like(model, reference)
        if multiplicative and (bool((model < 0).any()) or bool((reference < 0).any())):
            raise ValueError("expected values of at least 0 to keep ratios, got some below; leave multiplicative")
        rows, names = [], []
        past = model["time"].values, reference["time"].values
        for season in np.unique(np.concatenate([season_of(times, window) for times in past])).tolist():
            own, wanted = (
                each.values[in_season(times, season, window)].astype(np.float64)
                for each, times in zip((model, reference), past, strict=True)
            )
            if min(len(own), len(wanted)) < FEWEST:
                raise ValueError(
                    f"expected at least {FEWEST} values of model and reference in season {season}, got {len(own)} and "
                    f"{len(wanted)}; give a longer period or a longer window"
                )
            names.append(season)
            rows.append(_fitted(own, wanted, plotting_positions(levels), wet, np.random.default_rng([seed, season])))
        if not rows:
            raise ValueError("expected values to fit, got no time; give the past of model and reference")
        cells = reference.dims[1:]
        parameters = {
            name: (("season", "level", *cells) if rows[0][name].ndim > len(cells) else ("season", *cells),
                   np.stack([row[name] for row in rows]))
            for name in rows[0]
        }  # fmt: skip
        coords = {dim: reference[dim].values for dim in cells if dim in reference.coords}
        attrs = {"kind": KIND, "method": method, "multiplicative": int(multiplicative), "seed": seed}
        if multiplicative:
            attrs["trace"] = _trace(reference) if trace is None else trace
        attrs |= {"window": window or 0, "wet": np.nan if wet is None else wet, "variable": str(reference.name or "")}
        coords |= {"season": names, "level": plotting_positions(levels)}
        return BiasCorrection(xr.Dataset(parameters, coords, attrs | {"units": reference.attrs.get("units", "")}))

    def __call__(self, model: xr.DataArray) -> xr.DataArray:
        """`model` (time, ...) corrected, as float64 in the units of the reference.

        DQM and QDM compare the whole of what they are given with the past: correct a period of some decades at once.
        **Raises:** ValueError for other cells or units, or a season that was not fitted.
        """
        p, attrs = self.parameters, self.parameters.attrs
        cells = p["reference"].dims[2:]
        place = {dim: p[dim].values for dim in cells if dim in p.coords}
        like = xr.DataArray(np.zeros([p.sizes[dim] for dim in cells]), place, cells, attrs={"units": attrs["units"]})
        model = _like(model, like)
        times, x, out = model["time"].values, model.values.astype(np.float64), np.full(model.shape, np.nan)
        window = int(attrs["window"]) or None
        mine = season_of(times, window)
        for season in np.unique(mine).tolist():
            if season not in p["season"].values:
                raise ValueError(
                    f"expected times in the seasons {quoted(p['season'].values)} that were fitted, got some in "
                    f"{season}; fit with the whole year or leave these out"
                )
            at, near = p.sel(season=season), np.flatnonzero(in_season(times, season, window))
            rng = np.random.default_rng([attrs["seed"], season, 1])
            sample = _wetter(x[near], at["too_dry"].values, attrs["wet"], at["wet_up_to"].values, rng)
            keep = mine[near] == season
            out[near[keep]] = _corrected(sample[keep], sample, at, attrs["method"], bool(attrs["multiplicative"]))
        out = np.maximum(out, 0.0) if attrs["multiplicative"] else out  # what rounding takes from dry days
        said = f"{attrs['method'].upper()} by " + (f"windows of {attrs['window']} days" if attrs["window"] else "month")
        return model.copy(data=out).assign_attrs(units=attrs["units"], bias_correction=said)

    def save(self, path: str | PathLike[str], overwrite: bool = False) -> Path:
        """Write to a NetCDF file, whole or not at all; raises `DataError` where one is in the way."""
        return write_atomic(self.parameters, path, overwrite)

    @staticmethod
    def load(path: str | PathLike[str]) -> "BiasCorrection":
        """Read what `save` wrote; raises `DataError` for anything else."""
        try:
            with xr.open_dataset(path, engine="netcdf4") as file:
                parameters = file.load()
        except (OSError, ValueError) as error:
            raise DataError(f"expected a saved bias correction at {path}, got: {error}; check the path") from error
        if parameters.attrs.get("kind") != KIND:
            raise DataError(f"expected a bias correction of kind {KIND} at {path}, got another file; fit it again")
        return BiasCorrection(parameters)


def _like(model: xr.DataArray, like: xr.DataArray) -> xr.DataArray:
    """`model` as (time, *cells of `like`) in its units and order of cells."""
    cells = [dim for dim in like.dims if dim != "time"]
    if set(model.dims) != {"time", *cells} or model["time"].dtype.kind != "M":
        raise ValueError(
            f"expected a model with the dimensions {('time', *cells)} and dates of the standard calendar, got "
            f"{model.dims} and {model['time'].dtype if 'time' in model.coords else 'no'} times; rename or convert"
        )
    try:
        model = model.sel({dim: like[dim] for dim in cells if dim in like.coords})
    except KeyError as error:
        raise ValueError("expected model and reference on the same cells, got others; regrid the reference") from error
    given, wanted = (str(each.attrs.get("units", "")) for each in (model, like))
    if given and wanted and given != wanted:
        name = str(model.name)
        model = model.copy(data=convert(model.values, Variable(name, given), Variable(name, wanted), "the model"))
    return model.transpose("time", *cells)


def _fitted(
    own: np.ndarray, wanted: np.ndarray, levels: np.ndarray, wet: float | None, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The parameters of one season."""
    cells = own.shape[1:]
    too_dry, up_to = np.zeros(cells), np.zeros(cells)
    if wet is not None:
        dry_own, dry_wanted = (_part_below(each, wet) for each in (own, wanted))
        too_dry = np.clip(np.divide(dry_own - dry_wanted, dry_own, out=np.zeros(cells), where=dry_own > 0), 0.0, 1.0)
        up_to = np.fmax(_quantile_at(wanted, dry_own), wet)
        own = _wetter(own, too_dry, wet, up_to, rng)
    return {
        "model": sample_quantiles(own, levels),
        "reference": sample_quantiles(wanted, levels),
        "model_mean": _mean(own),
        "too_dry": too_dry,
        "wet_up_to": up_to,
    }


def _corrected(x: np.ndarray, sample: np.ndarray, at: xr.Dataset, method: str, multiplicative: bool) -> np.ndarray:
    """`x` (n, ...), part of the `sample` (m, ...) of one season, corrected."""
    own, wanted = at["model"].values, at["reference"].values
    if method == "eqm":
        return map_between(x, own, wanted, multiplicative)
    if method == "qdm":
        now = sample_quantiles(sample, at["level"].values)
        if not multiplicative:
            return x + between(x, now, wanted - own)
        return map_between(x, now, _in_proportion(now, own, wanted, float(at.attrs["trace"])), True)
    now, past = _mean(sample), at["model_mean"].values
    if not multiplicative:
        return map_between(x - (now - past), own, wanted) + (now - past)
    trend = np.divide(now, past, out=np.ones_like(past), where=(past > 0) & (now > 0))
    return map_between(x / trend, own, wanted, True) * trend


def _in_proportion(now: np.ndarray, own: np.ndarray, wanted: np.ndarray, trace: float) -> np.ndarray:
    """What QDM makes of the quantiles `now` (level, ...), `own` being those of the model's past and `wanted` those of
    the reference."""
    change = np.maximum(now, trace) / np.maximum(own, trace)
    exact = now * np.divide(wanted, own, out=np.zeros_like(own), where=own > 0)
    made = np.where(own < trace, wanted * change, exact)
    # Levels that are dry in both pasts have no ratio: if wet now, that of the first level that is not dry, at most 1.
    wet = np.maximum(own, wanted) >= trace
    first = np.argmax(wet, axis=0)[None]
    next_own, next_wanted = (np.take_along_axis(each, first, axis=0) for each in (own, wanted))
    ratio = np.where(wet.any(axis=0), np.minimum(next_wanted / np.maximum(next_own, trace), 1.0), 1.0)
    made = np.where(~wet & (now >= trace), now * ratio, made)
    return np.where(own < TRACES * trace, np.minimum(made, np.maximum(MOST * wanted, now)), made)


def _trace(reference: xr.DataArray) -> float:
    """0.05 mm/d in the units of `reference`, or a part of its mean where these are others."""
    units = Variable(str(reference.name), str(reference.attrs.get("units", "")))
    try:
        return float(convert(np.array([0.05]), TRACE, units, "rain")[0]) if units.units else _part_of_mean(reference)
    except DataError:
        return _part_of_mean(reference)


def _part_of_mean(reference: xr.DataArray) -> float:
    return max(OF_MEAN * float(reference.mean()), float(np.finfo(np.float32).tiny))


def _wetter(
    x: np.ndarray, part: np.ndarray, wet: float | None, up_to: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """`x` (n, ...) with a `part` (...) of its dry values, at random, between `wet` and `up_to` (...)."""
    if wet is None or np.isnan(wet) or not part.any():
        return x
    chosen = (x < wet) & (rng.random(x.shape) < part)
    return np.where(chosen, wet + (up_to - wet) * rng.random(x.shape), x)


def _mean(x: np.ndarray) -> np.ndarray:
    """The mean (...) of the known values of `x` (n, ...), NaN where there is none."""
    known = np.isfinite(x)
    return np.divide(
        np.where(known, x, 0.0).sum(axis=0), known.sum(axis=0), np.full(x.shape[1:], np.nan), where=known.any(axis=0)
    )


def _part_below(x: np.ndarray, wet: float) -> np.ndarray:
    """The part (...) of the known values of `x` (n, ...) below `wet`."""
    known = np.isfinite(x)
    return np.divide((x < wet).sum(axis=0), known.sum(axis=0), out=np.zeros(x.shape[1:]), where=known.any(axis=0))


def _quantile_at(sample: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The quantile (...) of each cell of `sample` (n, ...) at its own `level` (...)."""
    levels = plotting_positions(200)
    quantiles = sample_quantiles(sample, levels)
    at = np.clip(np.searchsorted(levels, level), 0, levels.size - 1)
    return np.take_along_axis(quantiles, at[None], axis=0)[0]
