"""The report: one self-contained HTML file for people, and the same numbers as JSON for programs."""

import base64
import json
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bayesdownscale.data.fields import Fields
from bayesdownscale.diagnostics.figures import (
    between_snapshots,
    coverage_curve,
    pit_histogram,
    spread_and_error,
    time_series,
    widest_point,
)
from bayesdownscale.diagnostics.layout import add_truth
from bayesdownscale.diagnostics.maps import maps, unobserved_time
from bayesdownscale.diagnostics.style import name_of, period, place, png, units_of, utc
from bayesdownscale.diagnostics.summary import ScoredField, collect

SCORES = (  # key, words, key of the interpolated input, key of the range by chance, unit
    ("crps", "CRPS (of interpolation: its mean absolute error)", "interpolation_mae", "", "units"),
    ("mae", "mean absolute error of the mean", "interpolation_mae", "", "units"),
    ("rmse", "root mean square error of the mean", "interpolation_rmse", "", "units"),
    ("bias", "bias of the mean", "", "", "units"),
    ("spread", "spread of the draws", "", "", "units"),
    ("spread_skill", "spread over error", "", "", ""),
    ("coverage_50", "truth inside the 50 % interval", "", "coverage_50_chance", "%"),
    ("coverage_90", "truth inside the 90 % interval", "", "coverage_90_chance", "%"),
)
PERIODS = {"all": "all hours", "observed": "hours with input", "between": "hours without"}


def report(
    tree: xr.DataTree,
    path: str | Path,
    truth: xr.Dataset | xr.DataArray | Fields | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a report of a posterior: `path`, one HTML file that needs no network, and its numbers as .json.

    **Arguments:** `tree`, a posterior tree (`Posterior.to_datatree`); `path` of the HTML file; `truth`, what
    happened, on the posterior's grid: a Dataset with the same variable names, one DataArray, or `Fields`
    (default: the tree's own group `truth`, if any); `overwrite` files that exist.
    **Returns:** the path of the HTML file.
    **Raises:** FileExistsError where a file is in the way; ValueError where tree or truth do not fit.
    """
    html_path = Path(path)
    json_path = html_path.with_suffix(".json")
    if html_path == json_path:
        raise ValueError(f"expected a path of an HTML file, got '{html_path}'; end it in .html")
    for existing in (html_path, json_path):
        if existing.exists() and not overwrite:
            raise FileExistsError(f"'{existing}' exists; choose another path or allow to overwrite it")
    summary, scored = collect(tree if truth is None else add_truth(tree, truth))
    as_json = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    as_html = _render(summary, scored, json_path.name)
    html_path.parent.mkdir(parents=True, exist_ok=True)
    _write_all({json_path: as_json, html_path: as_html})
    return html_path


def _render(summary: dict[str, Any], scored: list[ScoredField], json_name: str) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    template = files("bayesdownscale.diagnostics").joinpath("report.html.j2").read_text(encoding="utf-8")
    variables = []
    for one in scored:
        ensemble, sizes = one.field.ensemble, one.numbers["shape"]
        south, north, west, east = (*one.numbers["extent"]["lat"], *one.numbers["extent"]["lon"])
        variables.append(
            {
                "name": one.field.name,
                "title": name_of(ensemble),
                "about": f"{sizes['time']} times, {period(ensemble['time'].values)}; {sizes['lat']} × "
                f"{sizes['lon']} cells (lat × lon), {place(south, west)} to {place(north, east)}",
                "scores": _score_rows(one.numbers["scores"], units_of(ensemble)),
                "figures": list(_figures(one)),
            }
        )
    return environment.from_string(template).render(
        summary=summary, variables=variables, cost=_cost(summary), json_name=json_name, periods=PERIODS
    )


def _figures(one: ScoredField) -> Iterator[dict[str, Any]]:
    """Title, caption, alternative text and picture of every figure that the variable allows."""
    field, name = one.field, name_of(one.field.ensemble)
    ensemble, truth, coarse, observed = field.ensemble, field.truth, field.coarse, field.observed
    draws = ensemble.sizes["draw"]
    time = unobserved_time(ensemble["time"], observed)
    lat, lon = widest_point(ensemble)
    against = " against the truth" if truth is not None else ""
    no_input = "an hour as far from any input as there is" if observed is not None else "the middle of the run"
    yield _figure(
        maps(ensemble, time, truth, coarse, observed),
        "One moment on the map",
        f"{utc(time)}: {no_input}. Maps of values share one colour scale. Each draw is one weather that fits "
        "the input; their mean is smoother than any weather."
        + (" Differences: red too high, blue too low." if truth is not None and draws > 1 else ""),
        f"Maps of {name} at {utc(time)}: the posterior draws, their mean and spread{against}.",
        wide=True,
    )
    yield _figure(
        time_series(ensemble, (lat, lon), truth, coarse),
        "One cell over time",
        f"The cell with the largest posterior spread away from the border, {place(lat, lon)}: a hard case, "
        "not a typical one. The input is the mean of a whole coarse cell; draws need not pass through it.",
        f"Time series of {name} at {place(lat, lon)}: {draws} posterior draws{against}.",
        wide=True,
    )
    if draws < 2:
        return
    if one.curves is not None and truth is not None:
        yield _figure(
            pit_histogram(one.curves, int(truth.notnull().sum())),
            "Rank of the truth (PIT)",
            "Flat where calibrated, a hump where the draws differ too much, a bowl where they are too alike, "
            "a slope where they are biased. The dashed band takes cells and hours as independent. They are "
            "not: neighbours share their errors, so that band is too narrow and a histogram outside it proves"
            " nothing. The blue band shows what 90 % of the draws do when put in the truth's place, with all "
            "their correlation.",
            f"Histogram of the rank of the true {name} among the draws; flat means calibrated.",
        )
        yield _figure(
            coverage_curve(one.curves, one.curves_between),
            "Coverage",
            "How often central intervals hold the truth. Below the diagonal the posterior is overconfident.",
            f"Empirical against nominal coverage of central intervals of {name}.",
        )
    yield _figure(
        spread_and_error(ensemble, truth, one.baseline, observed),
        "Spread and error over time" if truth is not None else "Spread over time",
        "Root mean square over the domain, cells weighted by area. "
        + ("Calibrated where the two are of one size." if truth is not None else "Without a truth: spread alone."),
        f"Spread of the posterior draws of {name} over time{against}.",
        wide=True,
    )
    if observed is not None and int(observed.sum()) > 1 and not bool(observed.all()):
        yield _figure(
            between_snapshots(ensemble, observed, truth, one.baseline),
            "Between inputs",
            "By hours since the last input. Scores of hours with input alone miss what happens in between.",
            f"Spread{' and error' if truth is not None else ''} of {name} by hours since the last input.",
        )


def _figure(figure: Figure, title: str, caption: str, alt: str, wide: bool = False) -> dict[str, Any]:
    picture = base64.b64encode(png(figure)).decode("ascii")
    width, height = (round(110 * inches) for inches in figure.get_size_inches())
    return {
        "title": title,
        "caption": caption,
        "alt": alt,
        "wide": wide,
        "png": picture,
        "width": width,
        "height": height,
    }


def _score_rows(scores: dict[str, Any] | None, units: str) -> list[dict[str, Any]]:
    """Rows of the table of scores: words, then by period the value and that of the interpolated input."""
    rows = []
    for key, words, interpolation, chance, unit in SCORES if scores else ():
        assert scores is not None
        if scores["all"].get(key) is None:
            continue
        factor, digits = (100.0, "%") if unit == "%" else (1.0, units if unit == "units" else "")
        cells = []
        for part in (part for part in PERIODS if part in scores):
            value, other = scores[part].get(key), scores[part].get(interpolation)
            cells.append((None if value is None else factor * value, other))
        between = [100 * end for end in scores["all"].get(chance) or [] if end is not None]
        rows.append({"words": words, "unit": digits, "cells": cells, "chance": between})
    return rows


def _cost(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What sampling took, in words."""
    attrs, stats, used = summary["provenance"], summary["sample_stats"], summary["draws"]["total"]
    out = [("draws", f"{used}")]
    if isinstance(attrs.get("sampling_seconds"), int | float):
        seconds = float(attrs["sampling_seconds"])
        out.append(("sampling time", f"{number(seconds)} s, {number(seconds / used)} s a draw, compilation included"))
    if isinstance(attrs.get("peak_memory_mb"), int | float):
        out.append(("peak memory", f"{attrs['peak_memory_mb']:.0f} MB"))
    for name, words in (
        ("n_evaluations", "evaluations of the prior a draw"),
        ("n_products", "Jacobian products of the prior a draw"),
        ("krylov_iterations", "Krylov iterations a draw"),
    ):
        if name in stats:
            out.append((words, number(stats[name]["mean"])))
    return out


def number(value: Any, digits: int = 3) -> str:
    """A number to `digits` significant digits, with an exponent only at extreme sizes; None is a dash."""
    if value is None:
        return "–"
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if value == 0 or not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits}g}"
    if value == round(value):
        return f"{value:.0f}".replace("-", "−")
    decimals = max(0, digits - 1 - int(np.floor(np.log10(abs(value)))))
    return f"{value:.{decimals}f}".replace("-", "−")


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
