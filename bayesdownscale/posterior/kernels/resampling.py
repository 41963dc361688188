"""Weights of particles: resampling, effective number and mean, with weights that may all be zero."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bayesdownscale._types import Key, Scalar

Weights = Float[Array, " particle"]


def systematic(key: Key, log_weights: Weights, draws: int) -> Int[Array, " draw"]:
    """`draws` indices, each particle floor or ceil of its share (Carpenter et al. 1999); never one of weight zero
    as long as another is there."""
    cumulative = jnp.cumsum(jnp.exp(log_weights - jnp.max(log_weights)))
    cumulative = cumulative / cumulative[-1]
    positions = (jnp.arange(draws) + 1 - jax.random.uniform(key)) / draws  # in (0, 1]
    return jnp.clip(jnp.searchsorted(cumulative, positions), 0, log_weights.size - 1)


def effective_sample_size(log_weights: Weights) -> Scalar:
    """(sum w)^2 / sum w^2, zero when all weights are."""
    top = jnp.max(log_weights)
    w = jnp.exp(log_weights - jnp.where(top > -jnp.inf, top, 0.0))
    return jnp.where(top > -jnp.inf, jnp.sum(w) ** 2 / jnp.sum(w**2), 0.0)


def log_mean_exp(a: Float[Array, " n"]) -> Scalar:
    """log (sum exp(a) / n)."""
    return jax.nn.logsumexp(a) - math.log(a.size)
