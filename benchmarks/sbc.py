"""Simulation-based calibration of programs and recipes: `python -m benchmarks.sbc [--quick] [--json]`.

For each program of models/ and each recipe of inference/ that takes it, on a Gaussian prior of 3 hours x 4 x 4 cells:
`bd.sbc` ranks truths among 31 posterior draws by the recipe, 500 times. Ranked are each parameter (its mean over
elements), four functionals of the field (its mean at an observed and at an unobserved hour, one cell, and the range)
and all together (TARP). Exact recipes give uniform ranks; of approximate ones the deviation is measured: D, the
Kolmogorov-Smirnov distance of the ranks from uniform (0.061 is its 5 % point for 500), its p-value, and the share of
ranks in the two outer eighths, 0.25 if uniform (sd 0.02): more where draws are too narrow, which is also what draws of
one chain are that is not yet independent of its last (so `thin`), less where they are too wide. Recipes that draw the
field only have all parameters fixed.
"""

import json
import time
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import bayesdownscale as bd
from bayesdownscale.recipes import find_recipe, load_recipe

DRAWS = 31
FIXED: dict[str, dict[str, Any]] = {
    "additive_bias": {"sigma": 0.3, "bias": 0.5},
    "area_mean": {"sigma": 0.3},
    "correlated_noise": {"sigma": 0.3, "length_km": 100.0, "tau_h": 6.0},
    "daily_mean": {"sigma": 0.3},
    "precipitation": {"m0": 0.2, "k": 2.0},
    "stations": {"sigma": 0.3, "sigma_rep": 0.4},
    "student_t": {"sigma": 0.3, "nu": 4.0},
    "unknown_noise": {"sigma": 0.3},
    "wind_speed": {"sigma": 0.3},
}
LINEAR_GAUSSIAN = set(FIXED) - {"correlated_noise", "precipitation", "student_t", "wind_speed"}
RECIPES: dict[str, dict[str, Any]] = {  # settings; how many keys and draws a key make 31 draws
    "exact_gaussian": {"draws": DRAWS},
    "guided_sde": {"steps": 32},
    "noise_denoise_mh": {"draws": DRAWS, "warmup": 200, "thin": 100},
    "twisted_smc": {"draws": DRAWS, "particles": 64},
    "flow_nuts": {"draws": 32 * DRAWS, "warmup": 300, "steps": 16, "depth": 6},
    "joint_gibbs": {"draws": DRAWS, "warmup": 50, "thin": 4, "steps": 32},
}
SLOW = {  # the chains that need more
    ("correlated_noise", "noise_denoise_mh"): {"thin": 400},
    ("wind_speed", "noise_denoise_mh"): {"thin": 400},
}
JOINT = ("flow_nuts", "joint_gibbs")
APPROXIMATE = ("guided_sde", "joint_gibbs")


def problem(model: str) -> tuple[bd.GaussianPrior, bd.LinearOperator, dict[str, Any]]:
    """Prior, operator and what else the program needs to know."""
    wind, rain = model == "wind_speed", model == "precipitation"
    names = ("u10", "v10") if wind else ("field",)
    grid = bd.Grid(55 - 0.25 * np.arange(4), -3 + 0.25 * np.arange(4))
    times = np.datetime64("2020-03-01T00", "ns") + np.timedelta64(1, "h") * np.arange(3)
    dt = np.abs(np.arange(3)[:, None] - np.arange(3))
    space = np.kron(np.eye(len(names)), bd.matern(grid.distances_km(), 60.0, 1.5))
    field = bd.GaussianField.separable(np.exp(-dt / 4), space, (len(names), 4, 4))
    levels = bd.NoiseLevels.covering(float(jnp.sqrt(field.variances.max())))
    mean = jnp.zeros((5, len(names), 4, 4)).at[0].set(2.0 if wind else -0.2 if rain else 0.0)
    variables = tuple(bd.Variable(name, "m s-1" if wind else "1") for name in names)
    coords = bd.Coords(times, variables, grid)
    prior = bd.GaussianPrior(field, bd.Standardisation(mean, jnp.ones(len(names))), levels, coords)
    coarse, seen = grid.coarsen(2), times[[0, 2]]
    in_time = bd.snapshots(times, seen)
    extra: dict[str, Any] = {}
    if model == "daily_mean":
        in_time = bd.time_mean(times, np.stack([times[[0, 1]], times[[1, 2]]]))
        extra = {"hours": 2.0}
    if model == "stations":
        extra = {"S": bd.stations(grid, np.array([54.9, 54.5, 54.3]), np.array([-2.9, -2.5, -2.3]))}
    if model in ("additive_bias", "correlated_noise"):
        extra = {"coords": bd.Coords(seen, variables, coarse)}
    return prior, bd.area_mean(grid, coarse) @ in_time, extra


def as_rows(judged: xr.Dataset) -> list[dict]:
    """A row for each quantity."""
    value = lambda name, quantity: float(judged[name].sel(quantity=quantity))
    quantities = judged["quantity"].values
    return [{"quantity": str(q)} | {name: value(name, q) for name in ("D", "p", "mean", "outer")} for q in quantities]


def functionals(fields: jax.Array) -> dict[str, jax.Array]:
    """Of fields (..., time, variable, lat, lon)."""
    return {
        "observed_hour": fields[..., 0, :, :, :].mean((-3, -2, -1)),
        "unobserved_hour": fields[..., 1, :, :, :].mean((-3, -2, -1)),
        "cell": fields[..., 1, 0, 1, 2],
        "range": jnp.ptp(fields, axis=(-4, -3, -2, -1)),
    }


def calibration(model: str, recipe: str, n: int) -> list[dict]:
    """A row for each quantity."""
    prior, H, extra = problem(model)
    function = load_recipe(find_recipe("models", model)).model
    sampler = load_recipe(find_recipe("inference", recipe)).sampler
    given = {} if recipe in JOINT else FIXED[model]
    settings = RECIPES[recipe] | SLOW.get((model, recipe), {})
    began = time.monotonic()
    result = bd.sbc(
        jax.random.key(0), function, sampler, prior, H, **extra, **given,
        replicates=n, draws=DRAWS, settings=settings, functionals=functionals, batch=250,
    )  # fmt: skip
    rows = [{"model": model, "recipe": recipe, **row} for row in as_rows(bd.uniformity(result))]
    seconds = time.monotonic() - began
    worst = min(rows, key=lambda row: row["p"])
    kernel, mean = "approximate" if recipe in APPROXIMATE else "exact", np.mean([row["D"] for row in rows])
    print(
        f"{model:<17} {recipe:<17} {kernel:<12} {worst['D']:.3f} {worst['p']:8.4f}  {worst['quantity']:<16} "
        f"{worst['outer']:5.2f}  {mean:.3f}  {len(rows):2d} {seconds:7.0f}",
        flush=True,
    )
    return rows


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--quick", is_flag=True, help="area_mean with two recipes, 100 replicates; about a minute.")
@click.option("--model", "models", multiple=True, help="Programs (default: all).")
@click.option("--recipe", "recipes", multiple=True, help="Recipes (default: all).")
@click.option("--replicates", "n", default=500, show_default=True)
def main(as_json: bool, quick: bool, models: tuple[str, ...], recipes: tuple[str, ...], n: int) -> None:
    """Ranks of the truth among posterior draws, for every program and recipe."""
    if quick:
        models, recipes, n = ("area_mean",), ("exact_gaussian", "guided_sde"), 100
    print("program           recipe            kernel       largest D     p  of               outer mean D   n seconds")
    rows = []
    for recipe in recipes or RECIPES:
        for model in models or FIXED:
            if recipe == "exact_gaussian" and model not in LINEAR_GAUSSIAN:
                continue
            rows += calibration(model, recipe, n)
    exact = [row["p"] for row in rows if row["recipe"] not in APPROXIMATE]
    if exact:
        worst = min(1.0, min(exact) * len(exact))
        print(f"exact recipes: smallest p of {len(exact)} quantities, Bonferroni: {worst:.3f}")
    if as_json:
        print(json.dumps({"benchmark": "sbc", "replicates": n, "rows": rows}))


if __name__ == "__main__":
    main()
