"""No draw that is not a number: `python -m benchmarks.robustness [--quick] [--json] [--draws 10000]`.

Guided draws of one window of the shipped prior given a coarse day of ERA5 it has not seen, with the noise standard
deviation log-uniform from 1e-3 to 10 K, one a draw: 8 x 8 cells every 6 hours, 8 evaluations a draw. A tenth of the
draws is made by moment matching with 3 products an evaluation, the others by the forward-only guidance. Counted: draws
with a number that is not finite, and the largest departure from the climatology.
"""

import json
import time

import click
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import bayesdownscale as bd
from bayesdownscale.data.datasets import split
from bayesdownscale.demo import coarsen
from bayesdownscale.recipes import find_recipe, load_recipe

STEPS = 8


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--quick", is_flag=True, help="400 draws.")
@click.option("--draws", "n", default=10_000, show_default=True)
@click.option("--only", type=click.Choice(["moment_matching", "fixed_covariance"]), help="Its share of the draws.")
@click.option("--batch", default=20, show_default=True, help="Draws at once; hundreds on a GPU.")
def main(as_json: bool, quick: bool, n: int, only: str | None, batch: int) -> None:
    """Guided draws over four decades of noise on the trained network, counted."""
    n = 400 if quick else n
    truth = split(bd.era5_uk())[1].isel_times(slice(0, 25))
    prior = bd.load_prior().at(truth.times)
    coarse = coarsen(truth, jax.random.key(0))
    H = bd.area_mean(prior.grid, coarse.grid) @ bd.snapshots(prior.times, coarse.times)
    model = load_recipe(find_recipe("models", "area_mean")).model
    program, _ = bd.read_model(model, (prior, H), {"y": coarse})
    shares = {"moment_matching": n // 10, "fixed_covariance": n - n // 10}
    guidances = {
        "moment_matching": lambda d, likelihood: bd.MomentMatching(d, likelihood, iterations=3),
        "fixed_covariance": bd.FixedCovariance,
    }

    @eqx.filter_jit
    def draw_batch(name, prior, keys):
        def draw(key):
            k_noise, k_draw = jax.random.split(key)
            sigma = 10 ** jax.random.uniform(k_noise, minval=-3.0, maxval=1.0)
            likelihood = bd.ProgramLikelihood.of(program, prior, {"sigma": sigma})
            denoiser = guidances[name](prior.denoiser, likelihood)
            sigmas = prior.levels.levels(STEPS)
            x, _ = bd.reverse_sample(k_draw, denoiser, prior.context, sigmas, prior.coords.shape)
            return ~jnp.all(jnp.isfinite(x)), jnp.max(jnp.abs(x))

        return jax.vmap(draw)(keys)

    rows = []
    print("method            draws  not finite  largest [standardised]  seconds")
    for name, share in shares.items():
        if only not in (None, name):
            continue
        began, bad, largest, done = time.monotonic(), 0, 0.0, 0
        for start in range(0, share, batch):
            keys = jax.random.split(jax.random.fold_in(jax.random.key(1), start), batch)
            wrong, size = draw_batch(name, prior, keys)
            bad, largest, done = bad + int(wrong.sum()), max(largest, float(np.nanmax(size))), done + batch
            if start % 1000 < batch:
                print(f"  {name} {done} drawn, {bad} not finite, {time.monotonic() - began:.0f} s", flush=True)
        seconds = time.monotonic() - began
        rows.append({"method": name, "draws": done, "not_finite": bad, "largest": largest, "seconds": seconds})
        print(f"{name:<17} {done:5d} {bad:11d} {largest:23.2f} {seconds:8.0f}", flush=True)
    if as_json:
        print(json.dumps({"benchmark": "robustness", "rows": rows}))


if __name__ == "__main__":
    main()
