"""How far to trust the network at each noise level: its gain, by linear shrinkage on weather it was not trained on."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from bayesdownscale._types import Key, Scalar
from bayesdownscale.prior.denoiser import Context
from bayesdownscale.prior.diffusion import DiffusionDenoiser
from bayesdownscale.prior.noise import NoiseLevels

LEVELS = 12
WINDOWS = 48


def calibrate(
    denoiser: DiffusionDenoiser, values: np.ndarray, context: Context, starts: np.ndarray, levels: NoiseLevels
) -> DiffusionDenoiser:
    """The denoiser with its gain measured on windows of `values` (time, variable, lat, lon), standardised, that
    begin at `starts` (at most 48 of them are used).

    At each of 12 levels the gain minimises |target - gain F|^2, clipped to [0, 1], so that on these windows the
    denoiser is nowhere worse than the Gaussian's. At the highest level it is zero: above it the Gaussian is alone.
    """
    sigmas = jnp.asarray(levels.levels(LEVELS)[::-1], jnp.float32)
    chosen = jnp.asarray(starts[np.linspace(0, starts.size - 1, min(WINDOWS, starts.size)).astype(int)])
    measure = lambda s_k: _products(denoiser, jnp.asarray(values), context, chosen, *s_k)
    products = [measure(pair) for pair in zip(sigmas, jax.random.split(jax.random.key(0), LEVELS), strict=True)]
    hit, size = jnp.asarray(products).T
    gain = jnp.where(size > 0, jnp.clip(hit / jnp.where(size > 0, size, 1.0), 0.0, 1.0), 0.0).at[-1].set(0.0)
    return eqx.tree_at(lambda d: (d.gain_sigma, d.gain), denoiser, (sigmas, gain))


@eqx.filter_jit
def _products(
    denoiser: DiffusionDenoiser,
    values: Float[Array, "all variable lat lon"],
    context: Context,
    starts: Int[Array, " window"],
    sigma: Scalar,
    key: Key,
) -> tuple[Scalar, Scalar]:
    """Sums over windows of F target and of F^2."""
    window = denoiser.gaussian.shape[0]

    def one(start_key):
        start, key = start_key
        take = lambda array: jax.lax.dynamic_slice_in_dim(array, start, window)[None]
        x = take(values)
        at = Context(take(context.hour), take(context.day))
        f, target = denoiser.correction(x, jax.random.normal(key, x.shape), sigma[None], at, None)
        return jnp.sum(f * target), jnp.sum(f**2)

    hits, sizes = jax.lax.map(one, (starts, jax.random.split(key, starts.size)))
    return jnp.sum(hits), jnp.sum(sizes)
