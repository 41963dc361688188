"""Variables made Gaussian, cell by cell, and back: the latent field that a prior of Gaussian kind can describe.

Each cell and variable has a monotone map f from a latent score z ~ N(0, 1) to a value, through the quantiles of a past
(normal scores, Gaussian anamorphosis: Wackernagel 2003, Multivariate Geostatistics, chapter 33). A variable with dry
days, such as precipitation, is censored: x = f(z) where z is at least the score of the dry days' frequency, and
exactly 0 below it (Sigrist et al. 2012, arXiv 1102.4210). What z was on a dry day is not known: `censored.fill`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from .errors import DataError, quoted
from .fields import Fields
from .grid import Coords, Variable

FURTHEST, STEP = 5.0, 0.05  # of the table of f, in standard deviations of z
TAIL = 0.7  # the tails go on with the slope over as many standard deviations
FEWEST = 50  # values of a cell


@dataclass(frozen=True, eq=False)
class Anamorphosis:
    """x = f(z), strictly increasing in z, of each cell; 0 where z < floor.

    `table` (score, variable, lat, lon) holds f at equal steps of z from -5 to 5 in physical units, its trend carried on
    below `floor` (variable, lat, lon), which is -inf for variables without dry days; `dry` (variable,) is the least
    value of a wet day; `methods`, as those of `Fields`. Make it with `fit`.
    """

    table: np.ndarray
    floor: np.ndarray
    dry: np.ndarray
    variables: tuple[Variable, ...]
    methods: tuple[str, ...] = ()

    @staticmethod
    def fit(fields: Fields, dry: Mapping[str, float] | None = None) -> "Anamorphosis":
        """The maps of `fields` (time, variable, lat, lon) without missing values; all times count the same.

        **Arguments:** `dry`, by name of the variable: below it [units of the variable] a value counts as 0.
        **Raises:** `DataError` for missing values, names that are not there, fewer than 50 times or, in a cell of a
        variable with dry days, fewer than 10 wet ones.
        """
        dry = dict(dry or {})
        names = [v.name for v in fields.variables]
        values = fields.values.astype(np.float64)
        if not np.isfinite(values).all() or len(values) < FEWEST or not set(dry) <= set(names):
            raise DataError(
                f"expected at least {FEWEST} times without missing values, dry days of variables among {quoted(names)},"
                f" got {len(values)} times, {int((~np.isfinite(values)).sum())} missing, {quoted(dry) or 'none'}; crop"
            )
        least = np.array([dry.get(name, -np.inf) for name in names])
        scores = np.arange(-FURTHEST, FURTHEST + STEP / 2, STEP)
        table = np.empty((scores.size, *values.shape[1:]))
        floor = np.full(values.shape[1:], -np.inf)
        for k, *cell in np.ndindex(values.shape[1:]):
            sample = np.sort(values[(slice(None), k, *cell)])
            wet = sample[sample >= least[k]]
            if wet.size < min(FEWEST, 10):
                raise DataError(f"expected 10 wet days of {names[k]} in every cell, got {wet.size} in {tuple(cell)}")
            below = sample.size - wet.size
            z = ndtri((below + np.arange(wet.size) + 0.5) / sample.size)
            if below:
                floor[(k, *cell)] = start = ndtri(below / sample.size)
                z, wet = np.append(start, z), np.append(least[k], wet)
            table[(slice(None), k, *cell)] = _carried_on(scores, z, wet)
        return Anamorphosis(table.astype(np.float32), floor.astype(np.float32), least, fields.variables,
                            fields.methods)  # fmt: skip

    def backward(self, z: Any) -> Any:
        """Physical values of latent ones (..., variable, lat, lon), NumPy or JAX; exactly 0 on dry days."""
        xp = _namespace(z)
        to_shape = lambda array: xp.broadcast_to(xp.asarray(array, np.float32), z.shape)
        least, floor = to_shape(self.dry[:, None, None]), to_shape(self.floor)
        x = xp.maximum(self.signed(z), least)
        return xp.where(z < floor, xp.zeros_like(x), x)

    def signed(self, z: Any) -> Any:
        """f carried on below the floor: strictly increasing, so that its slope tells which way is wetter."""
        xp = _namespace(z)
        table = xp.asarray(self.table)
        at = xp.clip((z + FURTHEST) / STEP, 0, len(self.table) - 1.001)
        low = xp.floor(at).astype(int)
        cells = tuple(xp.broadcast_to(xp.asarray(i), z.shape) for i in np.indices(self.table.shape[1:]))
        lower, upper = table[(low, *cells)], table[(low + 1, *cells)]
        return lower + (upper - lower) * ((z + FURTHEST) / STEP - low)

    def forward(self, values: np.ndarray) -> np.ndarray:
        """Latent values of physical ones (time, variable, lat, lon), float32; NaN where it is dry (or missing)."""
        scores = np.arange(-FURTHEST, FURTHEST + STEP / 2, STEP)
        out = np.empty(values.shape, np.float32)
        for cell in np.ndindex(values.shape[1:]):
            at = (slice(None), *cell)
            out[at] = np.interp(values[at], self.table[at], scores)
        dry = values < self.dry[:, None, None]
        return np.where(dry | ~np.isfinite(values), np.nan, np.maximum(out, self.floor)).astype(np.float32)

    def latent(self, fields: Fields, values: np.ndarray) -> Fields:
        """Latent `values` with the labels of `fields`, dimensionless, and what stretch of time each stands for."""
        variables = tuple(replace(v, units="1", standard_name="", long_name=f"normal score of {v.name}")
                          for v in self.variables)  # fmt: skip
        return replace(fields, values=values.astype(np.float32), coords=replace(fields.coords, variables=variables))

    def physical(self, coords: Coords, z: np.ndarray, bounds: np.ndarray | None = None) -> Fields:
        """The physical fields of one latent draw `z` (time, variable, lat, lon) with its `coords`, the cell methods of
        the fields that the maps were made from, and `bounds` (time, 2) where they stand for stretches of time."""
        values = np.asarray(self.backward(np.asarray(z)), np.float32)
        return Fields(values, replace(coords, variables=self.variables), bounds=bounds, methods=self.methods)

    def wet_part(self) -> np.ndarray:
        """The part of days (variable, lat, lon) that are not dry."""
        return ndtr(-self.floor)


def _carried_on(scores: np.ndarray, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The increasing function through points (z, x) at `scores`, linear between them and beyond."""
    span = max(np.ptp(x), np.finfo(np.float32).tiny)
    out = np.interp(scores, z, x)
    for end, beyond in ((0, scores < z[0]), (-1, scores > z[-1])):
        inner = z[0] + TAIL if end == 0 else z[-1] - TAIL
        slope = (np.interp(inner, z, x) - x[end]) / (inner - z[end])
        out[beyond] = x[end] + max(slope, 1e-3 * span) * (scores[beyond] - z[end])
    # Equal values, as of ice at 0 degC, leave a part where f is flat: a slope of rounding size keeps it invertible.
    return np.maximum.accumulate(out) + 1e-5 * span * scores


def _namespace(z: Any) -> Any:
    """NumPy for its arrays, JAX's NumPy for anything else."""
    if isinstance(z, np.ndarray):
        return np
    import jax.numpy as jnp

    return jnp
