"""What stands inside an observed site's distribution: its base, where it is observed, densities of single data, and
Normal noise as numbers."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Bool


class GaussianTerm(NamedTuple):
    """One observed Normal site: `residual` = y - mean and `variance`, where observed; zero residual and infinite
    variance where missing. Same shape, physical units."""

    residual: Array
    variance: Array


def unwrapped(fn: Any, shape: tuple[int, ...]) -> tuple[Any, Bool[Array, "..."]]:
    """The distribution inside masks, `to_event` and `expand`, and where data of `shape` count."""
    mask = jnp.ones(shape, bool)
    while isinstance(fn, dist.MaskedDistribution | dist.Independent | dist.ExpandedDistribution):
        if isinstance(fn, dist.MaskedDistribution):
            given = jnp.broadcast_to(jnp.asarray(fn._mask), fn.batch_shape)
            mask = mask & given.reshape(given.shape + (1,) * fn.event_dim)
        fn = fn.base_dist
    return fn, mask


def gaussian_term(normal: dist.Normal, mask: Bool[Array, "..."], value: Any) -> GaussianTerm:
    """The data `value` under `normal`, where `mask` says that they are observed."""
    residual = jnp.asarray(value) - jnp.asarray(normal.loc)
    variance = jnp.broadcast_to(jnp.square(jnp.asarray(normal.scale)), residual.shape)
    return GaussianTerm(jnp.where(mask, residual, 0.0), jnp.where(mask, variance, jnp.inf))


def stacked(terms: list[GaussianTerm]) -> GaussianTerm:
    """All data of several sites as one term, (data,)."""
    return GaussianTerm(*(jnp.concatenate([part.ravel() for part in parts]) for parts in zip(*terms, strict=True)))


def pointwise_log_prob(fn: Any, value: Any) -> Array:
    """The log-density of each datum under `fn`, in the shape of `value`, NaN where masked. Data that are jointly
    distributed (a multivariate Normal) share one density: their dimensions are summed over."""
    base, mask = unwrapped(fn, jnp.shape(value))
    log_prob = base.log_prob(jnp.where(mask, value, base.support.feasible_like(jnp.asarray(value))))
    joint = tuple(range(mask.ndim - base.event_dim, mask.ndim))
    return jnp.where(jnp.any(mask, joint), log_prob, jnp.nan)
