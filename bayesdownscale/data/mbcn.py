"""Several variables corrected together: MBCn, which restores how they depend on each other (Cannon 2018,
doi:10.1007/s00382-017-3580-6).

The N-dimensional probability density function transform (Pitie et al. 2007, doi:10.1016/j.cviu.2006.11.011) is that of
the package xsdba: at random rotations of the standardised variables, again and again, the quantiles of the model's past
become those of the reference. It gives the order of the days of each variable; their values are those of QDM, put in
that order. So each variable keeps the distribution that QDM gives it, and the variables of a cell depend on each other
as in the reference, by ranks. What happens from day to day and from cell to cell is not looked at, and is blurred.

It is slow: xsdba compiles for half a minute the first time, then takes 0.01 s a cell and season (two variables, 400
days, one core), ten times what QDM takes; a grid of 100 x 200 cells by month is a matter of an hour.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from .errors import DataError, quoted
from .fields import Fields
from .quantiles import untied
from .seasons import in_season, season_of

EXTRA = "pip install 'bayesdownscale[mbcn]'"


def load_xsdba() -> Any:
    """The package xsdba; raises `DataError` where it is not installed, or is and does not work."""
    try:
        import xsdba  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        if error.name == "xsdba":
            raise DataError(f"expected the package xsdba for the method mbcn, found none; run: {EXTRA}") from error
        raise _broken(error) from error
    except Exception as error:  # numba has its own errors, of versions of NumPy and Python
        raise _broken(error) from error
    if not hasattr(xsdba, "MBCn"):
        raise _broken(ImportError(f"no MBCn in version {getattr(xsdba, '__version__', 'unknown')}"))
    return xsdba


def _broken(error: Exception) -> DataError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(
        f"expected a working package xsdba, 0.7 or later, for the method mbcn, got {type(error).__name__}: {reason}; "
        f"run: {EXTRA}, or choose the method qdm"
    )


def rearranged(
    corrected: Fields,
    model: Fields,
    past: Fields,
    reference: Fields,
    traces: Mapping[str, float] | None = None,
    window: int | None = None,
    rotations: int = 20,
    levels: int = 50,
    seed: int = 0,
) -> Fields:
    """The values of `corrected` in the order of days that MBCn gives them, each season, variable and cell by itself.

    **Arguments:** `corrected` and `model`, the same days before and after a correction of each variable; `past` and
    `reference`, whose days need not match (of the longer of the two in a season, days evenly spread are left out); all
    (time, variable, lat, lon) with the same variables and units on the same cells; `traces`, by name, below which
    values are equal, as of dry days, and get their order at random; `window`, as for `BiasCorrection.fit`;
    `rotations`, of the variables, Cannon's 20 to 30; `levels`, the number of quantiles mapped at each.
    **Returns:** fields whose every month, variable and cell holds the values of `corrected`, in another order, or with
    moving windows a day those of its window; NaN where these are all NaN.
    **Raises:** `DataError` for one variable only, without xsdba, or for cells with some values missing.
    """
    names = [v.name for v in corrected.variables]
    if len(names) < 2:
        raise DataError(
            f"expected two variables or more to correct together by mbcn, got {quoted(names)}; give others too, or "
            "choose the method qdm"
        )
    xsdba = load_xsdba()
    least = np.array([(traces or {}).get(name, -np.inf) for name in names])
    samples = [f.only(names).values.reshape(len(f.values), len(names), -1) for f in (corrected, model, past, reference)]
    known = _complete(samples, corrected.source)
    out = samples[0].copy()
    mine = season_of(corrected.times, window)
    for season in np.unique(mine).tolist():
        rng = np.random.default_rng([seed, season])
        near = [in_season(f.times, season, window) for f in (model, past, reference)]
        own, before, wanted = (
            untied(x[at][:, :, known], least, rng) for x, at in zip(samples[1:], near, strict=True)
        )  # (time, variable, cell)
        shared = min(len(before), len(wanted))
        before, wanted = (x[np.linspace(0, len(x) - 1, shared).round().astype(int)] for x in (before, wanted))
        moved = _transformed(xsdba, own, before, wanted, _rotations(len(names), rotations, rng), levels)
        rank = np.argsort(np.argsort(moved, axis=0), axis=0)[mine[near[0]] == season]
        values = np.sort(samples[0][near[0]][:, :, known], axis=0)
        at = np.ix_(np.flatnonzero(mine == season), np.arange(len(names)), np.flatnonzero(known))
        out[at] = np.take_along_axis(values, rank, axis=0)
    return replace(corrected, values=out.reshape(corrected.values.shape).astype(np.float32))


def _complete(samples: list[np.ndarray], source: str) -> np.ndarray:
    """Which cells (cell,) have all values; raises `DataError` where one has some."""
    parts = [np.isfinite(x) for x in samples]
    every = np.all([part.all(axis=(0, 1)) for part in parts], axis=0)
    some = parts[0].any(axis=(0, 1)) & ~every
    if some.any():
        raise DataError(
            f"expected cells with values at all times for mbcn, got {int(some.sum())} with some missing in "
            f"{source or 'the model'} or its reference; choose the method qdm, or fill them"
        )
    return every


def _rotations(n: int, number: int, rng: np.random.Generator) -> xr.DataArray:
    """Random rotations (iterations, variable, n), uniform (Mezzadri 2007, arXiv math-ph/0609050)."""
    turns = []
    for _ in range(number):
        q, r = np.linalg.qr(rng.standard_normal((n, n)))
        turns.append(q * np.sign(np.diag(r)))
    attrs = {"crd_dim": "variable", "new_dim": "turned"}
    return xr.DataArray(np.stack(turns), dims=("iterations", "variable", "turned"), attrs=attrs)


def _transformed(
    xsdba: Any, own: np.ndarray, before: np.ndarray, wanted: np.ndarray, turns: xr.DataArray, levels: int
) -> np.ndarray:
    """The values `own` (time, variable, cell) in the order that xsdba's MBCn gives them, trained on `before` and
    `wanted` (another time, variable, cell)."""
    n = own.shape[1]

    def labelled(x: np.ndarray) -> xr.DataArray:
        time = np.datetime64("2000-01-01", "ns") + np.arange(len(x)) * np.timedelta64(1, "D")  # only counted
        coords = {"time": time, "variable": [f"v{k}" for k in range(n)]}
        return xr.DataArray(np.ascontiguousarray(x.transpose(1, 2, 0)), coords, ("variable", "cell", "time"),
                            attrs={"units": ""})  # fmt: skip

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        trained = xsdba.MBCn.train(
            labelled(wanted),
            labelled(before),
            base_kws={"nquantiles": min(levels, len(before)), "group": "time"},
            adj_kws={"interp": "linear", "extrapolation": "constant"},
            pts_dim="variable",
            rot_matrices=turns,
        )
        sim = labelled(own)
        # Of its correction of each variable only the order counts: learned from itself, it changes no value.
        result = trained.adjust(sim=sim, ref=sim, hist=sim)
    return result.transpose("time", "variable", "cell").values
