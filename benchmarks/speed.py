"""What an evaluation of the denoiser costs inside diffeqsolve: `python -m benchmarks.speed [--quick] [--json]`.

The shipped prior's denoiser, and its vector-Jacobian product, are timed by themselves and as a step of the
reverse SDE (diffrax's loop, noise and all); the ratio should be near 1. Ratios of the fastest of several
interleaved runs, since machines are noisy.
"""

import json
import time
from collections.abc import Callable
from functools import partial

import click
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import bayesdownscale as bd
from bayesdownscale.prior.denoiser import AbstractDenoiser, Cost


class WithProduct(AbstractDenoiser):
    """A denoiser plus one vector-Jacobian product of it, as guidance takes them."""

    denoiser: AbstractDenoiser

    def evaluate(self, x_sigma, sigma, context):
        mean, vjp = jax.vjp(lambda x: self.denoiser(x, sigma, context), x_sigma)
        return mean + 1e-6 * vjp(mean)[0], Cost.of(evaluations=1, products=1)


def fastest(functions: dict[str, Callable], repeats: int) -> dict[str, float]:
    """Seconds of the fastest of `repeats` interleaved calls of each, after one to compile."""
    best = dict.fromkeys(functions, np.inf)
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            began = time.perf_counter()
            jax.block_until_ready(function())
            if repeat:
                best[name] = min(best[name], time.perf_counter() - began)
    return best


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--quick", is_flag=True, help="Fewer steps and repeats.")
@click.option("--prior", "folder", default=None, help="Folder of a prior.")
def main(as_json: bool, quick: bool, folder: str | None) -> None:
    """Seconds for one evaluation inside and outside of diffeqsolve."""
    batch, steps, repeats = (4, 9, 3) if quick else (8, 17, 7)
    prior = bd.load_prior(folder)
    context, shape = prior.context, prior.event_shape
    keys = jax.random.split(jax.random.key(0), batch)
    x = jax.random.normal(jax.random.key(1), (batch, *shape))
    rows = {}
    print(f"batch of {batch} fields {shape}, {jax.devices()[0].device_kind}")
    print("what             outside [ms]  inside [ms]  ratio")
    outside = eqx.filter_jit(lambda d: jax.vmap(lambda x: d(x, jnp.asarray(1.0), context))(x))
    solve = lambda d, key, n: bd.reverse_sample(key, d, context, prior.levels.levels(n), prior.coords.shape)[0]
    inside = eqx.filter_jit(lambda d, n: jax.vmap(lambda key: solve(d, key, n))(keys))
    for name, denoiser in {"forward": prior.denoiser, "forward + vjp": WithProduct(prior.denoiser)}.items():
        calls = {
            "outside": partial(outside, denoiser),
            "few": partial(inside, denoiser, 2),
            "many": partial(inside, denoiser, steps),
        }
        seconds = fastest(calls, repeats)
        step = (seconds["many"] - seconds["few"]) / (steps - 2)
        rows[name] = {"outside_ms": 1e3 * seconds["outside"], "inside_ms": 1e3 * step}
        rows[name]["ratio"] = step / seconds["outside"]
        print(f"{name:<16} {rows[name]['outside_ms']:12.1f} {rows[name]['inside_ms']:12.1f} {rows[name]['ratio']:6.2f}")
    if as_json:
        print(json.dumps({"benchmark": "speed", "batch": batch, "shape": shape, "rows": rows}))


if __name__ == "__main__":
    main()
