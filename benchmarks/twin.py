"""Weather whose truth never ends: `python -m benchmarks.twin [--truths N] [--quick] [--json] [--prior NAME]`.

Truths of the twin climate that no prior was trained on, 13 hours each and 5.25 days apart, observed as means of 4 x 4
cells every 6 hours; noise of 10 Pa (psl), 0.1 m s-1 (uas, vas) and 0.1 K (tas). Guided draws by moment matching are
judged as simulation-based calibration would judge them, the truths coming from the climate itself instead of the prior:
coverage of central 90 % intervals and spread over skill, of each variable at observed and at other hours, and the fair
CRPS against interpolation, kriging of each variable by itself, and the exact posterior of the Gaussian that the network
corrects (all variables at once); with `--seed-steps 256` also the rule released with the seed paper (Schmidt et al.
2025, arXiv 2412.15361), which solves the probability-flow ODE in as many evaluations. The truths come from realizations
of 25 each; weather of one realization is alike for weeks, so with more than two of them standard errors are those of
means over realizations, else over truths.
"""

import json
import time
from typing import Any

import click
import jax
import numpy as np
import xarray as xr

import bayesdownscale as bd
from bayesdownscale.demo import EVERY, TWIN_BLOCK, TWIN_HOURS, TWIN_NOISE_SD, coarsen
from bayesdownscale.diagnostics.scores import ensemble_mean, variance
from bayesdownscale.recipes import find_recipe, load_recipe

SEED, APART_HOURS, STRETCH = 30_000, 126, 25
HOURS = {"observed": np.arange(0, TWIN_HOURS, EVERY), "other": np.flatnonzero(np.arange(TWIN_HOURS) % EVERY)}


def truths(count: int):
    """`count` truths of 13 hours, from independent realizations of 25 each."""
    for stretch in range(-(-count // STRETCH)):
        here = min(STRETCH, count - stretch * STRETCH)
        days = ((here - 1) * APART_HOURS + TWIN_HOURS - 1) / 24
        weather = bd.twin(jax.random.fold_in(jax.random.key(SEED), stretch), "2201-01-01", days)
        for i in range(here):
            yield weather.isel_times(slice(i * APART_HOURS, i * APART_HOURS + TWIN_HOURS))


def labelled(fields: bd.Fields, values: np.ndarray, k: int, suffix: str = "") -> xr.DataArray:
    """Variable `k` of values (..., time, variable, lat, lon), with a draw dimension where they have one."""
    place = {f"time{suffix}": fields.times, f"lat{suffix}": fields.grid.lat, f"lon{suffix}": fields.grid.lon}
    dims = ("draw",) * (values.ndim - 4) + tuple(place)
    return xr.DataArray(
        values[..., k, :, :], place, dims, fields.variables[k].name, {"units": fields.variables[k].units}
    )


def judged(ensemble: xr.DataArray, truth: xr.DataArray) -> dict[str, float]:
    return {
        "crps": float(bd.crps(ensemble, truth).mean()),
        "coverage90": float(bd.coverage(ensemble, truth, 0.9)),
        "squared_error": float(((ensemble_mean(ensemble) - truth) ** 2).mean()),
        "variance": float(variance(ensemble).mean()),
    }


def of_one(truth: bd.Fields, seed: int, samplers: dict[str, Any]) -> dict[str, dict[str, float]]:
    """By "method/variable/hours" the scores of one truth."""
    coarse = coarsen(truth, jax.random.key(seed), TWIN_BLOCK, EVERY, TWIN_NOISE_SD)
    H = bd.area_mean(truth.grid, coarse.grid) @ bd.snapshots(truth.times, coarse.times)
    drawn = {name: sample(jax.random.key(seed), truth.times, H, coarse) for name, sample in samplers.items()}
    rows: dict[str, dict[str, float]] = {}
    for k, variable in enumerate(truth.variables):
        known, seen = labelled(truth, truth.values, k), labelled(coarse, coarse.values, k, "_coarse")
        kriged = bd.kriging(seen, known, noise_sd=float(TWIN_NOISE_SD[k, 0, 0]))
        errors = {
            "interpolation": abs(bd.bilinear(seen, known) - known),
            "kriging": bd.gaussian_crps(kriged["mean"], kriged["sd"], known),
        }
        for which, hours in HOURS.items():
            at = {"time": hours}
            for name, fields in drawn.items():
                rows[f"{name}/{variable.name}/{which}"] = judged(labelled(truth, fields, k).isel(at), known.isel(at))
            for name, error in errors.items():
                rows[f"{name}/{variable.name}/{which}"] = {"crps": float(error.isel(at).mean())}
    return rows


def summarise(rows: list[dict[str, dict[str, float]]], members: int) -> dict[str, dict[str, float]]:
    """Means over truths, their standard errors, and ratios of means."""
    summary = {}
    for name in rows[0]:
        score = {key: np.asarray([row[name][key] for row in rows]) for key in rows[0][name]}
        interpolated = np.mean([row["/".join(["interpolation", *name.split("/")[1:]])]["crps"] for row in rows])
        summary[name] = {"crps": float(score["crps"].mean()), "crps_se": error_of(score["crps"])}
        summary[name]["crps_over_interpolation"] = float(score["crps"].mean() / interpolated)
        if "coverage90" in score:
            skill = (members + 1) / members * score["variance"].mean() / score["squared_error"].mean()
            summary[name] |= {"coverage90": float(score["coverage90"].mean()), "spread_skill": float(skill**0.5)}
            summary[name]["coverage90_se"] = error_of(score["coverage90"])
    return summary


def error_of(values: np.ndarray) -> float:
    """Standard error of the mean of `values`, one of each truth."""
    stretches = [values[i : i + STRETCH].mean() for i in range(0, values.size - STRETCH + 1, STRETCH)]
    independent = np.asarray(stretches) if len(stretches) > 2 else values
    return float(np.std(independent, ddof=1) / np.sqrt(independent.size)) if values.size > 1 else np.nan


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--quick", is_flag=True, help="Two truths, 8 members, 8 steps.")
@click.option("--truths", "count", default=200, show_default=True)
@click.option("--members", default=32, show_default=True)
@click.option("--steps", default=32, show_default=True)
@click.option("--seed-steps", default=0, show_default=True, help="Evaluations of the seed paper's rule, 0 for none.")
@click.option("--batch", default=16, show_default=True)
@click.option("--prior", "name", default="twin", show_default=True, help="A shipped prior's name or a folder.")
def main(
    as_json: bool, quick: bool, count: int, members: int, steps: int, seed_steps: int, batch: int, name: str
) -> None:
    """Moment matching, two Gaussians and interpolation on unlimited weather."""
    count, members, steps = (2, 8, 8) if quick else (count, members, steps)
    model = load_recipe(find_recipe("models", "area_mean")).model
    prior, gaussian = bd.load_prior(name), bd.load_gaussian_prior(name)
    guided, exact = bd.GuidedSDE(model, steps=steps, batch=batch), bd.ExactGaussian(model)
    run = lambda sampler, p: (
        lambda key, times, H, y: sampler.run(key, p.at(times), H, y=y, sigma=TWIN_NOISE_SD, draws=members).fields
    )
    samplers = {"moment_matching": run(guided, prior), "gaussian": run(exact, gaussian)}
    if seed_steps:
        ode = bd.Integrator(stochasticity=0.0)
        seed = bd.GuidedSDE(model, steps=seed_steps, batch=batch, guidance=bd.SeedRule, integrator=ode)
        samplers["seed_rule"] = run(seed, prior)
    rows, began = [], time.monotonic()
    for i, truth in enumerate(truths(count)):
        rows.append(of_one(truth, i, samplers))
        if (i + 1) % 5 == 0 or i + 1 == count:
            summary = summarise(rows, members)
            print(f"{i + 1} truths, {time.monotonic() - began:.0f} s", flush=True)
            for key, total in summary.items():
                print(f"   {key:<32} " + "  ".join(f"{k} {v:.4g}" for k, v in total.items()), flush=True)
    if as_json:
        settings = {"truths": count, "members": members, "steps": steps, "seed_steps": seed_steps, "prior": name}
        print(json.dumps({"benchmark": "twin", **settings, "summary": summarise(rows, members)}))


if __name__ == "__main__":
    main()
