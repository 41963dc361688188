"""From two looks at the same chains, n steps apart, to how far their first law is from the one they leave invariant.

A part f of a field that a kernel forgets as rho^n has E f_n - m = rho^n (E f_0 - m), m its invariant mean, so that
E f_0 - m = E (f_0 - f_n) / (1 - rho^n); rho^n is the slope of f_n on f_0. Parts forget at different speeds.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

SCALES = ("domain", "quarter of the domain", "cell")  # each at one time
MOVED = 0.1  # share that must be forgotten for a drift to be extrapolated in full
NARROW = 0.01  # of the variance after n steps: the least that the invariant law is taken to have

Parts = Float[np.ndarray, "scale chain cell"]


def in_scales(fields: np.ndarray, chosen: Int[np.ndarray, " cell"]) -> Parts:
    """The `chosen` cells (flat indices) of `fields` (chain, time, variable, lat, lon) as sums of parts, one for each of
    `SCALES`: the mean over the domain, and what the means over its quarters and the cells themselves add to it."""
    x = np.asarray(fields, np.float64)
    whole = x.mean((3, 4), keepdims=True)
    quarters = np.empty_like(x)
    middle = lambda size: (slice(0, size // 2), slice(size // 2, size))
    for rows in middle(x.shape[3]):
        for columns in middle(x.shape[4]):
            if x[..., rows, columns].size:
                quarters[..., rows, columns] = x[..., rows, columns].mean((3, 4), keepdims=True)
    parts = whole, quarters - whole, x - quarters
    flat = lambda part: np.broadcast_to(part, x.shape).reshape(x.shape[0], -1)[:, chosen]
    return np.stack([flat(part) for part in parts])


def drift(
    first: Parts, last: Parts, group: Int[np.ndarray, " cell"] | None = None
) -> tuple[float, float, float, float, float]:
    """(error of the mean, its standard error, ratio of standard deviations, its standard error, share forgotten) of
    cells f_0 and f_n given as sums of parts: root mean square and mean over cells, in standard deviations of the
    invariant law; the share is that of the part that forgot least. A part has one slope, the median over its cells,
    for each `group` of cells (by default there is one)."""
    group = np.zeros(first.shape[2], int) if group is None else group

    def summary(keep: np.ndarray) -> np.ndarray:
        error, error_se, ratio, left = _errors(first[:, keep], last[:, keep], group)
        return np.array([np.mean(error**2) - np.mean(error_se**2), np.mean(ratio), left])

    whole, se = jackknife(summary, first.shape[1])
    error = np.sqrt(max(whole[0], 0.0))
    error_se = se[0] / (2 * error) if error**2 > se[0] else np.sqrt(se[0])
    return float(error), float(error_se), float(whole[1]), float(se[1]), float(whole[2])


def error_of_mean(first: np.ndarray, last: np.ndarray) -> tuple[float, float, float]:
    """(error of the mean, its standard error, share forgotten) of a parameter (chain, element), the mean over its
    elements."""
    first, last = (np.asarray(a, np.float64)[None] for a in (first, last))
    group = np.zeros(first.shape[2], int)

    def summary(keep: np.ndarray) -> np.ndarray:
        error, _, _, left = _errors(first[:, keep], last[:, keep], group)
        return np.array([error.mean(), left])

    (error, left), (se, _) = jackknife(summary, first.shape[1])
    return float(error), float(se), float(left)


def jackknife(summary: Callable[[np.ndarray], np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """`summary` of all `n` chains, and its standard errors, by leaving out each of 8 groups of chains: cells are
    correlated, and so are numerators with slopes."""
    groups = np.arange(n) % min(8, n // 2)
    parts = np.stack([summary(groups != g) for g in np.unique(groups)])
    return summary(np.ones(n, bool)), np.sqrt((len(parts) - 1) * parts.var(0))


def _errors(first: Parts, last: Parts, group: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Error of the mean in standard deviations, its standard error, ratio of standard deviations, each (cell,), and
    1 - rho^n of the slowest part. Where that is below `MOVED` it is taken as that, and what is found is less than what
    there is."""
    n, (a, b) = first.shape[1], (part - part.mean(1, keepdims=True) for part in (first, last))
    before = (a**2).mean(1)
    there = before > 1e-12 * before.sum(0)
    slopes = np.where(there, (a * b).mean(1) / np.where(there, before, 1.0), 0.0)
    for g in np.unique(group):
        own = group == g
        slopes[:, own] = np.median(slopes[:, own], axis=1, keepdims=True)
    left, slopes = 1 - slopes.max(), np.clip(slopes, 0.0, 1 - MOVED)
    both = slopes[:, None] * slopes[None]  # of two parts of a cell, whose covariance is forgotten at this rate
    covariance = lambda x: np.einsum("snc,tnc->stc", x, x) / n
    after = (b.sum(0) ** 2).mean(0)
    variance = np.maximum(((covariance(b) - both * covariance(a)) / (1 - both)).sum((0, 1)), NARROW * after)
    change = ((first - last) / (1 - slopes[:, None])).sum(0) / np.sqrt(variance)
    ratio = np.sqrt((a.sum(0) ** 2).mean(0) / variance)
    return change.mean(0), change.std(0, ddof=1) / np.sqrt(n), ratio, float(left)
