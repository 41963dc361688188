"""Maps of the posterior at a time nobody observed, where the prior has to do the work."""

import numpy as np
import xarray as xr
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure

from bayesdownscale.diagnostics.baselines import bilinear
from bayesdownscale.diagnostics.frame import map_edges, pole_of
from bayesdownscale.diagnostics.scores import ensemble_mean, variance
from bayesdownscale.diagnostics.style import (
    NORMAL,
    SIGNED,
    SMALL,
    SPREAD,
    VALUES,
    degrees,
    draw_map,
    label_of,
    name_of,
    new_figure,
    place,
    units_of,
    utc,
)

COLUMNS, PANEL_WIDTH = 4, 2.3  # panels in a row at most; inches
SIGNED_WORDS = ("eastward", "northward", "upward", "downward", "anomaly", "component", "tendency")

Panel = tuple[str, xr.DataArray]  # title and field
DerivedPanel = tuple[str, xr.DataArray, str]  # and units


def unobserved_time(time: xr.DataArray, observed: xr.DataArray | None) -> np.datetime64:
    """The time (of `time`) farthest from any snapshot, and of those the nearest to the middle of the run.

    `observed` (time,) bool, or None: then the middle of the run.
    """
    hours = (time.values - time.values[0]) / np.timedelta64(1, "h")
    from_middle = np.abs(hours - hours[-1] / 2)
    if observed is None or not observed.any():
        return time.values[np.argmin(from_middle)]
    seen = hours[observed.values]
    between = (hours >= seen[0]) & (hours <= seen[-1])
    distance = np.where(between, np.abs(hours[:, None] - seen).min(axis=1), -1.0)
    candidates = np.flatnonzero(distance >= distance.max() - 1e-6)
    return time.values[candidates][np.argmin(from_middle[candidates])]


def is_signed(field: xr.DataArray) -> bool:
    """Whether zero divides the values of a field in two directions, as for a wind component or an anomaly."""
    names = " ".join(str(field.attrs.get(key, "")) for key in ("standard_name", "long_name")).lower()
    return any(word in names for word in SIGNED_WORDS)


def maps(
    ensemble: xr.DataArray,
    time: np.datetime64 | None = None,
    truth: xr.DataArray | None = None,
    coarse: xr.DataArray | None = None,
    observed: xr.DataArray | None = None,
) -> Figure:
    """One time on the map: truth, the input around it and interpolated, draws, mean; spread and errors.

    **Arguments:** `ensemble` (draw, time, lat, lon); `time`, by default `unobserved_time`; `truth` (time,
    lat, lon); `coarse` (time_coarse, lat_coarse, lon_coarse); `observed` (time,) bool.
    """
    time = unobserved_time(ensemble["time"], observed) if time is None else time
    now = ensemble.sel(time=time)
    truth_now = None if truth is None else truth.sel(time=time)
    if truth_now is not None and not truth_now.notnull().any():
        truth_now = None
    interpolated = None if coarse is None else bilinear(coarse, ensemble.isel(draw=0).sel(time=[time])).isel(time=0)
    panels = _value_panels(now, truth_now, coarse, interpolated)
    derived = _derived_panels(now, truth_now, interpolated)

    (lon_edges, lat_edges), pole = map_edges(now), pole_of(now)
    mean_lat = float(lat_edges.mean())
    ratio = np.ptp(lat_edges) / np.ptp(lon_edges) / np.cos(np.deg2rad(np.clip(mean_lat, -85, 85)))
    panel_height = float(np.clip(ratio, 0.3, 2.5)) * PANEL_WIDTH
    columns = min(COLUMNS, max(len(panels), len(derived)))
    rows = -(-len(panels) // columns)
    heights = [(panel_height + 0.25) * rows + 0.75] + ([panel_height + 0.85] if derived else [])
    figure = new_figure(max(PANEL_WIDTH * columns + 0.8, 4.5), sum(heights) + 0.55)
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_values(parts[0], panels, now, (rows, columns))
    if derived:
        _draw_derived(parts[1], derived, now, columns)
    figure.suptitle(f"{name_of(ensemble)}, {utc(time)}", fontsize=NORMAL + 1.5)
    said = f"Plate carrée, scaled at the mean latitude {degrees(round(mean_lat, 1), 'NS')}. "
    if pole is not None:
        said = f"In the coordinates of the grid, whose north pole lies at {place(pole.lat, pole.lon)}. "
    figure.supxlabel(
        f"{said}{chr(10) if columns < 3 else ''}Coastlines: Natural Earth. Grey: no value.",
        fontsize=SMALL - 0.5,
        color="0.3",
    )
    return figure


def _value_panels(
    now: xr.DataArray,
    truth: xr.DataArray | None,
    coarse: xr.DataArray | None,
    interpolated: xr.DataArray | None,
) -> list[Panel]:
    """What shares the colour scale of the values, in two rows of four where there are enough draws."""
    n_draws = now.sizes["draw"]
    panels = [] if truth is None else [("truth", truth)]
    if coarse is not None and interpolated is not None:
        panels += [*_snapshots(coarse, now["time"].values), ("input, interpolated", interpolated)]
    mean = [(f"posterior mean of {n_draws} draws", ensemble_mean(now))] if n_draws > 1 else []
    n_shown = min(n_draws, 2 * COLUMNS - len(panels) - len(mean))
    draws = [(f"posterior draw {k + 1}", now.isel(draw=k)) for k in range(n_shown)]
    return panels + draws + mean if len(panels) >= COLUMNS else panels + mean + draws


def _derived_panels(
    now: xr.DataArray, truth: xr.DataArray | None, interpolated: xr.DataArray | None
) -> list[DerivedPanel]:
    """Spread and signed differences: title, field and units."""
    if now.sizes["draw"] < 2:
        return []
    mean, sd, units = ensemble_mean(now), variance(now) ** 0.5, units_of(now)
    panels: list[DerivedPanel] = [("posterior standard deviation", sd, units)]
    if truth is not None:
        panels.append(("posterior mean − truth", mean - truth, units))
        if interpolated is not None:
            panels.append(("interpolation − truth", interpolated - truth, units))
        panels.append(("(mean − truth) / standard deviation", (mean - truth) / sd.where(sd > 0), ""))
    elif interpolated is not None:
        panels.append(("posterior mean − interpolation", mean - interpolated, units))
    return panels


def _draw_values(part: SubFigure, panels: list[Panel], now: xr.DataArray, layout: tuple[int, int]) -> None:
    shown = [panel.values[np.isfinite(panel.values)] for _, panel in panels]
    if is_signed(now):
        norm, colours = _symmetric(shown), SIGNED
    else:
        ends = [np.percentile(values, [0.2, 99.8]) for values in shown if values.size]  # a few cells may saturate
        low, high = np.min(ends), np.max(ends)
        norm, colours = Normalize(low, max(high, low + 1e-12)), VALUES
    grid = part.subplots(*layout, sharex=True, sharey=True, squeeze=False)
    for axes, (title, panel) in zip(grid.flat, panels, strict=False):
        draw_map(axes, panel, now, norm, colours, title)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    bar = part.colorbar(
        ScalarMappable(norm, colours),
        ax=grid,
        location="bottom",
        shrink=0.9 if layout[1] < 3 else 0.6,
        pad=0.02,
        extend="both",
        aspect=45,
    )
    bar.set_label(label_of(now), fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)


def _draw_derived(part: SubFigure, panels: list[DerivedPanel], now: xr.DataArray, columns: int) -> None:
    """Spread on its own scale from zero; differences of the same units on one scale around zero."""
    grid = part.subplots(1, columns, squeeze=False)[0]
    for k, (axes, (title, panel, units)) in enumerate(zip(grid, panels, strict=False)):
        if k == 0:
            norm, colours, extend = (
                Normalize(0.0, max(float(np.nanpercentile(panel, 99.8)), 1e-12)),
                SPREAD,
                "max",
            )
        elif not units and units_of(now):
            norm, colours, extend = Normalize(-3.0, 3.0), SIGNED, "both"
        else:
            same = [other.values for _, other, own in panels[1:] if own == units]
            norm, colours, extend = _symmetric(same), SIGNED, "both"
        mesh = draw_map(axes, panel, now, norm, colours, title)
        axes.tick_params(labelleft=k == 0)
        bar = part.colorbar(mesh, ax=axes, location="bottom", extend=extend, shrink=0.9, pad=0.02, aspect=22)
        bar.ax.tick_params(labelsize=SMALL - 1)
        bar.set_label(units or "dimensionless", fontsize=SMALL)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)


def _symmetric(arrays: list[np.ndarray]) -> Normalize:
    limit = max(float(np.nanpercentile(np.abs(array), 99.8)) for array in arrays if array.size)
    return Normalize(-max(limit, 1e-12), max(limit, 1e-12))


def _snapshots(coarse: xr.DataArray, time: np.datetime64 | np.ndarray) -> list[Panel]:
    """The coarse fields (lat_coarse, lon_coarse) at, or else just before and after `time`, with titles."""
    times = coarse["time_coarse"].values
    nearest = [*times[times <= time][-1:], *times[times >= time][:1]]
    hours = [(t - time) / np.timedelta64(1, "h") for t in nearest]
    said = [f"coarse input, {abs(h):.3g} h {'earlier' if h < 0 else 'later'}" if h else "coarse input" for h in hours]
    found = dict(zip(said, nearest, strict=True))
    return [(title, coarse.sel(time_coarse=t)) for title, t in found.items()]
