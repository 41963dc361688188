"""Scores of whole fields: are the cells right together, and not only one by one?

The energy score is the CRPS of vectors, most sensitive to where they lie; the variogram score looks at
differences between cells alone, and so at correlation and roughness. Both are fair: their means do not depend
on the ensemble size. A NaN in the truth leaves its cell out, as if the field ended there.
"""

from collections.abc import Hashable, Iterable
from itertools import product

import numpy as np
import xarray as xr

from bayesdownscale.data.grid import EARTH_RADIUS_KM
from bayesdownscale.diagnostics.blocks import blocks
from bayesdownscale.diagnostics.scores import area_weights, at_least_two, raw_units

PRODUCTS = 2**22  # numbers in double precision at once
NEAR = 3  # cells
SAME_PLACE_KM = 1e-3  # nearer cells are one place, as all cells of a pole
OFFSETS = [(i, j) for i, j in product(range(NEAR + 1), range(-NEAR, NEAR + 1)) if (i, j) > (0, 0)]


def energy_score(
    ensemble: xr.DataArray, truth: xr.DataArray, over: Iterable[Hashable] = ("lat", "lon")
) -> xr.DataArray:
    """Energy score of the fields along the dimensions `over`, fair, for each index of the others.

    E|X - Y| - E|X - X'| / 2 with the second mean over distinct members (Gneiting & Raftery 2007, JASA 102,
    359; fair: Ferro 2014, QJRMS 140, 1917). The norm |x|^2 = sum of w x^2 over the known cells has weights w
    proportional to their areas where `lat` is among `over`; they sum to the number of known cells, so that it
    is the plain Euclidean norm where all areas are equal. Of one cell, the score is its CRPS; of n cells, it
    grows as the square root of n.

    Distances come from inner products of the members about their mean, in double precision: memory is M x M.

    **Arguments:** `ensemble` (draw, ...) with at least two draws; `truth` (...), NaN where unknown; `over`,
    the dimensions of a vector: all of them score the whole episode as one.
    **Returns:** the other dimensions, in the units of the ensemble; NaN where no cell is known.
    **Raises:** ValueError for one draw, or where dimensions or coordinates do not fit.
    """
    ensemble, truth, over = _arranged(ensemble, truth, over)
    area = area_weights(truth["lat"]) if "lat" in over and "lat" in truth.coords else 1.0
    known = truth.notnull().compute()
    weight = xr.ones_like(known.isel({dim: 0 for dim in known.dims if dim not in over}), np.float64) * area
    members, apart = ensemble.sizes["draw"], truth.ndim > len(over)
    scores, squares = [], np.zeros((members + 1, members + 1))
    for part in blocks(ensemble):
        w = weight.isel(part, missing_dims="ignore").values.ravel()
        x = ensemble.isel(part).values.reshape(members, -1, w.size)
        y = truth.isel(part).values.reshape(-1, w.size)
        if apart:
            scores += [_fair_energy(_squared_distances(x[:, i], y[i], w)) for i in range(len(y))]
        else:  # a part of the one vector
            squares += _squared_distances(x[:, 0], y[0], w)
    count, total = known.sum(over), (weight * known).sum(over)
    scores = count.copy(data=np.reshape(scores if apart else _fair_energy(squares), count.shape))
    out = scores * (count / total.where(count > 0)) ** 0.5
    return out.rename("energy_score").assign_attrs(long_name="energy score", units=raw_units(ensemble))


def variogram_score(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    pairs: int = 2000,
    order: float = 0.5,
    over: Iterable[Hashable] = ("lat", "lon"),
    seed: int = 0,
) -> xr.DataArray:
    """Variogram score of order p of the fields along `over`, fair, for each index of the other dimensions.

    The mean over pairs of cells (a, b) of (E|X_a - X_b|^p - |Y_a - Y_b|^p)^2, weighted by one over their
    great-circle distance (Scheuerer & Hamill 2015, Mon. Weather Rev. 143, 1321; there a sum). The variance of
    the M values |X_a - X_b|^p over M is subtracted, which makes it fair. Blind to errors that all cells share.

    All pairs where they are not more than `pairs`; otherwise `cell_pairs` at random, the same for all times,
    half of them neighbours: read it as a comparison of forecasts of one grid, with one `seed`.

    **Arguments:** `ensemble` (draw, ...) with at least two draws; `truth` (...), NaN where unknown; `over`,
    the two dimensions of the coordinates lat and lon [degrees]; `seed`, of the pairs.
    **Returns:** the other dimensions, in the units of the ensemble to the power 2 p; NaN where no pair is
    known; it may be slightly negative, as unbiased estimates are.
    **Raises:** ValueError for one draw, fewer than two known cells, or where dimensions do not fit.
    """
    if pairs < 1 or order <= 0:
        raise ValueError(f"expected at least one pair and an order above 0, got {pairs} and {order}; 2000 and 0.5 do")
    ensemble, truth, over = _arranged(ensemble, truth, over)
    lat, lon = _places(truth, over)
    rest = truth.dims[: truth.ndim - len(over)]
    a, b = cell_pairs(truth.notnull().any(rest).values, pairs, seed)
    distance = great_circle_km(lat[a], lon[a], lat[b], lon[b])
    a, b, weight = (each[distance > SAME_PLACE_KM] for each in (a, b, 1.0 / np.maximum(distance, SAME_PLACE_KM)))
    variogram = lambda z: np.abs(z[..., a] - z[..., b]).astype(np.float64) ** order
    members, scores = ensemble.sizes["draw"], []
    for part in blocks(ensemble) if rest else [{}]:
        x = ensemble.isel(part).values.reshape(members, -1, lat.size)
        y = truth.isel(part).values.reshape(-1, lat.size)
        for i in range(len(y)):
            of_x, of_y = variogram(x[:, i]), variogram(y[i])
            squares = (of_x.mean(axis=0) - of_y) ** 2 - of_x.var(axis=0, ddof=1) / members
            known = ~np.isnan(of_y)
            scores.append(np.average(squares[known], weights=weight[known]) if known.any() else np.nan)
    out = truth.notnull().any(over)
    out = out.copy(data=np.reshape(scores, out.shape)).rename("variogram_score")
    units = raw_units(ensemble) if order == 0.5 else f"({raw_units(ensemble)})^{2 * order:g}"
    return out.assign_attrs(long_name=f"variogram score of order {order:g}", units=units)


def cell_pairs(known: np.ndarray, pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of different cells of a grid, both `known` (rows, columns): their numbers in row-major order.

    Every pair once where they are at most `pairs`. Otherwise `pairs` of them with the seed `seed`, with
    replacement: half uniform over the pairs not more than 3 rows and 3 columns apart, where fields vary most
    together and uniform pairs are rare; half (all, where none are so near) uniform over all pairs.
    """
    cells, n_columns = np.flatnonzero(known), known.shape[1]
    if cells.size < 2:
        raise ValueError(f"expected at least two known cells to compare, got {cells.size}; give a larger truth")
    if cells.size * (cells.size - 1) // 2 <= pairs:
        i, j = np.triu_indices(cells.size, 1)
        return cells[i], cells[j]
    rng, padded = np.random.default_rng(seed), np.pad(known, NEAR)
    shifted = lambda i, j: padded[NEAR + i :, NEAR + j :][: known.shape[0], :n_columns]
    near = np.array([np.count_nonzero(known & shifted(i, j)) for i, j in OFFSETS])
    draws = rng.multinomial(pairs // 2, near / near.sum()) if near.any() else 0 * near
    first = [
        rng.choice(np.flatnonzero(known & shifted(i, j)), n) if n else np.array([], int)
        for (i, j), n in zip(OFFSETS, draws, strict=True)
    ]
    second = [a + i * n_columns + j for a, (i, j) in zip(first, OFFSETS, strict=True)]
    i = rng.integers(cells.size, size=pairs - draws.sum())
    j = (i + rng.integers(1, cells.size, size=i.size)) % cells.size
    return np.concatenate([*first, cells[i]]), np.concatenate([*second, cells[j]])


def great_circle_km(lat: np.ndarray, lon: np.ndarray, other_lat: np.ndarray, other_lon: np.ndarray) -> np.ndarray:
    """Great-circle distances [km] between places and others [degrees], element by element, by haversines."""
    lat, lon, other_lat, other_lon = (np.deg2rad(each) for each in (lat, lon, other_lat, other_lon))
    across = np.cos(lat) * np.cos(other_lat) * np.sin((other_lon - lon) / 2) ** 2
    haversine = np.sin((other_lat - lat) / 2) ** 2 + across
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(haversine, 0, 1)))


def _squared_distances(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Squared distances (M + 1, M + 1) between members `x` (M, n) and, the last, the truth `y` (n,), over the
    cells where that is known, with the weights (n,) of the squares."""
    squares, step = np.zeros((len(x) + 1, len(x) + 1)), max(1, PRODUCTS // (len(x) + 1))
    cells = np.flatnonzero(~np.isnan(y))
    for start in range(0, cells.size, step):
        some = cells[start : start + step]
        z = np.concatenate([x[:, some], y[None, some]]).astype(np.float64)
        z = (z - z[:-1].mean(axis=0)) * np.sqrt(weight[some])
        products = z @ z.T
        squares += products.diagonal()[:, None] + products.diagonal() - 2 * products
    return squares


def _fair_energy(squares: np.ndarray) -> float:
    """The energy score from squared distances (M + 1, M + 1) whose last row is of the truth."""
    distances, members = np.sqrt(np.maximum(squares, 0.0)), len(squares) - 1
    return float(distances[-1, :-1].mean() - distances[:-1, :-1].sum() / (2 * members * (members - 1)))


def _arranged(
    ensemble: xr.DataArray, truth: xr.DataArray, over: Iterable[Hashable]
) -> tuple[xr.DataArray, xr.DataArray, tuple[Hashable, ...]]:
    """The ensemble (draw, rest, over) and the truth (rest, over), lazily, and `over`."""
    at_least_two(ensemble)
    over = tuple(over)
    if not over or not set(over) <= set(truth.dims):
        raise ValueError(f"expected over to name dimensions of the truth, {truth.dims}, got {over}; rename or choose")
    ensemble, truth = xr.align(ensemble, truth, join="exact", exclude=["draw"], copy=False)
    if set(ensemble.dims) != {"draw", *truth.dims}:
        raise ValueError(
            f"expected an ensemble with the dimension draw and those of the truth, got {ensemble.dims} and "
            f"{truth.dims}; rename or select"
        )
    dims = [dim for dim in truth.dims if dim not in over] + list(over)
    return ensemble.transpose("draw", *dims), truth.transpose(*dims), over


def _places(truth: xr.DataArray, over: tuple[Hashable, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes (cells,) [degrees] of the cells along `over`."""
    labels = [truth.coords[name] for name in ("lat", "lon") if name in truth.coords]
    if len(labels) != 2 or len(over) != 2 or {*labels[0].dims, *labels[1].dims} != set(over):
        raise ValueError(f"expected over to be the two dimensions of the coordinates lat and lon, got {over}; add them")
    lat, lon = (label.transpose(*over).values.ravel() for label in xr.broadcast(*labels))
    return lat, lon
