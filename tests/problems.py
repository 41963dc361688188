"""Small problems with known answers, shared by the tests."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers

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
    return _gaussian_prior([bd.Variable("t2m", "K", "air_temperature")], [280.0], [2.0], n_times)


def tiny_prior() -> bd.GaussianPrior:
    """The same of 3 hours x 4 x 4 cells, for samplers that take many steps."""
    return _gaussian_prior([bd.Variable("t2m", "K", "air_temperature")], [280.0], [2.0], 3, 4)


def small_wind_prior(n_times: int = 5) -> bd.GaussianPrior:
    """The same for two wind components that do not know of each other [m/s]: means 3 and -1, scales 2 and 3."""
    variables = [bd.Variable("u10", "m s-1", "eastward_wind"), bd.Variable("v10", "m s-1", "northward_wind")]
    return _gaussian_prior(variables, [3.0, -1.0], [2.0, 3.0], n_times)


def small_rain_prior(n_times: int = 5) -> bd.GaussianPrior:
    """The same for transformed precipitation [(mm/h)^(1/2)]: dry in about six cells of ten."""
    return _gaussian_prior([bd.Variable("z", "1")], [-0.2], [1.0], n_times)


def _gaussian_prior(variables, means, scales, n_times, n=8) -> bd.GaussianPrior:
    n_var = len(variables)
    grid = bd.Grid(55 - 0.25 * np.arange(n), -3 + 0.25 * np.arange(n))
    times = np.datetime64("2020-03-01T00", "ns") + np.timedelta64(1, "h") * np.arange(n_times)
    dt = np.abs(np.arange(n_times)[:, None] - np.arange(n_times))
    space = np.kron(np.eye(n_var), bd.matern(grid.distances_km(), 120.0, 1.5))
    field = bd.GaussianField.separable(np.exp(-dt / 4), space, (n_var, n, n))
    mean = jnp.zeros((5, n_var, n, n)).at[0].set(jnp.asarray(means)[:, None, None])
    levels = bd.NoiseLevels.covering(float(jnp.sqrt(field.variances.max())))
    coords = bd.Coords(times, tuple(variables), grid)
    return bd.GaussianPrior(field, bd.Standardisation(mean, jnp.asarray(scales)), levels, coords)


def small_data(prior, key=0, block=4, every=4) -> tuple[bd.LinearOperator, bd.Fields, bd.Fields]:
    """Operator, coarse data (`block` x `block` cells, `every` so many hours, sd 0.3 K) and truth of `small_prior`."""
    truth = prior.sample(jax.random.key(key))
    grid, times = prior.grid.coarsen(block), prior.times[::every]
    H = bd.area_mean(prior.grid, grid) @ bd.snapshots(prior.times, times)
    y = H(truth)
    y = y + SIGMA * jax.random.normal(jax.random.key(key + 1), y.shape)
    coarse = bd.Fields(np.asarray(y), bd.Coords(times, prior.variables, grid), "made by a test")
    return H, coarse, bd.Fields(np.asarray(truth), prior.coords, "made by a test")


def known_noise(prior, H, y=None):
    x = numpyro.sample("weather", prior)
    numpyro.sample("coarse", dist.Normal(H(x), SIGMA).to_event(4), obs=y)


FIXED = {  # every parameter of each program in models/: with these it has no latent site but the field
    "additive_bias": {"sigma": 0.3, "bias": 0.5},
    "area_mean": {"sigma": 0.3},
    "correlated_noise": {"sigma": 0.3, "length_km": 100.0, "tau_h": 6.0},
    "daily_mean": {"sigma": 0.3},
    "precipitation": {"m0": 0.2, "k": 2.0},
    "stations": {"sigma": 0.3, "sigma_rep": 0.4},
    "student_t": {"sigma": 0.3, "nu": 4.0},
    "unknown_noise": {"sigma": 0.3},
    "wind_speed": {"sigma": 0.3},
}


def settings(name: str, prior: bd.FieldPrior, coords: bd.Coords) -> dict[str, Any]:
    """What the program `name` needs to know that is neither data nor a parameter; `coords` label the coarse data."""
    if name in ("additive_bias", "correlated_noise"):
        return {"coords": coords}
    if name == "daily_mean":
        return {"hours": np.diff(coords.times, append=prior.times[-1:]) / np.timedelta64(1, "h")}
    if name == "stations":
        lat, lon = (np.linspace(axis.min(), axis.max(), 5)[1:-1] for axis in (prior.grid.lat, prior.grid.lon))
        return {"S": bd.stations(prior.grid, lat, lon)}
    return {}


class Case(NamedTuple):
    """A small problem for a program: `model`(`prior`, `H`, **`data`, **`given`), made with the parameters FIXED and
    the field `truth`."""

    model: Callable
    prior: bd.FieldPrior
    H: bd.LinearOperator
    coords: bd.Coords
    given: dict[str, Any]
    truth: jax.Array
    data: dict[str, jax.Array]


@cache
def _weather(make_prior: Callable) -> tuple[bd.FieldPrior, jax.Array]:
    prior = make_prior()
    return prior, prior.sample(jax.random.key(0))


@cache
def case(name: str, of_wind: bool = False) -> Case:
    """The problem of a program of models/: 2 x 2 coarse cells at two times; a prior of wind for those that need it."""
    model = load_program("models", name).model
    make_prior = {"wind_speed": small_wind_prior, "precipitation": small_rain_prior}.get(name, small_prior)
    prior, truth = _weather(small_wind_prior if of_wind else make_prior)
    grid, times = prior.grid.coarsen(4), prior.times[[0, 2]]
    if name == "daily_mean":
        in_time = bd.time_mean(prior.times, np.stack([times, prior.times[[2, 4]]], axis=1))
    else:
        in_time = bd.snapshots(prior.times, times)
    H = bd.area_mean(prior.grid, grid) @ in_time
    variables = prior.variables if name != "wind_speed" else (bd.Variable("speed", "m s-1", "wind_speed"),)
    coords = bd.Coords(times, variables, grid)
    given = settings(name, prior, coords)
    with handlers.trace() as trace, handlers.seed(rng_seed=1), handlers.condition(data={"weather": truth}):
        model(prior, H, **given, **FIXED[name])
    data = {"y": trace["coarse"]["value"]}
    if "stations" in trace:
        data["z"] = trace["stations"]["value"]
    return Case(model, prior, H, coords, given, truth, data)


def read(case: Case, **arguments) -> bd.Program:
    """The program of a case; `arguments` replace its own data and add parameters."""
    kwargs = {**case.given, **case.data, **arguments}
    return bd.Program(case.model, (case.prior, case.H), kwargs, lambda fn: isinstance(fn, bd.FieldPrior))
