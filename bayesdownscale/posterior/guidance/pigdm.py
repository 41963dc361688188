"""Pseudoinverse guidance: moment matching with an isotropic variance, which needs no product with a covariance."""

import equinox as eqx
import jax

from bayesdownscale._types import Field, Scalar
from bayesdownscale.posterior.guidance.base import AbstractGuidance, Twist
from bayesdownscale.posterior.laplace import laplace_step
from bayesdownscale.posterior.likelihood import AbstractLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context, Cost


class PiGDM(AbstractGuidance):
    """x | x_sigma ~ N(D, r^2 I) with r^2 = sigma^2 / (1 + sigma^2), true of white noise of unit variance, hence

        D_y = D + sigma^2 J^T u,   (I + r^2 W) u = g,   g = grad l(D),   W = -hess l,   J = dD / dx_sigma;

    for linear data with Gaussian noise u = A^T (R + r^2 A A^T)^-1 (y - A D): Song, Vahdat, Mardani and Kautz 2023
    (ICLR, "Pseudoinverse-guided diffusion models"), who have R = 0 or R = s^2 I. Any differentiable log-likelihood
    l will do, by a Laplace step (`posterior/laplace.py`) of at most `iterations` products with W, and relative
    `tolerance`; one vector-Jacobian product a step.
    """

    denoiser: AbstractDenoiser
    likelihood: AbstractLikelihood
    iterations: int = eqx.field(static=True, default=20)
    tolerance: float = eqx.field(static=True, default=1e-3)

    def twist(self, x_sigma: Field, sigma: Scalar, context: Context) -> Twist:
        evaluate = lambda x: self.denoiser.evaluate(x, sigma, context)
        mean, vjp, cost = jax.vjp(evaluate, x_sigma, has_aux=True)
        variance = sigma**2 / (1 + sigma**2)
        step = laplace_step(self.likelihood, mean, lambda v: variance * v, self.iterations, self.tolerance)
        cost = cost + Cost.of(products=1, iterations=step.products)
        return Twist(mean, mean + sigma**2 * vjp(step.u)[0], step.log_weight, cost)
