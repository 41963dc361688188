"""Simulation-based calibration: does a sampler draw from the posterior of a program? Truths from the prior say so.

Draw parameters and field from their priors and data from the program, then draw from the posterior given those data.
The truth and the draws are then exchangeable, so the rank of any quantity of the truth among the draws is uniform
(Talts et al. 2018, arXiv 1804.06788). No truth from outside is needed, and nothing is assumed of the sampler.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array
from numpyro import handlers
from scipy.stats import kstest

from bayesdownscale.diagnostics.functionals import of_array
from bayesdownscale.likelihood.program import AbstractProgram, Program, ProgramError, Theta
from bayesdownscale.likelihood.sites import set_field
from bayesdownscale.posterior.batches import draw_keys
from bayesdownscale.posterior.collect import is_field
from bayesdownscale.prior.distribution import FieldPrior

Functionals = Callable[[Array], Mapping[str, Array]]


def sbc(
    rng_key: Array,
    model: Callable,
    sampler: Callable[..., Callable[[Array], dict[str, Array]]],
    *args: Any,
    replicates: int = 200,
    draws: int = 31,
    settings: Mapping[str, Any] | None = None,
    theta: Theta | None = None,
    functionals: Functionals | None = None,
    batch: int = 50,
    on_batch: Callable[[int], None] = lambda done: None,
    **kwargs: Any,
) -> xr.Dataset:
    """Ranks of the truth among posterior draws, for truths and data drawn from the program itself.

    **Arguments:** `model` with its `args` and `kwargs`, without data (`y=None`): it draws them; `sampler`, a recipe's
    pure function `sampler(program, prior, **settings)` (see `inference/`), whose function of a key gives one draw, or,
    with a setting `draws`, a chain of which every n-th is ranked; `theta`, parameters that are known; `functionals`
    of fields (..., time, variable, lat, lon) in physical units, by name (default: `functionals.FUNCTIONALS` of each
    variable); `batch` replicates in memory at once; `on_batch` hears how many are done.
    **Returns:** `rank` (quantity, replicate), how many of the `draws` draws (an attribute) are below the truth. Ranked
    are each unknown parameter (the mean over its elements), each functional, and `tarp`: the distance from a point
    drawn from the prior, in all quantities together and in units of their spread (Lemos et al. 2023, arXiv 2302.03026),
    which sees what single quantities do not. Judge them with `uniformity`.
    **Raises:** `ProgramError` for a program that cannot be read or whose data are already there.
    """
    settings = dict(settings or {})
    program, given = _without_data(model, args, kwargs, dict(theta or {}))
    functionals = functionals or partial(_of_variables, [v.name for v in program.prior.variables])
    static = (sampler, tuple(sorted(settings.items())), functionals, draws, program.abstract())
    ranks, keys = [], draw_keys(rng_key, replicates)
    for start in range(0, replicates, batch):
        index = np.minimum(np.arange(start, start + min(batch, replicates)), replicates - 1)
        part = _replicates(*static, program.prior, program.data, given, keys[index])
        ranks.append({name: np.asarray(values)[: replicates - start] for name, values in part.items()})
        on_batch(min(start + batch, replicates))
    names = list(ranks[0])
    values = np.stack([np.concatenate([part[name] for part in ranks]) for name in names])
    name = lambda function: getattr(function, "__qualname__", type(function).__name__)
    attrs = {"draws": draws, "model": name(model), "sampler": name(sampler), "settings": repr(settings)}
    return xr.Dataset({"rank": (("quantity", "replicate"), values)}, {"quantity": names}, attrs)


def uniformity(result: xr.Dataset, seed: int = 0) -> xr.Dataset:
    """How far ranks are from uniform: for each quantity `D`, the Kolmogorov-Smirnov distance (1.36 / sqrt(replicates)
    is its 5 % point), its p-value `p`, the `mean` rank from 0 to 1 (0.5 if uniform, less where draws are too high), and
    `outer`, the share of ranks in the two outer eighths, 0.25 if uniform: more where draws are too narrow, or draws of
    one chain that is not yet independent of its start; less where they are too wide. Ties are broken at random with
    `seed`."""
    rank = result["rank"].values
    u = (rank + np.random.default_rng(seed).uniform(size=rank.shape)) / (result.attrs["draws"] + 1)
    tests = [kstest(row, "uniform") for row in u]
    return xr.Dataset(
        {
            "D": ("quantity", [float(test.statistic) for test in tests]),
            "p": ("quantity", [float(test.pvalue) for test in tests]),
            "mean": ("quantity", u.mean(axis=1)),
            "outer": ("quantity", np.mean(np.abs(u - 0.5) > 0.375, axis=1)),
        },
        {"quantity": result["quantity"].values},
    )


@dataclass(frozen=True)
class _Observing:
    """A program that takes the values of its data's sites as its first argument."""

    model: Callable

    def __call__(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        handlers.condition(self.model, data)(*args, **kwargs)


def _without_data(model: Callable, args: tuple, kwargs: dict, theta: Theta) -> tuple[Program, Theta]:
    """The program with data drawn from it, which stand for others of the same shapes."""
    traced = handlers.trace(handlers.seed(model, 0)).get_trace(*args, **kwargs)
    draws = {name: site for name, site in traced.items() if site["type"] == "sample"}
    fields = [site["fn"] for site in draws.values() if is_field(site["fn"])]
    seen = [name for name, site in draws.items() if site["is_observed"]]
    if seen or len(fields) != 1:
        got = f"data at {seen[0]!r}" if seen else f"{len(fields)} fields"
        raise ProgramError(f"expected a program with one field and no data, got {got}; leave the data out (y=None)")
    prior = fields[0]
    at = lambda x: handlers.trace(handlers.seed(set_field(model, x, is_field), 0)).get_trace(*args, **kwargs)
    first, other = at(prior.sample(jax.random.key(0))), at(prior.sample(jax.random.key(1)))
    density = lambda sites, name: np.asarray(sites[name]["fn"].log_prob(first[name]["value"]))
    mine = [name for name, site in draws.items() if not is_field(site["fn"])]
    data = {n: first[n]["value"] for n in mine if not np.array_equal(density(first, n), density(other, n))}
    program = Program(_Observing(model), (data, *args), kwargs, is_field).fix(theta)
    return program, program.given


def _of_variables(names: list[str], fields: Array) -> dict[str, Array]:
    by_variable = {name: of_array(fields[..., k, :, :]) for k, name in enumerate(names)}
    return {f"{name} {key}": value for name, found in by_variable.items() for key, value in found.items()}


@eqx.filter_jit
def _replicates(
    sampler: Callable,
    settings: tuple,
    functionals: Functionals,
    draws: int,
    abstract: AbstractProgram,
    prior: FieldPrior,
    data: tuple,
    given: Theta,
    keys: Array,
) -> dict[str, Array]:
    """The ranks (replicate,) of every quantity."""
    (_, *args), kwargs = data

    def simulate(program: Program, key: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        """The quantities of a truth, and its data."""
        k_theta, k_field, k_data = jax.random.split(key, 3)
        theta, x = program.draw_theta(k_theta), prior.sample(k_field)
        quantities = {name: jnp.mean(theta[name]) for name in program.latents} | dict(functionals(x))
        return quantities, program.simulate(k_data, x, theta)

    def one(key: Array) -> dict[str, Array]:
        k_truth, k_reference, k_draws = jax.random.split(key, 3)
        program = abstract.bind(data, given)
        truth, simulated = simulate(program, k_truth)
        reference, _ = simulate(program, k_reference)
        draw = sampler(abstract.bind(((simulated, *args), kwargs), given), prior, **dict(settings))
        drawn = draw(k_draws) if "draws" in dict(settings) else jax.vmap(draw)(jax.random.split(k_draws, draws))
        thin = drawn["field"].shape[0] // draws
        drawn = {name: values[thin - 1 :: thin][:draws] for name, values in drawn.items()}
        found = {name: drawn[f"theta/{name}"].reshape(draws, -1).mean(1) for name in program.latents}
        found |= dict(functionals(drawn["field"]))
        ranks = {name: jnp.sum(found[name] < truth[name]) for name in truth}
        return ranks | {"tarp": _tarp(found, truth, reference)}

    return jax.vmap(one)(keys)


def _tarp(found: dict[str, Array], truth: dict[str, Array], reference: dict[str, Array]) -> Array:
    """How many draws are nearer to the reference point than the truth is."""
    pool = jnp.stack([jnp.append(found[name], truth[name]) for name in truth])
    centre = jnp.stack([reference[name] for name in truth])[:, None]
    spread = jnp.std(pool, axis=1, keepdims=True)  # of draws and truth alike: it must not know which is which
    distance = jnp.sum(((pool - centre) / jnp.maximum(spread, 1e-12)) ** 2, axis=0)
    return jnp.sum(distance[:-1] < distance[-1])
