"""Noise levels: one noising, x_sigma = x + sigma eps, and the levels a solver visits."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import root_scalar

from bayesdownscale._types import Key

SHRINKAGE = 3.0  # of the steps in log sigma, from the first to the last
SIGMA_MIN = 0.02  # the usual lowest level
LONGEST = 0.85  # step in log sigma that may be lengthened


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

    @staticmethod
    def covering(largest: float, sigma_min: float = SIGMA_MIN) -> "NoiseLevels":
        """From `sigma_min` to 4 times `largest`, the standard deviation along the most variable direction: a factor of
        4 loses 0.3 % of that direction's variance in draws. A draw ends with the mean of x given x_sigma_min, which
        keeps v^2 / (v + sigma_min^2) of a variance v."""
        return NoiseLevels(sigma_min, 4 * largest)

    def levels(self, steps: int) -> np.ndarray:
        """`steps` levels from sigma_max down to sigma_min: float64, (steps,).

        The steps in log sigma shrink geometrically, the first being three times the last, or as much longer as keeps
        it below 0.85; with so few levels that equal steps exceed this, they are equal. For a Gaussian field the
        reverse SDE is a linear recursion for each eigenvector of the covariance, and the error of its draws can be
        computed: with 16 levels this spacing leaves at most a third of the excess variance that equal steps leave,
        for exponential, Matern and white-noise spectra alike, since the errors made above and below a mode's
        standard deviation then cancel.
        """
        if steps < 2:
            raise ValueError(f"expected at least 2 noise levels, got {steps}")
        length, place = np.log(self.sigma_max / self.sigma_min), np.linspace(0, 1, steps - 1)
        shares = lambda shrinkage: shrinkage**-place / np.sum(shrinkage**-place)
        first = lambda shrinkage: float(shares(shrinkage)[0] * length)
        shrinkage = SHRINKAGE
        if first(1.0) >= LONGEST:
            shrinkage = 1.0
        elif first(SHRINKAGE) > LONGEST:
            shrinkage = root_scalar(lambda r: first(r) - LONGEST, bracket=(1.0, SHRINKAGE)).root
        fallen = np.concatenate([[0.0], np.cumsum(shares(shrinkage))])
        return self.sigma_max ** (1 - fallen) * self.sigma_min**fallen

    def sample(self, key: Key, n: int) -> Float[Array, " n"]:
        """`n` stratified draws of sigma with log sigma uniform: one in each of n equal strata."""
        k_shift, k_order = jax.random.split(key)
        u = (jnp.arange(n) + jax.random.uniform(k_shift, (n,))) / n
        low, high = np.log(self.sigma_min), np.log(self.sigma_max)
        return jax.random.permutation(k_order, jnp.exp(low + (high - low) * u))
