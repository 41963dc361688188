"""Moment matching: the default guidance, exact for Gaussian priors with linear-Gaussian data."""

import equinox as eqx
import jax

from bayesdownscale._types import Field, Scalar
from bayesdownscale.posterior.guidance.base import AbstractGuidance, Twist
from bayesdownscale.posterior.laplace import laplace_step
from bayesdownscale.posterior.likelihood import AbstractLikelihood
from bayesdownscale.posterior.mode_to_mean import mode_to_mean
from bayesdownscale.prior.denoiser import AbstractDenoiser, AbstractSpreadDenoiser, Context, Cost

MEAN_ITERATIONS = 20  # they take no product with the Jacobian


class MomentMatching(AbstractGuidance):
    """x | x_sigma ~ N(D, V) with V = sigma^2 dD/dx_sigma (Tweedie's covariance formula), hence

        D_y = D + V u,   (I + W V) u = g,   g = grad l(D),   W = -hess l(D),

    for any differentiable log-likelihood l: a Laplace step (`posterior/laplace.py`), exact where l is quadratic.
    For linear data with Gaussian noise this is MMPS (Rozet et al. 2024, arXiv 2405.13712). V is never formed: at
    most `iterations` vector-Jacobian products of the denoiser are taken; `tolerance` is relative. Where l is not
    quadratic the mode is moved to the mean (`posterior/mode_to_mean.py`), if the denoiser knows its average
    covariance.
    """

    denoiser: AbstractDenoiser
    likelihood: AbstractLikelihood
    iterations: int = eqx.field(static=True, default=5)
    tolerance: float = eqx.field(static=True, default=1e-3)

    def twist(self, x_sigma: Field, sigma: Scalar, context: Context) -> Twist:
        evaluate = lambda x: self.denoiser.evaluate(x, sigma, context)
        mean, vjp, cost = jax.vjp(evaluate, x_sigma, has_aux=True)
        covariance = lambda v: sigma**2 * vjp(v)[0]
        step = laplace_step(self.likelihood, mean, covariance, self.iterations, self.tolerance)
        guided = mean + step.shift
        if isinstance(self.denoiser, AbstractSpreadDenoiser):
            settings = MEAN_ITERATIONS, self.tolerance
            guided = mode_to_mean(self.likelihood, self.denoiser, sigma, x_sigma, guided, step, *settings)
        cost = cost + Cost.of(products=step.products, iterations=step.products)
        return Twist(mean, guided, step.log_weight, cost)
