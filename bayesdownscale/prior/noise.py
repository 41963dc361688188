"""Noise levels: one noising, x_sigma = x + sigma eps, and the levels a solver visits."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesdownscale._types import Key


class NoiseLevels(eqx.Module):
    """The range of noise standard deviations, in standardised units.

    `sigma_max` should exceed the standard deviation of the field along its most variable direction (the
    square root of the largest eigenvalue of its covariance, not of one cell), so that x_sigma_max is close to
    white noise; `sigma_min` should lie below what the data resolve (Song and Ermon 2020, arXiv 2006.09011).
    Training draws log sigma uniformly, so no level is favoured and any solver may visit any level.
    """

    sigma_min: float = eqx.field(static=True)
    sigma_max: float = eqx.field(static=True)

    def __check_init__(self):
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"expected 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}; "
                "noise levels are standard deviations in standardised units"
            )

    def levels(self, steps: int) -> np.ndarray:
        """`steps` levels from sigma_max down to sigma_min, equally spaced in log sigma: float64, (steps,)."""
        if steps < 2:
            raise ValueError(f"expected at least 2 noise levels, got {steps}")
        return np.geomspace(self.sigma_max, self.sigma_min, steps)

    def sample(self, key: Key, n: int) -> Float[Array, " n"]:
        """`n` stratified draws of sigma with log sigma uniform: one in each of n equal strata."""
        k_shift, k_order = jax.random.split(key)
        u = (jnp.arange(n) + jax.random.uniform(k_shift, (n,))) / n
        low, high = np.log(self.sigma_min), np.log(self.sigma_max)
        return jax.random.permutation(k_order, jnp.exp(low + (high - low) * u))
