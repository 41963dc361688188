"""Moment matching: the default guidance, exact for Gaussian priors with linear-Gaussian data."""

import equinox as eqx
import jax
import jax.numpy as jnp

from bayesdownscale._types import Field, Scalar
from bayesdownscale.posterior.guidance.base import AbstractGuidance
from bayesdownscale.posterior.krylov import solve_shift
from bayesdownscale.posterior.likelihood import AbstractLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context, Cost


class MomentMatching(AbstractGuidance):
    """x | x_sigma ~ N(D, V) with V = sigma^2 dD/dx_sigma (Tweedie's covariance formula), hence

        D_y = D + V u,   (I + W V) u = g,   g = grad l(D),   W = -hess l(D),

    for any differentiable log-likelihood l: a Laplace step, exact where l is quadratic. For linear data with
    Gaussian noise this is MMPS (Rozet et al. 2024, arXiv 2405.13712). V is never formed: each of at most
    `iterations` Krylov steps takes one vector-Jacobian product of the denoiser; `tolerance` is relative.
    """

    denoiser: AbstractDenoiser
    likelihood: AbstractLikelihood
    iterations: int = eqx.field(static=True, default=5)
    tolerance: float = eqx.field(static=True, default=1e-3)

    def evaluate(self, x_sigma: Field, sigma: Scalar, context: Context) -> tuple[Field, Cost]:
        evaluate = lambda x: self.denoiser.evaluate(x, sigma, context)
        mean, vjp, cost = jax.vjp(evaluate, x_sigma, has_aux=True)
        gradient, hessian = jax.linearize(jax.grad(self.likelihood), mean)
        solution = solve_shift(
            lambda v: sigma**2 * vjp(v)[0],
            lambda v: -hessian(v),
            gradient,
            self.iterations,
            self.tolerance,
        )
        n = solution.iterations
        return mean + solution.shift, cost + Cost.of(products=jnp.maximum(n, 1), iterations=n)
