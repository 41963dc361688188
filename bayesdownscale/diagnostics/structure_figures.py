"""Figures of how draws hang together: spectra, and second differences in time."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from bayesdownscale.diagnostics.field_structure import Spectra
from bayesdownscale.diagnostics.scores import domain_mean
from bayesdownscale.diagnostics.style import (
    BASELINE,
    OBSERVED,
    POSTERIOR,
    TRUTH,
    date_axis,
    label_of,
    legend,
    new_figure,
    tidy,
    units_of,
)

WORDS = {
    "radial_spectrum": ("wavelength [km]", "in space"),
    "temporal_spectrum": ("period [h]", "in time"),
}
LINES = {
    "truth": {"color": TRUTH, "linestyle": "-", "linewidth": 1.6},
    "interpolation": {"color": BASELINE, "linestyle": ":", "linewidth": 1.6},
}
SHOWN = 20  # draws


def spectra_figure(spectra: Spectra) -> Figure:
    """Power over wavelength and over period: draws, their mean, the truth and the interpolated input."""
    figure = new_figure(4.6 * len(spectra), 4.0)
    for axes, (name, found) in zip(np.atleast_1d(figure.subplots(1, len(spectra))), spectra.items(), strict=True):
        draws = found["posterior"].transpose("draw", ...)
        scale = 1 / draws[draws.dims[1]].values
        for k, draw in enumerate(draws.values[:SHOWN]):
            label = f"{min(SHOWN, len(draws))} draws" if k == 0 else None
            axes.plot(scale, draw, color=POSTERIOR, linewidth=0.5, alpha=0.5, label=label)
        for what, look in LINES.items():
            if what in found:
                label = "interpolated input" if what == "interpolation" else what
                axes.plot(scale, found[what].values, label=label, zorder=3, **look)
        words, where = WORDS[name]
        axes.set(xscale="log", yscale="log", xlabel=words, title=f"power {where}")
        axes.invert_xaxis()
        units = units_of(draws)
        axes.set_ylabel("power spectral density" + (f" [{units}]" if units else ""))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        tidy(axes)
        axes.legend(fontsize=8, frameon=False, loc="lower left")
    return figure


def jerk_figure(
    ensemble: xr.DataArray, observed: xr.DataArray, truth: xr.DataArray | None, interpolation: xr.DataArray | None
) -> Figure:
    """Root mean square over cells of second differences in time, at each inner hour; hours with input are marked."""
    times = ensemble["time"].values[1:-1]
    figure = new_figure(9.0, 3.6)
    axes: Axes = figure.subplots()
    for k in range(min(SHOWN, ensemble.sizes["draw"])):
        label = f"{min(SHOWN, ensemble.sizes['draw'])} draws" if k == 0 else None
        axes.plot(times, jerk(ensemble.isel(draw=k)), color=POSTERIOR, linewidth=0.5, alpha=0.5, label=label)
    if truth is not None and bool(truth.notnull().all()):
        axes.plot(times, jerk(truth), label="truth", **LINES["truth"])
    if interpolation is not None:
        axes.plot(times, jerk(interpolation), label="interpolated input", **LINES["interpolation"])
    at = times[observed.values[1:-1]]
    dots = {"markersize": 5, "markerfacecolor": OBSERVED, "markeredgecolor": "black", "markeredgewidth": 0.6}
    axes.plot(at, np.zeros(at.size), "o", clip_on=False, zorder=5, label="hours with input", **dots)
    axes.set_ylim(0.0, None)
    axes.set_ylabel(label_of(ensemble, "second difference").replace(", ", ",\n", 1))
    date_axis(axes, ensemble["time"].values)
    tidy(axes)
    legend(axes, columns=4)
    return figure


def jerk(field: xr.DataArray) -> np.ndarray:
    """Root mean square over cells, by area, of x[t-1] - 2 x[t] + x[t+1]: (inner time,)."""
    field = field.astype(np.float64)
    second = field.diff("time", label="lower").diff("time", label="upper")
    return (domain_mean(second**2, ["lat", "lon"]) ** 0.5).values
