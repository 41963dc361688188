"""What a forecaster without a prior would do: interpolate the coarse field, recall past weather, correct and add detail.

The statistical model, `kriging`, is in a file of its own.
"""

import numpy as np
import xarray as xr
from scipy.ndimage import distance_transform_edt

from bayesdownscale.diagnostics.checks import FIELD_DIMS, labelled
from bayesdownscale.diagnostics.layout import COARSE_DIMS, align

YEAR = np.timedelta64(366, "D")
FEWEST = 20  # values of a distribution
QUANTILES = 200  # at most, of a quantile map


def bilinear(coarse: xr.DataArray, like: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """A coarse field interpolated bilinearly in space and linearly in time: the baseline of every score.

    Beyond the outermost coarse centres and times the nearest value holds. A missing cell takes the value of
    the nearest valid cell of its time (in cells); a time without any valid cell is left out. Longitudes may
    come in any convention.

    **Arguments:** `coarse` (time_coarse, lat_coarse, lon_coarse), coordinates in datetime64 and degrees, in
    any order, NaN where missing; `like`, with coordinates time, lat and lon.
    **Returns:** (time, lat, lon) float64 in the units of `coarse`.
    **Raises:** ValueError where no coarse cell is valid.
    """
    coarse = coarse.transpose("time_coarse", "lat_coarse", "lon_coarse")
    values = coarse.values.astype(np.float64)
    has_data = np.isfinite(values).any(axis=(1, 2))
    if not has_data.any():
        raise ValueError("expected at least one coarse value, got only missing ones; check the coarse file")
    values = np.stack([_fill_from_nearest(layer) for layer in values[has_data]])
    middle = float(like["lon"].mean())
    lon_coarse = (coarse["lon_coarse"].values - middle + 180.0) % 360.0 - 180.0 + middle
    in_time = _weights(_hours(coarse["time_coarse"].values[has_data]), _hours(like["time"].values))
    in_lat = _weights(coarse["lat_coarse"].values, like["lat"].values)
    in_lon = _weights(lon_coarse, like["lon"].values)
    fine = np.einsum("tT,yY,xX,TYX->tyx", in_time, in_lat, in_lon, values, optimize=True)
    coords = {dim: like[dim].values for dim in ("time", "lat", "lon")}
    return xr.DataArray(fine, coords, ("time", "lat", "lon"), "bilinear", dict(coarse.attrs))


def climatology(training: xr.DataArray, like: xr.DataArray | xr.Dataset, days: int = 15) -> xr.DataArray:
    """Past weather as an ensemble: the training fields at the same time of day, one draw for each training day.

    Where the training record spans more than a year, a draw is a year and a shift of at most `days` days: the
    fields at the same month, day and time of day in that year, shifted; 29 February falls on 1 March. A day without
    a field at a time of day that `like` needs is left out. A training record that holds the times of `like` knows
    the truth.

    **Arguments:** `training` (time, lat, lon), on the cells of `like` or more of them, latitudes in any order and
    longitudes in any convention, NaN where missing; `like`, with coordinates time, lat and lon, times in UTC.
    **Returns:** (draw, time, lat, lon) in the units of `like`, of `training` where it has none; lazy if `training` is.
    **Raises:** ValueError where the grids differ or no training day has the times of day of `like`.
    """
    training = _on_cells(training, like, _units(like))
    past = _past(training["time"].values, like["time"].values, days)
    fields = training.isel(time=xr.DataArray(past, dims=("draw", "when"))).drop_vars("time")
    return fields.rename(when="time").assign_coords(time=like["time"].values).transpose("draw", *FIELD_DIMS)


def climatological_mean(training: xr.DataArray, like: xr.DataArray | xr.Dataset, days: int = 15) -> xr.DataArray:
    """The mean (time, lat, lon), float64, of the draws of `climatology`, which are never all in memory."""
    training = _on_cells(training, like, _units(like))
    mean = _mean_of(training.values, _past(training["time"].values, like["time"].values, days))
    return xr.DataArray(mean, {dim: like[dim].values for dim in FIELD_DIMS}, FIELD_DIMS, training.name, training.attrs)


def bcsd(
    coarse: xr.DataArray,
    like: xr.DataArray | xr.Dataset,
    training: xr.DataArray,
    correct: bool = True,
    multiplicative: bool = False,
    history: xr.DataArray | None = None,
    days: int = 15,
) -> xr.DataArray:
    """Bias correction and spatial disaggregation of a coarse field (Wood et al. 2004,
    doi:10.1023/B:CLIM.0000013685.99609.9e).

    Each coarse cell is mapped, quantile by quantile, from its distribution in `history` to that of the training
    fields averaged over it, at the times of day of `history` (`quantile_map`); where the training record spans more
    than a year, each calendar month by itself. What then differs from the coarse climatology is interpolated
    (`bilinear`) and added to the fine climatology. Climatologies are by time of day, as `climatology` takes
    it: a training record of some days has no seasons, and all of its days count.

    **Arguments:** `coarse` (time_coarse, lat_coarse, lon_coarse), NaN where missing; `like` and `training` as for
    `climatology`; `correct`, False where the coarse field is known to have no bias; `multiplicative`, ratios instead
    of differences, for precipitation (1 where the coarse climatology is 0); `history`, the coarse field over a longer
    period, on the same cells (`coarse` itself when not given: a few days know the weather, not the bias).
    **Returns:** (time, lat, lon) float64 in the units of `coarse`.
    **Raises:** ValueError where grids or times of day do not fit, a distribution has fewer than 20 times, no coarse
    cell holds fine cells, or values below 0 are to be ratios.
    """
    coarse = coarse.transpose(*COARSE_DIMS)
    training = _on_cells(training, like, _units(coarse))
    if multiplicative and bool((training < 0).any()):
        raise ValueError("expected training values of at least 0 to take ratios, got some below; leave multiplicative")
    in_lat, in_lon = means_over(coarse, like)
    averaged = in_lat @ training.values.astype(np.float64) @ in_lon.T
    usual = _mean_of(averaged, _past(training["time"].values, coarse["time_coarse"].values, days))
    values = coarse.values.astype(np.float64)
    if correct:
        past = coarse if history is None else history.transpose(*COARSE_DIMS)
        values = _corrected(coarse, past, training["time"].values, averaged, multiplicative)
    never = usual == 0.0
    anomalies = np.where(never, 1.0, values / np.where(never, 1.0, usual)) if multiplicative else values - usual
    anomalies = bilinear(coarse.copy(data=anomalies), like)
    normal = climatological_mean(training, xr.Dataset(coords={dim: like[dim] for dim in FIELD_DIMS}), days)
    return (anomalies * normal if multiplicative else anomalies + normal).rename("bcsd").assign_attrs(coarse.attrs)


def quantile_map(x: np.ndarray, own: np.ndarray, wanted: np.ndarray, multiplicative: bool = False) -> np.ndarray:
    """`x` (n, ...) from the distribution of `own` (m, ...) to that of `wanted` (k, ...), each cell (...) by itself.

    Linear between the quantiles of both at the plotting positions (i - 1/2) / q (Hazen), q the smaller of m and k,
    at most 200: monotone, and the identity where both samples are the same. Beyond the outermost quantiles their
    difference is added or, `multiplicative`, x is multiplied by their ratio (the difference where `own` is 0). The
    value of several quantiles, as of dry hours, goes to the lowest of their images. NaN in a sample is left out; a
    cell without a sample gives NaN.
    """
    q = min(len(own), len(wanted), QUANTILES)
    levels = (np.arange(q) + 0.5) / q
    known = np.isfinite(own).any(axis=0) & np.isfinite(wanted).any(axis=0)
    a, b = (np.nanquantile(sample[:, known], levels, axis=0, method="hazen") for sample in (own, wanted))
    x, out = x[:, known], np.full(x.shape, np.nan)
    above = sum((x > knot for knot in a), np.zeros(x.shape, np.intp))  # how many quantiles are below x
    at, after = np.clip(above - 1, 0, q - 1), np.clip(above, 0, q - 1)
    (a0, b0), (a1, b1) = ((np.take_along_axis(each, i, axis=0) for each in (a, b)) for i in (at, after))
    inside, scaled = a1 > a0, multiplicative & (a0 != 0.0)
    between = b0 + (b1 - b0) * (x - a0) / np.where(inside, a1 - a0, 1.0)
    beyond = np.where(scaled, x * b0 / np.where(scaled, a0, 1.0), x + b0 - a0)
    out[:, known] = np.where(np.isnan(x), np.nan, np.where(inside, between, beyond))
    return out


def means_over(coarse: xr.DataArray, like: xr.DataArray | xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Means of fine cells over coarse cells, by area, as matrices (lat_coarse, lat) and (lon_coarse, lon).

    A fine cell belongs to the nearest coarse centre, not further than half a coarse step. A coarse cell without
    fine cells has a row of NaN. **Raises:** ValueError where all have none.
    """
    lat, lon = (like[dim].values.astype(np.float64) for dim in ("lat", "lon"))
    matrices = []
    for dim, cells, weights in (("lat", lat, np.cos(np.deg2rad(lat))), ("lon", lon, np.ones(lon.size))):
        centres = coarse[f"{dim}_coarse"].values.astype(np.float64)
        apart = lambda a, b: np.abs((a - b + 180.0) % 360.0 - 180.0)
        reach = 0.5001 * float(apart(centres[1:], centres[:-1]).max()) if centres.size > 1 else np.inf
        distance = np.round(apart(centres[:, None], cells), 6)
        mine = (np.arange(centres.size)[:, None] == distance.argmin(axis=0)) & (distance <= reach)
        total = (weights * mine).sum(axis=1, keepdims=True)
        matrices.append(np.divide(weights * mine, total, out=np.full(mine.shape, np.nan), where=total > 0))
    if any(np.isnan(matrix).all() for matrix in matrices):
        raise ValueError("expected coarse cells that hold fine cells, got none; choose one region")
    return matrices[0], matrices[1]


def _corrected(
    coarse: xr.DataArray, history: xr.DataArray, times: np.ndarray, averaged: np.ndarray, multiplicative: bool
) -> np.ndarray:
    """The values of `coarse`, mapped from `history` to the training fields `averaged` (time, lat_coarse, lon_coarse)
    at `times`, by calendar month where these span more than a year."""
    xr.align(coarse, history, join="exact", exclude=["time_coarse"])
    now, then = coarse["time_coarse"].values, history["time_coarse"].values
    values, own = coarse.values.astype(np.float64), history.values.astype(np.float64)
    month = lambda when: when.astype("datetime64[M]").astype(int) % 12 * int(_spans_years(times))
    at_hours, out = np.isin(_time_of_day(times), _time_of_day(then)), np.full(values.shape, np.nan)
    for one in np.unique(month(now)):
        mine, samples = month(now) == one, (own[month(then) == one], averaged[at_hours & (month(times) == one)])
        fewest = min(len(sample) for sample in samples)
        if fewest < FEWEST:
            raise ValueError(
                f"expected at least {FEWEST} times of the coarse history, and training fields at its times of day, to "
                f"know a distribution (of each month, with years of training), got {fewest}; give a longer history or "
                "correct=False"
            )
        out[mine] = quantile_map(values[mine], *samples, multiplicative)
    return out


def _on_cells(training: xr.DataArray, like: xr.DataArray | xr.Dataset, units: str) -> xr.DataArray:
    """The training fields (time, lat, lon) on the cells of `like`, in `units` ("": their own), in order of time."""
    place = {"time": np.unique(labelled(training)["time"].values), "lat": like["lat"].values, "lon": like["lon"].values}
    shape = tuple(values.size for values in place.values())
    template = xr.DataArray(np.broadcast_to(0.0, shape), place, FIELD_DIMS, attrs={"units": units})
    return align(training, template, "training fields")


def _units(field: xr.DataArray | xr.Dataset) -> str:
    return str(field.attrs.get("units", "")) if isinstance(field, xr.DataArray) else ""


def _past(times: np.ndarray, wanted: np.ndarray, days: int) -> np.ndarray:
    """Positions (draw, wanted) among the training `times` of those that stand for each wanted time."""
    if not 0 <= days <= 182:
        raise ValueError(f"expected from 0 to 182 days, got {days}; 15 stands for a month around the day")
    hours, date = _time_of_day(wanted), wanted.astype("datetime64[D]")
    absent = np.setdiff1d(hours, _time_of_day(times))
    if absent.size:
        at = str((np.datetime64("2000-01-01T00:00") + absent[0]).astype("datetime64[m]"))[-5:]
        raise ValueError(f"expected training fields at every time of day, got none at {at}; give hourly fields")
    known = np.unique(times.astype("datetime64[D]"))
    dates = known[:, None]
    if _spans_years(times):
        month, year = date.astype("datetime64[M]"), lambda when: when.astype("datetime64[Y]").astype(int)
        years = np.arange(year(known[0]) - year(date).max() - 1, year(known[-1]) - year(date).min() + 2)
        same = (month + 12 * years[:, None]).astype("datetime64[D]") + (date - month.astype("datetime64[D]"))
        dates = (same[:, None] + np.arange(-days, days + 1)[:, None]).reshape(-1, date.size)
    when = dates.astype("datetime64[ns]") + hours
    at = np.clip(np.searchsorted(times, when), 0, times.size - 1)
    complete = (times[at] == when).all(axis=1)
    if not complete.any():
        raise ValueError("expected a training day with every time of day that is needed, got none; give hourly fields")
    return at[complete]


def _mean_of(fields: np.ndarray, past: np.ndarray) -> np.ndarray:
    """Means over draws (wanted, ...) of the fields (time, ...) at the positions `past` (draw, wanted)."""
    different, which = np.unique(past, axis=1, return_inverse=True)
    return np.stack([fields[one].mean(axis=0, dtype=np.float64) for one in different.T])[which.ravel()]


def _time_of_day(times: np.ndarray) -> np.ndarray:
    return times.astype("datetime64[ns]") - times.astype("datetime64[D]")


def _spans_years(times: np.ndarray) -> np.bool:
    return times.max() - times.min() > YEAR


def _hours(times: np.ndarray) -> np.ndarray:
    return (times - np.datetime64("2000-01-01")) / np.timedelta64(1, "h")


def _weights(nodes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The matrix (points, nodes) of linear interpolation, constant beyond the outermost nodes."""
    order = np.argsort(nodes)
    units = np.eye(nodes.size)[:, order]
    return np.stack([np.interp(points, nodes[order], unit) for unit in units], axis=1)


def _fill_from_nearest(layer: np.ndarray) -> np.ndarray:
    """`layer` (lat, lon), its missing cells filled from the nearest valid one."""
    missing = ~np.isfinite(layer)
    if not missing.any():
        return layer
    nearest = np.asarray(distance_transform_edt(missing, return_distances=False, return_indices=True))
    return layer[nearest[0], nearest[1]]
