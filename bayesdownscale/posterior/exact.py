"""The exact posterior of a NumPyro program with a Gaussian prior and linear-Gaussian data."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array

from bayesdownscale.likelihood.program import Program, ProgramError, Theta
from bayesdownscale.posterior.collect import collect, read_model
from bayesdownscale.posterior.likelihood import ProgramLikelihood
from bayesdownscale.posterior.result import Posterior
from bayesdownscale.prior.distribution import FieldPrior, GaussianPrior
from bayesdownscale.prior.gaussian import GaussianPosterior

LINEARITY = 1e-3  # relative departure from a linear map that float32 arithmetic may show
MISSING = 1e10  # variance of a datum that is not there, for data of order one


class ExactGaussian:
    """Exact draws from p(x | y, theta) for a program whose field has a `GaussianPrior` and whose observed sites
    are Normal with means linear in the field. All parameters must be given: with them unknown the posterior is
    not Gaussian."""

    def __init__(self, model: Callable):
        self.model = model

    def condition(self, *args: Any, theta: Theta | None = None, **kwargs: Any) -> GaussianPosterior:
        """The exact posterior of the standardised field."""
        program, _ = read_model(self.model, args, kwargs)
        return condition_gaussian(program.fix(theta or {}), program.prior)

    def run(self, rng_key: Array, *args: Any, draws: int, theta: Theta | None = None, **kwargs: Any) -> Posterior:
        """`draws` exact draws given the model's `args` and `kwargs`, data included (arrays or `Fields`)."""
        program, labels = read_model(self.model, args, kwargs)
        program = program.fix(theta or {})
        check_linear_gaussian(program, program.prior)
        settings = {"draws": draws}
        return collect(
            exact_sampler, rng_key, program, labels,
            draws=draws, chains=1, settings=settings, method="ExactGaussian", approximate=False,
        )  # fmt: skip


def exact_sampler(program: Program, prior: FieldPrior, *, draws: int) -> Callable[[Array], dict[str, Array]]:
    """The sampler of a "chain" of independent exact draws."""
    posterior = condition_gaussian(program, prior)
    draw = lambda key: prior.standardisation.backward(posterior.draw(key), prior.context)
    return lambda key: {"field": jax.lax.map(draw, jax.random.split(key, draws), batch_size=min(draws, 16))}


def condition_gaussian(program: Program, prior: FieldPrior) -> GaussianPosterior:
    """p(x | y) of the standardised field; raises `ProgramError` for a program that is not linear and Gaussian."""
    check_linear_gaussian(program, prior)
    assert isinstance(prior, GaussianPrior)
    residual, variance = _stacked(program, prior)
    origin = jnp.zeros(prior.event_shape)
    y, noise = residual(origin), variance(origin)
    seen = jnp.isfinite(noise)
    observe = lambda x: jnp.where(seen, y - residual(x), 0.0)
    return GaussianPosterior(prior.field, observe, y, jnp.where(seen, noise, MISSING))


def check_linear_gaussian(program: Program, prior: FieldPrior) -> None:
    """Raise `ProgramError` unless p(x | y) is a Gaussian that `condition_gaussian` can give."""
    if not isinstance(prior, GaussianPrior):
        got = type(prior).__name__
        raise ProgramError(f"site {program.field!r}: expected a GaussianPrior, got {got}; use GuidedSDE")
    if program.latents:
        raise ProgramError(f"expected a value for parameter {program.latents[0]!r} in theta; it must be fixed here")
    residual, _ = _stacked(program, prior)
    probe = jax.random.normal(jax.random.key(0), prior.event_shape)
    y, once, twice = residual(jnp.zeros(prior.event_shape)), residual(probe), residual(2 * probe)
    bend, size = jnp.max(jnp.abs(twice - 2 * once + y)), jnp.max(jnp.abs(y - once))
    if not isinstance(bend, Tracer) and bend > LINEARITY * (1 + size):
        raise ProgramError("expected means linear in the field, got a non-linear program; use GuidedSDE")


def _stacked(program: Program, prior: FieldPrior) -> tuple[Callable, Callable]:
    """Residuals and variances of all data as functions of the standardised field."""
    likelihood = ProgramLikelihood.of(program, prior)
    part = lambda x, what: jnp.concatenate([getattr(t, what).ravel() for t in likelihood.gaussian_terms(x)])
    return lambda x: part(x, "residual"), lambda x: part(x, "variance")
