"""What an ensemble costs: seconds, evaluations and memory against length, grid, members, workers and devices.

    python -m benchmarks.scaling --json           # a year among the lengths: half an hour and more on two cores
    python -m benchmarks.scaling --json --quick   # small everything: some minutes

Each case runs in a process of its own, so that its peak memory is its own. The data are synthetic: cost does not
depend on their values. The plan for a century follows from the measured seconds per network evaluation of a window.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

LENGTHS = (30, 90, 365)  # days
SPAN = 15  # days
TINY_STEPS = 2


def fields(prior, days: int, block: int = 8):
    """Coarse values every six hours for some days: red noise about 281 K."""
    import bayesdownscale as bd

    rng = np.random.default_rng(0)
    grid = prior.grid.coarsen(block)
    n = 4 * days
    times = np.datetime64("2019-01-01", "ns") + np.timedelta64(6, "h") * np.arange(n)
    values = np.empty((n, len(prior.variables), *grid.shape), np.float32)
    state = rng.normal(size=values.shape[1:])
    for t in range(n):
        state = 0.8 * state + 0.6 * rng.normal(size=state.shape)
        values[t] = 281 + 3 * state
    return bd.Fields(values, bd.Coords(times, prior.variables, grid), "synthetic")


def prior_of(n_lat: int, n_lon: int, n_var: int):
    """The shipped prior, or (for another grid) an untrained network of the same make on a Gaussian with 200 modes."""
    import bayesdownscale as bd

    shipped = bd.load_prior()
    if (n_lat, n_lon, n_var) == (*shipped.grid.shape, 1):
        return shipped
    import jax
    import jax.numpy as jnp

    from bayesdownscale.prior.diffusion import DiffusionDenoiser
    from bayesdownscale.prior.gaussian import GaussianField
    from bayesdownscale.prior.network import UNet
    from bayesdownscale.prior.windows import WindowedDenoiser

    assert isinstance(shipped.denoiser, WindowedDenoiser)
    window, inner = shipped.denoiser.window, shipped.denoiser.inner
    assert isinstance(inner, DiffusionDenoiser)
    modes, cells = inner.gaussian.modes.shape[0], n_var * n_lat * n_lon
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(cells, modes)))[0].T
    gaussian = GaussianField(
        jnp.asarray(basis.reshape(modes, n_var, n_lat, n_lon), jnp.float32),
        jnp.broadcast_to(inner.gaussian.bases[:1], (modes, window, window)),
        jnp.broadcast_to(inner.gaussian.variances[:1], (modes, window)),
        jnp.asarray(0.1),
    )
    channels = DiffusionDenoiser.n_channels(gaussian, 7)
    net = UNet(*channels, bd.UNetConfig(inner.net.config.widths), key=jax.random.key(0))
    statics = jnp.zeros((n_lat, n_lon, 7))
    levels = inner.gain_sigma
    denoiser = DiffusionDenoiser(
        gaussian, net, statics, levels, inner.gain, jnp.ones((levels.size, modes + 1)), inner.season
    )
    grid = bd.Grid(60 - 0.25 * np.arange(n_lat), -10 + 0.25 * np.arange(n_lon))
    variables = tuple(bd.Variable(f"v{k}", "K") for k in range(n_var))
    standardisation = bd.Standardisation(jnp.zeros((5, n_var, n_lat, n_lon)).at[0].set(281.0), 3 * jnp.ones(n_var))
    coords = bd.Coords(shipped.times, variables, grid)
    return bd.FieldPrior(WindowedDenoiser(denoiser, window, 12), standardisation, shipped.levels, coords)


def build(days: int, n_lat: int, n_lon: int, n_var: int):
    from bayesdownscale.ensemble.problem import CoarseInMemory, Problem
    from bayesdownscale.recipes import find_recipe, load_recipe

    prior = prior_of(n_lat, n_lon, n_var)
    model = load_recipe(find_recipe("models", "area_mean")).model
    return Problem(prior, CoarseInMemory(fields(prior, days)), model, {"sigma": 0.1})


def one(case: dict[str, Any]) -> dict[str, Any]:
    """Run a case here: draw the ensemble, then draw one job again for the time without compiling."""
    from bayesdownscale.ensemble.executors import Processes, Serial
    from bayesdownscale.ensemble.plan import Job
    from bayesdownscale.ensemble.run import Ensemble, Work

    make = partial(build, case["days"], case["n_lat"], case["n_lon"], case["n_var"])
    span = np.timedelta64(case["span"], "D")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "ens.zarr"
        run = Ensemble(make, out, members=case["members"], span=span, steps=case["steps"], batch=case["batch"])
        workers, marks = case["workers"], [time.monotonic()]
        executor = Processes(workers) if workers else Serial()
        run.run(executor, on_done=lambda done: marks.append(time.monotonic()))
        jobs = run.plan.jobs()
        size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
        if not workers:
            solver = Work(run.build, run.store, run.settings)._solver()
            began = time.monotonic()
            np.asarray(solver([Job(0, 0).member], 0))
            job_seconds = time.monotonic() - began
        else:  # all workers compile first: from their first results on
            rest = marks[1 + workers :]
            job_seconds = (rest[-1] - rest[0]) / max(len(rest) - 1, 1)
    peak = lambda who: resource.getrusage(who).ru_maxrss / 2**20
    plan = run.plan
    windows = (plan.block - plan.window) // plan.stride + 1
    return case | {
        "jobs": len(jobs),
        "seconds": marks[-1] - marks[0],
        "seconds_a_job": job_seconds,
        "windows_a_job": windows,
        "seconds_a_window_level": job_seconds / windows / case["steps"],
        "evaluations_a_member": case["steps"] * plan.spans,
        "peak_gib": peak(resource.RUSAGE_SELF),
        "peak_gib_worker": peak(resource.RUSAGE_CHILDREN),
        "stored_gib": size / 2**30,
        "stride": plan.stride,
        "cost_factor": plan.cost,
    }


def apart(case: dict[str, Any], **environment: str) -> dict[str, Any]:
    """Run a case in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--one", json.dumps(case)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(done.stderr[-2000:])
    row = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{row['days']:5d} d  {row['n_lat']:3d} x {row['n_lon']:3d} x {row['n_var']}  {row['members']} members "
        f"{row['workers']} workers {row['jobs']:4d} jobs {row['seconds']:8.1f} s  {row['seconds_a_job']:7.2f} s a job "
        f"peak {row['peak_gib']:.2f} GiB, workers {row['peak_gib_worker']:.2f} GiB",
        flush=True,
    )
    return row


def century(row: dict[str, Any], devices: int = 8) -> dict[str, Any]:
    """A plan on paper for a century of hours with 30 members and 32 levels, from a measured row of the same grid."""
    steps, hours, members = 32, 876_576, 30
    per_hour = row["seconds_a_window_level"] * row["cost_factor"] / 25
    seconds = per_hour * steps * hours * members
    cells = row["n_lat"] * row["n_lon"] * row["n_var"]
    return {
        "grid": [row["n_lat"], row["n_lon"], row["n_var"]],
        "core_years_like_this": seconds / 86400 / 365.25,
        "days_on_devices_like_this": {n: seconds / 86400 / n for n in (1, devices, 64)},
        "stored_tib_uncompressed": 4.0 * cells * hours * members / 2**40,
        "chunks": members * -(-hours // 720),
    }


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--quick", is_flag=True, help="A few days and two levels.")
@click.option("--only", multiple=True, type=click.Choice(["length", "grid", "members", "workers"]))
@click.option("--one", "case", hidden=True, help="One case, as JSON.")
def main(as_json: bool, quick: bool, only: tuple[str, ...], case: str | None) -> None:
    """Cost curves of ensembles."""
    if case is not None:
        print(json.dumps(one(json.loads(case))))
        return
    base = {"days": 15, "n_lat": 32, "n_lon": 48, "n_var": 1, "members": 1, "workers": 0, "steps": TINY_STEPS,
            "span": SPAN, "batch": 16}  # fmt: skip
    wanted = only or ("length", "grid", "members", "workers")
    lengths = (15, 30) if quick else LENGTHS
    grids = ((16, 24, 1), (32, 48, 1)) if quick else ((16, 24, 1), (32, 48, 1), (64, 96, 1), (64, 64, 4), (128, 128, 4))
    rows: dict[str, list[dict[str, Any]]] = {}
    if "length" in wanted:
        rows["length"] = [apart(base | {"days": d, "members": 2}) for d in lengths]
    if "grid" in wanted:
        short = {"span": 3, "days": 3}
        rows["grid"] = [apart(base | short | dict(zip(("n_lat", "n_lon", "n_var"), g, strict=True))) for g in grids]
    if "members" in wanted:
        rows["members"] = [apart(base | {"members": m}) for m in (1, 2, 4)]
    if "workers" in wanted:
        many = {"days": 24, "span": 3, "members": 2 if quick else 4}
        rows["workers"] = [apart(base | many | {"workers": w}) for w in (1, 2)]
        first, second = (row["seconds_a_job"] for row in rows["workers"])
        print(f"throughput of two workers over one: {first / second:.2f}")
    plan = century(rows["grid"][-1]) if "grid" in rows else None
    if plan is not None:
        years = plan["core_years_like_this"]
        print(f"a century of hours, 30 members, {plan['grid']}: {years:.1f} years on a machine like this")
    if as_json:
        print(json.dumps({"benchmark": "scaling", "cores": os.cpu_count(), "rows": rows, "century": plan}))


if __name__ == "__main__":
    main()
