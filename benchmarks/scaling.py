"""What an ensemble costs: against length, grid, members, evaluations, devices and workers, by both guidances; a plan.

    python -m benchmarks.scaling --json --out docs/scaling.png     # all but length and workers
    python -m benchmarks.scaling --only length --only workers      # a year among the lengths: half an hour and more

Each case runs in a process of its own, so that its peak memory is its own. The data are synthetic: cost does not
depend on their values. Times are processor seconds, so that other programs disturb them little; only those of workers
are seconds of the clock. The plan for a century follows from the measured seconds for an evaluation of the guided
denoiser of a window; on a GPU, measure there: `python -m benchmarks.scaling --only grid --only forward --clock`.
Curves are of moment matching, the default guidance; `forward` has the grids by fixed covariances, which take no
product with the network's Jacobian, and the evaluations of their draws.
"""

import json
import os
import subprocess
import sys
from itertools import batched
from pathlib import Path
from typing import Any

import click

from benchmarks.scaling_cases import one
from benchmarks.scaling_plan import century, draw, parts

DAYS = (30, 90, 365)
GRIDS = ((16, 24, 1), (32, 48, 1), (64, 96, 1), (128, 128, 4))
CURVES = ("grid", "forward", "members", "evaluations", "devices", "length", "workers")
SHORT = 5  # of them take minutes
CURVE_OF = {"moment_matching": "grid", "fixed_covariance": "forward"}  # the grids by each guidance
BASE = {"hours": 72, "n_lat": 32, "n_lon": 48, "n_var": 1, "members": 2, "workers": 0, "steps": 2, "span": 72,
        "batch": 8, "devices": 1, "parts": False, "clock": False, "guidance": "moment_matching",
        "precision": "float32"}  # fmt: skip


def apart(case: dict[str, Any]) -> dict[str, Any]:
    """Run a case in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--one", json.dumps(case)]
    environment = dict(os.environ)
    if case["devices"] > 1:
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={case['devices']}"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(done.stderr[-2000:])
    row = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{row['guidance']:16s} {row['hours']:5d} h  {row['n_lat']:3d} x {row['n_lon']:3d} x {row['n_var']}  "
        f"{row['members']} members {row['steps']:2d} evaluations {row['devices']} devices {row['workers']} workers  "
        f"{row['jobs']:4d} jobs, {row['seconds_a_job']:7.2f} s each, the first {row['seconds_first_job']:.1f} s; peak "
        f"{row['peak_gib']:.2f} GiB, workers {row['peak_gib_worker']:.2f} GiB; {row['bytes_stored_a_byte']:.2f} bytes "
        "stored a byte",
        flush=True,
    )
    return row


def curve(name: str, quick: bool, clock: bool, precision: str) -> list[dict[str, Any]]:
    """The rows of one curve by a network in `precision`; those of the grid with seconds of the `clock` if wanted."""
    sizes = ("n_lat", "n_lon", "n_var")
    if name in ("grid", "forward"):
        grids = GRIDS[:2] if quick else GRIDS
        batch = lambda g: 8 if g[0] * g[1] * g[2] < 20_000 else 3  # of six windows; 128 x 128 x 4 takes some GiB
        cases = [dict(zip(sizes, g, strict=True)) | {"parts": True, "clock": clock, "batch": batch(g)} for g in grids]
        if name == "forward":
            cases = [case | {"guidance": "fixed_covariance"} for case in cases]
    elif name == "members":
        cases = [{"members": 2 if quick else 8}]
    elif name == "evaluations":
        cases = [{"steps": s, "guidance": g} for g in CURVE_OF for s in ((2, 4) if quick else (2, 32))]
    elif name == "devices":  # 8 windows, so that 8 devices have one each
        cases = [{"devices": d, "span": 108, "hours": 108} for d in ((1, 2) if quick else (1, 2, 4, 8))]
    elif name == "length":
        days = (15, 30) if quick else DAYS
        cases = [{"hours": 24 * d, "span": 360, "batch": 16} for d in days]
    else:
        cases = [{"hours": 576, "members": 2 if quick else 4, "workers": w, "batch": 16} for w in (1, 2)]
    return [apart(BASE | {"precision": precision} | case) for case in cases]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--quick", is_flag=True, help="Fewer and smaller cases.")
@click.option("--only", multiple=True, type=click.Choice(CURVES), help="Curves (default: all but length and workers).")
@click.option("--clock", is_flag=True, help="Seconds of the clock for the grids, as on a GPU.")
@click.option("--precision", type=click.Choice(["float32", "bf16"]), default="float32", help="Of the network.")
@click.option("--out", type=click.Path(path_type=Path), help="Draw the figure there, a PNG.")
@click.option("--one", "case", hidden=True, help="One case, as JSON.")
def main(
    as_json: bool, quick: bool, only: tuple[str, ...], clock: bool, precision: str, out: Path | None, case: str | None
) -> None:
    """Cost curves of ensembles."""
    if case is not None:
        print(json.dumps(one(json.loads(case))))
        return
    rows = {name: curve(name, quick, clock, precision) for name in (only or CURVES[:SHORT])}
    for row in rows.get("grid", []) + rows.get("forward", []):
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in parts(row).items())
        print(f"{row['n_lat']} x {row['n_lon']} x {row['n_var']}, {row['guidance']}: {shares}; "
              f"{1e6 * row['seconds_a_cell_hour_evaluation']:.1f} us a cell, hour and evaluation")  # fmt: skip
    if "workers" in rows:
        first, second = (row["seconds_a_job"] for row in rows["workers"])
        print(f"throughput of two workers over one: {first / second:.2f}")
    harder, plans = dict.fromkeys(CURVE_OF, 1.0), {}
    for few, many in batched(rows.get("evaluations", []), 2):
        guidance = many["guidance"]
        harder[guidance] = many["seconds_a_window_evaluation"] / few["seconds_a_window_evaluation"]
        print(f"{guidance}: an evaluation of {many['steps']} takes {harder[guidance]:.2f} times one of 2")
    for guidance, name in CURVE_OF.items():
        if name in rows:
            plans[guidance] = century(rows[name][-1], harder[guidance])
            print(f"a century, {guidance}:", json.dumps(plans[guidance]))
    if out is not None:
        draw(rows, out)
    if as_json:
        done = {"benchmark": "scaling", "cores": os.cpu_count(), "rows": rows, "harder": harder, "century": plans}
        print(json.dumps(done))


if __name__ == "__main__":
    main()
