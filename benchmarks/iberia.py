"""Downscale a real climate model over Iberia: CNRM-CM5 (1.4 degrees) to RACMO (0.44 degrees), winters, daily.

    python -m benchmarks.iberia --json        # about 15 minutes on two cores

The prior knows RACMO's temperature and precipitation of the winters 1982/83 to 1994/95; 1995/96 to 2001/02 are for the
test. CNRM-CM5 did not drive RACMO, so its days do not match, and distributions are compared: they differ between any
two samples of seven winters, and how much is `floor`. To see the method without that, `perfect` downscales RACMO's own
coarse means of the test winters, whose days do match. Baselines get the same coarse fields, corrected by quantile
mapping (QDM by month, frequency adaptation for wet days).
"""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import click
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import distance_transform_edt

import bayesdownscale as bd
from bayesdownscale.data import datasets
from bayesdownscale.data.score_map import ScoreMap
from bayesdownscale.prior.latent import LatentPrior
from benchmarks.iberia_statistics import crps, errors, floor, mean_of, statistics, winters_of

FINE, COARSE = "iberia/CORDEX_EUR44_Iberia_DJF.nc", "iberia/CMIP5_Iberia_DJF.nc"
DRY = {"pr": 0.1}  # mm/d below which a day is dry
TIES = np.array([-np.inf, 0.01])  # tas, pr: coarse means below it differ by chance only
LENGTH = 90  # days of a winter
FIRST_TEST = np.datetime64("1995-06-01")


@dataclass(frozen=True, eq=False)
class Data:
    """Winters of 90 days: `fine` and `coarse`, the model, and `perfect`, the fine fields on the model's cells; all
    (day, variable, lat, lon). `inside` (coarse lat, coarse lon): wholly within the fine grid. `test`, the first day."""

    fine: bd.Fields
    coarse: bd.Fields
    perfect: bd.Fields
    inside: np.ndarray
    test: int


def find(name: str) -> Path | None:
    """The file, in the folder that BAYESDOWNSCALE_DATA names or beside the checkout."""
    return next((folder / name for folder in datasets._folders() if (folder / name).is_file()), None)


def load() -> Data | None:
    """Both files, or None where they are not on this machine."""
    paths = [find(name) for name in (FINE, COARSE)]
    if None in paths:
        return None
    fine, coarse = (bd.open_fields(path, ["tas", "pr"]) for path in paths if path is not None)
    days = np.concatenate([w for w in winters_of(fine.times) if w.size == LENGTH])
    assert np.array_equal(fine.times, coarse.times)
    fine, coarse = fine.isel_times(days), coarse.isel_times(days)
    # The file gives no units: K and kg m-2 s-1.
    own = coarse.values * np.array([1.0, 86400.0])[:, None, None] + np.array([-273.15, 0.0])[:, None, None]
    coarse = replace(
        coarse, values=own.astype(np.float32), coords=replace(coarse.coords, variables=fine.coords.variables)
    )
    perfect = bd.conservative_mean(fine, coarse.grid)
    inside = np.isfinite(perfect.values[0, 0])
    return Data(fine, coarse, perfect, inside, int(np.searchsorted(fine.times, FIRST_TEST)))


def program(prior, H, inside, noise, y=None):
    """z ~ prior, latent; y ~ Normal(mean of z over coarse cells, noise of each variable): (day, variable, cell, 1)."""
    z = numpyro.sample("weather", prior)
    means = H(z)[..., inside[0], inside[1]][..., None]
    numpyro.sample("coarse", dist.Normal(means, noise[:, None, None]).to_event(4), obs=y)


def over_cells(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(day, variable, coarse lat, coarse lon) to (day, variable, cell), the cells inside."""
    return values[:, :, inside].astype(np.float64)


def noise_of(means: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The noise (variable,) with which data with the correlation of `means` and `scores` (time, variable, cell) see
    the means: v (1 / rho^2 - 1) for means of variance v. Training weather tells it: the mean of rain over a cell does
    not determine the mean of its latent field."""
    a, b = (x - x.mean(axis=0) for x in (means, scores))
    rho = (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.sqrt(means.var(axis=0).mean(axis=1) * (1 / rho.mean(axis=1) ** 2 - 1))


class Sampler:
    """Exact draws of latent winters given scores: one factorisation for all winters, whose data differ only."""

    def __init__(self, latent: LatentPrior, data: Data, noise: np.ndarray):
        H = bd.area_mean(data.fine.grid, data.coarse.grid)
        self.at = tuple(jnp.asarray(i) for i in np.nonzero(data.inside))
        shape = (LENGTH, 2, self.at[0].size, 1)
        fixed = (latent.prior, H, self.at, jnp.asarray(noise, jnp.float32))
        read, _ = bd.read_model(program, fixed, {"y": jnp.zeros(shape)})
        self.posterior, self.transform = bd.condition_gaussian(read, latent.prior), latent.transform

    def __call__(self, key: jax.Array, scores: np.ndarray, members: int) -> np.ndarray:
        """Weather (member, day, variable, lat, lon), physical, for scores (day, variable, cell) of whole winters."""
        winters = []
        for k, y in enumerate(scores.reshape(-1, LENGTH, *scores.shape[1:])):
            given = eqx.tree_at(lambda p: p.y, self.posterior, jnp.asarray(y, jnp.float32).ravel())
            z = _draws(given, jax.random.split(jax.random.fold_in(key, k), members))
            winters.append(self.transform.backward(np.asarray(z)))
        return np.concatenate(winters, axis=1)


@eqx.filter_jit
def _draws(posterior, keys):
    return jax.lax.map(posterior.draw, keys)


def baselines(data: Data, model: bd.Fields) -> dict[str, np.ndarray]:
    """`BCSD` and `interpolation` of the coarse `model`, corrected: test days (day, variable, lat, lon)."""
    past, now = slice(0, data.test), slice(data.test, None)
    reference = data.perfect.isel_times(past)
    fill = lambda fields: replace(fields, values=_filled(fields.values, data.inside))
    corrected, _ = bd.correct(fill(model.isel_times(now)), fill(reference), fill(model.isel_times(past)),
                              multiplicative=("pr",), wet={"pr": 1.0})  # fmt: skip
    lat, lon = data.fine.grid.places()
    month = lambda fields: fields.times.astype("datetime64[M]").astype(int) % 12
    fine, own = data.fine.isel_times(past), fill(reference)
    usual_fine, usual = np.empty((len(corrected.values), *fine.values.shape[1:])), np.empty(corrected.values.shape)
    for m in np.unique(month(corrected)):
        usual_fine[month(corrected) == m] = fine.values[month(fine) == m].mean(axis=0)
        usual[month(corrected) == m] = own.values[month(own) == m].mean(axis=0)
    plain = _interpolated(corrected.values, data.coarse.grid, lat, lon)
    tas = _interpolated(corrected.values[:, :1] - usual[:, :1], data.coarse.grid, lat, lon) + usual_fine[:, :1]
    ratio = corrected.values[:, 1:] / np.maximum(usual[:, 1:], 1e-6)
    pr = _interpolated(ratio, data.coarse.grid, lat, lon) * usual_fine[:, 1:]
    return {"BCSD": np.concatenate([tas, pr], axis=1), "interpolation": plain}


def _filled(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Cells outside with the value of the nearest one inside."""
    nearest = np.asarray(distance_transform_edt(~inside, return_distances=False, return_indices=True))
    return values[:, :, nearest[0], nearest[1]]


def _interpolated(values: np.ndarray, grid: bd.Grid, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Bilinear at places; the nearest value beyond the outermost centres."""
    axes = grid.lat, grid.lon
    places = np.stack([np.clip(x, a.min(), a.max()) for x, a in zip((lat, lon), axes, strict=True)], axis=-1)
    on_grid = RegularGridInterpolator(axes, np.moveaxis(values.astype(np.float64), (-2, -1), (0, 1)))
    return np.moveaxis(on_grid(places), (0, 1), (-2, -1))


def scored_cells(data: Data) -> np.ndarray:
    """Fine cells (cell,) that lie within the coarse cells used."""
    from bayesdownscale.data.overlap import overlap_areas

    areas = overlap_areas(data.coarse.grid, data.fine.grid)
    covered = np.asarray(areas[np.flatnonzero(data.inside.ravel())].sum(axis=0)).ravel()
    return covered > 0.99 * data.fine.grid.cell_areas().ravel()


def run(data: Data, latent: LatentPrior, members: int, key: jax.Array, recorrelate: bool = True) -> dict:
    """All scores, the fields of the maps, and the noise; by input `perfect` and `model`."""
    inside, past, now = data.inside, slice(0, data.test), slice(data.test, None)
    H = bd.area_mean(data.fine.grid, data.coarse.grid)
    means = over_cells(np.asarray(H(jnp.asarray(latent.latent.values))), inside)
    inputs = {"perfect": data.perfect, "model": data.coarse}
    plain = ScoreMap.fit(over_cells(data.perfect.values[past], inside), means, TIES, recorrelate=False)
    noise = noise_of(means, plain(over_cells(data.perfect.values[past], inside)))
    click.echo(f"noise of the scores: tas {noise[0]:.3f}, pr {noise[1]:.3f}", err=True)
    began = time.monotonic()
    sampler = Sampler(latent, data, noise)
    rng = np.random.default_rng(0)
    wanted = means + noise[:, None] * rng.standard_normal(means.shape)
    cells = scored_cells(data)
    flat = lambda x: x.reshape(len(x), 2, -1)[:, :, cells].astype(np.float64)
    stats = lambda x: statistics(flat(x)[:, 0], flat(x)[:, 1], LENGTH)
    truth, out = stats(data.fine.values[now]), {}
    right = flat(data.fine.values[now])
    for name, model in inputs.items():
        coarse = over_cells(model.values, inside)
        score = ScoreMap.fit(coarse[past], wanted, TIES, recorrelate and name == "model")
        draws = sampler(jax.random.fold_in(key, len(out)), score(coarse[now]), members)
        click.echo(f"{name}: {members} members after {time.monotonic() - began:.0f} s", err=True)
        made = {"ours": list(draws), **{k: [v] for k, v in baselines(data, model).items()}}
        found = {}
        for method, runs in made.items():
            found[method] = {"statistics": mean_of([stats(one) for one in runs]), "one": stats(runs[0])}
            found[method]["least"] = float(min(one[:, 1].min() for one in runs))
            found[method]["zeros"] = float(np.mean([(one[:, 1] == 0).mean() for one in runs]))
            if name == "perfect":
                ensemble = np.stack([flat(one) for one in runs])
                found[method]["crps"] = [float(crps(ensemble[:, :, v], right[:, v]).mean()) for v in (0, 1)]
        out[name] = found
    tas, pr = np.moveaxis(flat(data.fine.values), 1, 0)
    past_stats = stats(data.fine.values[past])
    return {
        "results": out, "truth": truth, "past": past_stats, "floor": floor(tas, pr, LENGTH, 7),
        "cells": cells, "noise": noise, "seconds": time.monotonic() - began,
    }  # fmt: skip


def table(result: dict) -> dict:
    """Errors by input, method and statistic, and the floor."""
    rows = {
        name: {method: errors(found[method]["statistics"], result["truth"]) for method in found}
        for name, found in result["results"].items()
    }
    return {**rows, "floor": result["floor"], "past against test": errors(result["past"], result["truth"])}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--members", default=10, show_default=True)
@click.option("--sweeps", default=40, show_default=True, help="Of the filling of dry days.")
@click.option("--modes", default=400, show_default=True)
@click.option("--maps", type=click.Path(path_type=Path), help="Folder for maps.")
def main(as_json: bool, members: int, sweeps: int, modes: int, maps: Path | None) -> None:
    """Posterior, BCSD and interpolation of CNRM-CM5 against RACMO, winters 1995/96 to 2001/02."""
    data = load()
    if data is None:
        raise click.ClickException(
            f"expected {FINE} and {COARSE} in the folder that BAYESDOWNSCALE_DATA names, found none; they are made "
            "from SantanderMetGroup/climate4R.datasets"
        )
    began = time.monotonic()
    latent = LatentPrior.fit(data.fine.isel_times(slice(0, data.test)), LENGTH, DRY, n_modes=modes, sweeps=sweeps)
    click.echo(f"prior fitted in {time.monotonic() - began:.0f} s", err=True)
    result = run(data, latent, members, jax.random.key(0))
    rows = table(result)
    for name, methods in rows.items():
        for method, each in methods.items() if name in ("perfect", "model") else [("", methods)]:
            print(name, method)
            print("   " + "  ".join(f"{k} {v['bias']:+.3f} ({v['mae']:.3f})" for k, v in each.items()))
    for method, found in result["results"]["perfect"].items():
        print(f"perfect {method}: CRPS tas {found['crps'][0]:.3f} degC, pr {found['crps'][1]:.3f} mm/d")
    if maps is not None:
        from benchmarks.iberia_maps import draw_maps

        draw_maps(result, data.fine, maps)
    if as_json:
        extra = {
            f"{name} {method}": {k: f[k] for k in ("least", "zeros", "crps") if k in f}
            for name, found in result["results"].items()
            for method, f in found.items()
        }
        print(json.dumps({"benchmark": "iberia", "members": members, "errors": rows, "extra": extra,
                          "noise": result["noise"].tolist(), "seconds": result["seconds"]}))  # fmt: skip


if __name__ == "__main__":
    main()
