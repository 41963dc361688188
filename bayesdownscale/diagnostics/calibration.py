"""How far from uniform may a PIT histogram be? The answer that respects correlation between cells.

Neighbouring cells and hours share their errors, so bands for independent cells are far too narrow. But if
the posterior is right, the truth and the M members are exchangeable fields: each member, judged against the
others and the truth, must look as the truth looks against the members. The range over members is what one
truth, with all its correlation, may do by chance (a Monte Carlo test: Besag & Clifford 1989, Biometrika 76,
633).
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import xarray as xr
from scipy.special import ndtri
from scipy.stats import rankdata

from bayesdownscale.diagnostics.blocks import blocks
from bayesdownscale.diagnostics.scores import area_weights

LEVELS = np.round(np.arange(0.0, 1.0001, 0.005), 3)
_RANKED = 4 * 10**6  # values ranked at most; longer runs are thinned in time


def pit_curves(ensemble: xr.DataArray, truth: xr.DataArray, stand_ins: int = 100) -> xr.DataArray:
    """The distribution function of the PIT of the truth, and of members put in its place.

    Not randomised: a tie spreads evenly over its ranks (Czado, Gneiting & Held 2009, Biometrics 65, 1254).
    Cells are weighted by area. Of runs with more than 4 million values, times are left out.

    **Arguments:** `ensemble` (draw, time, lat, lon); `truth` (time, lat, lon), NaN where unknown;
    `stand_ins`, how many members at most take the place of the truth.
    **Returns:** (item, pit), the weighted part of all cells whose PIT is at most `pit` (0 to 1 by 0.005);
    item 0 is the truth, the others are members judged against all other members and the truth.
    """
    n_pool = ensemble.sizes["draw"] + 1
    times = _spread(np.flatnonzero(truth.notnull().any(("lat", "lon"))), n_pool * truth[0].size)
    others = np.round(np.linspace(1, n_pool - 1, min(n_pool - 1, stand_ins))).astype(int)
    items = np.concatenate([[0], others])
    weight = np.repeat(area_weights(truth["lat"]).values[:, None], truth.sizes["lon"], axis=1)
    total, curves = 0.0, np.zeros((items.size, LEVELS.size))
    ensemble = ensemble.transpose("draw", "time", "lat", "lon")
    for t, members in _layers(ensemble, times):
        here = truth.isel(time=t).transpose("lat", "lon").values
        known = np.isfinite(here)
        members = members[:, known]
        pool = np.concatenate([here[None, known].astype(members.dtype), members])
        below, ties = _ranks(pool, items)
        for i in range(items.size):
            curves[i] += _distribution(below[i], ties[i], weight[known], n_pool)
        total += weight[known].sum()
    return xr.DataArray(curves / total, {"item": items, "pit": LEVELS}, ("item", "pit"), "pit_curve")


def pit_curves_by_period(
    ensemble: xr.DataArray, truth: xr.DataArray, periods: Mapping[str, slice | np.ndarray], stand_ins: int = 100
) -> dict[str, xr.DataArray]:
    """`pit_curves` of each of `periods`: "all", alone or with others that divide its times and of which it is the
    mean, weighted by the known cells. Periods without any are left out."""
    parts = {name: keep for name, keep in periods.items() if name != "all"} or {"all": slice(None)}
    area = area_weights(truth["lat"])
    known = {name: float((truth.isel(time=keep).notnull() * area).sum()) for name, keep in parts.items()}
    curves = {
        name: pit_curves(ensemble.isel(time=keep), truth.isel(time=keep), stand_ins)
        for name, keep in parts.items()
        if known[name]
    }
    together = xr.concat([known[name] * curve for name, curve in curves.items()], "period").sum("period")
    return {"all": together / sum(known.values())} | curves


def _spread(times: np.ndarray, values: int) -> list[int]:
    """Some of `times`, of so many values each, for `_RANKED` in all: even in number, not in step with any cycle."""
    n = max(1, min(times.size, _RANKED // values))
    if n == times.size:
        return times.tolist()
    stride, golden = times.size / n, (5**0.5 - 1) / 2
    return sorted({int(times[int((i + i * golden % 1) * stride)]) for i in range(n)})


def _layers(ensemble: xr.DataArray, times: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    """The members (M, lat, lon) at each of `times`, read a block at a time."""
    for part in blocks(ensemble):
        span = part["time"]
        wanted = [t for t in times if span.start <= t < span.stop]
        if wanted:
            block = ensemble.isel(part).values
            yield from ((t, block[:, t - span.start]) for t in wanted)


def _ranks(pool: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of `pool` (n, cells) are below each of `items`, and how many others equal it: (items, cells) each."""
    if items.size == 1:
        item = pool[items[0]]
        return (pool < item).sum(axis=0)[None], (pool == item).sum(axis=0)[None] - 1
    order = pool.argsort(axis=0)
    in_order = np.take_along_axis(pool, order, axis=0)
    if np.all(in_order[1:] != in_order[:-1]):
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(len(pool))[:, None], axis=0)
        return ranks[items], np.zeros_like(ranks[items])
    below, up_to = (rankdata(pool, method, axis=0).astype(int)[items] - 1 for method in ("min", "max"))
    return below, up_to - below


def _distribution(below: np.ndarray, ties: np.ndarray, weight: np.ndarray, n_pool: int) -> np.ndarray:
    """Summed weight with PIT <= LEVELS of cells with `below` lower members and `ties` equal ones (cells,)."""
    if not ties.any():
        mass, low, width = np.bincount(below, weight, n_pool), np.arange(n_pool), np.ones(n_pool)
    else:
        code, index = np.unique(below * n_pool + ties, return_inverse=True)
        mass, low, width = np.bincount(index, weight), code // n_pool, code % n_pool + 1
    return mass @ np.clip((LEVELS * n_pool - low[:, None]) / width[:, None], 0.0, 1.0)


def exchangeability(
    ensemble: xr.DataArray, truth: xr.DataArray, stand_ins: int = 100, curves: xr.DataArray | None = None
) -> xr.DataArray:
    """Is the truth one more draw? Tests that no correlation between cells can mislead.

    Each statistic of the PIT of the truth is ranked among those of members put in its place; if they are exchangeable,
    a p-value below 0.05 has probability 0.05, exactly (up to the steps of 1 / items), for any correlation and any
    size of ensemble. Reshaped fields are exchangeable too: differences of neighbours are less correlated than values,
    so that they see a wrong spread with far less data, and their own spread is a property that scores of single cells
    do not see.

    **Arguments:** as for `pit_curves`, at least 20 members for a p-value below 0.05; `curves`, their `pit_curves` if
    known.
    **Returns:** p-values (test,): `bias` (mean PIT), `spread` (variance of the PIT's normal scores about their
    mean), `shape` (largest distance of its distribution from uniform, in units of what it is by chance there),
    `gradients` and `changes` (the spread of differences of neighbours in longitude, and from time to time), where
    there are any.
    """
    curves = pit_curves(ensemble, truth, stand_ins) if curves is None else curves
    out = {
        "bias": _p_value(abs(_mean_of(curves, lambda u: u) - 0.5)),
        "spread": _p_value(_width(curves)),
        "shape": _p_value(_farthest(curves)),
    }
    for name, dim in (("gradients", "lon"), ("changes", "time")):
        differences = truth.diff(dim)
        if differences.size and bool(differences.notnull().any()):
            curves = pit_curves(ensemble.diff(dim), differences, stand_ins)
            out[name] = _p_value(_width(curves))
    return xr.DataArray(list(out.values()), {"test": list(out)}, ("test",), "p")


def _mean_of(curves: xr.DataArray, function: Callable[[np.ndarray], np.ndarray]) -> xr.DataArray:
    """The mean (item,) of a function of the PIT."""
    middles = (LEVELS[1:] + LEVELS[:-1]) / 2
    return curves.diff("pit").dot(xr.DataArray(function(middles), {"pit": LEVELS[1:]}, ("pit",)))


def _width(curves: xr.DataArray) -> xr.DataArray:
    """How far the log variance (item,) of the normal scores of the PIT is from its mean over items. A variance about
    their mean, since correlated fields are by chance too high or too low as a whole, which is no matter of spread."""
    square = _mean_of(curves, lambda u: ndtri(u) ** 2)
    variance = (square - _mean_of(curves, ndtri) ** 2).clip(min=1e-12)
    log_variance = variance.copy(data=np.log(variance.values))
    return abs(log_variance - log_variance.mean())


def _farthest(curves: xr.DataArray) -> xr.DataArray:
    """The largest distance (item,) from uniform between PIT 0.025 and 0.975, in units of its root mean square over all
    items. Correlated fields are by chance too high or too low as a whole, which moves the middle of the distribution
    most; without these units that would hide what happens near its ends."""
    distance = (curves - curves["pit"]).sel(pit=slice(0.0249, 0.9751))
    usual = (distance**2).mean("item") ** 0.5
    return (abs(distance) / usual.where(usual > 0)).max("pit").fillna(0.0)


def piet_c(pit: xr.DataArray) -> float:
    """The p-value of ArviZ's test of uniformity for dependent PIT values (`scores.pit`), `piet_c`: pointwise tests,
    combined by the Cauchy distribution, which dependence leaves almost alone. It looks at the tails; `exchangeability`
    needs no approximation and sees a wrong spread sooner."""
    from arviz_stats.base import array_stats

    values = pit.values.ravel()
    return float(array_stats.uniformity_test(values[np.isfinite(values)], method="piet_c")[0])


def _p_value(departures: xr.DataArray) -> float:
    """The part of the items (item,) whose departure is at least that of the truth, item 0, itself included."""
    return float((departures >= departures[0]).mean())


def central_coverage(curves: xr.DataArray, level: float) -> xr.DataArray:
    """How often each item (item,) lies in the central interval of probability `level`, a multiple of 0.01."""
    high, low = (curves.sel(pit=round((1 + sign * level) / 2, 3), method="nearest", drop=True) for sign in (1, -1))
    return high - low


def histogram(curves: xr.DataArray, bins: int) -> xr.DataArray:
    """The relative density (item, bin) in `bins` equal parts of [0, 1], 1 where uniform; bins divide 200."""
    edges = np.linspace(0, 1, bins + 1)
    return curves.sel(pit=edges, method="nearest").diff("pit").rename(pit="bin") * bins


def chance_range(values: xr.DataArray, probability: float = 0.9) -> tuple[xr.DataArray, xr.DataArray]:
    """The central range of `values` (item, ...) over the members in the place of the truth (items 1 on)."""
    tail, members = (1 - probability) / 2, values.isel(item=slice(1, None))
    low, high = (members.quantile(q, "item").drop_vars("quantile") for q in (tail, 1 - tail))
    return low, high
