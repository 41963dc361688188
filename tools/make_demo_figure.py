"""Draw docs/demo.png from the folder that `bayesdownscale demo` wrote.

bayesdownscale demo --out demo && python tools/make_demo_figure.py demo docs/demo.png
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from bayesdownscale.data.twin.planet import GRID, PLANET, geography

HOUR = 3  # half-way between two coarse times
EVERY = 3  # arrows
KELVIN = 273.15
COAST = "#222222"


def wind(axes, lon, lat, u, v, every=1):
    some = slice(every // 2, None, every)
    arrows = axes.quiver(
        lon[some], lat[some], u[some, some], v[some, some],
        color="white", scale=75, width=0.008, headwidth=3.5, edgecolor="black", linewidth=0.4,
    )  # fmt: skip
    return arrows


def main(folder: Path, out: Path) -> None:
    tree = xr.open_datatree(folder / "posterior.zarr", engine="zarr", consolidated=False)
    members = tree["posterior"].to_dataset().isel(chain=0, time=HOUR).load()
    truth = xr.open_dataset(folder / "truth.nc").isel(time=HOUR).load()
    coarse = xr.open_dataset(folder / "coarse.nc").isel(time=0).load()
    land, _ = geography(PLANET, *PLANET.metres(GRID.lat, GRID.lon))
    columns = {
        "truth": truth,
        f"input, 4 x 4 blocks,\n{HOUR} h earlier": coarse,
        "member 1": members.isel(draw=0),
        "member 2": members.isel(draw=1),
        "posterior mean": members.mean("draw"),
        "posterior spread": members.std("draw", ddof=1),
    }
    figure, panels = plt.subplots(2, 6, figsize=(16, 4.3), sharex=True, sharey=True, layout="constrained")
    tas_range = np.percentile(truth["tas"] - KELVIN, [1, 99])
    speed_of = lambda ds: np.hypot(ds["uas"], ds["vas"])
    top = float(speed_of(truth).max())
    levels = np.arange(960, 1060, 2)
    for j, (title, fields) in enumerate(columns.items()):
        lon, lat = fields["lon"].values, fields["lat"].values
        spread = j == 5
        temperature = fields["tas"] if spread else fields["tas"] - KELVIN
        limits = {"vmin": 0} if spread else {"vmin": tas_range[0], "vmax": tas_range[1]}
        image = panels[0, j].pcolormesh(lon, lat, temperature, cmap="Purples" if spread else "viridis", **limits)
        if spread:
            speed = np.sqrt(fields["uas"] ** 2 + fields["vas"] ** 2)
            below = panels[1, j].pcolormesh(lon, lat, speed, cmap="Purples", vmin=0)
            figure.colorbar(image, ax=panels[0, j], label="sd of temperature [K]")
            figure.colorbar(below, ax=panels[1, j], label="sd of the wind vector [m s$^{-1}$]")
        else:
            lines = panels[0, j].contour(lon, lat, fields["psl"] / 100, levels, colors="white", linewidths=1.0)
            panels[0, j].clabel(lines, fontsize=6, fmt="%d")
            below = panels[1, j].pcolormesh(lon, lat, speed_of(fields), cmap="cividis", vmin=0, vmax=top)
            arrows = wind(
                panels[1, j], lon, lat, fields["uas"].values, fields["vas"].values, 1 if lon.size < 16 else EVERY
            )
            if j == 0:
                panels[1, 0].quiverkey(arrows, 0.72, 1.08, 5, "5 m s$^{-1}$", labelpos="E", color="black")
            if j == 4:
                figure.colorbar(image, ax=panels[0, :5].tolist(), label="2 m temperature [°C]", pad=0.01)
                figure.colorbar(below, ax=panels[1, :5].tolist(), label="10 m wind speed [m s$^{-1}$]", pad=0.01)
        panels[0, j].set_title(title, fontsize=10)
    for axes in panels.ravel():
        axes.contour(GRID.lon, GRID.lat, land, [0.5], colors=COAST, linewidths=1.2)
        axes.set_aspect(1 / np.cos(np.deg2rad(PLANET.lat)))
        axes.set(xlim=GRID.lon_bounds[[0, -1]], ylim=GRID.lat_bounds[[0, -1]])
        axes.set_xticks([-158, -152, -146], ["158°W", "152°W", "146°W"], fontsize=8)
        axes.set_yticks([45, 48, 51], ["45°N", "48°N", "51°N"], fontsize=8)
    panels[0, 0].set_ylabel("temperature, with sea level\npressure every 2 hPa", fontsize=9)
    panels[1, 0].set_ylabel("wind", fontsize=9)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
