"""What the measured rows of `benchmarks.scaling` mean for a century, and their figure."""

import math
from pathlib import Path
from typing import Any

HOURS, MEMBERS, LEVELS, SPAN = 876_576, 30, 32, 720  # of a century, of the plan, of a draw; hours of a job
COST, WINDOW = 1.46, 25  # windows of 25 hours, a stride of 18 and halos of 18 on spans of 720 hours


def century(row: dict[str, Any], harder: float) -> dict[str, Any]:
    """A plan on paper for a century of hours, 30 members and 32 evaluations on the grid of a measured `row`; an
    evaluation of 32 takes `harder` times what one of two does."""
    evaluation = row["seconds_a_window_evaluation"] * harder
    windows = HOURS * COST / WINDOW
    seconds = evaluation * windows * LEVELS * MEMBERS
    spans = math.ceil(HOURS / SPAN)
    numbers = HOURS * MEMBERS * row["n_lat"] * row["n_lon"] * row["n_var"]
    return {
        "grid": [row["n_lat"], row["n_lon"], row["n_var"]],
        "seconds_a_window_evaluation": evaluation,
        "core_hours": seconds / 3600,
        "days_on_1000_cores": seconds / 86400 / 1000,
        "jobs": MEMBERS * spans,
        "core_hours_a_job": seconds / 3600 / MEMBERS / spans,
        "evaluations_of_windows": windows * LEVELS * MEMBERS,
        "terabytes_uncompressed": 4 * numbers / 1e12,
        "terabytes": 4 * numbers / 1e12 * row["bytes_stored_a_byte"],
        "chunks": MEMBERS * spans * row["n_var"],
        "megabytes_a_chunk": 4e-6 * SPAN * row["n_lat"] * row["n_lon"],
        "peak_gib_measured": row["peak_gib"],
    }


def parts(row: dict[str, Any]) -> dict[str, float]:
    """Shares of a job: the network's own evaluations, writing, and (the rest) guidance, with what products with the
    network's Jacobian it takes."""
    network = row["seconds_a_window_forward"] * row["windows_a_job"] * row["steps"] / row["seconds_a_job"]
    writing = row["seconds_writing_a_job"] / row["seconds_a_job"]
    return {"network": network, "guidance": 1 - network - writing, "writing": writing}


def draw(rows: dict[str, list[dict[str, Any]]], out: Path) -> None:
    """Panels, as rows allow: cost of a number and hour against the grid, processor time against members and devices."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [name for name in ("grid", "members", "devices") if name in rows]
    if not shown:
        return
    size = (1 + 4.4 * len(shown), 4.2)
    figure, places = plt.subplots(1, len(shown), figsize=size, constrained_layout=True, squeeze=False)
    axes = dict(zip(shown, places[0], strict=True))
    if "grid" in rows:
        grid = rows["grid"]
        cells = [r["n_lat"] * r["n_lon"] * r["n_var"] for r in grid]
        whole = [1e6 * r["seconds_a_cell_hour_evaluation"] for r in grid]
        axes["grid"].loglog(cells, whole, "o-", color="black", label="a whole job, moment matching")
        if "forward" in rows:
            forward = [1e6 * r["seconds_a_cell_hour_evaluation"] for r in rows["forward"]]
            axes["grid"].loglog(cells, forward, "o-", color="C3", label="a whole job, fixed covariance")
        colours = {"network": "C0", "guidance": "C1", "writing": "C2"}
        for name, colour in colours.items():
            share = [parts(r)[name] * w for r, w in zip(grid, whole, strict=True)]
            axes["grid"].loglog(cells, share, "s--", color=colour, label=f"{name}, moment matching", markersize=4)
        for r, x, y in zip(grid, cells, whole, strict=True):
            label = f"{r['n_lat']} x {r['n_lon']}" + (f" x {r['n_var']}" if r["n_var"] > 1 else "")
            axes["grid"].annotate(label, (x, y), (0, 7), textcoords="offset points", ha="center", fontsize=8)
        axes["grid"].set(xlabel="numbers in a field (cells x variables)", title="Cost of resolution")
        axes["grid"].set_ylabel("processor time per number, hour\nand evaluation [µs]")
        axes["grid"].margins(x=0.15)
        axes["grid"].set_ylim(7e-4 * max(whole) / 5, 3 * max(whole))
        axes["grid"].legend(fontsize=8, loc="lower left", frameon=False)
    if "members" in rows:
        row = rows["members"][0]
        m = row["cumulative_jobs"]
        axes["members"].loglog(m, row["cumulative_seconds"], "o-", color="black", label="compiling and drawing")
        axes["members"].loglog(
            m, [row["seconds_a_job"] * k for k in m], "s--", color="C0", label="drawing", markersize=4
        )
        axes["members"].set(xlabel="members", ylabel="processor time [s]", title="Cost of members")
        axes["members"].set_xticks(m, [str(k) for k in m], minor=False)
        axes["members"].minorticks_off()
        axes["members"].set_ylim(row["seconds_a_job"] / 3, 3 * row["cumulative_seconds"][-1])
        axes["members"].legend(fontsize=8, loc="lower right", frameon=False)
    if "devices" in rows:
        n = [r["devices"] for r in rows["devices"]]
        first = rows["devices"][0]["seconds_a_job"]
        axes["devices"].semilogx(n, [r["seconds_a_job"] / first for r in rows["devices"]], "o-", color="black", base=2)
        axes["devices"].axhline(1, color="grey", linewidth=0.8)
        axes["devices"].set(xlabel="devices (virtual, of one core)", title="What dividing a job costs", ylim=(0, None))
        axes["devices"].set_ylabel("processor time of all devices,\nover that of one")
        axes["devices"].set_xticks(n, [str(k) for k in n], minor=False)
    for ax in places[0]:
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=150)
    plt.close(figure)
