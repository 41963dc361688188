"""Figures over time; each returns a matplotlib Figure. Maps are in `maps.py`."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayesdownscale.diagnostics.frame import pole_of, true_place, turned
from bayesdownscale.diagnostics.scores import ensemble_mean, rmse, spread, variance
from bayesdownscale.diagnostics.style import (
    BASELINE,
    NORMAL,
    OBSERVED,
    POSTERIOR,
    TRUTH,
    date_axis,
    label_of,
    legend,
    name_of,
    new_figure,
    place,
    tidy,
    units_of,
)

HOURS_SHOWN = 240  # of a long run
SPACE = ["lat", "lon"]


def widest_point(ensemble: xr.DataArray, border: int = 4) -> tuple[float, float]:
    """Latitude and longitude of the cell with the largest posterior variance, averaged over time, at least
    `border` cells from the edge (fewer in a small domain)."""
    field = variance(ensemble).mean("time") if ensemble.sizes["draw"] > 1 else ensemble.isel(draw=0).var("time")
    margins = {dim: min(border, (field.sizes[dim] - 1) // 2) for dim in SPACE}
    inner = field.isel({dim: slice(m, field.sizes[dim] - m) for dim, m in margins.items()}).transpose(*SPACE)
    row, column = np.unravel_index(int(np.argmax(inner.values)), inner.shape)
    return float(inner["lat"][row]), float(inner["lon"][column])


def time_series(
    ensemble: xr.DataArray,
    point: tuple[float, float] | None = None,
    truth: xr.DataArray | None = None,
    coarse: xr.DataArray | None = None,
) -> Figure:
    """One cell over time: draws, 50 and 90 % bands, truth, and what was observed around it.

    **Arguments:** `ensemble` (draw, time, lat, lon); `point`, latitude and longitude [degrees] of which the
    nearest cell is drawn (default `widest_point`); `truth` (time, lat, lon); `coarse` (time_coarse,
    lat_coarse, lon_coarse). Of a run longer than ten days, the middle ten are drawn.
    """
    lat, lon = widest_point(ensemble) if point is None else point
    here = ensemble.sel(lat=lat, lon=lon, method="nearest").transpose("draw", "time")
    hours = (here["time"].values - here["time"].values[0]) / np.timedelta64(1, "h")
    here = here.isel(time=np.abs(hours - hours[-1] / 2) <= HOURS_SHOWN / 2)
    times, n_draws = here["time"].values, here.sizes["draw"]
    figure = new_figure(9.0, 4.0)
    axes: Axes = figure.subplots()
    for level, alpha in ((0.9, 0.18), (0.5, 0.32)) if n_draws > 1 else ():
        low, high = np.quantile(here.values, [(1 - level) / 2, (1 + level) / 2], axis=0, method="weibull")
        label = f"{100 * level:.0f} % band"
        axes.fill_between(times, low, high, color=POSTERIOR, alpha=alpha, linewidth=0, label=label)
    for k, draw in enumerate(here.values[:20]):
        label = (f"{min(20, n_draws)} of {n_draws} draws" if n_draws > 1 else "the draw") if k == 0 else None
        axes.plot(times, draw, color=POSTERIOR, linewidth=0.5, alpha=0.5 if n_draws > 1 else 1.0, label=label)
    if truth is not None:
        line = truth.sel(lat=lat, lon=lon, method="nearest").sel(time=times)
        axes.plot(times, line, color=TRUTH, linewidth=1.5, label="truth")
    if coarse is not None:
        at = turned(here["lat"].values, here["lon"].values, pole_of(ensemble), pole_of(coarse))
        cell = _cell_around(coarse, *(float(each) for each in at))
        seen = cell.isel(
            time_coarse=(cell["time_coarse"].values >= times[0]) & (cell["time_coarse"].values <= times[-1])
        )
        dots = {
            "markersize": 5.5,
            "markerfacecolor": OBSERVED,
            "markeredgecolor": "black",
            "markeredgewidth": 0.7,
        }
        label = "input: mean of the coarse cell around the point"
        axes.plot(seen["time_coarse"].values, seen.values, "o", zorder=5, label=label, clip_on=False, **dots)
    axes.set_ylabel(label_of(ensemble))
    date_axis(axes, times)
    tidy(axes)
    _title(figure, f"{name_of(ensemble)} at {place(*true_place(ensemble, float(here['lat']), float(here['lon'])))}")
    legend(axes, columns=5)
    return figure


def spread_and_error(
    ensemble: xr.DataArray,
    truth: xr.DataArray | None = None,
    baseline: xr.DataArray | None = None,
    observed: xr.DataArray | None = None,
) -> Figure:
    """Spread of the draws and errors at each time. A calibrated posterior has spread and error of one size.

    **Arguments:** `ensemble` (draw, time, lat, lon); `truth` and `baseline` (time, lat, lon); `observed`
    (time,) bool. Spread includes the factor (M + 1) / M under the root (Fortin et al. 2014).
    """
    times = ensemble["time"].values
    figure = new_figure(9.0, 3.6)
    axes: Axes = figure.subplots()
    _lines(axes, times, spread(ensemble, SPACE), _errors(ensemble, truth, baseline), marker="")
    if observed is not None:
        at = times[observed.values]
        dots = {
            "markersize": 5,
            "markerfacecolor": OBSERVED,
            "markeredgecolor": "black",
            "markeredgewidth": 0.6,
        }
        axes.plot(at, np.zeros(at.size), "o", clip_on=False, zorder=5, label="hours with input", **dots)
    axes.set_ylabel(f"root mean square{_in_units(ensemble)}")
    date_axis(axes, times)
    _from_zero(axes)
    tidy(axes)
    _title(figure, f"{name_of(ensemble)}: spread and error over the domain")
    legend(axes, columns=4)
    return figure


def between_snapshots(
    ensemble: xr.DataArray,
    observed: xr.DataArray,
    truth: xr.DataArray | None = None,
    baseline: xr.DataArray | None = None,
) -> Figure:
    """Spread and errors by hours since the last snapshot: what happens where nothing was observed.

    **Arguments:** as for `spread_and_error`. Times before the first and after the last snapshot are left out.
    """
    hours = hours_since_observed(observed)
    groups = np.unique(hours[np.isfinite(hours)])

    def pooled(line: xr.DataArray) -> np.ndarray:
        squared = [line.values[hours == group] ** 2 for group in groups]
        return np.array([np.sqrt(s[np.isfinite(s)].mean()) if np.isfinite(s).any() else np.nan for s in squared])

    figure = new_figure(5.6, 3.9)
    axes: Axes = figure.subplots()
    errors = {name: (pooled(line), look) for name, (line, look) in _errors(ensemble, truth, baseline).items()}
    _lines(axes, groups, pooled(spread(ensemble, SPACE)), errors, marker="o")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=bool(np.all(groups == np.round(groups)))))
    axes.set(
        xlabel="hours since the last input (0: an hour with input)",
        ylabel=f"root mean square{_in_units(ensemble)}",
    )
    _from_zero(axes)
    tidy(axes)
    legend(axes, columns=1)
    return figure


def hours_since_observed(observed: xr.DataArray) -> np.ndarray:
    """Hours (time,) since the last time with a snapshot, NaN before the first and after the last one."""
    hours = (observed["time"].values - observed["time"].values[0]) / np.timedelta64(1, "h")
    seen = hours[observed.values]
    last = np.searchsorted(seen, hours, side="right") - 1
    inside = (hours >= seen[0]) & (hours <= seen[-1])
    return np.where(inside, np.round(hours - seen[np.maximum(last, 0)], 3), np.nan)


def _errors(ensemble: xr.DataArray, truth: xr.DataArray | None, baseline: xr.DataArray | None) -> dict:
    """Root mean square errors (time,) by name, with how to draw them."""
    if truth is None:
        return {}
    out = {"error of the mean": (rmse(ensemble_mean(ensemble), truth, SPACE), {"color": TRUTH, "linestyle": "-"})}
    if baseline is not None:
        out["error of interpolation"] = (rmse(baseline, truth, SPACE), {"color": BASELINE, "linestyle": ":"})
    return out


def _lines(axes: Axes, x: np.ndarray, spread_line, errors: dict, marker: str) -> None:
    axes.plot(x, spread_line, color=POSTERIOR, linestyle="--", marker=marker, ms=4, lw=1.4, label="posterior spread")
    for name, (line, look) in errors.items():
        axes.plot(x, line, marker=marker, markersize=4, linewidth=1.4, label=name, **look)


def _from_zero(axes: Axes) -> None:
    axes.set_ylim(0.0, max(axes.get_ylim()[1], 1e-12))


def _in_units(field: xr.DataArray) -> str:
    units = units_of(field)
    return f" [{units}]" if units else ""


def _title(figure: Figure, text: str) -> None:
    figure.suptitle(text, fontsize=NORMAL + 1.5, x=0.01, ha="left")


def _cell_around(coarse: xr.DataArray, lat: float, lon: float) -> xr.DataArray:
    """The coarse cell (time_coarse,) whose centre is nearest; longitudes in any convention."""
    turned = np.abs((coarse["lon_coarse"].values - lon + 180.0) % 360.0 - 180.0)
    row = int(np.abs(coarse["lat_coarse"].values - lat).argmin())
    return coarse.isel(lat_coarse=row, lon_coarse=int(turned.argmin()))
