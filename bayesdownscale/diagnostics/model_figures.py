"""Figures of the program: its graph, and the posterior of its parameters by ArviZ."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from bayesdownscale.diagnostics.style import new_figure

LOOK = {  # how a site of each kind looks
    "field": {"facecolor": "#56B4E9", "boxstyle": "round,pad=0.45"},
    "parameter": {"facecolor": "white", "boxstyle": "round,pad=0.45"},
    "given": {"facecolor": "white", "boxstyle": "square,pad=0.4", "linestyle": ":"},
    "deterministic": {"facecolor": "white", "boxstyle": "round,pad=0.45", "linestyle": "--"},
    "data": {"facecolor": "0.85", "boxstyle": "square,pad=0.4"},
}
PANELS = 12  # parameters shown


def graph_figure(graph: dict[str, Any]) -> Figure:
    """The sites of a program in rows, parents above children; colour and frame tell the kind."""
    rows: dict[str, int] = {}
    for name, node in graph.items():
        rows[name] = 1 + max((rows[parent] for parent in node["parents"] if parent in rows), default=-1)
    members = [[name for name in graph if rows[name] == row] for row in range(max(rows.values()) + 1)]
    widest = max(len(row) for row in members)
    figure = new_figure(max(3.5, 1.75 * widest), 1.15 * len(members) + 0.2)
    axes: Axes = figure.subplots()
    axes.set(xlim=(-widest / 2, widest / 2), ylim=(-len(members) + 0.5, 0.5))
    axes.axis("off")
    place = {
        name: (column - (len(row) - 1) / 2, -float(depth))
        for depth, row in enumerate(members)
        for column, name in enumerate(row)
    }
    boxes = {}
    for name, (x, y) in place.items():
        node = graph[name]
        look = LOOK.get(node["kind"], LOOK["deterministic"])
        text = f"{name}\n{node['distribution']}"
        boxes[name] = axes.text(x, y, text, ha="center", va="center", fontsize=8, bbox=look | {"edgecolor": "0.2"})
    for name, node in graph.items():
        for parent in node["parents"]:
            arrow = FancyArrowPatch(
                place[parent], place[name], arrowstyle="-|>", mutation_scale=11, color="0.35", shrinkA=21, shrinkB=21,
                zorder=0,
            )  # fmt: skip
            axes.add_patch(arrow)
    return figure


def parameter_figure(small: xr.DataTree, names: list[str]) -> Figure:
    """Posterior densities of the parameters `names` of a digest, one panel an element, at most 12, by ArviZ."""
    import arviz as az

    shown: dict[str, tuple] = {}
    for name in names:
        values = small["posterior"][name].transpose("chain", "draw", ...).values
        values = values.reshape(*values.shape[:2], -1)
        for k in range(values.shape[2]):
            if len(shown) < PANELS and float(np.ptp(values[..., k])) > 0:
                shown[name if values.shape[2] == 1 else f"{name}[{k}]"] = (("chain", "draw"), values[..., k])
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(shown)})
    columns = min(4, len(shown))
    size = (2.6 * columns, 2.2 * -(-len(shown) // columns) + 0.3)
    layout = {"figsize": size, "figsize_units": "inches"}
    plot = az.plot_dist(tree, kind="kde", backend="matplotlib", col_wrap=columns, figure_kwargs=layout)
    figure = plot.get_viz("figure")
    return figure if isinstance(figure, Figure) else figure.item()
