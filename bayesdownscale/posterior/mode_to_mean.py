"""From the mode of a Gaussian times a likelihood to its mean: what a Laplace step leaves out."""

import jax
import jax.numpy as jnp

from bayesdownscale._types import Field, Key, Scalar
from bayesdownscale.posterior.krylov import solve_shift
from bayesdownscale.posterior.laplace import Laplace
from bayesdownscale.posterior.likelihood import AbstractLikelihood
from bayesdownscale.prior.denoiser import AbstractSpreadDenoiser


def mode_to_mean(
    likelihood: AbstractLikelihood,
    denoiser: AbstractSpreadDenoiser,
    sigma: Scalar,
    x_sigma: Field,
    mode: Field,
    laplace: Laplace,
    iterations: int,
    tolerance: float,
) -> Field:
    """The mean of N(x; D, V) p(y | x), near its mode m = D + V u.

    Integration by parts gives mean = D + V E[grad l(x)]. The expectation is taken over the Laplace approximation
    N(m, C), C = (V^-1 + W)^-1, with one antithetic pair m + delta, m - delta:

        mean = m + V du,   (I + W' V) du = (grad l(m + delta) + grad l(m - delta)) / 2 - u,

    W' the mean of W at the two: the first-order correction for the skewness of l (Tierney and Kadane 1986,
    doi:10.1080/01621459.1986.10478240) without its third derivatives, and one step to the variational Gaussian mean
    (Opper and Archambeau 2009, doi:10.1162/neco.2008.08-07-592). Where l is quadratic nothing is computed. V is here
    the denoiser's average covariance: no product with its Jacobian is taken. delta = e + V v is a draw from N(0, C) by
    perturbation, (I + W V) v = b - W e, e ~ N(0, V), and b the score of data simulated at m, whose covariance is the
    Fisher information. Its key comes from the bits of x_sigma, so that D_y stays a function of x_sigma alone while
    the error of one pair differs from draw to draw and averages out.
    """
    likelihood = likelihood.smooth()
    covariance = lambda v: denoiser.covariance(v, sigma)
    gradient = jax.grad(likelihood)

    def correct(state):
        _, shift = state
        k_prior, k_data = jax.random.split(_key_of(x_sigma))
        solve = lambda g, curvature: solve_shift(covariance, curvature, g, iterations, tolerance).shift
        hessian = jax.linearize(gradient, mode)[1]
        n_time, n_var, n_lat, n_lon = mode.shape
        error = denoiser.draw_error(k_prior, sigma, (n_time, n_var, n_lat, n_lon))
        delta = error + solve(likelihood.simulated_score(k_data, mode) + hessian(error), lambda v: -hessian(v))
        both = lambda m: (gradient(m + delta) + gradient(m - delta)) / 2
        mean_gradient, mean_hessian = jax.linearize(both, mode)
        change = solve(mean_gradient - laplace.u, lambda v: -mean_hessian(v))
        return jnp.asarray(True), jnp.where(jnp.all(jnp.isfinite(change)), change, shift)

    start = (laplace.quadratic, jnp.zeros_like(mode))
    return mode + jax.lax.while_loop(lambda state: ~state[0], correct, start)[1]


def _key_of(x: Field) -> Key:
    bits = jax.lax.bitcast_convert_type(jnp.sum(x).astype(jnp.float32), jnp.uint32)
    return jax.random.fold_in(jax.random.key(0), bits)
