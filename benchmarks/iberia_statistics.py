"""What two climates of winter temperature and rain can be compared by, cell by cell; arrays (day, cell)."""

from itertools import pairwise
from typing import Any

import numpy as np

WET = 1.0  # mm/d


def statistics(tas: np.ndarray, pr: np.ndarray, length: int) -> dict[str, Any]:
    """Statistics of one run: `tas` [degC] and `pr` [mm/d] (day, cell), winters of `length` days one after another.

    **Returns:** by name (cell,), (cell, cell) for correlations between cells, or scalars for the whole region.
    """
    wet = pr >= WET
    area, extent = pr.mean(axis=1), (pr >= 10.0).mean(axis=1)
    return {
        "wet_frequency": wet.mean(axis=0),
        "p98": np.quantile(pr, 0.98, axis=0),
        "mean_pr": pr.mean(axis=0),
        "tas_pr": correlation(tas, pr),
        "space_pr": np.nan_to_num(np.corrcoef(pr.T)),
        "space_tas": np.corrcoef(tas.T),
        "wet_spell": spell(wet, length),
        "dry_spell": spell(~wet, length),
        "lag1_pr": lagged(pr, length),
        "lag1_tas": lagged(tas, length),
        "mean_tas": tas.mean(axis=0),
        "sd_tas": tas.std(axis=0),
        "p02_tas": np.quantile(tas, 0.02, axis=0),
        "storm_area_pr": np.quantile(area, 0.98),
        "storm_extent": np.quantile(extent, 0.98),
    }


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each column over rows; 0 where one is constant."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.divide((a * b).sum(axis=0), scale, out=np.zeros_like(scale), where=scale > 0)


def lagged(x: np.ndarray, length: int) -> np.ndarray:
    """Correlation with the next day of the same winter."""
    first = np.arange(len(x)) % length < length - 1
    at = np.flatnonzero(first)
    return correlation(x[at], x[at + 1])


def spell(is_in: np.ndarray, length: int) -> np.ndarray:
    """Mean length [d] of runs of true days (day, cell), cut at the ends of winters."""
    starts = is_in.copy()
    starts[1:] &= ~is_in[:-1] | (np.arange(1, len(is_in)) % length == 0)[:, None]
    return is_in.sum(axis=0) / np.maximum(starts.sum(axis=0), 1)


def mean_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean over runs of each statistic."""
    return {name: np.mean([run[name] for run in runs], axis=0) for name in runs[0]}


RELATIVE = ("p98", "mean_pr", "wet_spell", "dry_spell", "storm_area_pr", "storm_extent")


def errors(of: dict[str, Any], truth: dict[str, Any]) -> dict[str, dict[str, float]]:
    """`bias`, the error of the mean over cells, and `mae`, the mean error of a cell (of a pair of cells); relative ones
    for rain amounts, lengths and storms."""
    out = {}
    for name, right in truth.items():
        got, scale = np.asarray(of[name]), np.mean(right) if name in RELATIVE else 1.0
        each = np.abs(got - right) / (right if name in RELATIVE else 1.0)
        if got.ndim == 2:
            each = each[~np.eye(len(each), dtype=bool)]
        out[name] = {"bias": float((got.mean() - right.mean()) / scale), "mae": float(np.mean(each))}
    return out


def floor(tas: np.ndarray, pr: np.ndarray, length: int, winters: int, splits: int = 10, seed: int = 0) -> dict:
    """The errors between two samples of `winters` winters each of one climate, the mean over random splits: what no
    method can be expected to beat when its input does not know the weather. `bias` is the root mean square one."""
    rng, n, found = np.random.default_rng(seed), len(pr) // length, []
    take = lambda x, which: x.reshape(n, length, -1)[which].reshape(winters * length, -1)
    for _ in range(splits):
        order = rng.permutation(n)
        pair = [statistics(take(tas, part), take(pr, part), length) for part in (order[:winters], order[-winters:])]
        found.append(errors(*pair))
    rms = lambda values: float(np.sqrt(np.mean(np.square(values))))
    return {
        name: {"bias": rms([f[name]["bias"] for f in found]), "mae": float(np.mean([f[name]["mae"] for f in found]))}
        for name in found[0]
    }


def crps(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Fair continuous ranked probability score of (member, day, cell) against (day, cell), the mean over days."""
    n = len(members)
    ordered = np.sort(members, axis=0)
    weight = 2 * np.arange(n) - n + 1
    spread = np.tensordot(weight, ordered, axes=1) / (n * max(n - 1, 1))
    return (np.abs(members - truth).mean(axis=0) - spread).mean(axis=0)


def winters_of(times: np.ndarray) -> list[np.ndarray]:
    """Positions of the days of each winter; 29 February is left out, so that all are 90 days."""
    month_day = times.astype("datetime64[D]") - times.astype("datetime64[M]")
    leap = (times.astype("datetime64[M]").astype(int) % 12 == 1) & (month_day.astype(int) == 28)
    kept = np.flatnonzero(~leap)
    edges = np.flatnonzero(np.diff(times[kept]) > np.timedelta64(10, "D")) + 1
    return [kept[a:b] for a, b in pairwise([0, *edges.tolist(), kept.size])]
