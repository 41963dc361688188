"""The tables of a report, as rows of words and numbers."""

from typing import Any

import numpy as np

SCORES = (  # key, words, key of the interpolated input, key of the range by chance, unit
    ("crps", "CRPS (of interpolation: its mean absolute error)", "interpolation_mae", "", "units"),
    ("energy_score", "energy score of a whole map", "", "", "units"),
    ("mae", "mean absolute error of the mean", "interpolation_mae", "", "units"),
    ("rmse", "root mean square error of the mean", "interpolation_rmse", "", "units"),
    ("bias", "bias of the mean", "", "", "units"),
    ("spread", "spread of the draws", "", "", "units"),
    ("spread_skill", "spread over error", "", "", ""),
    ("coverage_50", "truth inside the 50 % interval", "", "coverage_50_chance", "%"),
    ("coverage_90", "truth inside the 90 % interval", "", "coverage_90_chance", "%"),
)
TESTS = {
    "bias": "mean rank of the truth",
    "spread": "spread of its rank",
    "shape": "distribution of its rank",
    "gradients": "spread of differences between neighbours",
    "changes": "spread of changes from time to time",
}
STRUCTURE = {  # words, units
    "lag1_autocorrelation": ("lag-1 autocorrelation", "1"),
    "second_difference_energy": ("energy of second differences in time", "squared"),
    "jerk_ratio": ("that at hours with input over that at others", "1"),
    "radial_spectrum": ("power over scales in space, log10 ratio to the truth", "1"),
    "temporal_spectrum": ("power over scales in time, log10 ratio to the truth", "1"),
}
BASELINES = {
    "interpolation": "the input, interpolated in space and time",
    "kriging": "kriging: a Gaussian field with one scale in space and one in time, estimated from the input",
    "climatology": "climatology: past weather at the same time of day",
    "BCSD": "BCSD: the input, corrected and interpolated as a difference from climatology",
    "disaggregation": "disaggregation: the input, interpolated as a difference from climatology",
}
PERIODS = {"all": "all hours", "observed": "hours with input", "between": "hours without"}


def score_rows(scores: dict[str, Any] | None, units: str) -> list[dict[str, Any]]:
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


def baseline_rows(rows: dict[str, dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Rows of the table of baselines: words, CRPS by period, skill of the posterior and its interval."""
    return [{"words": BASELINES.get(name, name), **row} for name, row in (rows or {}).items()]


def calibration_rows(p: dict[str, Any] | None) -> list[tuple[str, float | None]]:
    """Tests of whether the truth is one more draw, in words, with their p-values."""
    return [(TESTS.get(name, name), value) for name, value in (p or {}).items()]


def tail_rows(tail: dict[str, Any] | None, units: str) -> list[tuple[str, float, float | None]]:
    """Rows of the table of the tail: words with units, posterior, and the interpolated input."""
    if not tail:
        return []
    unit = f" [{units}]" if units else ""
    words = {"brier": "Brier score", "tw_crps": f"threshold-weighted CRPS{unit}"}
    rows = [(said, tail[key], tail[f"interpolation_{key}"]) for key, said in words.items()]
    return rows + [(f"{key}, a part of the Brier score", tail[key], None) for key in ("reliability", "resolution")]


def structure_rows(numbers: dict[str, Any], units: str) -> list[dict[str, Any]]:
    """Rows of the table of structure: words with units, posterior, range over draws, truth and interpolation."""
    rows = []
    for name, found in numbers.items():
        words, kind = STRUCTURE[name]
        if found:
            unit = f" [{units}²]" if kind == "squared" and units else ""
            rows.append({"words": words + unit, "truth": None, "interpolation": None, **found})
    return rows


def cost_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
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


def number(value: Any, digits: int = 3, step: float | None = None) -> str:
    """A number to `digits` significant digits, with an exponent only at extreme sizes; None is a dash. With `step`,
    its standard deviation say, to at least a tenth of that."""
    if value is None:
        return "–"
    if step and value and abs(step) < abs(value):
        digits = max(digits, 2 + int(np.floor(np.log10(abs(value))) - np.floor(np.log10(step))))
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if value == 0 or not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits}g}"
    if value == round(value):
        return f"{value:.0f}".replace("-", "−")
    decimals = max(0, digits - 1 - int(np.floor(np.log10(abs(value)))))
    return f"{value:.{decimals}f}".replace("-", "−")
