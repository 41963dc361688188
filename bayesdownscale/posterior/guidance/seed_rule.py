"""The released rule of the seed paper: the variance of SDA without the network's Jacobian."""

import equinox as eqx
import jax

from bayesdownscale._types import Field, Scalar
from bayesdownscale.posterior.guidance.base import AbstractGuidance
from bayesdownscale.posterior.guidance.sda import inflated_log_likelihood
from bayesdownscale.posterior.likelihood import AbstractLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context, Cost


class SeedRule(AbstractGuidance):
    """D_y = D + sigma^2 H^T (R + gamma sigma^2 I)^-1 (y - H D), the update in every released configuration of
    Schmidt et al. 2025 (arXiv 2412.15361), gamma = 7.2e-4; no vector-Jacobian product. It moves observed hours
    only. Kept as the baseline it is. Normal noise only."""

    denoiser: AbstractDenoiser
    likelihood: AbstractLikelihood
    gamma: float = eqx.field(static=True, default=7.2e-4)

    def evaluate(self, x_sigma: Field, sigma: Scalar, context: Context) -> tuple[Field, Cost]:
        mean, cost = self.denoiser.evaluate(x_sigma, sigma, context)
        extra = self.gamma * sigma**2
        gradient = jax.grad(lambda m: inflated_log_likelihood(self.likelihood, m, extra))(mean)
        return mean + sigma**2 * gradient, cost
