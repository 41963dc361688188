"""The latent field where only its being below a floor is known: dry days, drawn consistently in space and time.

For z (time, cell) known where it is wet and below `floor` where it is dry,

    z_t = B p_t + e_t,   e_t ~ N(0, C) in space,   corr(e_t, e_(t+1)) = phi from day to day,

p_t covariates that are known, such as leading patterns of temperature. The dry values are drawn from their conditional
distributions, one cell after another, all days at once (Gibbs sampling of truncated Gaussians: Geweke 1991; data
augmentation: Tanner and Wong 1987, doi:10.1080/01621459.1987.10478458), and B, C and phi are estimated again after each
sweep. Latent rain filled like this: Allcroft and Glasbey 2003, doi:10.1111/1467-9876.00419.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import ndtr, ndtri

SHRINK = 0.2  # of the covariance towards an exponential correlation, so that it can be inverted


def fill(
    z: np.ndarray,
    floor: np.ndarray,
    distance_km: np.ndarray,
    follows: np.ndarray,
    covariates: np.ndarray,
    sweeps: int = 60,
    seed: int = 0,
    on_sweep: Callable[[int], None] = lambda sweep: None,
) -> np.ndarray:
    """`z` with its missing values drawn.

    **Arguments:** `z` (time, cell), NaN where dry; `floor` (cell,), above all dry values; `distance_km` (cell, cell);
    `follows` (time,) bool, whether a time is one step after the one before it in the array; `covariates` (time, n);
    `sweeps`, of which the last one counts.
    **Returns:** (time, cell) float64, the dry values of each cell distributed as a standard normal below its floor.
    """
    rng = np.random.default_rng(seed)
    dry, floor = np.isnan(z), np.asarray(floor, np.float64)
    z = np.where(dry, 0.0, z).astype(np.float64)
    z = np.where(dry, ndtri(np.clip(ndtr(floor) * rng.uniform(size=z.shape), 1e-300, 1.0)), z)
    covariates = np.column_stack([np.ones(len(z)), covariates]).astype(np.float64)
    before, after = np.append(follows[1:], False), np.asarray(follows, bool)  # has a next, has a previous
    n_near = before.astype(float) + after
    length = np.median(distance_km) / 2
    target = np.exp(-distance_km / length)
    for sweep in range(sweeps):
        mean = covariates @ np.linalg.lstsq(covariates, z, rcond=None)[0]
        e = z - mean
        sample = e.T @ e / len(e)
        sd = np.sqrt(np.diag(sample))
        precision = np.linalg.inv((1 - SHRINK) * sample + SHRINK * target * sd[:, None] * sd)
        phi = float(np.clip(np.sum(e[1:][after[1:]] * e[:-1][after[1:]]) / np.sum(e[:-1][after[1:]] ** 2), 0.0, 0.95))
        # Of an AR(1) series given its neighbours; at the end of a run there is only one.
        weight = np.where(n_near == 2, phi / (1 + phi**2), np.where(n_near == 1, phi, 0.0))
        spread = np.sqrt(np.where(n_near == 2, (1 - phi**2) / (1 + phi**2), np.where(n_near == 1, 1 - phi**2, 1.0)))
        place = np.cumsum(~after)  # odd and even days of a run in turn: neighbours are not drawn together
        within = np.arange(len(z)) - np.flatnonzero(~after)[place - 1]
        for parity in (0, 1):
            days = np.flatnonzero(within % 2 == parity)
            near = np.zeros((days.size, z.shape[1]))
            has_next, has_last = before[days], after[days]
            near[has_next] += e[days[has_next] + 1]
            near[has_last] += e[days[has_last] - 1]
            near *= weight[days, None]
            own = e[days] - near  # deviations from what the neighbours in time say
            for cell in np.flatnonzero(dry[days].any(axis=0)):
                at = np.flatnonzero(dry[days, cell])
                p = precision[cell, cell]
                conditional = own[at, cell] - own[at] @ precision[cell] / p
                sd_cell = spread[days[at]] / np.sqrt(p)
                highest = floor[cell] - mean[days[at], cell] - near[at, cell]
                own[at, cell] = conditional + sd_cell * _below((highest - conditional) / sd_cell, rng)
            e[days] = own + near
        z = np.where(dry, np.minimum(mean + e, floor), z)
        on_sweep(sweep + 1)
    return _as_normal(z, dry, floor)


def _below(limit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Standard normal draws below `limit` (n,)."""
    u = np.maximum(ndtr(limit) * rng.uniform(size=limit.shape), 1e-300)
    return np.minimum(ndtri(u), limit)


def _as_normal(z: np.ndarray, dry: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """The dry values of each cell moved, in their order, to the quantiles of a standard normal below its floor."""
    out = z.copy()
    for cell in range(z.shape[1]):
        at = np.flatnonzero(dry[:, cell])
        rank = np.argsort(np.argsort(z[at, cell]))
        out[at, cell] = ndtri((rank + 0.5) / max(at.size, 1) * ndtr(floor[cell]))
    return out
