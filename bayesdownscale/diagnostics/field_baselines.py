"""What the baselines make of the input of a posterior, and its skill over each of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from bayesdownscale.diagnostics.baselines import FEWEST, bcsd, climatology
from bayesdownscale.diagnostics.kriging import gaussian_crps, kriging
from bayesdownscale.diagnostics.layout import FieldDraws
from bayesdownscale.diagnostics.scores import crps as crps_of
from bayesdownscale.diagnostics.scores import domain_mean
from bayesdownscale.diagnostics.skill import skill_score

MOST_COARSE_CELLS = 1024  # for kriging, which decomposes their covariance some fifty times


def baseline_scores(
    field: FieldDraws, interpolation: xr.DataArray | None, score: xr.DataArray
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """By name of the baseline its `crps` by period, and the `skill` of the posterior over it with its interval (`low`,
    `high`: None where the series is too short).

    **Arguments:** `field`, with a truth; `interpolation`, its input interpolated; `score`, the CRPS (time, lat, lon)
    of its draws. Kriging wants an input of snapshots, climatology and BCSD past weather (`field.training`), and
    BCSD an input of 20 times or more: of fewer the disaggregation alone.
    **Returns:** the rows, and sentences on what was left out and why.
    """
    truth, rows, omitted = field.truth, {}, []
    assert truth is not None
    for name, make in _makers(field, interpolation, truth).items():
        try:
            reference = make().transpose(*score.dims)
        except ValueError as error:
            omitted.append(f"{field.name}: no {name}: {error}.")
            continue
        means = {period: float(domain_mean(reference.isel(time=keep))) for period, keep in field.periods().items()}
        rows[name] = {"crps": means} | skill_over(score, reference)
    return rows, omitted


def skill_over(score: xr.DataArray, reference: xr.DataArray) -> dict[str, float]:
    """Skill of `score` over `reference`, with its interval where the series is long enough for one."""
    try:
        found = skill_score(score, reference)
        return {name: float(found[name]) for name in ("skill", "low", "high")}
    except ValueError:
        mean = float(domain_mean(reference))
        skill = 1 - float(domain_mean(score)) / mean if mean > 0 else np.nan
        return {"skill": skill, "low": np.nan, "high": np.nan}


def _makers(
    field: FieldDraws, interpolation: xr.DataArray | None, truth: xr.DataArray
) -> dict[str, Callable[[], xr.DataArray]]:
    """By name of the baseline what computes its CRPS (time, lat, lon); of one value its absolute error."""
    coarse, training, like = field.coarse, field.training, field.ensemble.isel(draw=0)
    out: dict[str, Callable[[], xr.DataArray]] = {}
    if interpolation is not None:
        out["interpolation"] = lambda: abs(interpolation - truth)
    if coarse is not None and field.observed is not None:
        out["kriging"] = lambda: _kriged(coarse, like, truth)
    if training is not None:
        out["climatology"] = lambda: crps_of(climatology(training, like), truth)
    if training is not None and coarse is not None:
        enough = coarse.sizes["time_coarse"] >= FEWEST
        out["BCSD" if enough else "disaggregation"] = lambda: abs(bcsd(coarse, like, training, enough) - truth)
    return out


def _kriged(coarse: xr.DataArray, like: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
    cells = coarse.sizes["lat_coarse"] * coarse.sizes["lon_coarse"]
    if cells > MOST_COARSE_CELLS:
        raise ValueError(f"expected at most {MOST_COARSE_CELLS} coarse cells, got {cells}; crop for it")
    found = kriging(coarse, like)
    return gaussian_crps(found["mean"], found["sd"], truth)
