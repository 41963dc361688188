"""The embedded example: one day of UK temperature, its coarse view, and the prior that ships with the package."""

import jax
import jax.numpy as jnp
import numpy as np

from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords
from bayesdownscale.likelihood.operators import area_mean, snapshots
from bayesdownscale.prior.distribution import FieldPrior
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
