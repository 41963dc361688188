"""Moment matching with a covariance measured beforehand: a guided step costs one forward evaluation."""

import equinox as eqx

from bayesdownscale._types import Field, Scalar
from bayesdownscale.posterior.guidance.base import AbstractGuidance, Twist
from bayesdownscale.posterior.laplace import laplace_step
from bayesdownscale.posterior.likelihood import AbstractLikelihood
from bayesdownscale.posterior.mode_to_mean import mode_to_mean
from bayesdownscale.prior.denoiser import AbstractSpreadDenoiser, Context


class FixedCovariance(AbstractGuidance):
    """D_y = D + V(sigma) u as in `MomentMatching`, with V(sigma) the covariance of x given x_sigma averaged over
    x_sigma, which the prior's denoiser knows (`AbstractSpreadDenoiser`): the exact one of a Gaussian, and for a
    network the spectral covariance of its errors, measured once a noise level and stored in the checkpoint.

    No vector-Jacobian product is taken. Exact for Gaussian priors with linear-Gaussian data; elsewhere it takes the
    uncertainty of x given x_sigma to be the same at every x_sigma. Free Hunch (Rissanen et al. 2025,
    arXiv 2410.11149) starts from a data covariance too, and updates it along each path instead.
    """

    denoiser: AbstractSpreadDenoiser
    likelihood: AbstractLikelihood
    iterations: int = eqx.field(static=True, default=20)
    tolerance: float = eqx.field(static=True, default=1e-3)

    def __check_init__(self):
        if not isinstance(self.denoiser, AbstractSpreadDenoiser):
            raise TypeError(
                f"expected a denoiser that knows its covariance, got {type(self.denoiser).__name__}; use MomentMatching"
            )

    def twist(self, x_sigma: Field, sigma: Scalar, context: Context) -> Twist:
        mean, cost = self.denoiser.evaluate(x_sigma, sigma, context)
        covariance = lambda v: self.denoiser.covariance(v, sigma)
        settings = self.iterations, self.tolerance
        step = laplace_step(self.likelihood, mean, covariance, *settings)
        guided = mode_to_mean(self.likelihood, self.denoiser, sigma, x_sigma, mean + step.shift, step, *settings)
        return Twist(mean, guided, step.log_weight, cost)
