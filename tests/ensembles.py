"""A small problem for ensembles: a Gauss-Markov process in time on 2 x 2 cells, known through windows of 9 hours."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from problems import load_program

import bayesdownscale as bd
from bayesdownscale.ensemble.problem import CoarseInMemory, Problem
from bayesdownscale.prior.gaussian import GaussianDenoiser
from bayesdownscale.prior.windows import WindowedDenoiser

WINDOW, EVERY, SIGMA, MEMORY = 9, 2, 1.5, 2.0
T2M = bd.Variable("t2m", "K", "air_temperature")
GRID = bd.Grid(55 - 0.25 * np.arange(2), -3 + 0.25 * np.arange(2))
START = np.datetime64("2020-03-01T00", "ns")


def field(length: int) -> bd.GaussianField:
    dt = np.abs(np.arange(length)[:, None] - np.arange(length))
    return bd.GaussianField.separable(np.exp(-dt / MEMORY), bd.matern(GRID.distances_km(), 60.0, 1.5), (1, 2, 2))


def hours(length: int) -> np.ndarray:
    return START + np.timedelta64(1, "h") * np.arange(length)


def windowed_prior() -> bd.FieldPrior:
    standardisation = bd.Standardisation(jnp.zeros((5, 1, 2, 2)).at[0].set(280.0), jnp.asarray([2.0]))
    denoiser = WindowedDenoiser(GaussianDenoiser(field(WINDOW)), WINDOW, 4)
    return bd.FieldPrior(denoiser, standardisation, bd.NoiseLevels(0.02, 12.0), bd.Coords(hours(WINDOW), (T2M,), GRID))


@cache
def data(length: int) -> tuple[bd.LinearOperator, bd.Fields]:
    """H and the coarse data of `length` hours: the mean of the 2 x 2 cells every 2 hours, one of them missing."""
    times, prior = hours(length), windowed_prior()
    seen = times[::EVERY]
    H = bd.area_mean(GRID, GRID.coarsen(2)) @ bd.snapshots(times, seen)
    y = np.array(H(280 + 2 * field(length).draw(jax.random.key(0))))
    y += SIGMA * np.random.default_rng(0).normal(size=y.shape)
    y[3] = np.nan
    return H, bd.Fields(y.astype(np.float32), bd.Coords(seen, prior.variables, GRID.coarsen(2)), "made by a test")


MODEL = load_program("models", "area_mean").model


def problem(length: int = 21, sigma: float | None = SIGMA) -> Problem:
    settings = {} if sigma is None else {"sigma": sigma}
    return Problem(windowed_prior(), CoarseInMemory(data(length)[1]), MODEL, settings)


SPAN = {"span": np.timedelta64(8, "h"), "halo": 4, "stride": 4, "steps": 4}
build = partial(problem, 21)
