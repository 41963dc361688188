"""All numbers about one variable: scores by period and against baselines, calibration, and structure."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from bayesdownscale.diagnostics.baselines import bilinear
from bayesdownscale.diagnostics.calibration import central_coverage, chance_range, exchangeability, pit_curves_by_period
from bayesdownscale.diagnostics.field_baselines import baseline_scores
from bayesdownscale.diagnostics.field_structure import Spectra, structure
from bayesdownscale.diagnostics.field_tails import tail_scores
from bayesdownscale.diagnostics.layout import FieldDraws
from bayesdownscale.diagnostics.multivariate import energy_score
from bayesdownscale.diagnostics.scores import cell_scores, covered, domain_mean, ensemble_mean, spread

LEVELS = (50, 90)  # of central intervals [%]


@dataclass(frozen=True, eq=False)
class ScoredField:
    """One variable with what scoring it produced: the interpolated input (time, lat, lon), the distribution functions
    (item, pit) of the PIT by period, the CRPS of each cell, the reliability of a rare event, spectra, the numbers, and
    in sentences what could not be computed."""

    field: FieldDraws
    interpolation: xr.DataArray | None
    curves: dict[str, xr.DataArray]
    crps: xr.DataArray | None
    rare: xr.Dataset | None
    spectra: Spectra
    numbers: dict[str, Any]
    omitted: list[str]


def score_field(field: FieldDraws, baselines: bool = True) -> ScoredField:
    """Score one variable by period (`FieldDraws.periods`), and the `baselines` beside it if wanted."""
    ensemble, truth, observed = field.ensemble, field.truth, field.observed
    interpolation = None if field.coarse is None else bilinear(field.coarse, ensemble.isel(draw=0))
    several = ensemble.sizes["draw"] > 1
    held_together, spectra, omitted = structure(field, interpolation)
    numbers = describe(ensemble) | {
        "hours_observed": None if observed is None else int(observed.sum()),
        "spread": float(spread(ensemble)) if several else None,
        "structure": held_together,
        "scores": None,
        "tail": None,
        "baselines": None,
        "calibration": None,
    }
    curves: dict[str, xr.DataArray] = {}
    crps = rare = None
    if truth is not None:
        cells = _cells(ensemble, truth)
        numbers["scores"] = {name: _scores(cells, truth, interpolation, keep) for name, keep in field.periods().items()}
        if several:
            crps = cells["crps"]
            curves = pit_curves_by_period(ensemble, truth, field.periods())
            for name, curve in curves.items():
                for level in LEVELS:
                    low, high = chance_range(central_coverage(curve, level / 100))
                    numbers["scores"][name][f"coverage_{level}_chance"] = [float(low), float(high)]
            p = exchangeability(ensemble, truth, curves=curves["all"])
            numbers["calibration"] = {str(test): float(p.sel(test=test)) for test in p["test"].values}
            numbers["tail"], rare = tail_scores(field, interpolation)
            if baselines:
                numbers["baselines"], missing = baseline_scores(field, interpolation, crps)
                omitted = [*omitted, *missing]
    return ScoredField(field, interpolation, curves, crps, rare, spectra, numbers, omitted)


def describe(ensemble: xr.DataArray) -> dict[str, Any]:
    """Name, units, size and extent of a variable."""
    times = ensemble["time"].values
    return {
        "long_name": ensemble.attrs.get("long_name"),
        "units": ensemble.attrs.get("units"),
        "shape": {dim: ensemble.sizes[dim] for dim in ("time", "lat", "lon")},
        "time": [str(np.datetime64(t, "s")) for t in (times[0], times[-1])],
        "extent": {dim: [float(ensemble[dim].min()), float(ensemble[dim].max())] for dim in ("lat", "lon")},
    }


def _cells(ensemble: xr.DataArray, truth: xr.DataArray) -> xr.Dataset:
    """The scores of each cell, and the energy score (time,) of each hour; of one draw its mean alone."""
    if ensemble.sizes["draw"] < 2:
        return xr.Dataset({"mean": ensemble_mean(ensemble)})
    return cell_scores(ensemble, truth).assign(energy=energy_score(ensemble, truth))


def _scores(
    cells: xr.Dataset, truth: xr.DataArray, interpolation: xr.DataArray | None, keep: slice | np.ndarray
) -> dict[str, Any]:
    """Scores over all cells and the times `keep`; spread, CRPS and coverage only of two draws or more."""
    cells, truth = cells.isel(time=keep), truth.isel(time=keep)
    error = cells["mean"] - truth
    mean = lambda field: float(domain_mean(field))
    out: dict[str, Any] = {
        "hours": int(truth.notnull().any(("lat", "lon")).sum()),
        "rmse": mean(error**2) ** 0.5,
        "mae": mean(abs(error)),
        "bias": mean(error),
    }
    if interpolation is not None:
        other = interpolation.isel(time=keep) - truth
        out |= {"interpolation_rmse": mean(other**2) ** 0.5, "interpolation_mae": mean(abs(other))}
    if "crps" in cells:
        members = cells.attrs["members"]
        width = (mean(cells["variance"]) * (members + 1) / members) ** 0.5
        out |= {
            "crps": mean(cells["crps"]),
            "energy_score": float(cells["energy"].mean()),
            "spread": width,
            "spread_skill": width / out["rmse"] if out["rmse"] > 0 else None,
        }
        out |= {f"coverage_{level}": mean(covered(cells["low"], cells["high"], level / 100)) for level in LEVELS}
        if interpolation is not None and out["interpolation_mae"] > 0:
            out["crps_ratio"] = out["crps"] / out["interpolation_mae"]
    return out
