"""The guided reverse SDE for a NumPyro program: the sampler most users want."""

import inspect
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from bayesdownscale.data.fields import Fields
from bayesdownscale.likelihood.program import Program, ProgramError, Theta
from bayesdownscale.posterior.batches import draw_keys, fingerprint, finite, in_batches
from bayesdownscale.posterior.guidance import AbstractGuidance, MomentMatching
from bayesdownscale.posterior.likelihood import ProgramLikelihood
from bayesdownscale.posterior.result import Posterior, provenance
from bayesdownscale.posterior.theta import draw_theta_given_field
from bayesdownscale.prior.distribution import FieldPrior
from bayesdownscale.prior.reverse_sde import reverse_sample

is_field = lambda fn: isinstance(fn, FieldPrior)


def read_model(model: Callable, args: tuple, kwargs: dict) -> tuple[Program, tuple[tuple, dict], list[Fields]]:
    """The program of a model called with `args` and `kwargs`, its data as arrays, and the `Fields` among them
    (a model sees their values; the labels go into the result)."""
    as_leaf = lambda a: isinstance(a, Fields)
    labels = [a for a in jax.tree.leaves((args, kwargs), is_leaf=as_leaf) if as_leaf(a)]
    args, kwargs = jax.tree.map(lambda a: jnp.asarray(a.values) if as_leaf(a) else a, (args, kwargs), is_leaf=as_leaf)
    return Program(model, args, kwargs, is_field), (args, kwargs), labels


def source_of(model: Callable) -> str:
    """The text of a program, for the record."""
    try:
        return inspect.getsource(model)
    except (OSError, TypeError):
        return f"{getattr(model, '__name__', 'model')}: source not available"


class GuidedSDE:
    """Draws from p(x, theta | y) of a NumPyro program by the guided reverse SDE. Approximate, and labelled so.

    **Arguments:** `model`, a program with one field site; `steps`, evaluations of the prior's denoiser a draw;
    `guidance`, a class of `bayesdownscale.posterior.guidance` or a partial of one; `stochasticity` lambda from 0
    (probability-flow ODE) to 1 (SDE); `batch`, draws in memory at once. Parameters theta of the program that
    are not given to `run` are drawn too, by `sweeps` of field given theta, theta given field (Gibbs; the field
    step is approximate).
    """

    def __init__(
        self,
        model: Callable,
        *,
        steps: int = 32,
        guidance: Callable[..., AbstractGuidance] = MomentMatching,
        stochasticity: float = 1.0,
        batch: int = 16,
        sweeps: int = 5,
    ):
        self.model, self.steps, self.guidance = model, steps, guidance
        self.stochasticity, self.batch, self.sweeps = stochasticity, batch, sweeps

    def run(
        self,
        rng_key: Array,
        *args: Any,
        draws: int,
        theta: Theta | None = None,
        on_batch: Callable[[int], None] = lambda done: None,
        keep: Path | None = None,
        **kwargs: Any,
    ) -> Posterior:
        """`draws` draws given the model's `args` and `kwargs`, data included (arrays or `Fields`).

        `theta` fixes parameters by name. `on_batch` hears how many draws are done; `keep` is a folder for
        finished batches, from which a killed run goes on. Raises `ProgramError` for a program that cannot be
        read, `FloatingPointError` when no draw is finite.
        """
        program, data, labels = read_model(self.model, args, kwargs)
        given = {k: jnp.asarray(v) for k, v in (theta or {}).items()}
        unknown = sorted(set(given) - set(program.latents))
        if unknown:
            raise ProgramError(f"expected parameters among {program.latents}, got {unknown[0]!r} in theta")
        sweeps = self.sweeps if set(program.latents) - set(given) else 1
        prior, observed = program.prior, program.observed_values()
        began = time.monotonic()
        settings = (self.guidance, self.steps, self.stochasticity, sweeps)
        plain = lambda tree: jax.tree.map(lambda a: a.unlabelled() if is_field(a) else a, tree, is_leaf=is_field)
        draw_batch = partial(_draw_batch, program.abstract(), plain(prior), plain(data), given, settings)
        keys = draw_keys(rng_key, draws)
        mark = fingerprint(rng_key, prior, data, given, settings=repr((_name(self.guidance), *settings[1:])))
        arrays = in_batches(draw_batch, keys, self.batch, on_batch=on_batch, keep=keep, mark=mark)
        attrs = provenance(
            _name(self.guidance),
            approximate=1,
            steps=self.steps,
            stochasticity=self.stochasticity,
            sweeps=sweeps,
            prior_sha256=fingerprint(prior)["sha256"],
            sampling_seconds=round(time.monotonic() - began, 3),
            model_name=getattr(self.model, "__name__", "model"),
            model_source=source_of(self.model),
        )
        stats = {k.removeprefix("stats/"): v for k, v in arrays.items() if k.startswith("stats/")}
        drawn = {k.removeprefix("theta/"): v for k, v in arrays.items() if k.startswith("theta/")}
        return Posterior(program.field, arrays["field"], drawn, stats, observed, prior.coords, labels, attrs)


def _name(guidance: Callable) -> str:
    while isinstance(guidance, partial):
        guidance = guidance.func
    return guidance.__name__


@eqx.filter_jit
def _draw_batch(abstract, prior, data, given, settings, keys) -> dict[str, Array]:
    """One batch. Arrays are arguments (network, data, theta), the rest is static: one compile per shape."""
    program = abstract.bind(data)
    guidance, steps, stochasticity, sweeps = settings
    sigmas = prior.levels.levels(steps)
    latents = [name for name in program.latents if name not in given]

    def draw(key):
        k_prior, k_sweeps = jax.random.split(key)
        theta = {**program.draw_theta(k_prior), **given} if latents else given

        def sweep(theta, key):
            k_field, k_theta = jax.random.split(key)
            likelihood = ProgramLikelihood(abstract, data, prior.standardisation, prior.context, theta)
            denoiser = guidance(prior.denoiser, likelihood)
            x, cost = reverse_sample(k_field, denoiser, prior.context, sigmas, prior.event_shape, stochasticity)
            x = prior.standardisation.backward(x, prior.context)
            if latents:
                theta = {**draw_theta_given_field(k_theta, program, data, x, given), **given}
            return theta, (x, cost)

        theta, (fields, costs) = jax.lax.scan(sweep, theta, jax.random.split(k_sweeps, sweeps))
        x, cost = fields[-1], jax.tree.map(jnp.sum, costs)
        return {
            "field": x,
            **{f"theta/{name}": value for name, value in theta.items()},
            "stats/n_evaluations": cost.evaluations,
            "stats/n_products": cost.products,
            "stats/krylov_iterations": cost.iterations,
            "stats/coarse_residual": coarse_residual(program, x, theta),
            "stats/diverging": ~finite((x, theta)),
        }

    return jax.vmap(draw)(keys)


def coarse_residual(program: Program, x: Array, theta: Theta) -> Array:
    """Root mean square of the observed Normal sites' residuals in units of their noise; NaN for other sites."""
    try:
        terms = program.gaussian_terms(x, theta)
    except ProgramError:
        return jnp.asarray(jnp.nan)
    squares = sum(jnp.sum(t.residual**2 / t.variance) for t in terms)
    return jnp.sqrt(squares / sum(jnp.sum(jnp.isfinite(t.variance)) for t in terms))
