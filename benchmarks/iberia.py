"""Downscale a real climate model over Iberia: CNRM-CM5 (1.4 degrees) to RACMO (0.44 degrees), winters, daily.

    python -m benchmarks.iberia --json        # about 15 minutes on two cores

The prior knows RACMO's temperature and precipitation of the winters 1982/83 to 1994/95; 1995/96 to 2001/02 are for the
test. CNRM-CM5 did not drive RACMO, so its days do not match, and distributions are compared: they differ between any
two samples of seven winters, and how much is `floor`. Two more inputs show the method without that: `perfect`, RACMO's
own coarse means of the test winters, whose days match; and `model in the past`, CNRM-CM5 in the winters that both the
prior and the correction learned from. Baselines get the same coarse fields, corrected by quantile mapping (EQM by
month, frequency adaptation for wet days).

`--correction qdm` (or another) corrects CNRM-CM5 in mm/d and degC instead of mapping its scores to those of RACMO.

`--everywhere` maps the correlations between all coarse cells too. It brings those of temperature right in the winters
it learned from and spoils them in the test (mean error of a pair 0.02 and 0.19; 4 members, 10 sweeps, 200 modes):
152 x 152 correlations are too many for 1170 days.
"""

import json
import time
from pathlib import Path
from typing import Any

import click
import jax
import numpy as np

import bayesdownscale as bd
from benchmarks.iberia_data import COARSE, FINE, LENGTH, Data, load, scored_cells
from benchmarks.iberia_methods import SPAN, TIES, Sampler, baselines, corrected_by, learn_sight, over_cells
from benchmarks.iberia_statistics import crps, errors, floor, mean_of, statistics

DRY = {"pr": 0.1}  # mm/d below which a day is dry


def run(
    data: Data,
    latent: bd.LatentPrior,
    members: int,
    key: jax.Array,
    everywhere: bool,
    only: tuple[str, ...],
    correction: str | None = None,
) -> dict:
    """By input and method: statistics, errors against RACMO, least rain, part of zeros, and where days match CRPS."""
    past, now = slice(0, data.test), slice(data.test, None)
    H = bd.area_mean(data.fine.grid, data.coarse.grid)
    plain, sight = learn_sight(latent, H, data.inside, jax.random.fold_in(key, 100))
    known = plain(over_cells(data.perfect.values[past], data.inside))
    mapped = bd.ScoreMap.fit(over_cells(data.coarse.values[past], data.inside), known, TIES, everywhere=everywhere)
    wet, dry = sight.noise[-1, 1], sight.noise[0, 1]
    click.echo(f"noise: tas {sight.noise[:, 0].mean():.3f}, pr {wet:.3f} wet to {dry:.3f} dry", err=True)
    began = time.monotonic()
    sampler, cells = Sampler(latent, data), scored_cells(data)
    flat = lambda x: x.reshape(len(x), 2, -1)[:, :, cells].astype(np.float64)
    of_run = lambda x: statistics(flat(x)[:, 0], flat(x)[:, 1], LENGTH)
    inputs = {
        "perfect": (data.perfect, now, plain),
        "model": (data.coarse, now, mapped),
        "model in the past": (data.coarse, past, mapped),
    }
    out: dict[str, Any] = {"cells": cells, "truth": {}, "results": {}}
    for k, (name, (model, days, score)) in enumerate(inputs.items()):
        if only and name not in only:
            continue
        seen = model.values[days]
        if correction is not None and score is mapped:
            seen, score = corrected_by(correction, data, model, days).values, plain
        y, noise = sight(score(over_cells(seen, data.inside)))
        draws = sampler(jax.random.fold_in(key, k), y, noise, members)
        click.echo(f"{name}: {members} members after {time.monotonic() - began:.0f} s", err=True)
        right, out["results"][name] = data.fine.values[days], {}
        out["truth"][name] = of_run(right)
        others = {m: [x] for m, x in baselines(data, model, days, correction or "eqm").items()}
        for method, runs in {"ours": list(draws), **others}.items():
            found: dict[str, Any] = {"statistics": mean_of([of_run(one) for one in runs])}
            found["errors"] = errors(found["statistics"], out["truth"][name])
            found["least_pr"] = float(min(one[:, 1].min() for one in runs))
            found["zeros"] = float(np.mean([(one[:, 1] == 0).mean() for one in runs]))
            if name == "perfect":
                ensemble = np.stack([flat(one) for one in runs])
                found["crps"] = [float(crps(ensemble[:, :, v], flat(right)[:, v]).mean()) for v in (0, 1)]
            out["results"][name][method] = found
        brief = {m: f["errors"] for m, f in out["results"][name].items()}
        for what in ("wet_frequency", "p98", "tas_pr", "space_pr", "space_tas"):
            said = ", ".join(f"{m} {e[what]['bias']:+.3f} ({e[what]['mae']:.3f})" for m, e in brief.items())
            click.echo(f"    {what}: {said}", err=True)
    tas, pr = np.moveaxis(flat(data.fine.values), 1, 0)
    out["floor"] = floor(tas, pr, LENGTH, 7)
    out["past_against_test"] = errors(of_run(data.fine.values[past]), of_run(data.fine.values[now]))
    return out


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--members", default=10, show_default=True)
@click.option("--sweeps", default=30, show_default=True, help="Of the filling of dry days.")
@click.option("--modes", default=300, show_default=True, help="Of the covariance in space.")
@click.option("--everywhere", is_flag=True, help="Map correlations between coarse cells too.")
@click.option("--only", multiple=True, help="Inputs: perfect, model, model in the past (default: all).")
@click.option(
    "--correction",
    type=click.Choice(["eqm", "dqm", "qdm", "mbcn"]),
    help="Of CNRM-CM5, instead of the map of its scores for the posterior, and of EQM for the baselines.",
)
@click.option("--maps", type=click.Path(path_type=Path), help="Folder for maps.")
def main(
    as_json: bool,
    members: int,
    sweeps: int,
    modes: int,
    everywhere: bool,
    only: tuple[str, ...],
    correction: str | None,
    maps: Path | None,
) -> None:
    """Posterior, BCSD and interpolation of CNRM-CM5 against RACMO, winters 1995/96 to 2001/02."""
    data = load()
    if data is None:
        raise click.ClickException(
            f"expected {FINE} and {COARSE} in the folder that BAYESDOWNSCALE_DATA names, found none; they are made "
            "from SantanderMetGroup/climate4R.datasets"
        )
    began = time.monotonic()
    latent = bd.LatentPrior.fit(data.fine.isel_times(slice(0, data.test)), SPAN, DRY, n_modes=modes, sweeps=sweeps)
    click.echo(f"prior fitted in {time.monotonic() - began:.0f} s", err=True)
    result = run(data, latent, members, jax.random.key(0), everywhere, only, correction)
    seconds = time.monotonic() - began
    rows = {f"{name}, {m}": f["errors"] for name, each in result["results"].items() for m, f in each.items()}
    rows |= {"floor": result["floor"], "past against test": result["past_against_test"]}
    print("error of the mean over cells (mean absolute error of a cell)")
    for name, row in rows.items():
        print(f"{name}\n    " + "  ".join(f"{k} {v['bias']:+.3f} ({v['mae']:.3f})" for k, v in row.items()))
    for method, found in result["results"].get("perfect", {}).items():
        print(f"perfect, {method}: CRPS tas {found['crps'][0]:.3f} degC, pr {found['crps'][1]:.3f} mm/d")
    if maps is not None:
        from benchmarks.iberia_maps import draw_maps

        draw_maps(result, data.fine, maps)
    if as_json:
        kept = ("least_pr", "zeros", "crps")
        more = {
            f"{name}, {m}": {k: f[k] for k in kept if k in f}
            for name, each in result["results"].items()
            for m, f in each.items()
        }
        print(json.dumps({"benchmark": "iberia", "members": members, "errors": rows, "more": more,
                          "seconds": round(seconds)}))  # fmt: skip


if __name__ == "__main__":
    main()
