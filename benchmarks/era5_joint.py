"""Noise and bias inferred with the weather: `python -m benchmarks.era5_joint [--quick] [--json] [--replicates 100]`.

Truths of 25 hours x 32 x 48 cells are drawn from the shipped prior of ERA5 2 m temperature, noise scale, bias and its
amplitude from the priors of models/additive_bias.py (length 500 km), and the coarse data from that program: 8 x 8 cells
every 6 hours. Field and parameters are drawn jointly by 4 sweeps of Gibbs (field by the forward-only guidance with 32
evaluations, the bias integrated out; parameters by NUTS), 7 times each, and the truth is ranked among them
(simulation-based calibration; Talts et al. 2018, arXiv 1804.06788). D is the Kolmogorov-Smirnov distance of the ranks
from uniform; its 5 % point for 100 replicates is 0.134.
"""

import json
import time

import click
import jax
import numpy as np
from numpyro import handlers

import bayesdownscale as bd
from bayesdownscale.posterior.guided import guided_sampler
from bayesdownscale.recipes import find_recipe, load_recipe
from benchmarks.sbc import replicates, uniformity

DRAWS = 7


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--quick", is_flag=True, help="4 replicates, 2 sweeps of 8 evaluations.")
@click.option("--replicates", "n", default=100, show_default=True)
def main(as_json: bool, quick: bool, n: int) -> None:
    """Ranks of the true noise scale, bias and field among joint posterior draws on the shipped prior."""
    model = load_recipe(find_recipe("models", "additive_bias")).model
    prior = bd.load_prior()
    grid, times = prior.grid.coarsen(8), prior.times[::6]
    H = bd.area_mean(prior.grid, grid) @ bd.snapshots(prior.times, times)
    extra = {"coords": bd.Coords(times, prior.variables, grid), "length_km": 500.0}
    with handlers.seed(rng_seed=0), handlers.trace() as trace:
        model(prior, H, **extra)
    program, _ = bd.read_model(model, (prior, H), {**extra, "y": trace["coarse"]["value"]})
    steps, sweeps, n = (8, 2, 4) if quick else (32, 4, n)
    settings = {"guidance": bd.FixedCovariance, "steps": steps, "sweeps": sweeps, "collapse": ("offset", "whitened")}
    static = tuple(sorted(settings.items()))
    began, ranks = time.monotonic(), []
    for start in range(0, n, 4):  # in parts, so that it can be watched
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), start), 4)
        arguments = (model, (prior, H), extra)
        part = replicates(guided_sampler, static, program.abstract(), prior, arguments, {}, DRAWS, 2, keys)
        ranks.append({name: np.asarray(rank) for name, rank in part.items()})
        print(f"{start + 4:4d} of {n} replicates, {time.monotonic() - began:6.0f} s", flush=True)
    rows = uniformity({name: np.concatenate([part[name] for part in ranks])[:n] for name in ranks[0]}, DRAWS)
    print("quantity            D       p")
    for row in rows:
        print(f"{row['quantity']:<16} {row['D']:.3f} {row['p']:7.3f}")
    if as_json:
        print(json.dumps({"benchmark": "era5_joint", "replicates": n, "sweeps": sweeps, "rows": rows}))


if __name__ == "__main__":
    main()
