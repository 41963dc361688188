"""Maps of `benchmarks.iberia`: RACMO, posterior, BCSD and interpolation, and their errors, on the rotated grid."""

from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

import bayesdownscale as bd
from bayesdownscale.diagnostics.coastlines import coastlines_in
from benchmarks.iberia_statistics import RELATIVE

METHODS = ("ours", "BCSD", "interpolation")
TITLES = {"ours": "posterior", "BCSD": "BCSD", "interpolation": "interpolation"}
SHOWN = {
    "wet_frequency": ("Frequency of wet days (≥ 1 mm/d)", "share of days", "cividis", "share of days"),
    "p98": ("98th percentile of daily precipitation", "mm/d", "cividis", "mm/d"),
    "tas_pr": ("Correlation of daily temperature and precipitation", "correlation", "RdBu_r", "correlation"),
    "wet_spell": ("Mean length of wet spells", "d", "cividis", "d"),
}  # fmt: skip
INPUTS = {
    "model": "CNRM-CM5 downscaled, 1995/96 to 2001/02",
    "model in the past": "CNRM-CM5 downscaled, 1982/83 to 1994/95",
    "perfect": "coarsened RACMO downscaled, 1995/96 to 2001/02",
}


def draw_maps(result: dict, fine: bd.Fields, folder: Path) -> list[Path]:
    """One PNG for each statistic and input, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name in result["results"]:
        for statistic in SHOWN:
            path = folder / f"iberia_{name.replace(' ', '_')}_{statistic}.png"
            _figure(result, fine, name, statistic).savefig(path, dpi=130)
            made.append(path)
    return made


def _figure(result: dict, fine: bd.Fields, name: str, statistic: str) -> Figure:
    title, units, colours, error_units = SHOWN[statistic]
    found = {m: result["results"][name][m]["statistics"][statistic] for m in METHODS}
    right = result["truth"][name][statistic]
    values = np.concatenate([right, *found.values()])
    if colours == "RdBu_r":
        limit = float(np.quantile(np.abs(values), 0.99))
        norm = Normalize(-limit, limit)
    else:
        norm = Normalize(*np.quantile(values, [0.005, 0.995]))
    limit = float(np.quantile(np.abs(np.stack(list(found.values())) - right), 0.98))
    figure = Figure(figsize=(11.0, 5.9), layout="constrained")
    grid = figure.subplots(2, 4)
    panels = [("RACMO", right), *((TITLES[m], found[m]) for m in METHODS)]
    for axes, (label, panel) in zip(grid[0], panels, strict=True):
        _map(axes, fine, result["cells"], panel, norm, colours, label)
    grid[1, 0].set_axis_off()
    words = []
    for axes, m in zip(grid[1, 1:], METHODS, strict=True):
        each = found[m] - right
        label = f"{TITLES[m]} − RACMO\nmean {each.mean():+.3f} {error_units}"
        _map(axes, fine, result["cells"], each, Normalize(-limit, limit), "PuOr_r", label)
        mae = result["results"][name][m]["errors"][statistic]["mae"]
        words.append(f"{TITLES[m]} {100 * mae:.0f} %" if statistic in RELATIVE else f"{TITLES[m]} {mae:.2g}")
    floor = result["floor"][statistic]["mae"]
    said = f"{100 * floor:.0f} %" if statistic in RELATIVE else f"{floor:.2g}"
    grid[1, 0].text(
        0.0, 0.6, "Mean absolute error of a cell\n" + "\n".join(words)
        + f"\n\nTwo samples of seven winters of\nRACMO differ by {said}.", fontsize=9, va="center",
    )  # fmt: skip
    for row, (scale, cmap, unit) in enumerate(
        ((norm, colours, units), (Normalize(-limit, limit), "PuOr_r", error_units))
    ):
        bar = figure.colorbar(ScalarMappable(scale, cmap), ax=grid[row], extend="both", shrink=0.9, aspect=22, pad=0.01)
        bar.set_label(unit if row == 0 else f"difference [{unit}]", fontsize=9)
        bar.ax.tick_params(labelsize=8)
    figure.suptitle(f"{title}, winters: {INPUTS[name]}", fontsize=11)
    figure.supxlabel("Plate carrée. Coastlines: Natural Earth. Grey: cells outside the coarse cells used.", fontsize=8)
    return figure


def _map(axes, fine: bd.Fields, cells: np.ndarray, panel: np.ndarray, norm, colours: str, title: str) -> None:
    grid = fine.grid
    edges = np.meshgrid(grid.lat_bounds, grid.lon_bounds, indexing="ij")
    lat, lon = edges if grid.pole is None else grid.pole.to_geographic(*edges)
    whole = np.full(cells.shape, np.nan)
    whole[cells] = panel
    axes.set_facecolor("0.85")
    shown = np.ma.masked_invalid(whole.reshape(grid.shape))
    axes.pcolormesh(lon, lat, shown, norm=norm, cmap=colours, rasterized=True)
    inner = np.pad(cells.reshape(grid.shape), 1)[:-1, :-1], np.pad(cells.reshape(grid.shape), 1)[1:, 1:]
    near = inner[0] | inner[1]  # corners of the cells shown
    west, east, south, north = lon[near].min(), lon[near].max(), lat[near].min(), lat[near].max()
    coast = coastlines_in(west, east, south, north)
    for colour, width in (("white", 1.8), ("black", 0.8)):
        axes.add_collection(LineCollection(coast, colors=colour, linewidths=width), autolim=False)
    axes.set_xlim(west, east)
    axes.set_ylim(south, north)
    axes.set_aspect(1.0 / np.cos(np.deg2rad((south + north) / 2)))
    axes.set_xticks([-10, -5, 0, 5], ["10°W", "5°W", "0°", "5°E"])
    axes.set_yticks([36, 40, 44], ["36°N", "40°N", "44°N"])
    axes.tick_params(labelsize=7, length=2.5)
    axes.set_title(title, fontsize=9)
