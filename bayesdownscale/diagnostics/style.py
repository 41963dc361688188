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

from bayesdownscale.data.edges import edges_from_centres
from bayesdownscale.diagnostics.coastlines import coastlines_in

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


def map_edges(field: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Cell edges along longitude and latitude [degrees] of a field (..., lat, lon), coarse or fine."""
    lat, lon = (str(dim) for dim in field.dims[-2:])
    return tuple(  # type: ignore[return-value]
        edges_from_centres(field[dim].values) if field.sizes[dim] > 1 else field[dim].values + np.array([-90.0, 90.0])
        for dim in (lon, lat)
    )


def draw_map(
    axes: Axes, field: xr.DataArray, like: xr.DataArray, norm: Normalize, colours: str, title: str
) -> QuadMesh:
    """A field (lat, lon), one colour a cell, within the domain of `like` (..., lat, lon), with coastlines.

    Plate carrée, stretched so that distances at the mean latitude are right in both directions.
    """
    lon_edges, lat_edges = map_edges(like)
    west, east, south, north = lon_edges.min(), lon_edges.max(), lat_edges.min(), lat_edges.max()
    own_lon, own_lat = map_edges(field)
    own_lon = own_lon + 360.0 * np.round(((west + east) / 2 - own_lon.mean()) / 360.0)
    axes.set_facecolor(MISSING)
    mesh = axes.pcolormesh(
        own_lon, own_lat, np.ma.masked_invalid(field.values), norm=norm, cmap=colours, rasterized=True
    )
    coast = coastlines_in(west, east, south, north)
    for colour, width in (("white", 1.8), ("black", 0.8)):
        axes.add_collection(LineCollection(coast, colors=colour, linewidths=width), autolim=False)
    axes.set_xlim(west, east)
    axes.set_ylim(south, north)
    axes.set_aspect(1.0 / np.cos(np.deg2rad(np.clip((south + north) / 2, -85.0, 85.0))))
    for axis, letters in ((axes.xaxis, "EW"), (axes.yaxis, "NS")):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _, letters=letters: degrees(value, letters)))
    axes.tick_params(labelsize=SMALL - 1, length=2.5)
    axes.set_title(title, fontsize=SMALL)
    return mesh
