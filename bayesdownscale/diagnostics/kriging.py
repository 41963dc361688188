"""Kriging of area means: what a Gaussian field with one scale in space and one in time knows from the coarse data.

x = constant + Gaussian field, with the covariance sd^2 exp(-|t - t'| / tau) M(d / length) of two cells at two
times, M(r) = (1 + sqrt(3) r) exp(-sqrt(3) r) (Matern, 3/2); d is the distance through the Earth, with which M is
positive definite everywhere (along the surface it is not: Gneiting 2013, Bernoulli 19, 1327). The data are area means
of x at some times plus white noise: their covariance is a Kronecker product plus noise, diagonal in the eigenvectors
of time and of space. Distances are those of two latitudes and a step in longitude: no matrix of all cells is formed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scoringrules
import xarray as xr
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from bayesdownscale.data.grid import EARTH_RADIUS_KM
from bayesdownscale.diagnostics.baselines import hours, means_over
from bayesdownscale.diagnostics.checks import FIELD_DIMS
from bayesdownscale.diagnostics.layout import COARSE_DIMS
from bayesdownscale.diagnostics.scores import raw_units

NUMBERS = 2**22  # in double precision at once
MOST_GAPS = 500
MOST_CELLS_DRAWN = 4096


def kriging(
    coarse: xr.DataArray,
    like: xr.DataArray | xr.Dataset,
    sd: float | None = None,
    length_km: float | None = None,
    tau_h: float | None = None,
    noise_sd: float | None = None,
    draws: int = 0,
    seed: int = 0,
) -> xr.Dataset:
    """The Gaussian distribution of fine cells given area means of them (area-to-point kriging: Kyriakidis 2004,
    doi:10.1111/j.1538-4632.2004.tb01135.x).

    The constant mean is estimated by generalised least squares, and its uncertainty is in that of the cells
    (ordinary kriging: Cressie 1993, Statistics for Spatial Data, ch. 3). Parameters that are not given maximise the
    restricted likelihood of the coarse data (Patterson & Thompson 1971, Biometrika 58, 545), with a length from half a
    coarse cell to 10 domains and tau from a quarter of the shortest step to 30 periods. A coarse value is the mean of
    the fine cells nearest to its centre (`means_over`). Times and coarse cells without any value are left out; every
    other gap is one more unknown of the mean, which is exact. Memory grows as n_lat^2 n_lon.

    **Arguments:** `coarse` (time_coarse, lat_coarse, lon_coarse), snapshots in datetime64, in any order, NaN where
    missing; `like`, with coordinates time, lat and lon [degrees], longitudes in any convention, at equal steps (others
    take more memory); `sd` and `noise_sd` [units of `coarse`], `length_km` [km] and `tau_h` [h], None to estimate;
    `draws`, how many fields to draw, with the seed `seed`, on at most 4096 cells (by kriging the errors of
    unconditional ones: Journel & Huijbregts 1978, Mining Geostatistics, ch. 7).
    **Returns:** `mean` and `sd` (time, lat, lon) and, if any, `draws` (draw, time, lat, lon), of the field without
    noise, in the units of `coarse`; as attributes the parameters, the constant (`level`) and the `log_likelihood`.
    **Raises:** ValueError for parameters not above 0, data that cannot tell them, too many gaps or cells to draw.
    """
    given: dict[str, Any] = {"sd": sd, "length_km": length_km, "tau_h": tau_h, "noise_sd": noise_sd}
    wrong = [f"{name} {value}" for name, value in given.items() if value is not None and not 0.0 < value < np.inf]
    if wrong:
        raise ValueError(f"expected parameters above 0, got {', '.join(wrong)}; leave them out to estimate them")
    n_time, n_lat, n_lon = (like.sizes[dim] for dim in FIELD_DIMS)
    if draws and n_lat * n_lon > MOST_CELLS_DRAWN:
        raise ValueError(f"expected at most {MOST_CELLS_DRAWN} cells to draw, got {n_lat * n_lon}; crop, or draws=0")
    data, wanted = _read(coarse, like), hours(like["time"].values)
    solve = _solver(data)
    p: dict[str, float] = _estimate(data, solve, given) if None in given.values() else given
    system, (sd, length_km, tau_h, _) = solve(**p), p.values()
    level, weights = system.weights(data.values)
    in_time = sd**2 * _memory(wanted, data.hours, tau_h) @ system.in_time
    found: dict[str, list[Any]] = {"mean": [], "sd": []}
    n_rows = max(1, NUMBERS // (n_lon * max(n_lat, data.used.size, n_time * len(system.trend))))
    for start in range(0, n_lat, n_rows):
        in_space = data.with_means(slice(start, start + n_rows), length_km) @ system.in_space
        found["mean"].append(level + in_time @ weights @ in_space.T)
        explained = in_time**2 @ (1 / system.variance) @ (in_space**2).T
        of_trend = -in_time @ (system.trend / system.variance) @ in_space.T
        of_trend[0] += 1.0
        of_trend = solve_triangular(system.root, of_trend.reshape(len(of_trend), -1), lower=True)
        variance = sd**2 - explained + (of_trend**2).sum(axis=0).reshape(explained.shape)
        found["sd"].append(np.sqrt(variance.clip(min=0.0)))
    fields = {name: np.concatenate(each, axis=1).reshape(n_time, n_lat, n_lon) for name, each in found.items()}
    if draws:
        fields["draws"] = _draw(data, system, p, wanted, draws, seed)
    dims, units = ("draw", *FIELD_DIMS), {"units": raw_units(coarse)}
    labelled = {name: (dims[-each.ndim :], each, units) for name, each in fields.items()}
    attrs = p | {"level": level, "log_likelihood": system.log_likelihood(data.values)}
    return xr.Dataset(labelled, {dim: like[dim].values for dim in FIELD_DIMS}, attrs)


def gaussian_crps(mean: xr.DataArray, sd: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
    """Continuous ranked probability score of a Gaussian forecast of each cell (...), in the units of `mean`.

    **Raises:** ValueError where `sd` is not above 0 or coordinates differ.
    """
    if not bool((sd > 0).all()):
        raise ValueError("expected standard deviations above 0, got others; score a single value by its absolute error")
    mean, sd, truth = (each.transpose(*mean.dims) for each in xr.align(mean, sd, truth, join="exact", copy=False))
    score = np.asarray(scoringrules.crps_normal(truth.values, mean.values, sd.values, backend="numpy"))
    return xr.DataArray(score, mean.coords, mean.dims, "crps", {"long_name": "CRPS", "units": raw_units(mean)})


@dataclass(frozen=True, eq=False)
class _Data:
    """Area means of fine cells: `values` (time, mean) at `hours`, any value in the `gaps` (gap, 2).

    `distance` (lat, lat, step) [km], of cells in two rows, so many steps in longitude apart; `step` (lon, lon), of two
    columns; `in_lat` (I, lat) and `in_lon` (J, lon), the means, of which `used` (I J,) bool are known; `by_step`
    (step, lon, J), the part of `in_lon` at each step from each column.
    """

    values: np.ndarray
    hours: np.ndarray
    gaps: np.ndarray
    distance: np.ndarray
    step: np.ndarray
    in_lat: np.ndarray
    in_lon: np.ndarray
    used: np.ndarray
    by_step: np.ndarray

    def by_lat(self, rows: slice, length: float) -> np.ndarray:
        """Correlation (I, rows, step) of means over latitudes with some rows."""
        return np.tensordot(self.in_lat, _matern(self.distance[:, rows] / length), 1)

    def with_means(self, rows: slice, length: float) -> np.ndarray:
        """Correlation (cell, mean) of the cells of some rows with the data, at one time and without noise."""
        full = np.tensordot(self.by_lat(rows, length), self.by_step, 1).transpose(1, 2, 0, 3)
        return full.reshape(-1, self.used.size)[:, self.used]

    def of_means(self, length: float) -> np.ndarray:
        """Correlation (mean, mean) of the data, at one time and without noise."""
        full = np.tensordot(self.in_lat @ self.by_lat(slice(None), length), self.in_lon @ self.by_step, (2, 0))
        return full.transpose(0, 2, 1, 3).reshape(self.used.size, -1)[np.ix_(self.used, self.used)]


@dataclass(frozen=True, eq=False)
class _System:
    """The covariance of the data, diagonal in the eigenvectors `in_time` and `in_space`: `variance` (time, mean); a
    constant and a one in each gap there, `trend` (1 + gap, time, mean); `root` (Cholesky) of their precision."""

    in_time: np.ndarray
    in_space: np.ndarray
    variance: np.ndarray
    trend: np.ndarray
    root: np.ndarray

    def weights(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """The constant, and the residuals from the trend over their variance (time, mean)."""
        z = self.in_time.T @ values @ self.in_space
        coefficients = cho_solve((self.root, True), np.tensordot(self.trend, z / self.variance, 2))
        return float(coefficients[0]), (z - np.tensordot(coefficients, self.trend, 1)) / self.variance

    def log_likelihood(self, values: np.ndarray) -> float:
        """Restricted: of the contrasts of the data, which have no trend."""
        squares = np.sum(self.weights(values)[1] ** 2 * self.variance)
        determinants = np.sum(np.log(self.variance)) + 2 * np.sum(np.log(np.diag(self.root)))
        return float(-(squares + determinants + (values.size - len(self.root)) * np.log(2 * np.pi)) / 2)


def _read(coarse: xr.DataArray, like: xr.DataArray | xr.Dataset) -> _Data:
    in_lat, in_lon = means_over(coarse, like)
    rows, columns = np.isfinite(in_lat[:, 0]), np.isfinite(in_lon[:, 0])
    values = coarse.transpose(*COARSE_DIMS).values.astype(np.float64)[:, rows][:, :, columns]
    values = values.reshape(len(values), rows.sum() * columns.sum())
    times, used = (np.isfinite(values).any(axis=axis) for axis in (1, 0))
    values = values[np.ix_(times, used)]
    known = np.isfinite(values)
    gaps = np.argwhere(~known)
    if not values.size or len(gaps) > MOST_GAPS:
        got = f"{known.sum()} values and {len(gaps)} gaps among them"
        raise ValueError(f"expected coarse values with at most {MOST_GAPS} gaps, got {got}; leave out times or cells")
    lat, lon = (np.deg2rad(like[dim].values.astype(np.float64)) for dim in ("lat", "lon"))
    apart = np.abs(lon[:, None] - lon)
    _, first, step = np.unique(np.round(apart, 6), return_index=True, return_inverse=True)
    apart, step = apart.ravel()[first], step.reshape(apart.shape)
    across = (np.cos(lat[:, None]) * np.cos(lat))[:, :, None] * np.sin(apart / 2) ** 2
    distance = 2 * EARTH_RADIUS_KM * np.sqrt(np.sin((lat[:, None] - lat) / 2)[:, :, None] ** 2 + across)
    by_step = np.stack([(step == one) @ in_lon[columns].T for one in range(apart.size)])
    values, when = np.where(known, values, values[known].mean()), hours(coarse["time_coarse"].values[times])
    return _Data(values, when, gaps, distance, step, in_lat[rows], in_lon[columns], used, by_step)


def _solver(data: _Data) -> Callable[..., _System]:
    """The system of given parameters; decompositions are kept while others vary."""
    of_time = lru_cache(2)(lambda tau: np.linalg.eigh(_memory(data.hours, data.hours, tau)))
    of_space = lru_cache(2)(lambda length: np.linalg.eigh(data.of_means(length)))

    def solve(sd: float, length_km: float, tau_h: float, noise_sd: float) -> _System:
        (time_values, in_time), (space_values, in_space) = of_time(tau_h), of_space(length_km)
        variance = sd**2 * np.outer(time_values.clip(min=0.0), space_values.clip(min=0.0)) + noise_sd**2
        of_gaps = in_time[data.gaps[:, 0], :, None] * in_space[data.gaps[:, 1], None, :]
        trend = np.concatenate([np.outer(in_time.sum(axis=0), in_space.sum(axis=0))[None], of_gaps])
        flat = trend.reshape(len(trend), -1)
        root = cholesky(flat / variance.ravel() @ flat.T, lower=True)
        return _System(in_time, in_space, variance, trend, root)

    return solve


def _estimate(data: _Data, solve: Callable[..., _System], given: dict[str, Any]) -> dict[str, float]:
    """The given parameters, and for those that are None the highest restricted likelihood within bounds."""
    free, steps = [name for name, value in given.items() if value is None], np.diff(np.unique(data.hours))
    scale, (n_time, n_means) = data.values.std(), data.values.shape
    if not scale > 0 or ("tau_h" in free and not steps.size) or ("length_km" in free and n_means < 2):
        raise ValueError(
            "expected coarse values that vary, at two times or more to estimate tau_h and in two cells or more to "
            f"estimate length_km, got {n_time} times and {n_means} cells; give {', '.join(free)}"
        )
    across, period = data.distance.max(), np.ptp(data.hours)
    cell, step = across / np.hypot(len(data.in_lat), len(data.in_lon)), steps.min(initial=np.inf)
    first = {"sd": scale, "length_km": across / 4, "tau_h": period / 2, "noise_sd": scale / 20}
    low = {"sd": scale / 30, "length_km": cell / 2, "tau_h": step / 4, "noise_sd": scale / 1000}
    high = {"sd": scale * 30, "length_km": across * 10, "tau_h": period * 30, "noise_sd": scale}
    first, *bounds = (np.log([each[name] for name in free]) for each in (first, low, high))
    complete = lambda logs: given | dict(zip(free, np.exp(logs).tolist(), strict=True))
    loss = lambda logs: -solve(**complete(logs)).log_likelihood(data.values)
    fit = minimize(loss, first, method="L-BFGS-B", bounds=list(zip(*bounds, strict=True)), options={"eps": 1e-5})
    return complete(fit.x)


def _draw(data: _Data, system: _System, p: dict[str, float], wanted: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Fields (draw, wanted, lat, lon) given the data: unconditional ones, and what kriging makes of their errors."""
    rng, shape = np.random.default_rng(seed), (len(data.distance), len(data.step))
    sd, length_km, tau_h, noise_sd = p.values()
    when = np.union1d(wanted, data.hours)
    at, seen = (np.searchsorted(when, some) for some in (wanted, data.hours))
    apart = data.distance[:, :, data.step].transpose(0, 2, 1, 3).reshape(shape[0] * shape[1], -1)
    correlations = _memory(when, when, tau_h), _matern(apart / length_km)
    over_time, over_space = (np.linalg.cholesky(c + 1e-9 * np.eye(len(c))) for c in correlations)  # for rounding
    in_time = sd**2 * _memory(wanted, data.hours, tau_h) @ system.in_time
    in_space = data.with_means(slice(None), length_km) @ system.in_space
    fields = np.empty((draws, wanted.size, *shape))
    for field in fields:
        x = sd * over_time @ rng.normal(size=(when.size, len(apart))) @ over_space.T
        y = (data.in_lat @ x[seen].reshape(-1, *shape) @ data.in_lon.T).reshape(len(seen), -1)[:, data.used]
        level, weights = system.weights(data.values - y - noise_sd * rng.normal(size=y.shape))
        field[:] = (x[at] + level + in_time @ weights @ in_space.T).reshape(-1, *shape)
    return fields


def _memory(when: np.ndarray, other: np.ndarray, tau: float) -> np.ndarray:
    return np.exp(-np.abs(when[:, None] - other) / tau)


def _matern(r: np.ndarray) -> np.ndarray:
    return (1 + np.sqrt(3) * r) * np.exp(-np.sqrt(3) * r)
