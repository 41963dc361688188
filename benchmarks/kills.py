"""Kill an ensemble run at random moments, start it again each time, and compare the end with a run left alone.

    python -m benchmarks.kills --json

A Gauss-Markov process on 4 x 4 cells in 64 jobs (8 members, 8 spans). The whole process group gets SIGKILL after a
random number of newly finished jobs and up to 20 ms, so some kills fall into the start, most into
the work, and some into the writing. After each kill: has any finished chunk or marker changed or gone?
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import click
import jax
import jax.numpy as jnp
import numpy as np

import bayesdownscale as bd
from bayesdownscale.ensemble.executors import Processes, Serial
from bayesdownscale.ensemble.problem import CoarseInMemory, Problem
from bayesdownscale.ensemble.run import Ensemble
from bayesdownscale.prior.gaussian import GaussianDenoiser
from bayesdownscale.prior.windows import WindowedDenoiser
from bayesdownscale.recipes import find_recipe, load_recipe

WINDOW, EVERY = 9, 3


def build(hours: int) -> Problem:
    """The problem: data every three hours, windows of nine."""
    grid = bd.Grid(55 - 0.25 * np.arange(4), -3 + 0.25 * np.arange(4))
    t = np.arange(WINDOW)
    in_time = np.exp(-np.abs(t[:, None] - t) / 4)
    field = bd.GaussianField.separable(in_time, bd.matern(grid.distances_km(), 80.0, 1.5), (1, 4, 4))
    times = np.datetime64("2020-01-01", "ns") + np.timedelta64(1, "h") * np.arange(hours)
    coords = bd.Coords(times[:WINDOW], (bd.Variable("t2m", "K", "air_temperature"),), grid)
    standardisation = bd.Standardisation(jnp.zeros((5, 1, 4, 4)).at[0].set(280.0), jnp.asarray([2.0]))
    denoiser = WindowedDenoiser(GaussianDenoiser(field), WINDOW, 4)
    prior = bd.FieldPrior(denoiser, standardisation, bd.NoiseLevels(0.02, 20.0), coords)
    seen = times[::EVERY]
    values = 280 + 2 * np.random.default_rng(0).normal(size=(seen.size, 1, 2, 2)).astype(np.float32)
    coarse = bd.Fields(values.astype(np.float32), bd.Coords(seen, coords.variables, grid.coarsen(2)), "synthetic")
    model = load_recipe(find_recipe("models", "area_mean")).model
    return Problem(prior, CoarseInMemory(coarse), model, {"sigma": 0.3})


def ensemble(out: Path, members: int, spans: int) -> Ensemble:
    return Ensemble(partial(build, 24 * spans), out, members=members, span=np.timedelta64(24, "h"), steps=8)


def state(out: Path) -> dict[str, str]:
    """Checksums of all chunks and markers that are there."""
    files = [*out.glob("t2m/c/**/0"), *out.with_name(f"{out.name}.jobs").glob("0*.json")]
    return {str(p.relative_to(out.parent)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.is_file()}


def left_over(out: Path) -> list[str]:
    """Files that are neither chunk, label, marker nor lock."""
    names = (str(p.relative_to(out.parent)) for p in out.parent.rglob("*") if p.is_file())
    return [n for n in names if "partial" in n or any(part.startswith(".") for part in Path(n).parts)]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--kills", default=20, show_default=True)
@click.option("--members", default=8, show_default=True)
@click.option("--spans", default=8, show_default=True)
@click.option("--workers", default=1, show_default=True, help="Worker processes; 1: none.")
@click.option("--seed", default=0, show_default=True, help="Of the moments of the kills.")
@click.option("--run", "out", type=click.Path(path_type=Path), hidden=True)
def main(as_json: bool, kills: int, members: int, spans: int, workers: int, seed: int, out: Path | None) -> None:
    """Kill, resume, compare."""
    if out is not None:
        ensemble(out, members, spans).run(Serial() if workers == 1 else Processes(workers))
        return
    rng = np.random.default_rng(seed)
    sizes = ["--members", str(members), "--spans", str(spans), "--workers", str(workers)]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "xla"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        places = [Path(folder) / name / "ens.zarr" for name in ("whole", "killed")]
        for place in places:
            place.parent.mkdir()
        command = lambda place: [sys.executable, "-m", "benchmarks.kills", "--run", str(place), *sizes]
        subprocess.run(command(places[0]), env=environment, check=True)
        whole, lost, done, dirty = state(places[0]), [], [], 0
        out = places[1]
        for k in range(kills):
            before = state(out)
            markers = lambda out=out: len(list(out.with_name(f"{out.name}.jobs").glob("0*.json")))
            begun, goal = markers(), int(rng.integers(0, 4))
            process = subprocess.Popen(command(out), env=environment, start_new_session=True)
            while process.poll() is None and markers() < begun + goal:
                time.sleep(0.002)
            time.sleep(float(rng.uniform(0, 0.02)) if goal else float(rng.uniform(0, 8)))
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
            after = state(out)
            marked = {name for name in before if name.endswith(".json")}
            chunk = lambda name: str(Path("ens.zarr/t2m/c") / "/".join(
                str(int(part)) for part in Path(name).stem.split("-")) / "0/0")  # fmt: skip
            kept = marked | {chunk(name) for name in marked}
            lost += [name for name in kept if after.get(name) != before[name]]
            dirty += bool(left_over(out))
            done.append(markers())
            half = len(left_over(out))
            print(f"kill {k + 1:2d}: {begun:2d} -> {done[-1]:2d} jobs done; {half} half files", flush=True)
        subprocess.run(command(out), env=environment, check=True)
        end = state(out)
        result = {
            "benchmark": "kills",
            "jobs": members * spans,
            "kills": kills,
            "workers": workers,
            "jobs_done_at_kills": done,
            "kills_that_left_half_files": dirty,
            "finished_and_lost": len(lost),
            "bit_identical": end == whole,
            "left_over": left_over(out),
            "files": len(end),
            "device": jax.devices()[0].device_kind,
        }
    print(
        f"{len(lost)} finished files lost; end {'bit-identical' if end == whole else 'DIFFERENT'}; "
        f"{len(result['left_over'])} temporary files left"
    )
    if as_json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
