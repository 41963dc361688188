"""Quantiles of each cell, and maps between them."""

import numpy as np


def plotting_positions(n: int) -> np.ndarray:
    """The probabilities (i - 1/2) / n, i = 1 .. n (Hazen), at which n quantiles stand for a distribution."""
    return (np.arange(n) + 0.5) / n


def sample_quantiles(sample: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The quantiles (q, ...) at `levels` (q,) of `sample` (n, ...), by Hazen's rule; missing values are left out."""
    function = np.nanquantile if np.isnan(sample).any() else np.quantile
    known = np.isfinite(sample).any(axis=0)
    out = np.full((levels.size, *sample.shape[1:]), np.nan)
    out[:, known] = function(sample[:, known], levels, axis=0, method="hazen")
    return out


def between(x: np.ndarray, knots: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values` (q, ...) at `knots` (q, ...), sorted, read at `x` (n, ...), each cell (...) by itself: linear between
    the knots, constant beyond them, and at a knot that comes several times the first of its values."""
    q = len(knots)
    above = sum((x > knot for knot in knots), np.zeros(x.shape, np.intp))  # how many knots are below x
    at, after = np.clip(above - 1, 0, q - 1), np.clip(above, 0, q - 1)
    a0, a1, v0, v1 = (np.take_along_axis(each, i, axis=0) for each in (knots, values) for i in (at, after))
    return np.where(a1 > a0, v0 + (v1 - v0) * (x - a0) / np.where(a1 > a0, a1 - a0, 1.0), np.where(np.isnan(x), x, v0))


def map_between(x: np.ndarray, a: np.ndarray, b: np.ndarray, multiplicative: bool = False) -> np.ndarray:
    """`x` (n, ...) mapped from the quantiles `a` (q, ...) to `b` (q, ...), each cell (...) by itself.

    Linear between them: monotone, and the identity where both are the same. Beyond the outermost their difference is
    added or, `multiplicative`, x is multiplied by their ratio (the difference where `a` is 0). The value of several
    quantiles, as of dry hours, goes to the lowest of their images. NaN where x or the quantiles of its cell are.
    """
    out = x + between(x, a, b - a)
    if multiplicative:
        for end, beyond in ((0, x < a[0]), (-1, x > a[-1])):
            ratio = np.divide(b[end], a[end], out=np.ones_like(a[end]), where=a[end] > 0)
            out = np.where(beyond & (a[end] > 0), x * ratio, out)
    return out


def untied(x: np.ndarray, ties: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`x` (time, variable, cell) in double precision, with values at random from 0 to `ties` (variable,) in place of
    those below it, whose order means nothing, as of dry days; -inf for no ties."""
    ties = np.asarray(ties, np.float64)[:, None]
    least = np.where(np.isfinite(ties), ties, 0.0)
    return np.where(x < ties, least * rng.uniform(size=x.shape), x)
