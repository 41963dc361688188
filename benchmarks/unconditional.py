"""Does the prior draw weather? `python -m benchmarks.unconditional [--prior era5-uk|twin] [--quick] [--json]`.

The first experiment of Schmidt et al. 2025 (arXiv 2412.15361): draws of one window from the prior alone beside windows
of weather it was not trained on, of the same hours of the day: the ERA5 test week, or independent realizations of the
twin climate. Compared are, for each variable, quantiles over all cells and hours, the standard deviation, lag-1
autocorrelation, second differences in time, power over scales in space and in time, and between variables the
correlation over cells. One window of weather is one sample, so beside the mean over windows stands the range (5 to
95 %) of means of as many draws as there are windows: weather inside it cannot be told from draws.
"""

import json
from collections.abc import Callable
from itertools import combinations

import click
import jax
import numpy as np
import xarray as xr

import bayesdownscale as bd
from bayesdownscale.data.datasets import split
from bayesdownscale.diagnostics.spectra import radial_spectrum, temporal_spectrum
from bayesdownscale.diagnostics.structure import lag1_autocorrelation, second_difference_energy

LEVELS = (0.02, 0.25, 0.5, 0.75, 0.98)
SEED, RESAMPLES = 40_000, 1000


def held_out(name: str, length: int, count: int) -> list[bd.Fields]:
    """Windows of `length` hours from midnight that the prior has not seen."""
    if name == "era5-uk":
        week = split(bd.era5_uk())[1]
        starts = np.flatnonzero(week.times.astype("datetime64[D]") == week.times)
        whole = [week.isel_times(slice(s, s + length)) for s in starts if s + length <= week.times.size]
        return [each.crop(*bd.load_prior(name).grid.shape) for each in whole]
    keys = jax.random.split(jax.random.key(SEED), count)
    return [bd.twin(key, "2301-01-01", (length - 1) / 24) for key in keys]


def stacked(windows: list[np.ndarray], prior: bd.FieldPrior) -> xr.Dataset:
    """Windows (time, variable, lat, lon) as a dataset (draw, time, lat, lon)."""
    values = np.stack(windows)
    place = {"time": prior.times, "lat": prior.grid.lat, "lon": prior.grid.lon}
    dims = ("draw", "time", "lat", "lon")
    named = {v.name: (dims, values[:, :, k], {"units": v.units}) for k, v in enumerate(prior.variables)}
    return xr.Dataset(named, place)


def statistics(data: xr.Dataset) -> dict[str, np.ndarray]:
    """Each statistic of each draw: (draw,)."""
    out: dict[str, np.ndarray] = {}
    for name, field in data.data_vars.items():
        flat = field.values.reshape(field.sizes["draw"], -1)
        out |= {f"{name} quantile {100 * p:g} %": np.quantile(flat, p, axis=1) for p in LEVELS}
        out[f"{name} standard deviation"] = flat.std(axis=1)
        out[f"{name} lag-1 autocorrelation"] = lag1_autocorrelation(field).values
        out[f"{name} second differences"] = second_difference_energy(field).values ** 0.5
        spectra: dict[str, Callable] = {"space": radial_spectrum, "time": temporal_spectrum}
        for where, spectrum in spectra.items():
            power = np.log10(spectrum(field).values.reshape(field.sizes["draw"], -1))
            third = power.shape[1] // 3
            out[f"{name} log10 power in {where}, large"] = power[:, :third].mean(axis=1)
            out[f"{name} log10 power in {where}, small"] = power[:, -third:].mean(axis=1)
    for a, b in combinations(data.data_vars, 2):
        pair = [data[name].values.reshape(data.sizes["draw"], -1) for name in (a, b)]
        out[f"correlation of {a} and {b}"] = np.array([np.corrcoef(x, y)[0, 1] for x, y in zip(*pair, strict=True)])
    return out


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--quick", is_flag=True, help="8 draws of 16 evaluations.")
@click.option("--prior", "name", type=click.Choice(["era5-uk", "twin"]), default="era5-uk", show_default=True)
@click.option("--draws", default=64, show_default=True)
@click.option("--windows", default=32, show_default=True, help="Windows of the twin climate.")
def main(as_json: bool, quick: bool, name: str, draws: int, windows: int) -> None:
    """Draws from a shipped prior beside weather it has not seen."""
    draws, windows, steps, batch = (8, 4, 16, 4) if quick else (draws, windows, 64, 8)
    prior = bd.load_prior(name, steps=steps)
    weather = held_out(name, prior.times.size, windows)
    prior = prior.at(weather[0].times)
    sample = jax.jit(lambda keys: jax.vmap(prior.sample)(keys))
    keys = jax.random.split(jax.random.key(0), draws)
    drawn = [np.asarray(sample(keys[start : start + batch])) for start in range(0, draws, batch)]
    of_draws = statistics(stacked(list(np.concatenate(drawn)), prior))
    of_weather = statistics(stacked([each.values for each in weather], prior))
    rng, n, rows = np.random.default_rng(0), len(weather), []
    print(
        f"{draws} draws of {name}, {n} windows of weather\nstatistic                              draws  weather  range"
    )
    for what, values in of_draws.items():
        means = rng.choice(values, (RESAMPLES, n)).mean(axis=1)
        low, high = np.quantile(means, [0.05, 0.95])
        seen = float(of_weather[what].mean())
        rows.append({"statistic": what, "draws": float(values.mean()), "weather": seen, "range": [low, high]})
        mark = " " if low <= seen <= high else "*"
        print(f"{what:<36} {values.mean():9.4g} {seen:9.4g}  {low:.4g} to {high:.4g} {mark}")
    inside = float(np.mean([row["range"][0] <= row["weather"] <= row["range"][1] for row in rows]))
    print(f"inside the range: {inside:.0%} of {len(rows)} statistics (90 % if draws were weather)")
    if as_json:
        print(json.dumps({"benchmark": "unconditional", "prior": name, "windows": n, "inside": inside, "rows": rows}))


if __name__ == "__main__":
    main()
