"""Noise and bias inferred with the weather: `python -m benchmarks.era5_joint [--quick] [--json] [--replicates 100]`.

Truths of 25 hours x 32 x 48 cells are drawn from the shipped prior of ERA5 2 m temperature, noise scale, bias and its
amplitude from the priors of models/additive_bias.py (length 500 km), and the coarse data from that program: 8 x 8 cells
every 6 hours. Field and parameters are drawn jointly by 4 sweeps of Gibbs (field by guidance with 32 evaluations, the
bias integrated out; parameters by NUTS), 3 times each, and the truth is ranked among them (simulation-based
calibration; Talts et al. 2018, arXiv 1804.06788). D is the Kolmogorov-Smirnov distance of the ranks from uniform; its
5 % point for 100 replicates is 0.134. The forward-only guidance takes a fourth of the time, but its covariance is that
of the network's errors on weather, not of its own draws: misfits come out 2 % too large, and Gibbs adds that up.
"""

import json
import time

import click
import jax

import bayesdownscale as bd
from bayesdownscale.ensemble.guide import GUIDANCE
from bayesdownscale.posterior.guided import guided_sampler
from bayesdownscale.recipes import find_recipe, load_recipe
from benchmarks.sbc import as_rows, functionals

COLLAPSED = ("offset", "whitened")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--quick", is_flag=True, help="4 replicates, 2 sweeps of 8 evaluations.")
@click.option("--replicates", "n", default=100, show_default=True)
@click.option("--draws", default=3, show_default=True, help="Posterior draws a replicate.")
@click.option("--guidance", type=click.Choice(list(GUIDANCE)), default="moment_matching", show_default=True)
def main(as_json: bool, quick: bool, n: int, draws: int, guidance: str) -> None:
    """Ranks of the true noise scale, bias and field among joint posterior draws on the shipped prior."""
    model = load_recipe(find_recipe("models", "additive_bias")).model
    prior = bd.load_prior()
    grid, times = prior.grid.coarsen(8), prior.times[::6]
    H = bd.area_mean(prior.grid, grid) @ bd.snapshots(prior.times, times)
    extra = {"coords": bd.Coords(times, prior.variables, grid), "length_km": 500.0}
    steps, sweeps, n = (8, 2, 4) if quick else (32, 4, n)
    settings = {"guidance": GUIDANCE[guidance], "steps": steps, "sweeps": sweeps, "collapse": COLLAPSED}
    began = time.monotonic()
    tell = lambda done: print(f"{done:4d} of {n} replicates, {time.monotonic() - began:6.0f} s", flush=True)
    result = bd.sbc(
        jax.random.key(0), model, guided_sampler, prior, H, **extra,
        replicates=n, draws=draws, settings=settings, functionals=functionals, batch=2, on_batch=tell,
    )  # fmt: skip
    rows = as_rows(bd.uniformity(result))
    print("quantity            D       p   mean  outer")
    for row in rows:
        print(f"{row['quantity']:<16} {row['D']:.3f} {row['p']:7.3f} {row['mean']:6.2f} {row['outer']:6.2f}")
    if as_json:
        what = {"benchmark": "era5_joint", "replicates": n, "draws": draws, "sweeps": sweeps, "guidance": guidance}
        print(json.dumps({**what, "rows": rows}))


if __name__ == "__main__":
    main()
