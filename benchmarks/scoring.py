"""What scoring costs: `python -m benchmarks.scoring [--quick] [--json]`.

Each row runs in a process of its own, so that its peak of resident memory is its own; the seconds are without imports
and without making the data, and on a busy machine more than those of its processors.

- scores: 250 members x 147 456 cells (96 hours x 32 x 48) in memory: fair CRPS, energy score, mean, variance, coverage,
  RMSE, spread over skill of every cell and hour.
- summary: the same ensemble through everything the report computes (calibration, structure, tails, baselines).
- zarr: a posterior of 4 GB on disk (250 members x 2 616 hours x 32 x 48) through everything the report computes.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import xarray as xr

import bayesdownscale as bd
from bayesdownscale.diagnostics.layout import add_truth
from bayesdownscale.diagnostics.scores import cell_scores, covered, domain_mean
from bayesdownscale.diagnostics.summary import summarise
from bayesdownscale.memory import return_freed_memory
from bayesdownscale.posterior.result import CHUNK

LAT, LON = 58.0 - 0.25 * np.arange(32), -10.0 + 0.25 * np.arange(48)
KEEP = 0.9  # of a cell's value from one hour to the next


def axes(hours: int) -> dict[str, np.ndarray]:
    return {
        "time": np.datetime64("2019-03-25", "ns") + np.arange(hours) * np.timedelta64(1, "h"),
        "lat": LAT,
        "lon": LON,
    }


def weather(seed: int, hours: int, members: int) -> np.ndarray:
    """Noise with memory from hour to hour (members, time, lat, lon) [K]."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((members, hours, LAT.size, LON.size), dtype=np.float32)
    for hour in range(1, hours):
        x[:, hour] = KEEP * x[:, hour - 1] + np.float32(np.sqrt(1 - KEEP**2)) * x[:, hour]
    return x + np.float32(280.0)


def tree_of(members: xr.DataArray, hours: int) -> xr.DataTree:
    """A posterior tree with its coarse input every six hours, as a run of `downscale` makes it."""
    coords = axes(hours)
    truth = weather(0, hours, 1)[0]
    blocks = truth[::6].reshape(-1, 4, 8, 6, 8).mean(axis=(2, 4))[:, None]
    dims = ("time_coarse", "variable", "lat_coarse", "lon_coarse")
    observed = xr.Dataset(
        {"coarse": (dims, blocks, {"units": "K"})},
        {
            "time_coarse": coords["time"][::6],
            "variable": ["t2m"],
            "lat_coarse": LAT.reshape(4, 8).mean(1),
            "lon_coarse": LON.reshape(6, 8).mean(1),
        },
    )
    posterior = xr.Dataset({"t2m": members.expand_dims("chain").assign_attrs(units="K")})
    tree = xr.DataTree.from_dict({"/posterior": posterior, "/observed_data": observed})
    return add_truth(tree, xr.DataArray(truth, coords, ("time", "lat", "lon"), "t2m", {"units": "K"}))


def store(path: Path, hours: int, members: int) -> None:
    """An ensemble on Zarr in the chunks that `Posterior.to_datatree` asks for: all draws of a few hours."""
    import dask.array

    few = max(1, CHUNK // (4 * members * LAT.size * LON.size))
    lazy = dask.array.zeros((members, hours, LAT.size, LON.size), chunks=(members, few, -1, -1), dtype="float32")
    dims = ("draw", "time", "lat", "lon")
    xr.Dataset({"t2m": (dims, lazy)}, axes(hours)).to_zarr(path, compute=False, consolidated=False)
    for start in range(0, hours, 20 * few):
        part = weather(start + 1, min(20 * few, hours - start), members)
        region = {"time": slice(start, start + part.shape[1])}
        xr.Dataset({"t2m": (dims, part)}).to_zarr(path, region=region, consolidated=False)


def scores(members: xr.DataArray, truth: xr.DataArray) -> dict[str, float]:
    """Averages over all cells and hours."""
    cells = cell_scores(members, truth)
    error = float(domain_mean((cells["mean"] - truth) ** 2)) ** 0.5
    return {
        "crps": float(domain_mean(cells["crps"])),
        "energy": float(bd.energy_score(members, truth).mean()),
        "coverage": float(domain_mean(covered(cells["low"], cells["high"], 0.9))),
        "spread_skill": float(domain_mean(cells["variance"])) ** 0.5 / error,
    }


def one(what: str, folder: Path, hours: int, members: int) -> dict:
    """One row: seconds, peak memory, and what was found."""
    return_freed_memory()  # as `bayesdownscale report` does
    if what == "zarr":
        fields = xr.open_zarr(folder / "ensemble.zarr", consolidated=False)["t2m"]
    else:
        fields = xr.DataArray(weather(1, hours, members), axes(hours), ("draw", "time", "lat", "lon"))
    tree = tree_of(fields, hours)
    began, busy = time.monotonic(), time.process_time()
    if what == "scores":
        found = scores(fields, tree["truth"].to_dataset()["t2m"])
    else:
        numbers = summarise(tree)["variables"]["t2m"]["scores"]["all"]
        found = {name: numbers[name] for name in ("crps", "energy_score", "coverage_90", "spread_skill")}
    seconds, cpu = time.monotonic() - began, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "what": what,
        "members": members,
        "hours": hours,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_gib": peak,
        **found,
    }


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--quick", is_flag=True, help="A tenth of the hours.")
@click.option("--one", "row", hidden=True, nargs=4, help="One row, for the process that runs it.")
def main(as_json: bool, quick: bool, row: tuple[str, str, str, str] | None) -> None:
    """Seconds and memory of scoring, in memory and from disk."""
    if row:
        print(json.dumps(one(row[0], Path(row[1]), int(row[2]), int(row[3]))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        print("what     members  hours  seconds  of cpu  peak [GiB]   CRPS [K]  coverage")
        for what, hours in (("scores", 96), ("summary", 96), ("zarr", 2616)):
            hours = max(24, hours // 10) if quick else hours
            if what == "zarr":
                store(Path(name) / "ensemble.zarr", hours, 250)
            command = [sys.executable, "-m", "benchmarks.scoring", "--one", what, name, str(hours), "250"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            found = rows[-1]
            hit = found.get("coverage", found.get("coverage_90"))
            numbers = [found[name] for name in ("seconds", "cpu_seconds", "peak_gib", "crps")]
            print(
                f"{what:<8} {found['members']:7d} {found['hours']:6d} {numbers[0]:8.1f} {numbers[1]:7.1f} "
                f"{numbers[2]:11.2f} {numbers[3]:10.3f} {hit:9.3f}",
                flush=True,
            )
    if as_json:
        print(json.dumps({"benchmark": "scoring", "rows": rows}))


if __name__ == "__main__":
    main()
