"""The embedded examples: one day of UK temperature with the prior that ships with the package, and a small Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np

from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords, Grid, Variable
from bayesdownscale.likelihood.operators import LinearOperator, area_mean, snapshots
from bayesdownscale.prior.distribution import FieldPrior, GaussianPrior
from bayesdownscale.prior.gaussian import GaussianField, matern
from bayesdownscale.prior.noise import NoiseLevels
from bayesdownscale.prior.standardise import Standardisation
from bayesdownscale.prior.trained import load_prior

HOURS, EVERY, BLOCK, NOISE_SD = 25, 6, 8, 0.05
START = np.datetime64("2019-03-26T00", "ns")


def coarsen(
    truth: Fields, key: jax.Array, block: int = BLOCK, every: int = EVERY, noise_sd: float = NOISE_SD
) -> Fields:
    """What a coarse model with white noise of `noise_sd` [units of the field] would report of `truth`: means of
    `block` x `block` cells at every `every`-th time step."""
    grid, times = truth.grid.coarsen(block), truth.times[::every]
    operator = area_mean(truth.grid, grid) @ snapshots(truth.times, times)
    values = operator(jnp.asarray(truth.values))
    values = values + noise_sd * jax.random.normal(key, values.shape)
    coords = Coords(times, truth.variables, grid)
    return Fields(np.asarray(values), coords, f"{block} x {block} block means every {every} steps of {truth.source}")


def demo_truth(data: str, seed: int) -> tuple[FieldPrior, Fields, Fields, float]:
    """The shipped prior, a truth of 25 hours, its coarse view and the noise [K]. `data`: "prior" for a draw from
    the prior (needs nothing else), "era5-uk" for 26 March 2019 of the ERA5 test week."""
    k_truth, k_noise = jax.random.split(jax.random.key(seed + 10_000))
    times = START + np.timedelta64(1, "h") * np.arange(HOURS)
    prior = load_prior().at(times)
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
