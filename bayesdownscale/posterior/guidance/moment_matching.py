"""Moment matching: the default guidance, exact for Gaussian priors with linear-Gaussian data."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from bayesdownscale._types import Count, Field, Scalar
from bayesdownscale.posterior.guidance.base import AbstractGuidance
from bayesdownscale.posterior.krylov import solve_shift
from bayesdownscale.posterior.likelihood import AbstractLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context, Cost

MAX_HALVINGS = 30
ROUNDING = 1e-5  # relative error of a log-likelihood in single precision, summed over many data


class _Newton(NamedTuple):
    u: Field
    shift: Field
    products: Count
    going: jax.Array


class MomentMatching(AbstractGuidance):
    """x | x_sigma ~ N(D, V) with V = sigma^2 dD/dx_sigma (Tweedie's covariance formula), hence

        D_y = D + V u,   (I + W V) u = g,   g = grad l(D),   W = -hess l(D),

    for any differentiable log-likelihood l: a Laplace step, exact where l is quadratic. For linear data with
    Gaussian noise this is MMPS (Rozet et al. 2024, arXiv 2405.13712). Where l is not quadratic the step is
    shortened until it no longer passes the mode of l(x) + log N(x; D, V) along its line, and another is made
    from there while products are left. V is never formed: at most `iterations` vector-Jacobian products of the
    denoiser are taken; `tolerance` is relative.
    """

    denoiser: AbstractDenoiser
    likelihood: AbstractLikelihood
    iterations: int = eqx.field(static=True, default=5)
    tolerance: float = eqx.field(static=True, default=1e-3)

    def evaluate(self, x_sigma: Field, sigma: Scalar, context: Context) -> tuple[Field, Cost]:
        evaluate = lambda x: self.denoiser.evaluate(x, sigma, context)
        mean, vjp, cost = jax.vjp(evaluate, x_sigma, has_aux=True)

        def newton(s: _Newton) -> _Newton:
            gradient, hessian = jax.linearize(jax.grad(self.likelihood), mean + s.shift)
            g = gradient - s.u
            solution = solve_shift(
                lambda v: sigma**2 * vjp(v)[0],
                lambda v: -hessian(v),
                g,
                self.iterations - s.products,
                self.tolerance,
            )

            def log_density(t: Scalar) -> Scalar:
                u, shift = s.u + t * solution.u, s.shift + t * solution.shift
                return self.likelihood(mean + shift) - 0.5 * jnp.vdot(u, shift)

            t = halve_while_better(log_density)
            u, shift = s.u + t * solution.u, s.shift + t * solution.shift
            products = s.products + solution.iterations
            left = jax.grad(self.likelihood)(mean + shift) - u
            surprise = jnp.linalg.norm(jnp.ravel(left - solution.residual))
            quadratic = surprise <= self.tolerance * jnp.linalg.norm(jnp.ravel(g))
            return _Newton(u, shift, products, ~quadratic & (products < self.iterations))

        zero = jnp.zeros_like(mean)
        start = _Newton(zero, zero, jnp.zeros((), jnp.int32), jnp.asarray(True))
        end = jax.lax.while_loop(lambda s: s.going, newton, start)
        return mean + end.shift, cost + Cost.of(products=end.products, iterations=end.products)


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
