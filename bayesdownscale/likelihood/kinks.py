"""Log-densities with a kink, rounded, for methods that need curvature."""

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array

from bayesdownscale.likelihood.terms import unwrapped

ROUNDING = 0.5  # radius of the rounded kink, in scales of the distribution


def smooth_log_prob(fn: Any, value: Any) -> Array:
    """log p(value), up to a constant, of the distribution `fn` of a site, in its batch shape.

    The density of Laplace noise has slope -1 / b or 1 / b and no curvature: Newton steps would jump across the kink
    at the centre, and a Laplace step find no width. So |r| becomes sqrt(r^2 + (b / 2)^2) there, also for
    `AsymmetricLaplace`; other distributions are left as they are. For guidance only, which approximates anyway:
    exact kernels and weights take the density itself.
    """
    base, mask = unwrapped(fn, jnp.shape(value))
    if isinstance(base, dist.Laplace):
        below = above = 1 / jnp.asarray(base.scale)
    elif isinstance(base, dist.AsymmetricLaplace):
        below, above = 1 / jnp.asarray(base.left_scale), 1 / jnp.asarray(base.right_scale)
    else:
        return fn.log_prob(value)
    r, slope, tilt = jnp.asarray(value) - jnp.asarray(base.loc), (below + above) / 2, (below - above) / 2
    log_prob = tilt * r - jnp.sqrt((slope * r) ** 2 + ROUNDING**2)
    return jnp.sum(jnp.where(mask, log_prob, 0.0), axis=tuple(range(-fn.event_dim, 0)))
