"""Which criteria of the report does a sampler fail? `python -m benchmarks.criteria [--quick] [--json]`.

Truths are drawn from a Gaussian field of 25 hours x 32 x 32 cells of 0.25 degrees, exp(-|dt| / 8 h) x an exponential of
200 km, and observed as means of 8 x 8 cells every 6 hours with noise of 0.5 and of 0.1 sd. With the exact denoiser of
that field, 32 draws by moment matching (32 evaluations) and by the released rule of the seed paper (256 evaluations of
the probability-flow ODE) are summarised as the report does. The table counts, over truths, how each criterion ends.
"""

import json
from collections import Counter

import click
import jax
import jax.numpy as jnp
import numpy as np

import bayesdownscale as bd
from bayesdownscale.diagnostics.layout import add_truth
from bayesdownscale.diagnostics.summary import summarise
from bayesdownscale.posterior.guidance import SeedRule
from bayesdownscale.prior.gaussian import GaussianField
from bayesdownscale.prior.noise import NoiseLevels
from bayesdownscale.prior.standardise import Standardisation
from bayesdownscale.recipes import find_recipe, load_recipe

TIMES, CELLS, BLOCK, EVERY = 25, 32, 8, 6
CRITERIA = (
    "temporal_jerk",
    "coverage_90",
    "coverage_90_observed",
    "coverage_90_between",
    "coverage_50",
    "spread_skill",
    "exchangeable",
)


def problem() -> tuple[bd.GaussianPrior, bd.LinearOperator, bd.Coords]:
    """Prior, operator and labels of the coarse data."""
    grid = bd.Grid(58 - 0.25 * np.arange(CELLS), -8 + 0.25 * np.arange(CELLS))
    hours = np.arange(TIMES)
    in_time = np.exp(-np.abs(hours[:, None] - hours) / 8.0)
    field = GaussianField.separable(in_time, np.exp(-grid.distances_km() / 200.0), (1, *grid.shape))
    levels = NoiseLevels.covering(float(jnp.sqrt(field.variances.max())))
    mean = jnp.zeros((5, 1, *grid.shape)).at[0].set(280.0)
    when = np.datetime64("2020-03-01T00", "ns") + np.timedelta64(1, "h") * hours
    fine = bd.Coords(when, (bd.Variable("t2m", "K", "air_temperature"),), grid)
    prior = bd.GaussianPrior(field, Standardisation(mean, jnp.asarray([1.0])), levels, fine)
    coarse = bd.Coords(when[::EVERY], fine.variables, grid.coarsen(BLOCK))
    return prior, bd.area_mean(grid, coarse.grid) @ bd.snapshots(when, coarse.times), coarse


def samplers(quick: bool) -> dict[str, bd.GuidedSDE]:
    model = load_recipe(find_recipe("models", "area_mean")).model
    steps, seed_steps = (8, 32) if quick else (32, 256)
    ode = bd.Integrator(stochasticity=0.0)
    return {
        "moment_matching": bd.GuidedSDE(model, steps=steps, batch=16),
        "seed_rule": bd.GuidedSDE(model, steps=seed_steps, batch=16, guidance=SeedRule, integrator=ode),
    }


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--quick", is_flag=True, help="One truth, 24 draws, few steps.")
@click.option("--truths", default=5, show_default=True)
def main(as_json: bool, quick: bool, truths: int) -> None:
    """Criteria of the report, by sampler, on a Gaussian field with its exact denoiser."""
    prior, H, coarse = problem()
    truths, draws, noises = (1, 24, (0.5,)) if quick else (truths, 32, (0.5, 0.1))
    rows = []
    for sd in noises:
        found: dict[str, list[dict]] = {}
        for seed in range(truths):
            k_truth, k_noise, k_draws = jax.random.split(jax.random.key(seed), 3)
            truth = prior.sample(k_truth)
            y = bd.Fields(np.asarray(H(truth) + sd * jax.random.normal(k_noise, H(truth).shape)), coarse)
            known = bd.Fields(np.asarray(truth), prior.coords)
            for name, sampler in samplers(quick).items():
                tree = sampler.run(k_draws, prior, H, y=y, sigma=sd, draws=draws).to_datatree()
                criteria = {c["name"]: c for c in summarise(add_truth(tree, known))["criteria"]}
                found.setdefault(name, []).append({key: criteria[key] for key in CRITERIA})
                said = ", ".join(f"{key} {criteria[key]['value']:.3g} {criteria[key]['status']}" for key in CRITERIA)
                print(f"noise {sd}, truth {seed}, {name}: {said}", flush=True)
        for name, each in found.items():
            for key in CRITERIA:
                count = Counter(one[key]["status"] for one in each)
                middle = float(np.median([one[key]["value"] for one in each]))
                rows.append({"noise_sd": sd, "sampler": name, "criterion": key, "median": middle, **count})
                print(f"{sd:5.2f} {name:<16} {key:<20} median {middle:7.3g}  {dict(count)}")
    if as_json:
        print(json.dumps({"benchmark": "criteria", "truths": truths, "draws": draws, "rows": rows}))


if __name__ == "__main__":
    main()
