"""The embedded examples: half a day of the twin climate, one of UK temperature, and a small Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np

from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords, Grid, Variable
from bayesdownscale.data.twin.weather import twin
from bayesdownscale.likelihood.operators import LinearOperator, area_mean, snapshots
from bayesdownscale.prior.distribution import FieldPrior, GaussianPrior
from bayesdownscale.prior.gaussian import GaussianField, matern
from bayesdownscale.prior.noise import NoiseLevels
from bayesdownscale.prior.standardise import Standardisation
from bayesdownscale.prior.trained import load_prior

HOURS, EVERY, BLOCK, NOISE_SD = 25, 6, 8, 0.05
START = np.datetime64("2019-03-26T00", "ns")
TWIN_HOURS, TWIN_BLOCK = 13, 4
TWIN_START = np.datetime64("2101-02-01T00", "ns")
TWIN_NOISE_SD = np.asarray([10.0, 0.1, 0.1, 0.1])[:, None, None]  # psl [Pa], uas, vas [m s-1], tas [K]


def coarsen(
    truth: Fields, key: jax.Array, block: int = BLOCK, every: int = EVERY, noise_sd: "float | np.ndarray" = NOISE_SD
) -> Fields:
    """What a coarse model with white noise of `noise_sd` [units of the field; a number, or (variable, 1, 1)] would
    report of `truth`: means of `block` x `block` cells at every `every`-th time step."""
    grid, times = truth.grid.coarsen(block), truth.times[::every]
    operator = area_mean(truth.grid, grid) @ snapshots(truth.times, times)
    values = operator(jnp.asarray(truth.values))
    values = values + jnp.broadcast_to(noise_sd, values.shape) * jax.random.normal(key, values.shape)
    coords = Coords(times, truth.variables, grid)
    return Fields(np.asarray(values), coords, f"{block} x {block} block means every {every} steps of {truth.source}")


def demo_truth(data: str, seed: int) -> "tuple[FieldPrior, Fields, Fields, float | np.ndarray]":
    """A shipped prior, a truth, its coarse view and the standard deviation of its noise. `data`: "twin" for 13 hours of
    a twin climate's weather that was not trained on (psl, uas, vas, tas), "prior" for a draw of 25 hours from the prior
    of UK temperature, "era5-uk" for 26 March 2019 of the ERA5 test week (which is downloaded)."""
    k_truth, k_noise = jax.random.split(jax.random.key(seed + 10_000))
    if data == "twin":
        truth = twin(k_truth, TWIN_START, (TWIN_HOURS - 1) / 24)
        coarse = coarsen(truth, k_noise, TWIN_BLOCK, EVERY, TWIN_NOISE_SD)
        return load_prior("twin").at(truth.times), truth, coarse, TWIN_NOISE_SD
    prior = load_prior("era5-uk").at(START + np.timedelta64(1, "h") * np.arange(HOURS))
    if data == "prior":
        truth = Fields(np.asarray(jax.jit(prior.sample)(k_truth)), prior.coords, "a draw from the shipped prior")
    else:
        from bayesdownscale.data.datasets import era5_uk

        week = era5_uk()
        first = int(np.searchsorted(week.times, START))
        truth = week.isel_times(slice(first, first + HOURS))
    return prior, truth, coarsen(truth, k_noise), NOISE_SD


def gaussian_example(times: int = 6, step_h: int = 1, cells: int = 8) -> tuple[GaussianPrior, LinearOperator, Coords]:
    """A Gaussian prior, whose every answer is known, for trying programs and samplers in seconds.

    2 m temperature at `times` times, `step_h` hours apart, on `cells` x `cells` cells of 0.25 degrees over Great
    Britain: mean 280 K, standard deviation 1.5 K, Matern-3/2 correlation of length 150 km, exponential memory of 6 h.
    With it the operator H and the coordinates of coarse data: means over 4 x 4 cells at every time.
    """
    grid = Grid(55 - 0.25 * np.arange(cells), -3 + 0.25 * np.arange(cells))
    hours = step_h * np.arange(times)
    in_time = np.exp(-np.abs(hours[:, None] - hours) / 6.0)
    field = GaussianField.separable(in_time, matern(grid.distances_km(), 150.0, 1.5), (1, *grid.shape))
    mean = jnp.zeros((5, 1, *grid.shape)).at[0].set(280.0)
    levels = NoiseLevels.covering(float(jnp.sqrt(field.variances.max())))
    when = np.datetime64("2020-03-01T00", "ns") + np.timedelta64(1, "h") * hours
    fine = Coords(when, (Variable("t2m", "K", "air_temperature"),), grid)
    prior = GaussianPrior(field, Standardisation(mean, jnp.asarray([1.5])), levels, fine)
    coarse = Coords(when, fine.variables, grid.coarsen(4))
    return prior, area_mean(grid, coarse.grid) @ snapshots(when, when), coarse
