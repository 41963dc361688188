"""Small problems with known answers, shared by the tests."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bayesdownscale as bd
from bayesdownscale.recipes import load_recipe

ROOT = Path(__file__).parents[1]
SIGMA = 0.3


def load_program(folder: str, name: str):
    """A program of models/ or inference/ as a module."""
    return load_recipe(ROOT / folder / f"{name}.py")


def names(folder: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / folder).glob("*.py"))


def small_prior(n_times: int = 5) -> bd.GaussianPrior:
    """An exact Gaussian prior of 5 hours x 8 x 8 cells, in kelvin, with a mean of 280 and a scale of 2."""
    grid = bd.Grid(np.linspace(55, 53.25, 8), np.linspace(-3, -1.25, 8))
    times = np.datetime64("2020-03-01T00", "ns") + np.timedelta64(1, "h") * np.arange(n_times)
    dt = np.abs(np.arange(n_times)[:, None] - np.arange(n_times))
    field = bd.GaussianField.separable(np.exp(-dt / 4), bd.matern(grid.distances_km(), 120.0, 1.5), (1, 8, 8))
    mean = jnp.zeros((5, 1, 8, 8)).at[0].set(280.0)
    levels = bd.NoiseLevels(0.02, 4 * float(jnp.sqrt(field.variances.max())))
    coords = bd.Coords(times, (bd.Variable("t2m", "K", "air_temperature"),), grid)
    return bd.GaussianPrior(field, bd.Standardisation(mean, jnp.array([2.0])), levels, coords)


def small_data(prior, key=0) -> tuple[bd.LinearOperator, bd.Fields, bd.Fields]:
    """Operator, coarse data (4 x 4 blocks, every 4 hours, sd 0.3 K) and truth of `small_prior`."""
    truth = prior.sample(jax.random.key(key))
    grid, times = prior.grid.coarsen(4), prior.times[::4]
    H = bd.area_mean(prior.grid, grid) @ bd.snapshots(prior.times, times)
    y = H(truth)
    y = y + SIGMA * jax.random.normal(jax.random.key(key + 1), y.shape)
    coarse = bd.Fields(np.asarray(y), bd.Coords(times, prior.variables, grid), "made by a test")
    return H, coarse, bd.Fields(np.asarray(truth), prior.coords, "made by a test")


def known_noise(prior, H, y=None):
    x = numpyro.sample("weather", prior)
    numpyro.sample("coarse", dist.Normal(H(x), SIGMA).to_event(4), obs=y)
