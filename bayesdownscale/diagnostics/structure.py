"""How each draw hangs together: in time, between cells, between variables, and with the coarse field it came from.

Scores judge every cell and hour by itself. A draw with a wrong course of time or wrong patterns passes them, so
these statistics are of each draw alone, for comparison with the truth. Series have their mean over the period
removed, nothing else. The correlation of a constant series is NaN, and means over cells leave it out.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from bayesdownscale.data.grid import EARTH_RADIUS_KM
from bayesdownscale.data.overlap import mean_weights
from bayesdownscale.diagnostics.blocks import by_part
from bayesdownscale.diagnostics.checks import hours_apart, labelled, squared
from bayesdownscale.diagnostics.frame import grid_of, pole_of
from bayesdownscale.diagnostics.scores import area_weights, domain_mean

COARSE = ("time_coarse", "lat_coarse", "lon_coarse")
CORRELATION = {"long_name": "correlation", "units": "1"}


def lag1_autocorrelation(field: xr.DataArray, at: xr.DataArray | None = None) -> xr.DataArray:
    """r = sum a_t a_(t+1) / sqrt(sum a_t^2 sum a_(t+1)^2) of each cell, a = x - mean(x); mean over cells by area.

    **Arguments:** `field` ((draw,) time, lat, lon); `at` (time,) bool, the first times of the pairs that count (all).
    **Returns:** ((draw,)) dimensionless; NaN where every cell is constant.
    **Raises:** ValueError for missing values, unequal steps, fewer than two times or no pair.
    """
    hours_apart(field)
    first = _chosen(field, at, slice(0, -1))

    def of_cells(part: xr.DataArray) -> xr.DataArray:
        a = _anomalies(part).drop_vars("time")
        return _cosine(a.isel(time=first), a.isel(time=first + 1))

    attrs = {"long_name": "lag-1 autocorrelation", "units": "1"}
    mean = domain_mean(by_part(of_cells, field, along="lat"), ["lat", "lon"])
    return mean.rename("lag1").assign_attrs(attrs)


def second_difference_energy(field: xr.DataArray, at: xr.DataArray | None = None) -> xr.DataArray:
    """Mean of (x[t-1] - 2 x[t] + x[t+1])^2 over cells, by area, and interior times: how much the field jerks.

    2 s^2 for a random walk of steps with variance s^2; s^2 (6 - 8 r + 2 r^2) for an AR(1) process of variance s^2
    and lag-1 autocorrelation r.

    **Arguments:** `field` ((draw,) time, lat, lon) with equal steps; `at` (time,) bool, the times t that count (all).
    **Returns:** ((draw,)) in squared units.
    **Raises:** ValueError for missing values, unequal steps, fewer than three times or no time left.
    """
    mean = _energy(field).isel(time=_chosen(field, at, slice(1, -1)) - 1).mean("time")
    attrs = {"long_name": "second difference energy", "units": squared(field)}
    return mean.rename("second_difference_energy").assign_attrs(attrs)


def jerk_ratio(field: xr.DataArray, observed: xr.DataArray) -> xr.DataArray:
    """Second difference energy at observed hours over that at all other hours.

    About 1 for weather and for a process whose statistics do not depend on the hour. Guidance that moves observed
    hours only pulls them out of line, and the ratio is well above 1. Weather at observed hours of the day may differ
    from that at others: compare with the truth.

    **Arguments:** `field` ((draw,) time, lat, lon) with equal steps; `observed` (time,) bool.
    **Returns:** ((draw,)) dimensionless; NaN where the other hours have no energy.
    **Raises:** ValueError as `second_difference_energy`, and where all hours are observed or none.
    """
    energy, inside = _energy(field), slice(1, -1)
    seen = energy.isel(time=_chosen(field, observed, inside) - 1).mean("time")
    unseen = energy.isel(time=_chosen(field, ~observed, inside) - 1).mean("time")
    attrs = {"long_name": "jerk at observed hours", "units": "1"}
    return (seen / unseen.where(unseen > 0)).rename("jerk_ratio").assign_attrs(attrs)


def correlation_map(field: xr.DataArray, point: tuple[float, float]) -> xr.DataArray:
    """Correlation over time of all cells of `field` ((draw,) time, lat, lon) with the one nearest `point` (lat, lon).

    **Returns:** ((draw,) lat, lon) dimensionless, with the centre of that cell in `attrs["point"]`.
    **Raises:** ValueError for missing values, fewer than two times or a point outside.
    """
    i, j = (_nearest(labelled(field, 2), dim, place) for dim, place in zip(("lat", "lon"), point, strict=True))
    out = by_part(_correlation, field, field.isel(lat=i, lon=j, drop=True), along="lat")
    centre = [float(field["lat"][i]), float(field["lon"][j])]
    return out.rename("correlation").assign_attrs(CORRELATION, point=centre)


def cross_correlation(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
    """Correlation over time between two variables, `a` and `b` ((draw,) time, lat, lon), at each cell.

    **Returns:** ((draw,) lat, lon) dimensionless; draws in pairs, each a joint weather of both variables.
    **Raises:** ValueError for missing values, fewer than two times or other coordinates.
    """
    if set(labelled(a, 2).dims) != set(b.dims):
        raise ValueError(f"expected two variables with equal dimensions, got {a.dims} and {b.dims}; select draws")
    return by_part(_correlation, a, b, along="lat").rename("correlation").assign_attrs(CORRELATION)


def spatial_correlation(
    field: xr.DataArray, bins_km: Sequence[float] | np.ndarray, points: int = 100, key: int = 0
) -> xr.DataArray:
    """Mean correlation over time between pairs of different cells, by their great-circle distance.

    The pairs are those of `points` cells, drawn without replacement with the seed `key`, with all cells; each
    weighs as the product of its areas.

    **Arguments:** `field` ((draw,) time, lat, lon); `bins_km`, increasing edges of the distance bins [km].
    **Returns:** ((draw,) distance) dimensionless, over the middles of the bins [km], with the coordinate `pairs`;
    NaN in a bin without pairs.
    **Raises:** ValueError for missing values, fewer than two times, or bins without any pair.
    """
    edges = np.asarray(bins_km, np.float64)
    if edges.ndim != 1 or edges.size < 2 or not np.all(np.diff(edges) > 0):
        raise ValueError(f"expected two or more increasing bin edges in km, got {edges.tolist()}; sort them")
    cells = labelled(field, 2).sizes["lat"] * field.sizes["lon"]
    chosen = np.sort(np.random.default_rng(key).permutation(cells)[:points])
    lat, lon = (np.deg2rad(x.ravel()) for x in np.meshgrid(field["lat"], field["lon"], indexing="ij"))
    phi, theta, n = lat[chosen, None], lon[chosen, None], edges.size - 1
    half = np.sin((phi - lat) / 2) ** 2 + np.cos(phi) * np.cos(lat) * np.sin((theta - lon) / 2) ** 2
    bins = np.digitize(2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(half.clip(0, 1))), edges) - 1
    used = (bins >= 0) & (bins < n) & (chosen[:, None] != np.arange(cells))
    if not used.any():
        raise ValueError(f"expected two cells at a distance in a bin, got none for {edges.tolist()} km; widen the bins")
    bin_of, weight = bins[used], (np.cos(phi) * np.cos(lat))[used]

    def by_distance(part: xr.DataArray) -> xr.DataArray:
        a = _anomalies(part).values.reshape(-1, part.sizes["time"], cells)
        norm = np.sqrt((a**2).sum(axis=1, keepdims=True))
        a = np.divide(a, norm, out=np.full_like(a, np.nan), where=norm > 0)
        means = np.full((len(a), n), np.nan)
        for mean, draw in zip(means, a, strict=True):
            r = (draw[:, chosen].T @ draw)[used]
            known = np.isfinite(r)
            total = np.bincount(bin_of[known], weight[known], n)
            np.divide(np.bincount(bin_of[known], (weight * r)[known], n), total, out=mean, where=total > 0)
        like = part.isel(time=0, lat=0, lon=0, drop=True)
        return like.expand_dims({"distance": n}, -1).copy(data=means.reshape(*like.shape, n))

    middles = ("distance", (edges[1:] + edges[:-1]) / 2, {"long_name": "distance", "units": "km"})
    pairs = ("distance", np.bincount(bin_of, minlength=n), {"long_name": "pairs of cells", "units": "1"})
    mean = by_part(by_distance, field).assign_coords(distance=middles, pairs=pairs)
    return mean.rename("correlation").assign_attrs(CORRELATION)


def coarse_consistency(
    ensemble: xr.DataArray, coarse: xr.DataArray, noise_sd: float | xr.DataArray = 1.0
) -> xr.Dataset:
    """How far area means of each draw lie from the coarse field it was drawn for, in units of the noise.

    Each fine cell belongs to the coarse cell whose centre is nearest in latitude and in longitude (of two, the first),
    none where that is more than half a coarse step away; on another pole the parts of cells that lie within it, where
    fine cells cover all of it. Times without a snapshot and coarse cells that are missing or
    hold no fine cell are left out; all others count the same. Draws of a right posterior, like the truth, have about 1.

    **Arguments:** `ensemble` ((draw,) time, lat, lon); `coarse` (time_coarse, lat_coarse, lon_coarse), snapshots,
    NaN where missing, longitudes in any convention; `noise_sd`, the standard deviation of its noise in its units, a
    number or an array with some of the dimensions of `coarse` and draw.
    **Returns:** `rms` ((draw,)) and `rms_by_time` ((draw,) time_coarse), dimensionless.
    **Raises:** ValueError where no time or cell is shared, for time means, or for noise that is not positive.
    """
    if set(coarse.dims) != set(COARSE) or not set(COARSE) <= set(coarse.coords):
        raise ValueError(f"expected a coarse field with labelled {', '.join(COARSE)}, got {coarse.dims}; rename")
    if "time: mean" in str(coarse.attrs.get("cell_methods", "")):
        raise ValueError("expected coarse snapshots of single hours, got means over time; average the draws first")
    noise = noise_sd if isinstance(noise_sd, xr.DataArray) else xr.DataArray(float(noise_sd))
    if not bool((noise > 0).all()):
        raise ValueError("expected noise_sd above 0, got others; give the standard deviation of the noise")
    coarse, noise = xr.align(coarse.transpose(*COARSE), noise, join="exact", exclude=["draw"])
    seen = coarse.notnull().any(COARSE[1:]).values
    stamps = coarse["time_coarse"].values[seen]
    _, at, of_coarse = np.intersect1d(labelled(ensemble)["time"].values, stamps, return_indices=True)
    if not at.size:
        raise ValueError("expected coarse snapshots at times of the ensemble, got none; choose one period")
    cut = {"time_coarse": np.flatnonzero(seen)[of_coarse]}
    one_pole = pole_of(coarse) == pole_of(ensemble)
    in_lat = _means_over(coarse["lat_coarse"].values, ensemble["lat"].values, area_weights(ensemble["lat"]).values)
    in_lon = _means_over(coarse["lon_coarse"].values, ensemble["lon"].values, np.ones(ensemble.sizes["lon"]))
    turned = None if one_pole else mean_weights(grid_of(coarse), grid_of(ensemble))
    n_cells = ensemble.sizes["lat"] * ensemble.sizes["lon"]

    def means(part: xr.DataArray) -> xr.DataArray:
        sizes = {"lat_coarse": len(in_lat), "lon_coarse": len(in_lon)}
        like = part.isel(lat=0, lon=0, drop=True).expand_dims(sizes, (-2, -1))
        if turned is None:
            return like.copy(data=in_lat @ part.values @ in_lon.T)
        weights, covered = turned
        flat = part.values.reshape(-1, n_cells) @ weights.T
        return like.copy(data=np.where(covered > 0.999, flat, np.nan).reshape(like.shape))

    fine = by_part(means, ensemble.isel(time=at), along="time").rename(time="time_coarse")
    residual = (fine.drop_vars("time_coarse") - coarse.isel(cut)) / noise.isel(cut, missing_dims="ignore")
    if not bool(residual.notnull().any()):
        raise ValueError("expected coarse cells that hold fine cells, got none with a value; choose one region")
    attrs = {"long_name": "root mean square residual over noise", "units": "1"}
    overall, by_time = ((residual**2).mean(dims) ** 0.5 for dims in (COARSE, COARSE[1:]))
    return xr.Dataset({"rms": overall.assign_attrs(attrs), "rms_by_time": by_time.assign_attrs(attrs)})


def _energy(field: xr.DataArray) -> xr.DataArray:
    """Squared second difference ((draw,) interior time), the mean over cells by area."""
    hours_apart(field, 3)
    second = lambda part: part.diff("time", label="lower").diff("time", label="upper")
    return domain_mean(by_part(lambda part: (second(part) ** 2).mean("lon"), field, along="lat"), ["lat"])


def _chosen(field: xr.DataArray, at: xr.DataArray | None, among: slice) -> np.ndarray:
    """Positions of the times where `at` is true, of those `among`."""
    places = np.arange(field.sizes["time"])[among]
    if at is None:
        return places
    if at.dims != ("time",) or at.dtype != bool or not at["time"].equals(field["time"]):
        raise ValueError(
            f"expected true or false at each time of the field, got {at.dtype} over {at.dims}; reindex to its times"
        )
    chosen = places[at.values[among]]
    if not chosen.size:
        raise ValueError("expected a chosen time inside the period, got none; choose others or a longer series")
    return chosen


def _anomalies(x: xr.DataArray) -> xr.DataArray:
    x = x - x.isel(time=0, drop=True)  # so that a constant series is exactly zero
    return x - x.mean("time")


def _correlation(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
    return _cosine(_anomalies(a), _anomalies(b))


def _cosine(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
    """sum a b / sqrt(sum a^2 sum b^2) over time, NaN where either is zero."""
    scale = ((a**2).sum("time") * (b**2).sum("time")) ** 0.5
    return (a * b).sum("time") / scale.where(scale > 0)


def _nearest(field: xr.DataArray, dim: str, place: float) -> int:
    """The position of the cell nearest to `place` [degrees], which lies in the domain."""
    centres = field[dim].values.astype(np.float64)
    distance = _apart(centres, place)
    if not distance.min() <= _half_step(centres):
        span = f"{centres.min():g} to {centres.max():g}"
        raise ValueError(f"expected a point in the domain, got {dim} {place:g} outside {span}; give (lat, lon) inside")
    return int(distance.argmin())


def _means_over(centres: np.ndarray, cells: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The matrix (centres, cells) of weighted means over the cells of each centre; NaN where it has none."""
    distance = np.round(_apart(centres[:, None], cells), 6)
    mine = np.arange(centres.size)[:, None] == distance.argmin(axis=0)
    matrix = weights * (mine & (distance <= _half_step(centres)))
    total = matrix.sum(axis=1, keepdims=True)
    return np.divide(matrix, total, out=np.full_like(matrix, np.nan), where=total > 0)


def _apart(a: np.ndarray, b: np.ndarray | float) -> np.ndarray:
    """|a - b| of angles [degrees], the shorter way round."""
    return np.abs((a - b + 180.0) % 360.0 - 180.0)


def _half_step(centres: np.ndarray) -> float:
    return 0.5001 * float(_apart(centres[1:], centres[:-1]).max()) if centres.size > 1 else np.inf
