"""All numbers of the report: scores, sample statistics, criteria, and what the posterior does not know."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from bayesdownscale.diagnostics.baselines import bilinear
from bayesdownscale.diagnostics.calibration import central_coverage, chance_range, pit_curves
from bayesdownscale.diagnostics.layout import FieldDraws, read_fields, scalar_names
from bayesdownscale.diagnostics.scores import coverage, crps, domain_mean, ensemble_mean, mae, rmse, spread
from bayesdownscale.diagnostics.verdict import as_dict, field_criteria, overall, run_criteria, worst_first

SCHEMA = "bayesdownscale.report/1"
ENOUGH_FOR_ESS = 100  # draws of one chain


@dataclass(frozen=True, eq=False)
class ScoredField:
    """One variable with what scoring it produced: the interpolated input (time, lat, lon), the distribution
    functions (item, pit) of the PIT over all hours and over those without input, and the numbers."""

    field: FieldDraws
    baseline: xr.DataArray | None
    curves: xr.DataArray | None
    curves_between: xr.DataArray | None
    numbers: dict[str, Any]


def summarise(tree: xr.DataTree) -> dict[str, Any]:
    """The numbers of the report as plain Python (None where unknown, never NaN), ready for JSON.

    **Arguments:** `tree`, a posterior tree (`Posterior.to_datatree`), with a group `truth` or without.
    **Returns:** `verdict`, `sentence`, `criteria` (each name, title, variable, value, threshold, status ok,
    warn or fail, sentence), `draws`, `variables`, `parameters`, `sample_stats`, `not_assessed`,
    `limitations`, `provenance`, `model_source`, `schema`.
    **Raises:** ValueError where the tree holds no fields or no finite draw.
    """
    return collect(tree)[0]


def collect(tree: xr.DataTree) -> tuple[dict[str, Any], list[ScoredField]]:
    """`summarise(tree)`, and the scored fields it rests on, for the figures."""
    fields, total, bad = read_fields(tree)
    scored = [score_field(field) for field in fields]
    draws = {"total": total, "non_finite": bad, "used": total - bad}
    stats, parameters = _sample_stats(tree), _parameters(tree)
    criteria = [c for one in scored for c in field_criteria(one.field.name, one.numbers)]
    criteria = worst_first(criteria + run_criteria(draws, stats, parameters))
    assessed = any(one.field.truth is not None for one in scored)
    verdict, sentence = overall(criteria, assessed)
    provenance = dict(tree.attrs)
    model_source = provenance.pop("model_source", None)
    summary = {
        "schema": SCHEMA,
        "verdict": verdict,
        "sentence": sentence,
        "criteria": [as_dict(criterion) for criterion in criteria],
        "draws": draws,
        "variables": {one.field.name: one.numbers for one in scored},
        "parameters": parameters,
        "sample_stats": stats,
        "not_assessed": _not_assessed(scored, stats, parameters),
        "limitations": limitations(tree.attrs, scored),
        "provenance": provenance,
        "model_source": model_source,
    }
    return plain(summary), scored


def score_field(field: FieldDraws) -> ScoredField:
    """Score one variable: over all hours, hours with input (`observed`) and hours without (`between`)."""
    ensemble, truth, observed = field.ensemble, field.truth, field.observed
    baseline = None if field.coarse is None else bilinear(field.coarse, ensemble.isel(draw=0))
    several = ensemble.sizes["draw"] > 1
    times = ensemble["time"].values
    numbers: dict[str, Any] = {
        "long_name": ensemble.attrs.get("long_name"),
        "units": ensemble.attrs.get("units"),
        "shape": {dim: ensemble.sizes[dim] for dim in ("time", "lat", "lon")},
        "time": [str(np.datetime64(t, "s")) for t in (times[0], times[-1])],
        "extent": {dim: [float(ensemble[dim].min()), float(ensemble[dim].max())] for dim in ("lat", "lon")},
        "hours_observed": None if observed is None else int(observed.sum()),
        "spread": float(spread(ensemble)) if several else None,
        "scores": None,
    }
    curves = curves_between = None
    if truth is not None:
        scores = {"all": _scores(ensemble, truth, baseline)}
        if several:
            curves = pit_curves(ensemble, truth)
            for level in (50, 90):
                low, high = chance_range(central_coverage(curves, level / 100))
                scores["all"][f"coverage_{level}_chance"] = [float(low), float(high)]
        if observed is not None and not bool(observed.all()):
            for name, keep in (("observed", observed.values), ("between", ~observed.values)):
                part = None if baseline is None else baseline.isel(time=keep)
                scores[name] = _scores(ensemble.isel(time=keep), truth.isel(time=keep), part)
            if several and scores["between"]["hours"]:
                curves_between = pit_curves(ensemble.isel(time=~observed.values), truth.isel(time=~observed.values), 0)
        numbers["scores"] = scores
    return ScoredField(field, baseline, curves, curves_between, plain(numbers))


def _scores(ensemble: xr.DataArray, truth: xr.DataArray, baseline: xr.DataArray | None) -> dict[str, Any]:
    """Scores over all cells and times; spread, CRPS and coverage only of two draws or more."""
    mean, known = ensemble_mean(ensemble), truth.notnull()
    out: dict[str, Any] = {
        "hours": int(known.any(("lat", "lon")).sum()),
        "rmse": float(rmse(mean, truth)),
        "mae": float(mae(mean, truth)),
        "bias": float(domain_mean(mean - truth)),
    }
    if baseline is not None:
        out |= {
            "interpolation_rmse": float(rmse(baseline, truth)),
            "interpolation_mae": float(mae(baseline, truth)),
        }
    if ensemble.sizes["draw"] > 1:
        width = float(spread(ensemble.where(known) if not bool(known.all()) else ensemble))
        out |= {
            "crps": float(domain_mean(crps(ensemble, truth))),
            "spread": width,
            "spread_skill": width / out["rmse"] if out["rmse"] > 0 else None,
            "coverage_50": float(coverage(ensemble, truth, 0.5)),
            "coverage_90": float(coverage(ensemble, truth, 0.9)),
        }
        if baseline is not None and out["interpolation_mae"] > 0:
            out["crps_ratio"] = out["crps"] / out["interpolation_mae"]
    return out


def _sample_stats(tree: xr.DataTree) -> dict[str, Any]:
    """Mean, range, total and root mean square over draws of every numeric sample statistic (chain, draw)."""
    if "sample_stats" not in tree.children:
        return {}
    out = {}
    for name, values in tree["sample_stats"].to_dataset().data_vars.items():
        numbers = values.values.astype(np.float64).ravel() if values.dtype.kind in "biuf" else np.array([])
        numbers = numbers[np.isfinite(numbers)]
        if numbers.size:
            out[str(name)] = {
                "mean": numbers.mean(),
                "min": numbers.min(),
                "max": numbers.max(),
                "total": numbers.sum(),
                "rms": np.sqrt(np.mean(numbers**2)),
            }
    return plain(out)


def _parameters(tree: xr.DataTree) -> dict[str, Any]:
    """Mean, sd, 90 % interval of each scalar parameter; R-hat of several chains, ESS where draws allow it."""
    names = scalar_names(tree)
    if not names:
        return {}
    parameters = tree["posterior"].to_dataset()[names]
    chains, draws = parameters.sizes["chain"], parameters.sizes["draw"]
    drawn = [name for name in names if float(np.ptp(parameters[name].values)) > 0]
    diagnostics: dict[str, xr.Dataset] = {}
    if drawn and (chains > 1 or draws >= ENOUGH_FOR_ESS):
        import arviz as az

        diagnostics = {"ess": az.ess(parameters[drawn])} | ({"rhat": az.rhat(parameters[drawn])} if chains > 1 else {})
    why = [] if "rhat" in diagnostics else ["R-hat needs more than one chain"]
    why += [] if "ess" in diagnostics else [f"ESS needs several chains or {ENOUGH_FOR_ESS} draws"]
    out = {}
    for name in names:
        values, known = parameters[name].values, {key: d[name] for key, d in diagnostics.items() if name in drawn}
        out[name] = {
            "mean": float(values.mean(dtype=np.float64)),
            "sd": float(values.std(ddof=1, dtype=np.float64)) if values.size > 1 else None,
            "interval_90": [float(q) for q in np.nanquantile(values, [0.05, 0.95])],
            "rhat": float(known["rhat"]) if "rhat" in known else None,
            "ess": float(known["ess"]) if "ess" in known else None,
            "omitted": "; ".join(why) if name in drawn else "fixed",
        }
    return out


def _not_assessed(scored: list[ScoredField], stats: dict[str, Any], parameters: dict[str, Any]) -> list[str]:
    """What could not be judged, and what it would need."""
    out = []
    for one in scored:
        name, field = one.field.name, one.field
        if field.truth is None:
            out.append(f"{name}: scores, coverage and calibration need a truth, and none was given.")
        if field.ensemble.sizes["draw"] < 2:
            out.append(f"{name}: spread, CRPS and coverage need at least two draws, and there is one.")
        if field.coarse is None:
            out.append(f"{name}: no labelled coarse input in the tree, so no interpolation to compare with.")
        elif field.observed is None:
            out.append(f"{name}: the input is no snapshot of single hours, so no hours with and without it.")
        elif bool(field.observed.all()):
            out.append(f"{name}: every hour has input, so there are no hours without it to judge.")
    if "coarse_residual" not in stats:
        out.append("The distance to the input: the sampler stored no coarse_residual.")
    for name, numbers in parameters.items():
        if numbers["omitted"] not in ("", "fixed"):
            out.append(f"{name}: {numbers['omitted']}.")
    return out


def limitations(attrs: dict[Any, Any], scored: list[ScoredField]) -> list[str]:
    """What this posterior does not know, in sentences."""
    out = []
    approximate = attrs.get("approximate")
    if approximate is None:
        out.append("The result does not say whether its draws are exact or approximate; take them as approximate.")
    elif int(approximate):
        out.append(
            "The draws are approximate: guidance estimates p(y | x_sigma) at every noise level. "
            "They are not exact draws from the posterior of the learned prior. Neither R-hat nor ESS can see "
            "that error; coverage against a truth, or simulation-based calibration, can."
        )
    out.append(
        "The prior is weather as its training data have it. It does not know weather, seasons or climates "
        "that those lack, and inherits their errors."
    )
    out.append(
        "The likelihood is the program printed here. A bias of the coarse model that the program does not "
        "describe goes into the posterior as if it were weather."
    )
    if any(one.field.truth is not None for one in scored):
        out.append(
            "All scores come from one trajectory, one sample of weather. Cells and hours are correlated, so "
            "thousands of cells count as far fewer; the range of draws in the truth's place shows how few."
        )
        out.append(
            "Scores look at each cell by itself. They do not see whether patterns, fronts or the course of "
            "time within one draw are right."
        )
        out.append("Interpolation of the input is a low bar: it knows neither orography nor coast nor time of day.")
    else:
        out.append("Without a truth nothing here shows that the spread is of the right size.")
    return out


def plain(value: Any) -> Any:
    """`value` as what JSON can hold: numpy types become Python's, numbers that are not finite become None."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
