"""What a prior over fields is to a solver: the denoiser D(x_sigma, sigma, context) = E[x | x_sigma]."""

import abc
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesdownscale._types import Count, Field, Key, Scalar


class Context(eqx.Module):
    """When a field is: `hour` of day [h, UTC] and `day` of year [d, 0 = 1 January] of each time step; one row a
    window where windows are batched."""

    hour: Float[Array, "*batch time"]
    day: Float[Array, "*batch time"]

    @staticmethod
    def at(times: np.ndarray) -> "Context":
        """The context of `times` (n_time,) datetime64."""
        times = np.asarray(times, dtype="datetime64[s]")
        seconds = (times - times.astype("datetime64[D]")).astype(np.float64)
        days = (times - times.astype("datetime64[Y]")).astype(np.float64) / 86400.0
        return Context(jnp.asarray(seconds / 3600.0, jnp.float32), jnp.asarray(np.floor(days), jnp.float32))


class Cost(NamedTuple):
    """What evaluations of a denoiser cost: forward `evaluations` of the prior's denoiser, `products` with its
    Jacobian (each a reverse sweep), Krylov `iterations`. Costs add up; a negative number was not counted, and
    nor is any sum with it."""

    evaluations: Count
    products: Count
    iterations: Count

    @staticmethod
    def of(evaluations: int | Count = 0, products: int | Count = 0, iterations: int | Count = 0) -> "Cost":
        return Cost(*(jnp.asarray(n, jnp.int32) for n in (evaluations, products, iterations)))

    def __add__(self, other: tuple) -> "Cost":
        total = lambda a, b: jnp.where((a < 0) | (b < 0), -1, a + b)
        return Cost(*(total(a, b) for a, b in zip(self, other, strict=True)))


class AbstractDenoiser(eqx.Module):
    """D(x_sigma, sigma, context) = E[x | x_sigma] for x_sigma = x + sigma eps, in standardised units.

    The score follows by Tweedie's formula, (D - x_sigma) / sigma^2. One method to write, `evaluate`, which
    also says what it cost; guidance methods are denoisers too, so they compose with every solver.
    """

    @abc.abstractmethod
    def evaluate(self, x_sigma: Field, sigma: Scalar, context: Context) -> tuple[Field, Cost]:
        """E[x | x_sigma] and its cost, for one field x_sigma (time, variable, lat, lon) and a scalar sigma."""

    def __call__(self, x_sigma: Field, sigma: Scalar, context: Context) -> Field:
        return self.evaluate(x_sigma, sigma, context)[0]


class AbstractSpreadDenoiser(AbstractDenoiser):
    """A denoiser that also knows V(sigma), the covariance of x given x_sigma averaged over x_sigma: what a guided
    step needs to do without products with the Jacobian (compare Rissanen et al. 2025, arXiv 2410.11149)."""

    @abc.abstractmethod
    def covariance(self, v: Field, sigma: Scalar) -> Field:
        """V(sigma) v; symmetric and positive."""

    @abc.abstractmethod
    def draw_error(self, key: Key, sigma: Scalar, shape: tuple[int, int, int, int]) -> Field:
        """A draw from N(0, V(sigma)), of the `shape` of a field: what x - D may look like."""
