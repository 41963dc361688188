"""Tweedie moment projection: moment matching with the covariance of the data replaced by its row sums."""

import jax
import jax.numpy as jnp

from bayesdownscale._types import Field, Scalar
from bayesdownscale.posterior.guidance.base import AbstractGuidance, Twist
from bayesdownscale.posterior.likelihood import AbstractLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context, Cost


class TMPD(AbstractGuidance):
    """x | x_sigma ~ N(D, V) with V = sigma^2 dD / dx_sigma, and A V A^T ~ diag(A V A^T 1), hence

        D_y = D + V A^T (y - A D) / s,   s = R + max(A V A^T 1, 0):

    Boys et al. 2023 (arXiv 2310.06721), the approximation of their large problems; two vector-Jacobian products a
    step. Exact for one datum of a Gaussian field. The sums of a row exceed its diagonal where the data correlate given
    x_sigma, and fall short of it, at worst below zero, where they anticorrelate or a network's V is no covariance.
    A is the derivative at D of the means of the observed sites; Normal noise only. `log_weight` is
    log N(y; A D, diag(s)), whose gradient the guidance is if s is held.
    """

    denoiser: AbstractDenoiser
    likelihood: AbstractLikelihood

    def twist(self, x_sigma: Field, sigma: Scalar, context: Context) -> Twist:
        evaluate = lambda x: self.denoiser.evaluate(x, sigma, context)
        mean, vjp, cost = jax.vjp(evaluate, x_sigma, has_aux=True)
        covariance = lambda v: sigma**2 * vjp(v)[0]

        variances = [t.variance for t in self.likelihood.gaussian_terms(mean)]
        observed = [jnp.isfinite(r) for r in variances]
        where = lambda values: [jnp.where(o, a, 0.0) for o, a in zip(observed, values, strict=True)]
        misfits = lambda m: where([-t.residual for t in self.likelihood.gaussian_terms(m)])  # A m - y
        at_mean, linear = jax.linearize(misfits, mean)
        transposed = jax.linear_transpose(linear, mean)

        ones = where([jnp.ones_like(r) for r in variances])
        sums = linear(covariance(transposed(ones)[0]))
        spread = [jnp.maximum(s, 0.0) for s in sums]
        weights = [-d / (r + s) for d, r, s in zip(at_mean, variances, spread, strict=True)]
        guided = mean + covariance(transposed(weights)[0])

        terms = zip(at_mean, variances, spread, strict=True)
        log_weights = (-0.5 * jnp.sum(d**2 / (r + s) + jnp.log1p(s / r)) for d, r, s in terms)
        return Twist(mean, guided, sum(log_weights, start=jnp.zeros(())), cost + Cost.of(products=2))
