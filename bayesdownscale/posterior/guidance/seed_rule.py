"""The released rule of the seed paper: the variance of SDA without the network's Jacobian."""

import equinox as eqx
import jax

from bayesdownscale._types import Field, Scalar
from bayesdownscale.posterior.guidance.base import AbstractGuidance, Twist
from bayesdownscale.posterior.guidance.sda import inflated_log_likelihood
from bayesdownscale.posterior.likelihood import AbstractLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context


class SeedRule(AbstractGuidance):
    """D_y = D + sigma^2 H^T (R + gamma sigma^2 I)^-1 (y - H D), the update in every released configuration of
    Schmidt et al. 2025 (arXiv 2412.15361), gamma = 7.2e-4; no vector-Jacobian product. It moves observed hours
    only. Kept as the baseline it is. Normal noise only."""

    denoiser: AbstractDenoiser
    likelihood: AbstractLikelihood
    gamma: float = eqx.field(static=True, default=7.2e-4)

    def twist(self, x_sigma: Field, sigma: Scalar, context: Context) -> Twist:
        mean, cost = self.denoiser.evaluate(x_sigma, sigma, context)
        log_likelihood = lambda m: inflated_log_likelihood(self.likelihood, m, self.gamma * sigma**2)
        value, gradient = jax.value_and_grad(log_likelihood)(mean)
        return Twist(mean, mean + sigma**2 * gradient, value, cost)
