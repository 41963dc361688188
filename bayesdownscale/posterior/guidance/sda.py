"""Score-based data assimilation: a gradient through the network with an isotropic variance."""

import equinox as eqx
import jax
import jax.numpy as jnp

from bayesdownscale._types import Field, Scalar
from bayesdownscale.posterior.guidance.base import AbstractGuidance, Twist
from bayesdownscale.posterior.likelihood import AbstractLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context, Cost


def inflated_log_likelihood(likelihood: AbstractLikelihood, x: Field, extra: Scalar) -> Scalar:
    """log N(y; H x, R + extra I), up to a constant, for Normal observed sites; `extra` in standardised units."""
    terms = likelihood.gaussian_terms(x)
    return sum((-0.5 * jnp.sum(t.residual**2 / (t.variance + extra)) for t in terms), start=jnp.zeros(()))


class SDA(AbstractGuidance):
    """D_y = D + sigma^2 grad log N(y; H D(x_sigma), R + gamma sigma^2 I): Rozet and Louppe 2023
    (arXiv 2306.10574), eq. 17, who tune `gamma`; one vector-Jacobian product a step. Biased: gamma sigma^2 I
    stands for H V H^T. Normal noise only."""

    denoiser: AbstractDenoiser
    likelihood: AbstractLikelihood
    gamma: float = eqx.field(static=True, default=1e-2)

    def twist(self, x_sigma: Field, sigma: Scalar, context: Context) -> Twist:
        evaluate = lambda x: self.denoiser.evaluate(x, sigma, context)
        mean, vjp, cost = jax.vjp(evaluate, x_sigma, has_aux=True)
        log_likelihood = lambda m: inflated_log_likelihood(self.likelihood, m, self.gamma * sigma**2)
        value, gradient = jax.value_and_grad(log_likelihood)(mean)
        return Twist(mean, mean + sigma**2 * vjp(gradient)[0], value, cost + Cost.of(products=1))
