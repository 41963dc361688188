"""One posterior beside others of the same data: the same scores, and whether a difference is more than chance."""

from collections.abc import Mapping
from typing import Any

import xarray as xr

from bayesdownscale.diagnostics.comparison import compare
from bayesdownscale.diagnostics.field_baselines import skill_over
from bayesdownscale.diagnostics.field_scores import ScoredField
from bayesdownscale.diagnostics.summary import collect, plain

THIS = "this posterior"
COLUMNS = ("elpd", "se", "elpd_diff", "dse", "p", "bad_k", "log_evidence", "log_evidence_se")


def versus(
    tree: xr.DataTree, summary: dict[str, Any], scored: list[ScoredField], others: Mapping[str, xr.DataTree]
) -> dict[str, Any]:
    """By name of the posterior: `verdict`, `scores` of each variable over all hours, `jerk_ratio`, and `skill` of this
    posterior over it with its interval; and `models`, the rows of `compare`, or in `no_models` why there are none.

    **Arguments:** `tree` with its `summary` and `scored` fields (`summary.collect`); `others`, trees by name, with the
    same truth if there is one.
    """
    if THIS in others:
        raise ValueError(f"expected other posteriors to compare with, got one named {THIS!r}; rename it")
    rows, mine = {THIS: _row(summary)}, {one.field.name: one for one in scored}
    for name, other in others.items():
        its_summary, its_scored = collect(other, baselines=False)
        rows[name] = _row(its_summary)
        for one in its_scored:
            this = mine.get(one.field.name)
            if this is not None and this.crps is not None and one.crps is not None:
                rows[name]["skill"][one.field.name] = skill_over(this.crps, one.crps)
    out: dict[str, Any] = {"posteriors": rows, "models": None, "no_models": None}
    try:
        table = compare({THIS: tree, **others})
        kept = [column for column in COLUMNS if column in table]
        rows = zip(table.index, table[kept].to_numpy(float), strict=True)
        out["models"] = {str(name): dict(zip(kept, row, strict=True)) for name, row in rows}
    except ValueError as error:
        out["no_models"] = str(error)
    return plain(out)


def _row(summary: dict[str, Any]) -> dict[str, Any]:
    variables = summary["variables"]
    scores = {name: (numbers["scores"] or {}).get("all") for name, numbers in variables.items()}
    jerk = {name: (v["structure"].get("jerk_ratio") or {}).get("posterior") for name, v in variables.items()}
    method = summary["provenance"].get("method")
    return {"verdict": summary["verdict"], "method": method, "scores": scores, "jerk_ratio": jerk, "skill": {}}
