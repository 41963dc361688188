"""All numbers of the report: scores, sample statistics, criteria, and what the posterior does not know."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from bayesdownscale.diagnostics.digest import digest
from bayesdownscale.diagnostics.field_scores import ScoredField, score_field
from bayesdownscale.diagnostics.layout import Known, read_fields
from bayesdownscale.diagnostics.verdict import (
    as_dict,
    field_criteria,
    overall,
    run_criteria,
    structure_criteria,
    worst_first,
)

SCHEMA = "bayesdownscale.report/2"
ENOUGH_FOR_ESS, ENOUGH_FOR_RHAT = 100, 50  # draws of one chain alone, of each of several
CELLS = 500  # at random, whose convergence is diagnosed


def summarise(tree: xr.DataTree, training: Known | None = None) -> dict[str, Any]:
    """The numbers of the report as plain Python (None where unknown, never NaN), ready for JSON.

    **Arguments:** `tree`, a posterior tree (`Posterior.to_datatree`), with a group `truth` or without; `training`, past
    weather on its grid, for more baselines.
    **Returns:** `verdict`, `sentence`, `criteria` (each name, title, variable, value, threshold, status ok,
    warn or fail, sentence), `draws`, `variables`, `convergence` (of parameters, functionals and cells),
    `sample_stats`, `not_assessed`, `limitations`, `provenance`, `model_source`, `model_graph`, `schema`.
    **Raises:** ValueError where the tree holds no fields or no finite draw.
    """
    return collect(tree, training)[0]


def collect(
    tree: xr.DataTree, training: Known | None = None, baselines: bool = True
) -> tuple[dict[str, Any], list[ScoredField]]:
    """`summarise(tree)`, and the scored fields it rests on, for the figures."""
    fields, total, bad = read_fields(tree, training)
    scored = [score_field(field, baselines) for field in fields]
    scored = [replace(one, numbers=plain(one.numbers)) for one in scored]
    draws = {"total": total, "non_finite": bad, "used": total - bad}
    stats, convergence = _sample_stats(tree), _convergence(tree)
    criteria = [
        c
        for one in scored
        for c in field_criteria(one.field.name, one.numbers)
        + structure_criteria(one.field.name, one.numbers["structure"])
    ]
    criteria = worst_first(criteria + run_criteria(draws, stats, convergence))
    assessed = any(one.field.truth is not None for one in scored)
    verdict, sentence = overall(criteria, assessed)
    provenance = dict(tree.attrs)
    model_source, graph = provenance.pop("model_source", None), provenance.pop("model_graph", None)
    summary = {
        "schema": SCHEMA,
        "verdict": verdict,
        "sentence": sentence,
        "criteria": [as_dict(criterion) for criterion in criteria],
        "draws": draws,
        "variables": {one.field.name: one.numbers for one in scored},
        "convergence": convergence,
        "sample_stats": stats,
        "not_assessed": _not_assessed(scored, stats, convergence),
        "limitations": limitations(tree.attrs, scored),
        "provenance": provenance,
        "model_source": model_source,
        "model_graph": None if graph is None else json.loads(graph),
    }
    return plain(summary), scored


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


def _convergence(tree: xr.DataTree) -> dict[str, Any]:
    """Of each parameter, functional and random cell: mean, sd, 90 % interval, R-hat of several chains, and ESS and the
    Monte-Carlo error of the mean where draws allow it. `kind` is parameter, functional or cells; of arrays the worst
    element, of cells the worst but 5 %."""
    small = digest(tree, CELLS)["posterior"].to_dataset()
    chains, draws = small.sizes["chain"], small.sizes["draw"]
    judged, total = chains > 1 and draws >= ENOUGH_FOR_RHAT, chains * draws
    why = [] if judged else [f"R-hat needs several chains of {ENOUGH_FOR_RHAT} draws"]
    why += [] if total >= ENOUGH_FOR_ESS else [f"ESS needs {ENOUGH_FOR_ESS} draws"]
    parameters = [str(name) for name in small.data_vars if name in tree["posterior"].data_vars]
    out = {}
    for name, values in small.data_vars.items():
        kind = "parameter" if name in parameters else "cells" if str(name).endswith(" cells") else "functional"
        fixed = float(np.ptp(values.values)) == 0
        numbers: dict[str, Any] = {"kind": kind, "units": values.attrs.get("units", ""), "elements": values[0, 0].size}
        if kind != "cells":
            flat = values.values.reshape(chains * draws, -1).mean(axis=1, dtype=np.float64)
            numbers |= {"mean": flat.mean(), "sd": flat.std(ddof=1) if flat.size > 1 else None}
            numbers["interval_90"] = list(np.nanquantile(flat, [0.05, 0.95]))
        tail = 0.05 if kind == "cells" else 0.0
        worst = {} if fixed or len(why) > 1 else _diagnosed(values.to_dataset(name="x"), judged, tail)
        out[str(name)] = numbers | {"rhat": None, "ess": None, "mcse": None, "omitted": "; ".join(why)} | worst
        if fixed:
            out[str(name)]["omitted"] = "fixed"
    return plain(out)


def _diagnosed(values: xr.Dataset, with_rhat: bool, tail: float) -> dict[str, float]:
    """The worst R-hat, effective sample size (bulk and tail) and Monte-Carlo error of the mean of the elements of `x`,
    but for the part `tail` of them."""
    import arviz as az

    ess = min(float(az.ess(values, method=method)["x"].quantile(tail)) for method in ("bulk", "tail"))
    out = {"ess": ess, "mcse": float(az.mcse(values)["x"].quantile(1 - tail))}
    return out | ({"rhat": float(az.rhat(values)["x"].quantile(1 - tail))} if with_rhat else {})


def _not_assessed(scored: list[ScoredField], stats: dict[str, Any], convergence: dict[str, Any]) -> list[str]:
    """What could not be judged, and what it would need."""
    out = [sentence for one in scored for sentence in one.omitted]
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
    reasons = {numbers["omitted"]: None for numbers in convergence.values()}
    out += [f"Convergence: {reason}." for reason in reasons if reason not in ("", "fixed")]
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
            "CRPS and coverage look at each cell by itself; spectra, jerk and differences of neighbours look at the "
            "patterns of a draw, but not at whether a front or a storm is where it should be."
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
