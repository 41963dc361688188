"""Layers of the network, channels last, on any leading batch dimensions (*batch, lat, lon, channel).

The batch is explicit here, against the habit of the package: under vmap the gradient of a kernel is formed
for each image and then summed, which makes a training step on CPU 2.7 times slower.

XLA's CPU backend runs a convolution inside a loop 26 to 170 times slower when it is not in the NHWC/HWIO form
(jax-ml/jax#12868), and diffrax always loops. The reverse-mode rule below keeps the backward pass in that form
too; JAX's own rule does not. It rules out forward-mode differentiation through the network.

Layers compute in the type of their weights and images, float32 or bfloat16 (`precision.py`); norms and softmax, sums
of many squares and exponentials, always in float32.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from bayesdownscale._types import Key

Image = Float[Array, "*batch lat lon channel"]
ImageOut = Float[Array, "*batch lat_out lon_out channel_out"]
Features = Float[Array, "*batch feature"]
FeaturesOut = Float[Array, "*batch feature_out"]


def _last(v: Float[Array, " channel"], x: Array) -> Array:
    """A vector of the last axis of x, with axes of size one before it."""
    return v.reshape((1,) * (x.ndim - 1) + v.shape)


def _convolve(x: Array, kernel: Array) -> Array:
    images = x.reshape(-1, *x.shape[-3:])
    out = lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return out.reshape(*x.shape[:-1], kernel.shape[-1])


@jax.custom_vjp
def convolve(x: Array, kernel: Array) -> Array:
    """'SAME' convolution of images (*batch, lat, lon, in) with a kernel (odd, odd, in, out)."""
    return _convolve(x, kernel)


def _convolve_fwd(x, kernel):
    return _convolve(x, kernel), (x, kernel)


def _convolve_bwd(residuals, g):
    x, kernel = residuals
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    (g_kernel,) = jax.vjp(lambda k: _convolve(x, k), kernel)[1](g)
    return _convolve(g, flipped), g_kernel


convolve.defvjp(_convolve_fwd, _convolve_bwd)


class Conv(eqx.Module):
    """A 'SAME' convolution with an odd square kernel; `scale` multiplies the usual initial weights."""

    kernel: Float[Array, "height width in out"]
    bias: Float[Array, " out"]

    def __init__(self, n_in: int, n_out: int, size: int, *, scale: float = 1.0, key: Key):
        bound = scale / math.sqrt(n_in * size**2)
        self.kernel = bound * jax.random.normal(key, (size, size, n_in, n_out))
        self.bias = jnp.zeros(n_out)

    def __call__(self, x: Image) -> ImageOut:
        out = x @ self.kernel[0, 0] if self.kernel.shape[:2] == (1, 1) else convolve(x, self.kernel)
        return out + _last(self.bias, out)


class Dense(eqx.Module):
    """An affine map of the last axis."""

    weight: Float[Array, "in out"]
    bias: Float[Array, " out"]

    def __init__(self, n_in: int, n_out: int, *, key: Key):
        self.weight = jax.random.normal(key, (n_in, n_out)) / math.sqrt(n_in)
        self.bias = jnp.zeros(n_out)

    def __call__(self, x: Features) -> FeaturesOut:
        out = x @ self.weight
        return out + _last(self.bias, out)


class ChannelNorm(eqx.Module):
    """Layer normalisation over the channels of each pixel (Ba et al. 2016, arXiv 1607.06450)."""

    scale: Float[Array, " channel"]

    def __init__(self, channels: int):
        self.scale = jnp.ones(channels)

    def __call__(self, x: Image) -> Image:
        wide = x.astype(jnp.float32)
        wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
        scaled = _last(self.scale, x) * wide * lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + 1e-5)
        return scaled.astype(x.dtype)


class ResidualBlock(eqx.Module):
    """Two convolutions with a residual connection, modulated by the embedding of noise level and time
    (He et al. 2016, arXiv 1512.03385; Perez et al. 2018, arXiv 1709.07871). The last convolution starts at
    zero, so a new block is the identity."""

    norm_in: ChannelNorm
    conv_in: Conv
    modulate: Dense
    norm_out: ChannelNorm
    conv_out: Conv
    shortcut: Conv | None
    rate: float = eqx.field(static=True)

    def __init__(self, n_in: int, n_out: int, embedding: int, dropout: float, *, key: Key):
        keys = jax.random.split(key, 4)
        self.norm_in = ChannelNorm(n_in)
        self.conv_in = Conv(n_in, n_out, 3, key=keys[0])
        self.modulate = Dense(embedding, 2 * n_out, key=keys[1])
        self.norm_out = ChannelNorm(n_out)
        self.conv_out = Conv(n_out, n_out, 3, scale=0.0, key=keys[2])
        self.shortcut = None if n_in == n_out else Conv(n_in, n_out, 1, key=keys[3])
        self.rate = dropout

    def __call__(self, x: Image, embedding: Features, key: Key | None) -> ImageOut:
        scale, shift = jnp.split(self.modulate(embedding)[..., None, None, :], 2, axis=-1)
        h = self.conv_in(jax.nn.silu(self.norm_in(x)))
        h = jax.nn.silu(self.norm_out(h) * (1 + scale) + shift)
        if key is not None and self.rate > 0:
            keep = jax.random.bernoulli(key, 1 - self.rate, h.shape)
            h = jnp.where(keep, h / (1 - self.rate), 0.0)
        h = self.conv_out(h)
        return h + (x if self.shortcut is None else self.shortcut(x))


class SelfAttention(eqx.Module):
    """Multi-head self-attention over all pixels (Vaswani et al. 2017, arXiv 1706.03762), residual, starting as
    the identity; memory grows with the square of the number of pixels, so it belongs at the coarsest level."""

    norm: ChannelNorm
    to_qkv: Conv
    to_out: Conv
    heads: int = eqx.field(static=True)

    def __init__(self, channels: int, heads: int, *, key: Key):
        k_qkv, k_out = jax.random.split(key)
        self.norm = ChannelNorm(channels)
        self.to_qkv = Conv(channels, 3 * channels, 1, key=k_qkv)
        self.to_out = Conv(channels, channels, 1, scale=0.0, key=k_out)
        self.heads = heads

    def __call__(self, x: Image) -> Image:
        *batch, n_lat, n_lon, channels = x.shape
        split = (*batch, n_lat * n_lon, 3, self.heads, channels // self.heads)
        q, k, v = jnp.moveaxis(self.to_qkv(self.norm(x)).reshape(split), -3, 0)
        logits = jnp.einsum("...ihc,...jhc->...hij", q, k) / math.sqrt(q.shape[-1])
        weights = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).astype(v.dtype)
        attended = jnp.einsum("...hij,...jhc->...ihc", weights, v)
        return x + self.to_out(attended.reshape(x.shape))


def halve(x: Image) -> ImageOut:
    """Means of 2 x 2 pixels."""
    *batch, n_lat, n_lon, channels = x.shape
    return x.reshape(*batch, n_lat // 2, 2, n_lon // 2, 2, channels).mean((-4, -2))


def double(x: Image) -> ImageOut:
    """Each pixel repeated 2 x 2 times."""
    *batch, n_lat, n_lon, channels = x.shape
    wide = jnp.broadcast_to(x[..., :, None, :, None, :], (*batch, n_lat, 2, n_lon, 2, channels))
    return wide.reshape(*batch, 2 * n_lat, 2 * n_lon, channels)
