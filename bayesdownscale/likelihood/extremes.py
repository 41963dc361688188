"""Distributions of extremes that NumPyro lacks: generalised Pareto and generalised extreme value.

The shape parameter xi is called `concentration`, since `shape` is a method of every NumPyro distribution. Everything
is a function of log(1 + xi z) / xi, summed as a series near xi z = 0: values and derivatives go smoothly through the
exponential and the Gumbel limit xi = 0. Outside the support the log-density is -inf.

Reference: Coles 2001, An Introduction to Statistical Modeling of Extreme Values, doi:10.1007/978-1-4471-3675-0.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax, random
from jax.scipy.special import gammaln
from jax.typing import ArrayLike
from jaxtyping import Array
from numpyro.distributions import constraints
from numpyro.distributions.util import promote_shapes, validate_sample
from numpyro.util import is_prng_key
from scipy.special import zeta

SMALL = 0.1  # below it a quotient is a series; what its terms leave out is below single precision
_LOG1P = [(-1) ** k / (k + 1) for k in range(10)]
_EXPM1 = [1 / math.factorial(k + 1) for k in range(8)]
_GAMMA_1 = [np.euler_gamma, *(zeta(k) / k for k in range(2, 10))]
_GAMMA_2 = [zeta(k) * (2**k - 2) / k for k in range(2, 14)]


def _quotient(function: Callable[[Array], Array], series: Sequence[float], a: Array) -> Array:
    """`function`(a), or the sum of series_k a^k where a is small; neither branch spoils the other's derivatives."""
    small = jnp.abs(a) < SMALL
    near, total = jnp.where(small, a, 0.0), jnp.zeros_like(a)
    for coefficient in reversed(series):
        total = total * near + float(coefficient)
    return jnp.where(small, total, function(jnp.where(small, 0.25, a)))


def _log1p_ratio(a: Array) -> Array:
    """log(1 + a) / a."""
    return _quotient(lambda a: jnp.log1p(a) / a, _LOG1P, a)


def _expm1_ratio(a: Array) -> Array:
    """(exp(a) - 1) / a."""
    return _quotient(lambda a: jnp.expm1(a) / a, _EXPM1, a)


class _Support(constraints.Constraint):
    """1 + xi s > 0 for s = (v - loc) / scale, and s >= 0 when `one_sided`."""

    def __init__(self, loc, scale, concentration, one_sided: bool):
        self.loc, self.scale, self.concentration, self.one_sided = loc, scale, concentration, one_sided

    def __call__(self, x):
        s = (x - self.loc) / self.scale
        inside = 1 + self.concentration * s > 0
        return inside & (s >= 0) if self.one_sided else inside

    def feasible_like(self, prototype):
        return jnp.broadcast_to(self.loc, jnp.shape(prototype))

    def tree_flatten(self):
        names = ("loc", "scale", "concentration")
        return tuple(getattr(self, name) for name in names), (names, {"one_sided": self.one_sided})


class GeneralizedPareto(dist.Distribution):
    """Generalised Pareto excesses v >= 0 over a threshold of 0:

        P(v > z scale) = (1 + xi z)^(-1 / xi),    exp(-z) at xi = 0

    **Arguments:** `scale` > 0 in the units of v; `concentration` xi (scipy's `c`): heavy tails above 0, the bound
    v < -scale / xi below. `mean` and `variance` are inf or nan where scipy's are (xi >= 1, xi >= 1/2).
    """

    arg_constraints: ClassVar = {"scale": constraints.positive, "concentration": constraints.real}
    reparametrized_params: ClassVar = ["scale", "concentration"]

    def __init__(self, scale: ArrayLike = 1.0, concentration: ArrayLike = 0.0, *, validate_args=None):
        promoted: Any = promote_shapes(scale, concentration)
        self.scale, self.concentration = promoted
        batch_shape = lax.broadcast_shapes(jnp.shape(scale), jnp.shape(concentration))
        super().__init__(batch_shape=batch_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)  # pyright: ignore[reportArgumentType]
    def support(self):
        return _Support(0.0, self.scale, self.concentration, one_sided=True)

    def _exponential(self, value) -> tuple[Array, Array]:
        """log(1 + xi z) / xi, a standard exponential variable, and whether value is in the support."""
        z = jnp.asarray(value) / self.scale
        inside = (z >= 0) & (1 + self.concentration * z > 0)
        z = jnp.where(inside, z, 0.0)
        return z * _log1p_ratio(self.concentration * z), inside

    @validate_sample
    def log_prob(self, value):
        e, inside = self._exponential(value)
        return jnp.where(inside, -jnp.log(self.scale) - (1 + self.concentration) * e, -jnp.inf)

    def cdf(self, value):
        e, inside = self._exponential(value)
        return jnp.where(inside, -jnp.expm1(-e), jnp.where(jnp.asarray(value) < 0, 0.0, 1.0))

    def icdf(self, q):
        return self._at(-jnp.log1p(-jnp.asarray(q)))

    def _at(self, e):
        return self.scale * e * _expm1_ratio(self.concentration * e)

    def sample(self, key, sample_shape=()):
        assert key is not None
        assert is_prng_key(key)
        return self._at(random.exponential(key, (*sample_shape, *self.batch_shape)))

    @property
    def mean(self):
        finite = self.concentration < 1
        xi = jnp.where(finite, self.concentration, 0.0)
        return jnp.broadcast_to(jnp.where(finite, self.scale / (1 - xi), jnp.inf), self.batch_shape)

    @property
    def variance(self):
        finite = self.concentration < 0.5
        xi = jnp.where(finite, self.concentration, 0.0)
        variance = self.scale**2 / ((1 - xi) ** 2 * (1 - 2 * xi))
        return jnp.broadcast_to(jnp.where(finite, variance, jnp.nan), self.batch_shape)


class GEV(dist.Distribution):
    """The generalised extreme value distribution, of maxima over blocks such as annual maxima:

        P(v < loc + scale s) = exp(-(1 + xi s)^(-1 / xi)),    exp(-exp(-s)), Gumbel's, at xi = 0

    **Arguments:** `loc` and `scale` > 0 in the units of v; `concentration` xi, positive for heavy upper tails
    (Frechet), negative for v < loc - scale / xi (Weibull): scipy's `genextreme` has c = -xi. `mean` and `variance`
    are inf or nan where scipy's are (xi >= 1, xi >= 1/2).
    """

    arg_constraints: ClassVar = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "concentration": constraints.real,
    }
    reparametrized_params: ClassVar = ["loc", "scale", "concentration"]

    def __init__(
        self, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0, concentration: ArrayLike = 0.0, *, validate_args=None
    ):
        promoted: Any = promote_shapes(loc, scale, concentration)
        self.loc, self.scale, self.concentration = promoted
        batch_shape = lax.broadcast_shapes(jnp.shape(loc), jnp.shape(scale), jnp.shape(concentration))
        super().__init__(batch_shape=batch_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)  # pyright: ignore[reportArgumentType]
    def support(self):
        return _Support(self.loc, self.scale, self.concentration, one_sided=False)

    def _gumbel(self, value) -> tuple[Array, Array]:
        """log(1 + xi s) / xi, a standard Gumbel variable, and whether value is in the support."""
        s = (jnp.asarray(value) - self.loc) / self.scale
        inside = 1 + self.concentration * s > 0
        s = jnp.where(inside, s, 0.0)
        return s * _log1p_ratio(self.concentration * s), inside

    @validate_sample
    def log_prob(self, value):
        g, inside = self._gumbel(value)
        log_density = -jnp.log(self.scale) - (1 + self.concentration) * g - jnp.exp(-g)
        return jnp.where(inside, log_density, -jnp.inf)

    def cdf(self, value):
        g, inside = self._gumbel(value)
        return jnp.where(inside, jnp.exp(-jnp.exp(-g)), jnp.where(self.concentration < 0, 1.0, 0.0))

    def icdf(self, q):
        return self._at(-jnp.log(-jnp.log(q)))

    def _at(self, g):
        return self.loc + self.scale * g * _expm1_ratio(self.concentration * g)

    def sample(self, key, sample_shape=()):
        assert key is not None
        assert is_prng_key(key)
        return self._at(random.gumbel(key, (*sample_shape, *self.batch_shape)))

    @property
    def mean(self):
        return jnp.broadcast_to(self.loc + self.scale * self._moments()[0], self.batch_shape)

    @property
    def variance(self):
        return jnp.broadcast_to(self.scale**2 * self._moments()[1], self.batch_shape)

    def _moments(self) -> tuple[Array, Array]:
        """Mean and variance for loc = 0, scale = 1, from q1 = log Gamma(1 - xi) / xi and q2 = log [Gamma(1 - 2 xi) /
        Gamma(1 - xi)^2] / xi^2."""

        def infinite_from(limit, value):
            at_limit = jnp.where(self.concentration == limit, jnp.inf, jnp.nan)
            return jnp.where(self.concentration < limit, value, at_limit)

        xi = jnp.where(self.concentration < 1, self.concentration, 0.0)
        q1 = _quotient(lambda a: gammaln(1 - a) / a, _GAMMA_1, xi)
        half = jnp.where(self.concentration < 0.5, self.concentration, 0.0)
        q2 = _quotient(lambda a: (gammaln(1 - 2 * a) - 2 * gammaln(1 - a)) / a**2, _GAMMA_2, half)
        variance = jnp.exp(2 * gammaln(1 - half)) * q2 * _expm1_ratio(half**2 * q2)
        return infinite_from(1.0, q1 * _expm1_ratio(xi * q1)), infinite_from(0.5, variance)
