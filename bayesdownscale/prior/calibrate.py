"""How far to trust the network at each noise level: its gain, by linear shrinkage on weather it was not trained on,
and the covariance of its errors."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesdownscale._types import Key, Scalar
from bayesdownscale.prior.denoiser import Context
from bayesdownscale.prior.diffusion import DiffusionDenoiser
from bayesdownscale.prior.feed import Batch, Windows
from bayesdownscale.prior.gaussian import shrunk
from bayesdownscale.prior.noise import NoiseLevels

LEVELS = 12
WINDOWS = 48
PRIOR_WINDOWS = 8
TINY = 1e-12  # a variance that is none


def calibrate(denoiser: DiffusionDenoiser, windows: Windows, levels: NoiseLevels) -> DiffusionDenoiser:
    """The denoiser with its gain measured on standardised `windows` (at most 48 of them are used).

    At each of 12 levels the gain minimises |target - gain F|^2, clipped to [0, 1], so that on these windows the
    denoiser is nowhere worse than the Gaussian's. At the highest level it is zero: above it the Gaussian is alone.
    """
    sigmas = jnp.geomspace(levels.sigma_min, levels.sigma_max, LEVELS)
    batch = _some(denoiser, windows)
    measure = lambda s_k: _products(denoiser, batch, *s_k)
    products = [measure(pair) for pair in zip(sigmas, jax.random.split(jax.random.key(0), LEVELS), strict=True)]
    hit, size = jnp.asarray(products).T
    gain = jnp.where(size > 0, jnp.clip(hit / jnp.where(size > 0, size, 1.0), 0.0, 1.0), 0.0).at[-1].set(0.0)
    return eqx.tree_at(lambda d: (d.gain_sigma, d.gain), denoiser, (sigmas, gain))


def _some(denoiser: DiffusionDenoiser, windows: Windows) -> Batch:
    few = windows.some(WINDOWS)
    return jax.tree.map(jnp.asarray, few.cut(few.starts, denoiser.gaussian.shape[0]))


@eqx.filter_jit
def _products(denoiser: DiffusionDenoiser, batch: Batch, sigma: Scalar, key: Key) -> tuple[Scalar, Scalar]:
    """Sums over windows of F target and of F^2."""

    def one(window_key):
        window, key = window_key
        x, at = window.x[None], Context(window.hour[None], window.day[None])
        f, target = denoiser.correction(x, jax.random.normal(key, x.shape), sigma[None], at, None)
        return jnp.sum(f * target), jnp.sum(f**2)

    hits, sizes = jax.lax.map(one, (batch, jax.random.split(key, batch.x.shape[0])))
    return jnp.sum(hits), jnp.sum(sizes)


def measure_errors(denoiser: DiffusionDenoiser, windows: Windows) -> DiffusionDenoiser:
    """The denoiser with `error_ratio` measured on standardised `windows` (at most 48 of them are used): at each level
    of the gain, the mean square of x - D in each mode over the variance that theory gives x - G there, every time
    scale of a mode with the same weight, shrunk to theory with the weight of 8 windows. On weather that was trained
    on, what the modes leave out would look six times too small.
    """
    batch = _some(denoiser, windows)
    keys = jax.random.split(jax.random.key(1), denoiser.gain_sigma.size)
    measure = lambda sigma, key: _error_ratio(denoiser, batch, sigma, key)
    ratio = jnp.stack([measure(sigma, key) for sigma, key in zip(denoiser.gain_sigma, keys, strict=True)])
    apart = np.unique(windows.starts // denoiser.gaussian.shape[0]).size  # windows that do not overlap
    ratio = (apart * ratio + PRIOR_WINDOWS) / (apart + PRIOR_WINDOWS)
    return eqx.tree_at(lambda d: d.error_ratio, denoiser, ratio)


@eqx.filter_jit
def _error_ratio(
    denoiser: DiffusionDenoiser, batch: Batch, sigma: Scalar, key: Key
) -> Float[Array, " mode_and_outside"]:
    field = denoiser.gaussian
    theory = shrunk(field.variances, sigma)
    n_outside = (field.modes[0].size - field.modes.shape[0]) * field.shape[0]

    def one(window_key):
        window, key = window_key
        x = window.x
        error = x - denoiser(x + sigma * jax.random.normal(key, x.shape), sigma, window.context)
        inside = field.coefficients(error) ** 2
        # Not the difference of two sums: what little a tail leaves would be lost in their rounding.
        outside = jnp.sum(field.scale(jnp.zeros_like(theory), jnp.ones(()), error) ** 2)
        expected = n_outside * shrunk(field.residual, sigma)
        outside = jnp.where(expected > 0, outside / jnp.where(expected > 0, expected, 1.0), 1.0)
        return jnp.append(jnp.mean(inside / jnp.maximum(theory, TINY), axis=1), outside)

    return jnp.mean(jax.lax.map(one, (batch, jax.random.split(key, batch.x.shape[0]))), axis=0)
