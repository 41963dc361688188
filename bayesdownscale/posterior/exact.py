"""The exact posterior of a NumPyro program with a Gaussian prior and linear-Gaussian data."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array

from bayesdownscale._types import Field
from bayesdownscale.likelihood.program import Program, ProgramError, Theta
from bayesdownscale.likelihood.terms import GaussianTerm, stacked
from bayesdownscale.posterior.collect import collect, read_model
from bayesdownscale.posterior.result import Posterior
from bayesdownscale.prior.distribution import FieldPrior, GaussianPrior
from bayesdownscale.prior.gaussian import GaussianPosterior

LINEARITY = 1e-3  # relative departure from a linear map that float32 arithmetic may show


class ExactGaussian:
    """Exact draws from p(x | y, theta) for a program whose field has a `GaussianPrior` and whose observed sites
    are Normal with means linear in the field. All parameters must be given: with them unknown the posterior is
    not Gaussian."""

    def __init__(self, model: Callable):
        self.model = model

    def condition(self, *args: Any, theta: Theta | None = None, **kwargs: Any) -> GaussianPosterior:
        """The exact posterior of the standardised field; `log_evidence()` of it is log p(y | theta), a density in the
        physical units of the data."""
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
    zero = jnp.zeros(prior.event_shape)
    _, push = jax.linearize(lambda x: stacked(_terms(program, prior, x)).residual, zero)
    data = stacked(_terms(program, prior, zero))
    return GaussianPosterior(prior.field, lambda x: -push(x), data.residual, data.variance)


def check_linear_gaussian(program: Program, prior: FieldPrior) -> None:
    """Raise `ProgramError` unless p(x | y) is a Gaussian that `condition_gaussian` can give."""
    if not isinstance(prior, GaussianPrior):
        got = type(prior).__name__
        raise ProgramError(f"site {program.field!r}: expected a GaussianPrior, got {got}; use GuidedSDE")
    if program.latents:
        raise ProgramError(f"expected a value for parameter {program.latents[0]!r} in theta; it must be fixed here")
    probe = jax.random.normal(jax.random.key(0), prior.event_shape)
    for at_0, at_1, at_2 in zip(*(_terms(program, prior, k * probe) for k in range(3)), strict=True):
        bend = _largest(at_2.residual - 2 * at_1.residual + at_0.residual)
        size = _largest(at_1.residual - at_0.residual) + jnp.sqrt(_largest(at_0.variance))
        if not isinstance(bend, Tracer) and bend > LINEARITY * size:
            raise ProgramError("expected means linear in the field, got a non-linear program; use GuidedSDE")
        change = _largest(at_1.variance / at_0.variance - 1)
        if not isinstance(change, Tracer) and change > LINEARITY:
            raise ProgramError("expected a noise that does not depend on the field, got one that does; use GuidedSDE")


def _largest(a: Array) -> Array:
    """In absolute value, of what is finite: the variance of a datum that is missing is not."""
    return jnp.max(jnp.abs(jnp.where(jnp.isfinite(a), a, 0.0)), initial=0.0)


def _terms(program: Program, prior: FieldPrior, x: Field) -> list[GaussianTerm]:
    """Residuals and variances of the observed sites in their own units, given a standardised field."""
    return program.gaussian_terms(prior.standardisation.backward(x, prior.context))
