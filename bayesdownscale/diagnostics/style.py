"""How figures look: colours, units, axes of maps. Object-oriented matplotlib, no global state."""

import io
import re

import matplotlib.dates as mdates
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bayesdownscale.diagnostics.frame import (
    POINTS,
    coast_of,
    corners,
    crossings,
    map_edges,
    meridian,
    parallel,
    pole_of,
    true_box,
)

# Okabe & Ito 2008: told apart with every kind of colour vision; line styles and markers differ as well.
POSTERIOR, TRUTH, BASELINE, OBSERVED = "#0072B2", "#000000", "#D55E00", "#E69F00"
VALUES, SPREAD, SIGNED = "viridis", "magma", "RdBu_r"
MISSING = "0.8"
SMALL, NORMAL = 8.0, 9.5
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` by `height` inches that lays itself out."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def units_of(field: xr.DataArray) -> str:
    """The units of a field as they are read: m s⁻¹, °C; "1" and none at all are empty."""
    units = str(field.attrs.get("units", "")).replace("degC", "°C")
    return re.sub(r"(?<=[A-Za-z])\^?(-?\d+)\b", lambda m: m[1].translate(SUPERSCRIPT), "" if units == "1" else units)


def name_of(field: xr.DataArray) -> str:
    """What a field is called: its long name, else its name."""
    return str(field.attrs.get("long_name") or field.name or "value")


def label_of(field: xr.DataArray, what: str = "") -> str:
    """An axis label with units: `2 metre temperature, standard deviation [K]`."""
    units = units_of(field)
    return ", ".join(filter(None, (name_of(field), what))) + (f" [{units}]" if units else "")


def utc(time: np.datetime64) -> str:
    """A time in words: 25 March 2019 03:00 UTC."""
    at = np.datetime64(time, "m").item()
    return f"{at.day} {at:%B %Y %H:%M} UTC"


def period(times: np.ndarray) -> str:
    """The days of `times` in words: 25 to 29 March 2019."""
    first, last = (np.datetime64(t, "m").item() for t in (times[0], times[-1]))
    start, end = (f"{t.day} {t:%B %Y}" for t in (first, last))
    if start == end:
        return end
    shared = 2 if (first.year, first.month) == (last.year, last.month) else 1 if first.year == last.year else 0
    return f"{' '.join(start.split()[: 3 - shared])} to {end}"


def degrees(value: float, letters: str) -> str:
    """A coordinate in words, `letters` being "EW" or "NS": 5.5°W."""
    value = (value + 180.0) % 360.0 - 180.0 if letters == "EW" else value
    letter = "" if abs(value) < 1e-9 or (abs(value) == 180.0 and letters == "EW") else letters[int(value < 0)]
    return f"{abs(value):.5g}°{letter}"


def place(lat: float, lon: float) -> str:
    """A point in words: 52.5°N 1.25°W."""
    return f"{degrees(lat, 'NS')} {degrees(lon, 'EW')}"


def tidy(axes: Axes) -> None:
    """A plain frame with a light grid."""
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_fontsize(NORMAL)


def date_axis(axes: Axes, times: np.ndarray) -> None:
    """Dates along x, said to be UTC."""
    locator = mdates.AutoDateLocator(maxticks=10)
    formats = ["%Y", "%b %Y", "%d %b", "%H:%M", "%H:%M", "%H:%M"]
    zeros = ["", "%Y", "%d %b", "%d %b", "%H:%M", "%H:%M"]
    formatter = mdates.ConciseDateFormatter(locator, formats=formats, zero_formats=zeros, show_offset=False)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(formatter)
    axes.set_xlabel(f"time (UTC), {period(times)}")
    if times.size > 1:
        axes.set_xlim(times[0], times[-1])


def legend(axes: Axes, columns: int = 2) -> None:
    """A legend above the axes, where it hides no data."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.01),
        ncols=columns,
        fontsize=SMALL,
        frameon=False,
        borderaxespad=0.0,
    )


def _graticule(axes: Axes, like: xr.DataArray, frame: tuple[float, float, float, float]) -> None:
    """True meridians and parallels, labelled where they meet the lower and the left side of a map on a rotated pole."""
    pole = pole_of(like)
    assert pole is not None
    west, east, south, north = frame
    low, high, first, last = true_box(like)
    x, y = np.linspace(west, east, POINTS), np.linspace(south, north, POINTS)
    below = pole.to_geographic(np.full(POINTS, south), x)[1]
    beside = pole.to_geographic(y, np.full(POINTS, west))[0]
    lines = []
    lats, lons = (low, high), (first, last)
    for axis, span, line, between, at, values, letters in (
        (axes.xaxis, lons, meridian, lats, x, below, "EW"),
        (axes.yaxis, lats, parallel, lons, y, beside, "NS"),
    ):
        levels = [v for v in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(*span) if span[0] <= v <= span[1]]
        lines += [line(like, level, between) for level in levels]
        ticks = [(place, degrees(level, letters)) for level in levels for place in crossings(at, values, level)]
        axis.set_ticks([place for place, _ in ticks], [text for _, text in ticks])
    axes.add_collection(LineCollection(lines, colors="0.25", linewidths=0.4, linestyles=":"), autolim=False)


def draw_map(
    axes: Axes, field: xr.DataArray, like: xr.DataArray, norm: Normalize, colours: str, title: str
) -> QuadMesh:
    """A field (lat, lon), one colour a cell, within the domain of `like` (..., lat, lon), with coastlines.

    Plate carrée, stretched so that distances at the mean latitude are right in both directions; of a field on a rotated
    pole in its own latitudes and longitudes, with lines of the true ones.
    """
    lon_edges, lat_edges = map_edges(like)
    west, east, south, north = lon_edges.min(), lon_edges.max(), lat_edges.min(), lat_edges.max()
    axes.set_facecolor(MISSING)
    own_lon, own_lat = corners(field, like)
    mesh = axes.pcolormesh(
        own_lon, own_lat, np.ma.masked_invalid(field.values), norm=norm, cmap=colours, rasterized=True
    )
    coast = coast_of(like)
    for colour, width in (("white", 1.8), ("black", 0.8)):
        axes.add_collection(LineCollection(coast, colors=colour, linewidths=width), autolim=False)
    axes.set_xlim(west, east)
    axes.set_ylim(south, north)
    axes.set_aspect(1.0 / np.cos(np.deg2rad(np.clip((south + north) / 2, -85.0, 85.0))))
    if pole_of(like) is None:
        for axis, letters in ((axes.xaxis, "EW"), (axes.yaxis, "NS")):
            axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
            axis.set_major_formatter(FuncFormatter(lambda value, _, letters=letters: degrees(value, letters)))
    else:
        _graticule(axes, like, (west, east, south, north))
    axes.tick_params(labelsize=SMALL - 1, length=2.5)
    axes.set_title(title, fontsize=SMALL)
    return mesh
