"""The Laplace step: the mode of a log-likelihood plus a Gaussian whose covariance is known by its products."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bayesdownscale._precision import inner
from bayesdownscale._types import Count, Field, Scalar
from bayesdownscale.posterior.krylov import solve_shift
from bayesdownscale.posterior.likelihood import AbstractLikelihood

MAX_HALVINGS = 30
ROUNDING = 1e-5  # relative error of a log-likelihood in single precision, summed over many data


class Laplace(NamedTuple):
    """The mode is `mean` + `shift`, shift = V u; `log_weight` = l(mode) - u^T V u / 2; `products` with V taken;
    whether l was `quadratic` over the step."""

    shift: Field
    u: Field
    log_weight: Scalar
    products: Count
    quadratic: jax.Array


class _Newton(NamedTuple):
    u: Field
    shift: Field
    products: Count
    steps: Count
    quadratic: jax.Array


def laplace_step(
    likelihood: AbstractLikelihood,
    mean: Field,
    covariance: Callable[[Field], Field],
    iterations: int,
    tolerance: float,
) -> Laplace:
    """The mode of l(x) + log N(x; mean, V), with V given by its products `covariance`:

        x = mean + V u,   (I + W V) u = grad l(x),   W = -hess l,

    by Newton steps in u, each a Krylov solve; one step is exact where l is quadratic. Where it is not, the step is
    shortened until it no longer passes the mode along its line, and another is made from there while fewer than
    `iterations` products with V have been taken. `tolerance` is relative. Kinks of l
    are rounded (`AbstractLikelihood.smooth`).
    """
    likelihood = likelihood.smooth()

    def newton(s: _Newton) -> _Newton:
        gradient, hessian = jax.linearize(jax.grad(likelihood), mean + s.shift)
        g = gradient - s.u
        solution = solve_shift(covariance, lambda v: -hessian(v), g, iterations - s.products, tolerance)

        def log_density(t: Scalar) -> Scalar:
            u, shift = s.u + t * solution.u, s.shift + t * solution.shift
            return likelihood(mean + shift) - 0.5 * inner(u, shift)

        t = halve_while_better(log_density)
        u, shift = s.u + t * solution.u, s.shift + t * solution.shift
        products = s.products + jnp.maximum(1, solution.iterations)  # none is taken of a gradient that is not finite
        left = jax.grad(likelihood)(mean + shift) - u
        surprise = jnp.linalg.norm(jnp.ravel(left - solution.residual))
        quadratic = surprise <= tolerance * jnp.linalg.norm(jnp.ravel(g))
        return _Newton(u, shift, products, s.steps + 1, quadratic)

    zero, none = jnp.zeros_like(mean), jnp.zeros((), jnp.int32)
    start = _Newton(zero, zero, none, none, jnp.asarray(False))
    end = jax.lax.while_loop(lambda s: ~s.quadratic & (s.products < iterations), newton, start)
    log_weight = likelihood(mean + end.shift) - 0.5 * inner(end.u, end.shift)
    return Laplace(end.shift, end.u, log_weight, end.products, end.quadratic & (end.steps == 1))


def halve_while_better(function: Callable[[Scalar], Scalar]) -> Scalar:
    """The largest t of 1, 1/2, 1/4, ... with function(t) not below function(t / 2), rounding errors aside."""

    def value(t: Scalar) -> Scalar:
        at = function(t)
        return jnp.where(jnp.isnan(at), -jnp.inf, at)

    def better(s) -> jax.Array:
        _, here, half, k = s
        return ((half > here + ROUNDING * jnp.abs(half)) | (here == -jnp.inf)) & (k < MAX_HALVINGS)

    halve = lambda s: (s[0] / 2, s[2], value(s[0] / 4), s[3] + 1)
    one = jnp.ones(())
    return jax.lax.while_loop(better, halve, (one, value(one), value(one / 2), jnp.zeros((), jnp.int32)))[0]
