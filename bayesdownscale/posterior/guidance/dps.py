"""Diffusion posterior sampling: a gradient of the misfit, of a length that does not know the noise."""

import equinox as eqx
import jax
import jax.numpy as jnp

from bayesdownscale._types import Field, Scalar
from bayesdownscale.posterior.guidance.base import AbstractGuidance, Twist
from bayesdownscale.posterior.likelihood import AbstractLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context, Cost

STEPS = 1000  # of their ancestral sampler


class DPS(AbstractGuidance):
    """D_y = D - 2 zeta sigma^2 / beta(sigma) grad_{x_sigma} ||y - A D||: Chung et al. 2023 (arXiv 2209.14687),
    algorithm 1, in continuous time; one vector-Jacobian product a step.

    They subtract zeta / ||r|| grad_{x_i} ||r||^2 = 2 zeta grad_{x_i} ||r||, r = y - A D, from each ancestral step of
    x_i = sqrt(abar_i) x_sigma, abar_i = 1 / (1 + sigma^2). That step moves by sqrt(abar_{i-1}) beta_i / (1 - abar_i)
    of what D moves, and grad_{x_i} = abar_i^(-1/2) grad_{x_sigma}; so, with abar_{i-1} = abar_i up to beta_i, D has
    to move by (1 - abar_i) / (abar_i beta_i) = sigma^2 / beta_i. `zeta` they tune; their code has grad ||r||, which
    is half of this.

    Residuals count alike whatever their noise, and only where observed; Normal noise only. The length of a step does
    not shrink with ||r||: draws chatter about the data where zeta is large, and ignore them where it is small (a few
    data of order one want 0.01 to 0.1). `log_weight` is the potential of the guidance, -2 zeta / beta(sigma) ||r||.
    """

    denoiser: AbstractDenoiser
    likelihood: AbstractLikelihood
    zeta: float = eqx.field(static=True, default=1.0)

    def twist(self, x_sigma: Field, sigma: Scalar, context: Context) -> Twist:
        evaluate = lambda x: self.denoiser.evaluate(x, sigma, context)
        mean, vjp, cost = jax.vjp(evaluate, x_sigma, has_aux=True)
        square, gradient = jax.value_and_grad(lambda m: squared_misfit(self.likelihood, m))(mean)
        norm = jnp.sqrt(square)
        zeta_i = self.zeta / jnp.where(norm > 0, norm, 1.0)
        beta = linear_beta(sigma)
        guided = mean - sigma**2 / beta * zeta_i * vjp(gradient)[0]
        return Twist(mean, guided, -2 * self.zeta / beta * norm, cost + Cost.of(products=1))


def squared_misfit(likelihood: AbstractLikelihood, x: Field) -> Scalar:
    """||y - A x||^2 over what is observed, in standardised units."""
    terms = likelihood.gaussian_terms(x)
    squares = (jnp.sum(jnp.where(jnp.isfinite(t.variance), t.residual, 0.0) ** 2) for t in terms)
    return sum(squares, start=jnp.zeros(()))


def linear_beta(sigma: Scalar) -> Scalar:
    """beta of the linear schedule (Ho et al. 2020, arXiv 2006.11239) where its noise is sigma: with t in [0, 1],

    log(1 + sigma^2) = 0.1 t + 9.95 t^2,   1000 beta = 0.1 + 19.9 t = sqrt(0.01 + 39.8 log(1 + sigma^2)).
    """
    return jnp.minimum(jnp.sqrt(0.01 + 39.8 * jnp.log1p(sigma**2)), 20.0) / STEPS
