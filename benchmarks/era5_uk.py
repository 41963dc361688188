"""Real weather: 2 m temperature over the UK, `python -m benchmarks.era5_uk [--quick] [--json] [--prior DIR]`.

Six disjoint windows of 25 hours of the test week (25 to 31 March 2019), 32 x 48 cells, observed as means of
8 x 8 cells every 6 hours with noise of 0.05 K; 32 members; every hour and every cell scored with the fair CRPS.
Compared: bilinear-in-space linear-in-time interpolation (its CRPS is its mean absolute error); a Gaussian
posterior (kriging), exact, with the covariance estimated from the training days; the released rule of the seed
paper with the same network, with its own number of evaluations and with as many as the default; moment matching.
"""

import json
import time

import click
import jax
import numpy as np
import xarray as xr

import bayesdownscale as bd
from bayesdownscale.data.datasets import split
from bayesdownscale.demo import NOISE_SD, coarsen
from bayesdownscale.diagnostics.baselines import bilinear
from bayesdownscale.diagnostics.scores import coverage, crps, spread_skill
from bayesdownscale.recipes import find_recipe, load_recipe

HOURS = 25


def labelled(fields: bd.Fields, values: np.ndarray) -> xr.DataArray:
    """Members (draw, time, lat, lon) of the one variable."""
    place = fields.coords.to_xarray()
    coords = {"time": place["time"], "lat": place["lat"], "lon": place["lon"]}
    return xr.DataArray(values[:, :, 0], coords, ("draw", "time", "lat", "lon"))


def samplers(members: int, steps: int, seed_steps: int, batch: int):
    """Each takes (key, prior, gaussian prior, operator, coarse) and returns a Posterior."""
    model = load_recipe(find_recipe("models", "area_mean")).model
    guided = bd.GuidedSDE(model, steps=steps, batch=batch)
    ode = bd.Integrator(stochasticity=0.0)
    seed = bd.GuidedSDE(model, steps=seed_steps, batch=batch, guidance=bd.SeedRule, integrator=ode)
    exact = bd.ExactGaussian(model)
    run = lambda s, prior: lambda key, priors, H, y: s.run(key, priors[prior], H, y=y, sigma=NOISE_SD, draws=members)
    short = bd.GuidedSDE(model, steps=steps, batch=batch, guidance=bd.SeedRule, integrator=ode)
    return {
        "moment_matching": run(guided, 0),
        f"seed_rule_{seed_steps}": run(seed, 0),
        f"seed_rule_{steps}": run(short, 0),
        "kriging": run(exact, 1),
    }


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--quick", is_flag=True, help="One window, 8 members, fewer steps; about a minute.")
@click.option("--prior", "folder", default=None, help="Folder of a prior trained on 1-24 March 2019.")
@click.option("--steps", default=32, show_default=True)
@click.option("--only", multiple=True, help="Methods to run (default: all).")
def main(as_json: bool, quick: bool, folder: str | None, steps: int, only: tuple[str, ...]) -> None:
    """Moment matching, the seed's rule, kriging and interpolation on a week of real weather."""
    windows, members, seed_steps = (1, 8, 32) if quick else (6, 32, 256)
    steps = min(steps, 16) if quick else steps
    test = split(bd.era5_uk())[1]
    prior, gaussian = bd.load_prior(folder), bd.load_gaussian_prior(folder)
    rows: dict[str, list[dict]] = {}
    print("window  method            CRPS [K]  ratio to interpolation  spread/skill  90 % coverage  seconds")
    for window in range(windows):
        truth = test.isel_times(slice(HOURS * window, HOURS * (window + 1)))
        coarse = coarsen(truth, jax.random.key(window))
        H = bd.area_mean(truth.grid, coarse.grid) @ bd.snapshots(truth.times, coarse.times)
        exact_truth = labelled(truth, truth.values[None])[0]
        place = coarse.coords.to_xarray()
        names = {"time_coarse": place["time"].values, "lat_coarse": coarse.grid.lat, "lon_coarse": coarse.grid.lon}
        seen = xr.DataArray(coarse.values[:, 0], names, tuple(names))
        error = float(np.abs(bilinear(seen, exact_truth) - exact_truth).mean())
        rows.setdefault("interpolation", []).append({"crps": error})
        priors = (prior.at(truth.times), gaussian.at(truth.times))
        for name, sample in samplers(members, steps, seed_steps, 16).items():
            if only and name not in only:
                continue
            began = time.monotonic()
            posterior = sample(jax.random.key(100 + window), priors, H, coarse)
            ensemble = labelled(truth, posterior.fields)
            row = {
                "crps": float(crps(ensemble, exact_truth).mean()),
                "squared_error": float(((ensemble.mean("draw") - exact_truth) ** 2).mean()),
                "variance": float(ensemble.var("draw", ddof=1).mean()),
                "coverage90": float(coverage(ensemble, exact_truth, 0.9)),
                "spread_skill": float(spread_skill(ensemble, exact_truth)),
                "seconds": time.monotonic() - began,
                **{k: float(np.mean(v)) for k, v in posterior.stats.items()},
            }
            rows.setdefault(name, []).append(row)
            print(
                f"{window:6d}  {name:<17} {row['crps']:8.4f} {row['crps'] / error:23.3f} {row['spread_skill']:13.3f} "
                f"{row['coverage90']:14.3f} {row['seconds']:8.1f}",
                flush=True,
            )
    summary = summarise(rows, members)
    for name, total in summary.items():
        print(f"   all  {name:<17} " + "  ".join(f"{k} {v:.4f}" for k, v in total.items()))
    if as_json:
        result = {"benchmark": "era5_uk", "windows": windows, "members": members, "summary": summary, "rows": rows}
        print(json.dumps(result))


def summarise(rows: dict[str, list[dict]], members: int) -> dict[str, dict[str, float]]:
    """Means over windows; ratios of means."""
    mean = lambda name, key: float(np.mean([row[key] for row in rows[name]]))
    base = mean("interpolation", "crps")
    summary = {"interpolation": {"crps": base}}
    for name in rows:
        if name == "interpolation":
            continue
        inflation = (members + 1) / members
        summary[name] = {
            "crps": mean(name, "crps"),
            "ratio_to_interpolation": mean(name, "crps") / base,
            "spread_skill": (inflation * mean(name, "variance") / mean(name, "squared_error")) ** 0.5,
            "coverage90": mean(name, "coverage90"),
        }
        if "moment_matching" in rows:
            summary[name]["crps_of_default_over_this"] = mean("moment_matching", "crps") / mean(name, "crps")
    return summary


if __name__ == "__main__":
    main()
