"""Figures of calibration: the rank of the truth among the draws, and coverage. Each returns a matplotlib Figure."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binom

from bayesdownscale.diagnostics.calibration import central_coverage, chance_range, histogram
from bayesdownscale.diagnostics.style import BASELINE, POSTERIOR, SMALL, TRUTH, new_figure, tidy


def pit_histogram(curves: xr.DataArray, n_cells: int, bins: int = 20) -> Figure:
    """Histogram of the PIT of the truth, with two bands: cells independent, and cells as they are.

    **Arguments:** `curves` (item, pit) from `calibration.pit_curves`; `n_cells`, cells times hours; `bins`.
    """
    density = histogram(curves, bins)
    edges = np.linspace(0, 1, bins + 1)
    figure = new_figure(5.6, 3.9)
    axes: Axes = figure.subplots()
    axes.stairs(density[0], edges, fill=True, facecolor="0.9", edgecolor=TRUTH, linewidth=1.1, label="truth")
    if curves.sizes["item"] > 2:
        low, high = chance_range(density)
        label = "90 % of draws put in the truth's place"
        axes.stairs(high, edges, baseline=low, fill=True, color=POSTERIOR, alpha=0.35, label=label)
    low, high = binom.ppf([0.025, 0.975], n_cells, 1 / bins) / n_cells * bins
    for level in (low, high):
        label = "95 % if cells were independent (too narrow)" if level == low else None
        axes.axhline(level, color=BASELINE, linestyle="--", linewidth=1.0, label=label)
    axes.set(xlim=(0, 1), xlabel="PIT: rank of the truth among the draws, 0 to 1", ylabel="density (calibrated: 1)")
    axes.set_ylim(0, max(1.3 * float(density[0].max()), 2.0))
    tidy(axes)
    axes.legend(loc="upper center", fontsize=SMALL, frameon=False)
    return figure


def reliability_diagram(rare: xr.Dataset) -> Figure:
    """How often an event happened against the probability it was given, and how often that was given.

    **Arguments:** `rare` from `events.reliability`.
    """
    figure = new_figure(4.6, 5.2)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    frequency = float((rare["share"] * rare["observed"].fillna(0.0)).sum())
    axes.plot([0, 100], [0, 100], color="0.5", linewidth=0.9, label="calibrated")
    axes.axhline(100 * frequency, color=BASELINE, linestyle="--", linewidth=1.0, label="frequency of the event")
    given = rare.isel(bin=(rare["share"] > 0).values)
    line = (100 * given["forecast"], 100 * given["observed"], "o-")
    axes.plot(*line, color=POSTERIOR, markersize=4, linewidth=1.2, label="posterior")
    axes.set(xlim=(0, 100), ylim=(0, 100), ylabel="event happened [%]")
    below.bar(100 * rare["bin"], 100 * rare["share"], 90 / rare.sizes["bin"], color="0.6")
    below.set(xlabel="probability given to it [%]", ylabel="share [%]", yscale="log", ylim=(0.05, 100))
    below.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    for one in (axes, below):
        tidy(one)
    axes.legend(loc="upper left", fontsize=SMALL, frameon=False)
    return figure


def coverage_curve(curves: xr.DataArray, between: xr.DataArray | None = None) -> Figure:
    """Empirical against nominal probability of central intervals.

    **Arguments:** `curves` (item, pit) from `calibration.pit_curves`; `between`, the same for the times
    without a snapshot alone.
    """
    levels = np.round(np.arange(0.05, 1.0, 0.05), 2)

    def curve_of(c: xr.DataArray) -> xr.DataArray:
        return xr.concat([central_coverage(c, float(level)) for level in levels], "level")

    covered = curve_of(curves)
    figure = new_figure(4.6, 4.6)
    axes: Axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color="0.5", linewidth=0.9, label="calibrated")
    if curves.sizes["item"] > 2:
        low, high = chance_range(covered)
        label = "90 % of draws put in the truth's place"
        axes.fill_between(100 * levels, 100 * low, 100 * high, color=POSTERIOR, alpha=0.25, linewidth=0, label=label)
    style = {"markersize": 4, "linewidth": 1.2}
    axes.plot(100 * levels, 100 * covered.isel(item=0), "o-", color=TRUTH, label="truth, all hours", **style)
    if between is not None:
        line = 100 * curve_of(between).isel(item=0)
        axes.plot(100 * levels, line, "s--", color=BASELINE, label="truth, hours without input", **style)
    axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="nominal: central interval [%]", ylabel="truth inside [%]")
    axes.set_aspect("equal")
    tidy(axes)
    axes.legend(loc="upper left", fontsize=SMALL, frameon=False)
    return figure
