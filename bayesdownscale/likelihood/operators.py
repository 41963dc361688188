"""Linear observation operators H with exact adjoints: area means, snapshots, time means, stations, and products.

Each is a matrix along one axis, or one along latitude and one along longitude, stored as such, or a sparse one between
cells; the adjoint is the transposed matrices. NumPyro programs call them on fields in physical units.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import sparse

from bayesdownscale._precision import full_precision
from bayesdownscale.data.grid import Grid
from bayesdownscale.data.overlap import mean_weights
from bayesdownscale.data.regrid import WHOLE

TOLERANCE = 1e-6  # degrees by which coarse cells may overhang the fine grid


class LinearOperator(eqx.Module):
    """A linear map of fields (time, variable, lat, lon); leading batch dimensions pass through.

    `H(x)` applies it, `H.T` is its adjoint (an operator again), `A @ B` applies B first.
    """

    @abc.abstractmethod
    def __call__(self, x: Array) -> Array:
        """H x."""

    @property
    @abc.abstractmethod
    def T(self) -> "LinearOperator":
        """The adjoint: <H x, y> = <x, H.T y>."""

    def __matmul__(self, other: Any) -> "LinearOperator":
        if not isinstance(other, LinearOperator):
            raise TypeError(
                f"expected an operator on the right of @, got {type(other).__name__}; apply operators as H(x)"
            )
        return Product(self, other)


class Product(LinearOperator):
    """`outer` after `inner`."""

    outer: LinearOperator
    inner: LinearOperator

    def __call__(self, x: Array) -> Array:
        return self.outer(self.inner(x))

    @property
    def T(self) -> LinearOperator:
        return Product(self.inner.T, self.outer.T)


class AlongTime(LinearOperator):
    """A matrix along the time axis."""

    weights: Float[Array, "out time"]

    @full_precision
    def __call__(self, x: Array) -> Array:
        _check_sizes("times", x.shape[-4], self.weights.shape[1])
        return jnp.einsum("st,...tvij->...svij", self.weights, x)

    @property
    def T(self) -> LinearOperator:
        return AlongTime(self.weights.T)


class AlongSpace(LinearOperator):
    """A matrix along latitude and one along longitude."""

    lat_weights: Float[Array, "lat_out lat"]
    lon_weights: Float[Array, "lon_out lon"]

    @full_precision
    def __call__(self, x: Array) -> Array:
        _check_sizes("latitudes", x.shape[-2], self.lat_weights.shape[1])
        _check_sizes("longitudes", x.shape[-1], self.lon_weights.shape[1])
        return jnp.einsum("ai,bj,...ij->...ab", self.lat_weights, self.lon_weights, x)

    @property
    def T(self) -> LinearOperator:
        return AlongSpace(self.lat_weights.T, self.lon_weights.T)


class AtPoints(LinearOperator):
    """The field at points: a row of weights along latitude and one along longitude for each. Drops the two axes of
    space for one of points."""

    lat_weights: Float[Array, "point lat"]
    lon_weights: Float[Array, "point lon"]

    @full_precision
    def __call__(self, x: Array) -> Array:
        _check_sizes("latitudes", x.shape[-2], self.lat_weights.shape[1])
        _check_sizes("longitudes", x.shape[-1], self.lon_weights.shape[1])
        return jnp.einsum("ki,kj,...ij->...k", self.lat_weights, self.lon_weights, x)

    @property
    def T(self) -> LinearOperator:
        return FromPoints(self.lat_weights, self.lon_weights)


class FromPoints(LinearOperator):
    """The adjoint of `AtPoints` with the same weights: values at points spread over the field."""

    lat_weights: Float[Array, "point lat"]
    lon_weights: Float[Array, "point lon"]

    @full_precision
    def __call__(self, x: Array) -> Array:
        _check_sizes("points", x.shape[-1], self.lat_weights.shape[0])
        return jnp.einsum("ki,kj,...k->...ij", self.lat_weights, self.lon_weights, x)

    @property
    def T(self) -> LinearOperator:
        return AtPoints(self.lat_weights, self.lon_weights)


class Rows(eqx.Module):
    """A sparse matrix: each row's columns and weights, the rows padded with weights of 0 to the same length."""

    columns: Int[Array, "row entry"]
    weights: Float[Array, "row entry"]

    @staticmethod
    def of(matrix: sparse.csr_array) -> "Rows":
        longest = max(int(np.diff(matrix.indptr).max()), 1)
        entry = matrix.indptr[:-1, None] + np.arange(longest)
        real = entry < matrix.indptr[1:, None]
        entry = np.where(real, entry, 0)
        weights = np.where(real, matrix.data[entry], 0.0)
        return Rows(jnp.asarray(np.where(real, matrix.indices[entry], 0)), jnp.asarray(weights, jnp.float32))

    @full_precision
    def __call__(self, x: Array) -> Array:
        """(..., column) to (..., row): gathers."""
        return jnp.einsum("re,...re->...r", self.weights, x[..., self.columns])


class BetweenCells(LinearOperator):
    """A sparse matrix between the cells of two grids: (..., lat, lon) to (..., lat_out, lon_out)."""

    forward: Rows
    backward: Rows  # the transposed matrix
    shape: tuple[int, int] = eqx.field(static=True)
    shape_out: tuple[int, int] = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        _check_sizes("latitudes", x.shape[-2], self.shape[0])
        _check_sizes("longitudes", x.shape[-1], self.shape[1])
        flat = x.reshape(*x.shape[:-2], -1)
        return self.forward(flat).reshape(*x.shape[:-2], *self.shape_out)

    @property
    def T(self) -> LinearOperator:
        return BetweenCells(self.backward, self.forward, self.shape_out, self.shape)


def _check_sizes(what: str, got: int, expected: int) -> None:
    if got != expected:
        raise ValueError(
            f"expected a field with {expected} {what}, got {got}; make the operator for the field's own grid and times"
        )


def _overlap(fine: np.ndarray, coarse: np.ndarray, name: str, measure: Callable) -> np.ndarray:
    """Share of each coarse interval that each fine interval covers, (n_coarse, n_fine), from edges [degrees] in
    any order, lengths taken in `measure`. Rows sum to one; an uncovered coarse interval raises."""
    low, high = np.minimum(fine[:-1], fine[1:]), np.maximum(fine[:-1], fine[1:])
    c_low, c_high = np.minimum(coarse[:-1], coarse[1:]), np.maximum(coarse[:-1], coarse[1:])
    outside = np.flatnonzero((c_low < low.min() - TOLERANCE) | (c_high > high.max() + TOLERANCE))
    if outside.size:
        k = int(outside[0])
        raise ValueError(
            f"expected coarse {name} cells inside the fine grid ({low.min():g} to {high.max():g}), got one from "
            f"{c_low[k]:g} to {c_high[k]:g}; crop the coarse grid to the fine domain"
        )
    top, bottom = np.minimum(high, c_high[:, None]), np.maximum(low, c_low[:, None])
    covered = np.where(top > bottom, measure(top) - measure(bottom), 0.0)
    return covered / covered.sum(1, keepdims=True)


def area_mean(fine: Grid, coarse: Grid) -> LinearOperator:
    """Means over coarse cells weighted by area on the sphere: (..., lat, lon) to (..., coarse lat, coarse lon).

    On grids of one pole the overlap of two cells is a product of an interval in longitude and one in sin(latitude),
    so fractional overlaps are exact (Jones 1999, doi:10.1175/1520-0493(1999)127<2204:FASOCR>2.0.CO;2). Between a
    rotated and a regular grid, whose cells cut each other anyhow, the weights are those of `data/overlap.py`, sparse.

    Coarse cells not wholly inside the fine grid have no mean. On grids of one pole they raise `ValueError`. On others a
    box of cells always has some at its corners: `observed_cells` tells which to leave out, that is to set to NaN in
    the data, as `open_coarse` does. So that a field on these grids is finite everywhere, they have the mean of the
    part inside, or else the value of the fine cell nearest to their centre. Raises `ValueError` when all are such.
    """
    if fine.pole == coarse.pole:
        lat = _overlap(fine.lat_bounds, coarse.lat_bounds, "latitude", lambda b: np.sin(np.deg2rad(b)))
        lon = _overlap(fine.lon_bounds, coarse.lon_bounds, "longitude", lambda b: b)
        return AlongSpace(jnp.asarray(lat, jnp.float32), jnp.asarray(lon, jnp.float32))
    weights, covered = mean_weights(coarse, fine)
    if not (covered > 1.0 - WHOLE).any():
        raise ValueError(
            f"expected coarse cells wholly inside the fine grid ({fine.extent()}, of a rotated pole), got none of "
            f"{coarse.extent()}; choose grids of one region"
        )
    outside = np.flatnonzero(covered <= 0.0)
    near = sparse.coo_array((np.ones(outside.size), (outside, _nearest(coarse, fine, outside))), shape=weights.shape)
    matrix = sparse.csr_array(weights + near)
    return BetweenCells(Rows.of(matrix), Rows.of(sparse.csr_array(matrix.T)), fine.shape, coarse.shape)


def _nearest(coarse: Grid, fine: Grid, cells: np.ndarray) -> np.ndarray:
    """The fine cells whose centres are nearest to those of the coarse `cells`; all as positions in row-major order."""
    to, of = fine.unit_vectors(), coarse.unit_vectors()[cells]
    return np.argmax(of @ to.T, axis=1)


def snapshots(fine_times: np.ndarray, coarse_times: np.ndarray) -> LinearOperator:
    """The field at `coarse_times`, each of which must be one of `fine_times` (datetime64)."""
    fine, coarse = (np.asarray(t, "datetime64[ns]") for t in (fine_times, coarse_times))
    same = coarse[:, None] == fine
    absent = np.flatnonzero(~same.any(1))
    if absent.size:
        raise ValueError(
            f"expected observed times among the field's {fine.size} times ({fine[0]} to {fine[-1]}), got "
            f"{coarse[absent[0]]}; choose the prior's times with prior.spanning(coarse.times), or a time mean"
        )
    return AlongTime(jnp.asarray(same, jnp.float32))


def time_mean(fine_times: np.ndarray, bounds: np.ndarray) -> LinearOperator:
    """Means over intervals: `bounds` (n, 2) datetime64, start inclusive, end exclusive; the field at each fine
    time stands for the time from it to the next. Raises `ValueError` for an interval with no fine time."""
    fine = np.asarray(fine_times, "datetime64[ns]")
    bounds = np.asarray(bounds, "datetime64[ns]")
    inside = (fine >= bounds[:, :1]) & (fine < bounds[:, 1:])
    empty = np.flatnonzero(~inside.any(1))
    if empty.size:
        start, end = bounds[empty[0]]
        raise ValueError(
            f"expected field times between {start} and {end}, got none; the field spans {fine[0]} to {fine[-1]}"
        )
    return AlongTime(jnp.asarray(inside / inside.sum(1, keepdims=True), jnp.float32))


def stations(grid: Grid, lat: np.ndarray, lon: np.ndarray) -> LinearOperator:
    """The field at stations, bilinear between cell centres: (time, variable, lat, lon) to (time, variable, station).

    `lat` and `lon` (n_station,) in degrees, longitudes in any convention. Between the outer centres and the outer
    edges the nearest row or column holds. Operators in time go first: `stations(...) @ snapshots(...)`. Raises
    `ValueError` for a station outside the cells of the grid.
    """
    lat, lon = np.atleast_1d(np.asarray(lat, np.float64)), np.atleast_1d(np.asarray(lon, np.float64))
    if lat.ndim != 1 or lat.shape != lon.shape:
        raise ValueError(f"expected one latitude and one longitude a station, got shapes {lat.shape} and {lon.shape}")
    lon = lon + 360 * np.round(((grid.lon_bounds[0] + grid.lon_bounds[-1]) / 2 - lon) / 360)
    weights = []
    for points, centres, bounds in ((lat, grid.lat, grid.lat_bounds), (lon, grid.lon, grid.lon_bounds)):
        inside = (points >= bounds.min() - TOLERANCE) & (points <= bounds.max() + TOLERANCE)
        if not inside.all():
            k = int(np.argmin(inside))
            raise ValueError(
                f"expected stations inside the grid ({grid.extent()}), got station {k} at lat {lat[k]:g}, "
                f"lon {lon[k]:g}; leave it out"
            )
        order = np.argsort(centres)
        hats = np.eye(centres.size)[:, order]
        weights.append(np.stack([np.interp(points, centres[order], hat) for hat in hats], axis=1))
    return AtPoints(*(jnp.asarray(w, jnp.float32) for w in weights))
