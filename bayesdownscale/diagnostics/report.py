"""The report: one self-contained HTML file for people, and the same numbers as JSON for programs."""

import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import xarray as xr

from bayesdownscale.diagnostics.digest import digest
from bayesdownscale.diagnostics.field_scores import ScoredField
from bayesdownscale.diagnostics.frame import true_place
from bayesdownscale.diagnostics.layout import Known, add_truth
from bayesdownscale.diagnostics.model_figures import graph_figure, parameter_figure
from bayesdownscale.diagnostics.report_figures import figures_of, picture
from bayesdownscale.diagnostics.report_tables import (
    PERIODS,
    baseline_rows,
    calibration_rows,
    cost_rows,
    number,
    score_rows,
    structure_rows,
    tail_rows,
)
from bayesdownscale.diagnostics.style import name_of, period, place, units_of
from bayesdownscale.diagnostics.summary import collect
from bayesdownscale.diagnostics.versus import versus


def report(
    tree: xr.DataTree,
    path: str | Path,
    truth: Known | None = None,
    compare: Mapping[str, xr.DataTree] | None = None,
    training: Known | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a report of a posterior: `path`, one HTML file that needs no network, and its numbers as .json.

    **Arguments:** `tree`, a posterior tree (`Posterior.to_datatree`), in memory or lazy; `path` of the HTML file;
    `truth`, what happened, on the posterior's grid: a Dataset with the same variable names, one DataArray, or `Fields`
    (default: the tree's own group `truth`, if any); `compare`, other posteriors of the same data by name, to set beside
    this one; `training`, past weather on the same grid, for climatology and BCSD among the baselines; `overwrite` files
    that exist.
    **Returns:** the path of the HTML file.
    **Raises:** FileExistsError where a file is in the way; ValueError where tree, truth or others do not fit.
    """
    html_path = Path(path)
    json_path = html_path.with_suffix(".json")
    if html_path == json_path:
        raise ValueError(f"expected a path of an HTML file, got '{html_path}'; end it in .html")
    for existing in (html_path, json_path):
        if existing.exists() and not overwrite:
            raise FileExistsError(f"'{existing}' exists; choose another path or allow to overwrite it")
    with_truth = lambda tree: tree if truth is None else add_truth(tree, truth)
    tree = with_truth(tree)
    summary, scored = collect(tree, training)
    others = {name: with_truth(other) for name, other in (compare or {}).items()}
    summary["comparison"] = versus(tree, summary, scored, others) if others else None
    as_json = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    as_html = _render(tree, summary, scored, json_path.name)
    html_path.parent.mkdir(parents=True, exist_ok=True)
    _write_all({json_path: as_json, html_path: as_html})
    return html_path


def _render(tree: xr.DataTree, summary: dict[str, Any], scored: list[ScoredField], json_name: str) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    template = files("bayesdownscale.diagnostics").joinpath("report.html.j2").read_text(encoding="utf-8")
    variables = []
    for one in scored:
        ensemble, sizes = one.field.ensemble, one.numbers["shape"]
        (south, north), (west, east) = one.numbers["extent"]["lat"], one.numbers["extent"]["lon"]
        first, last = (place(*true_place(ensemble, *corner)) for corner in ((south, west), (north, east)))
        variables.append(
            {
                "name": one.field.name,
                "title": name_of(ensemble),
                "units": units_of(ensemble),
                "about": f"{sizes['time']} times, {period(ensemble['time'].values)}; {sizes['lat']} × "
                f"{sizes['lon']} cells (lat × lon), {first} to {last}",
                "baselines": baseline_rows(one.numbers["baselines"]),
                "scores": score_rows(one.numbers["scores"], units_of(ensemble)),
                "tail": tail_rows(one.numbers["tail"], units_of(ensemble)),
                "calibration": calibration_rows(one.numbers["calibration"]),
                "structure": structure_rows(one.numbers["structure"], units_of(ensemble)),
                "figures": list(figures_of(one)),
            }
        )
    return environment.from_string(template).render(
        summary=summary,
        variables=variables,
        model_figures=_model_figures(tree, summary),
        cost=cost_rows(summary),
        json_name=json_name,
        periods=PERIODS,
    )


def _model_figures(tree: xr.DataTree, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The graph of the program, and the densities of its parameters."""
    out, graph = [], summary["model_graph"]
    if graph:
        sentence = "; ".join(
            f"{name} depends on {', '.join(node['parents'])}" for name, node in graph.items() if node["parents"]
        )
        out.append(
            picture(
                graph_figure(graph),
                "The program as a graph",
                "Arrows point from what is drawn first to what depends on it. Blue: the field. Rounded: unknown, "
                "dashed: computed from others, dotted: given. Grey: data.",
                f"Graph of the program: {sentence}.",
            )
        )
    drawn = [
        name
        for name, numbers in summary["convergence"].items()
        if numbers["kind"] == "parameter" and numbers["omitted"] != "fixed"
    ]
    if drawn and summary["draws"]["total"] > 1:
        out.append(
            picture(
                parameter_figure(digest(tree, cells=0, functionals={}), drawn),
                "Posterior of the parameters",
                "Densities with mean and interval, by ArviZ; of arrays the first elements.",
                f"Posterior densities of {', '.join(drawn)}.",
                wide=True,
            )
        )
    return out


def _write_all(texts: dict[Path, str]) -> None:
    """Write every file whole or not at all: first beside its place, then moved there."""
    drafts = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in texts}
    try:
        for path, text in texts.items():
            drafts[path].write_text(text, encoding="utf-8")
        for path, draft in drafts.items():
            os.replace(draft, path)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
