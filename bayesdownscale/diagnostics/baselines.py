"""What a forecaster without a prior would do: interpolate the coarse field, recall past weather, or join the two."""

import numpy as np
import xarray as xr
from scipy.ndimage import distance_transform_edt

from bayesdownscale.data.quantiles import map_between, plotting_positions, sample_quantiles
from bayesdownscale.diagnostics.blocks import blocks
from bayesdownscale.diagnostics.checks import FIELD_DIMS, labelled
from bayesdownscale.diagnostics.frame import near, pole_of, turned
from bayesdownscale.diagnostics.layout import COARSE_DIMS, align
from bayesdownscale.diagnostics.scores import raw_units

YEAR = np.timedelta64(366, "D")
FEWEST = 20  # values of a distribution
QUANTILES = 200  # at most, of a quantile map


def bilinear(coarse: xr.DataArray, like: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """A coarse field interpolated bilinearly in space and linearly in time: the baseline of every score.

    Beyond the outermost coarse centres and times the nearest value holds. A missing cell takes the value of
    the nearest valid cell of its time (in cells); a time without any valid cell is left out. Longitudes may
    come in any convention.

    **Arguments:** `coarse` (time_coarse, lat_coarse, lon_coarse), coordinates in datetime64 and degrees, in
    any order, NaN where missing; `like`, with coordinates time, lat and lon, on the same or another pole.
    **Returns:** (time, lat, lon) float64 in the units of `coarse`.
    **Raises:** ValueError where no coarse cell is valid.
    """
    coarse = coarse.transpose(*COARSE_DIMS)
    values = coarse.values.astype(np.float64)
    has_data = np.isfinite(values).any(axis=(1, 2))
    if not has_data.any():
        raise ValueError("expected at least one coarse value, got only missing ones; check the coarse file")
    values = np.stack([_fill_from_nearest(layer) for layer in values[has_data]])
    if pole_of(coarse) != pole_of(like):
        return _at_places(coarse.isel(time_coarse=has_data), values, like)
    lon = np.unwrap(like["lon"].values, period=360.0)
    lon_coarse = near(coarse["lon_coarse"].values, lon.mean())
    in_time = _weights(hours(coarse["time_coarse"].values[has_data]), hours(like["time"].values))
    in_lat = _weights(coarse["lat_coarse"].values, like["lat"].values)
    in_lon = _weights(lon_coarse, lon)
    fine = np.einsum("tT,yY,xX,TYX->tyx", in_time, in_lat, in_lon, values, optimize=True)
    return xr.DataArray(fine, {dim: like[dim].values for dim in FIELD_DIMS}, FIELD_DIMS, "bilinear", dict(coarse.attrs))


def _at_places(coarse: xr.DataArray, values: np.ndarray, like: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """`values` of `coarse` interpolated bilinearly at the places of the cells of `like`, which has another pole."""
    cells = np.meshgrid(like["lat"].values, like["lon"].values, indexing="ij")
    lat, lon = turned(*cells, pole_of(like), pole_of(coarse))
    lon = near(lon, float(coarse["lon_coarse"].mean()))
    in_lat = _weights(coarse["lat_coarse"].values, lat.ravel())
    in_lon = _weights(coarse["lon_coarse"].values, lon.ravel())
    in_time = _weights(hours(coarse["time_coarse"].values), hours(like["time"].values))
    fine = np.einsum("tT,pY,pX,TYX->tp", in_time, in_lat, in_lon, values, optimize=True).reshape(-1, *lat.shape)
    return xr.DataArray(fine, {dim: like[dim].values for dim in FIELD_DIMS}, FIELD_DIMS, "bilinear", dict(coarse.attrs))


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
    training = _on_cells(training, like)
    past = _past(training["time"].values, like["time"].values, days)
    fields = training.isel(time=xr.DataArray(past, dims=("draw", "when"))).drop_vars("time")
    return fields.rename(when="time").assign_coords(time=like["time"].values).transpose("draw", *FIELD_DIMS)


def climatological_mean(training: xr.DataArray, like: xr.DataArray | xr.Dataset, days: int = 15) -> xr.DataArray:
    """The mean (time, lat, lon), float64, of the known draws of `climatology`, which are never all in memory."""
    training = _on_cells(training, like)
    different, which = np.unique(_past(training["time"].values, like["time"].values, days), axis=1, return_inverse=True)
    means = [training.isel(time=one).mean("time", dtype=np.float64) for one in different.T]
    means = xr.concat(means, "when", coords="minimal", compat="override", join="override").values[which.ravel()]
    return xr.DataArray(means, {dim: like[dim].values for dim in FIELD_DIMS}, FIELD_DIMS, training.name, training.attrs)


def coarse_climatology(
    coarse: xr.DataArray, like: xr.DataArray | xr.Dataset, training: xr.DataArray, days: int = 15
) -> xr.DataArray:
    """The climatological mean over the coarse cells (time_coarse, lat_coarse, lon_coarse), at their times and in their
    units. What `kriging` makes of the differences from it goes with `climatological_mean`: daily cycle and coasts."""
    place = {"time": coarse["time_coarse"].values, "lat": like["lat"].values, "lon": like["lon"].values}
    fine = climatological_mean(training, xr.Dataset(coords=place, attrs={"units": raw_units(coarse)}), days)
    return coarse.transpose(*COARSE_DIMS).copy(data=_averaged(fine, coarse))


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
    period, same cells and units (`coarse` itself when not given: a few days know the weather, not the bias).
    **Returns:** (time, lat, lon) float64 in the units of `coarse`.
    **Raises:** ValueError where grids or times of day do not fit, a distribution has fewer than 20 times, no coarse
    cell holds fine cells, or values below 0 are to be ratios.
    """
    coarse, history = (each.transpose(*COARSE_DIMS) for each in (coarse, coarse if history is None else history))
    like = xr.Dataset(coords={dim: like[dim].values for dim in FIELD_DIMS}, attrs={"units": raw_units(coarse)})
    training = _on_cells(training, like)
    if multiplicative and any(bool((field < 0).any()) for field in (coarse, history, training)):
        raise ValueError("expected values of at least 0 to take ratios, got some below; clip, or multiplicative=False")
    usual = coarse_climatology(coarse, like, training, days).values
    values = _corrected(coarse, history, training, multiplicative) if correct else coarse.values.astype(np.float64)
    never = usual == 0.0
    anomalies = np.where(never, 1.0, values / np.where(never, 1.0, usual)) if multiplicative else values - usual
    fine, normal = bilinear(coarse.copy(data=anomalies), like), climatological_mean(training, like, days)
    return (fine * normal if multiplicative else fine + normal).rename("bcsd").assign_attrs(coarse.attrs)


def quantile_map(x: np.ndarray, own: np.ndarray, wanted: np.ndarray, multiplicative: bool = False) -> np.ndarray:
    """`x` (n, ...) from the distribution of `own` (m, ...) to that of `wanted` (k, ...), each cell (...) by itself.

    Linear between the quantiles of both at the plotting positions (i - 1/2) / q (Hazen), q the smaller of m and k,
    at most 200: monotone, and the identity where both samples are the same. Beyond the outermost quantiles their
    difference is added or, `multiplicative`, x is multiplied by their ratio (the difference where `own` is 0). The
    value of several quantiles, as of dry hours, goes to the lowest of their images. NaN in a sample is left out; a
    cell without a sample gives NaN.
    """
    levels = plotting_positions(min(len(own), len(wanted), QUANTILES))
    return map_between(x, sample_quantiles(own, levels), sample_quantiles(wanted, levels), multiplicative)


def means_over(coarse: xr.DataArray, like: xr.DataArray | xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Means of fine cells over coarse cells, by area, as matrices (lat_coarse, lat) and (lon_coarse, lon).

    A fine cell belongs to the nearest coarse centre, not further than half a coarse step. A coarse cell without
    fine cells has a row of NaN. **Raises:** ValueError where all have none, or the two have other poles.
    """
    if pole_of(coarse) != pole_of(like):
        raise ValueError("expected an input on the pole of the fine fields, got one on another; regrid it for this")
    matrices = []
    for dim in ("lat", "lon"):
        centres, cells = (each.values.astype(np.float64) for each in (coarse[f"{dim}_coarse"], like[dim]))
        apart, steps = (np.abs((x + 180.0) % 360.0 - 180.0) for x in (centres[:, None] - cells, np.diff(centres)))
        reach = 0.5001 * steps.max() if steps.size else np.inf
        nearest = np.round(apart, 6).argmin(axis=0)
        mine = (np.arange(centres.size)[:, None] == nearest) & (apart <= reach)
        weights = mine * (np.cos(np.deg2rad(cells)) if dim == "lat" else 1.0)
        total = weights.sum(axis=1, keepdims=True)
        matrices.append(np.divide(weights, total, out=np.full(mine.shape, np.nan), where=total > 0))
    if any(np.isnan(matrix).all() for matrix in matrices):
        raise ValueError("expected coarse cells that hold fine cells, got none; choose one region")
    return matrices[0], matrices[1]


def _corrected(coarse: xr.DataArray, history: xr.DataArray, training: xr.DataArray, multiplicative: bool) -> np.ndarray:
    """The values of `coarse`, mapped from `history` to the means of the training fields over its cells, by calendar
    month where these span more than a year."""
    coarse, history = xr.align(coarse, history, join="exact", exclude=["time_coarse"])
    now, then, past = coarse["time_coarse"].values, history["time_coarse"].values, training["time"].values
    month = lambda when: when.astype("datetime64[M]").astype(int) % 12 * (np.ptp(past) > YEAR)
    at_hours = np.isin(_time_of_day(past), _time_of_day(then))
    values, own = (field.values.astype(np.float64) for field in (coarse, history))
    wanted, out = _averaged(training.isel(time=at_hours), coarse), np.full(values.shape, np.nan)
    for one in np.unique(month(now)):
        mine, samples = month(now) == one, (own[month(then) == one], wanted[month(past[at_hours]) == one])
        if (fewest := min(len(sample) for sample in samples)) < FEWEST:
            raise ValueError(
                f"expected at least {FEWEST} times of the coarse history, and training fields at its times of day (in "
                f"each month, with years of training), got {fewest}; give a longer history or correct=False"
            )
        out[mine] = quantile_map(values[mine], *samples, multiplicative)
    return out


def _averaged(fields: xr.DataArray, coarse: xr.DataArray) -> np.ndarray:
    """Area means (time, lat_coarse, lon_coarse) of the values that are known; NaN where none is."""
    in_lat, in_lon = means_over(coarse, fields)
    means = [np.empty((0, len(in_lat), len(in_lon)))]
    for part in blocks(fields):
        known = np.isfinite(values := fields.isel(part).values)
        total, area = (in_lat @ each @ in_lon.T for each in (np.where(known, values, 0.0), known))
        means.append(np.divide(total, area, out=np.full(area.shape, np.nan), where=area > 0))
    return np.concatenate(means)


def _on_cells(training: xr.DataArray, like: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """The training fields (time, lat, lon) on the cells and in the units of `like`, in order of time."""
    place = {"time": np.unique(labelled(training)["time"].values), "lat": like["lat"].values, "lon": like["lon"].values}
    zeros = np.broadcast_to(0.0, tuple(values.size for values in place.values()))
    template = xr.DataArray(zeros, place, FIELD_DIMS, attrs={"units": str(like.attrs.get("units", ""))})
    return align(training, template, "training fields")


def _past(times: np.ndarray, wanted: np.ndarray, days: int) -> np.ndarray:
    """Positions (draw, wanted) among the training `times` of those that stand for each wanted time."""
    if not 0 <= days <= 182:
        raise ValueError(f"expected from 0 to 182 days, got {days}; 15 stands for a month around the day")
    of_day, date = _time_of_day(wanted), wanted.astype("datetime64[D]")
    absent = np.setdiff1d(of_day, _time_of_day(times))
    if absent.size:
        at = str((np.datetime64("2000-01-01T00:00") + absent[0]).astype("datetime64[m]"))[-5:]
        raise ValueError(f"expected training fields at every time of day, got none at {at}; give hourly fields")
    known = np.unique(times.astype("datetime64[D]"))
    dates = known[:, None]
    if np.ptp(times) > YEAR:
        month, year = date.astype("datetime64[M]"), lambda when: when.astype("datetime64[Y]").astype(int)
        years = np.arange(year(known[0]) - year(date).max() - 1, year(known[-1]) - year(date).min() + 2)
        same = (month + 12 * years[:, None]).astype("datetime64[D]") + (date - month.astype("datetime64[D]"))
        dates = (same[:, None] + np.arange(-days, days + 1)[:, None]).reshape(-1, date.size)
    when = dates.astype("datetime64[ns]") + of_day
    at = np.clip(np.searchsorted(times, when), 0, times.size - 1)
    complete = (times[at] == when).all(axis=1)
    if not complete.any():
        raise ValueError("expected a training day with every time of day that is needed, got none; give hourly fields")
    return at[complete]


def _time_of_day(times: np.ndarray) -> np.ndarray:
    return times.astype("datetime64[ns]") - times.astype("datetime64[D]")


def hours(times: np.ndarray) -> np.ndarray:
    """Hours (n,) since the start of 2000 of times (n,) in datetime64."""
    return (times - np.datetime64("2000-01-01")) / np.timedelta64(1, "h")


def _weights(nodes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The matrix (points, nodes) of linear interpolation, constant beyond the outermost nodes."""
    order = np.argsort(nodes)
    return np.stack([np.interp(points, nodes[order], unit) for unit in np.eye(nodes.size)[:, order]], axis=1)


def _fill_from_nearest(layer: np.ndarray) -> np.ndarray:
    """`layer` (lat, lon), its missing cells filled from the nearest valid one."""
    missing = ~np.isfinite(layer)
    if not missing.any():
        return layer
    nearest = np.asarray(distance_transform_edt(missing, return_distances=False, return_indices=True))
    return layer[nearest[0], nearest[1]]
