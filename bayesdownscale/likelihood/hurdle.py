"""The hurdle distribution: exactly zero, or a positive amount. For rain and other data with many zeros."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax, random
from jax.nn import softplus
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.distributions.util import lazy_property, promote_shapes, validate_sample
from numpyro.util import is_prng_key


class _ZeroOr(constraints.Constraint):
    """Zero, or what `base` takes."""

    def __init__(self, base):
        self.base = base

    def __call__(self, x):
        return (x == 0) | self.base(x)

    def feasible_like(self, prototype):
        return jnp.zeros_like(prototype)

    def tree_flatten(self):
        return (self.base,), (("base",), {})


class Hurdle(dist.Distribution):
    """Zero with probability 1 - p, otherwise a draw from the distribution `positive` (Cragg 1971,
    doi:10.2307/1909582):

        log p(v) = log(1 - p) at v = 0,    log p + log positive(v) for v > 0,    -inf for v < 0

    A density with respect to Lebesgue measure plus a unit mass at 0.

    **Arguments:** `positive`, a univariate distribution of positive numbers (Gamma, LogNormal, GeneralizedPareto,
    ...); one of `probs` p and `logits` log(p / (1 - p)), of an amount that is *not* zero. Gradients are finite at
    v = 0. (NumPyro 0.22 has `HurdleProbs` of the probability of zero; its support leaves zeros out, so that with
    validated arguments, the default, a zero has density 0.)

    **Raises:** `ValueError` for none or both of `probs` and `logits`, and for a `positive` that is not univariate.
    """

    arg_constraints: ClassVar = {"probs": constraints.unit_interval, "logits": constraints.real}
    pytree_data_fields = ("positive", "_log_wet", "_log_dry")

    def __init__(
        self,
        positive: dist.Distribution,
        probs: ArrayLike | None = None,
        *,
        logits: ArrayLike | None = None,
        validate_args=None,
    ):
        if (probs is None) == (logits is None):
            got = "neither" if probs is None else "both"
            raise ValueError(f"expected one of probs and logits, got {got}; give the probability of not zero once")
        if positive.event_shape:
            raise ValueError(
                f"expected a univariate distribution of positive amounts, got events of shape {positive.event_shape}; "
                "call to_event on the hurdle, not inside it"
            )
        given: Any = logits if probs is None else probs
        batch_shape = lax.broadcast_shapes(jnp.shape(given), positive.batch_shape)
        (given,) = promote_shapes(given, shape=batch_shape)
        self.positive = positive
        if probs is None:
            self.logits, self._log_wet, self._log_dry = given, -softplus(-given), -softplus(given)
        else:  # p = 0 and p = 1 have finite derivatives too
            self.probs = given
            self._log_wet = jnp.where(given > 0, jnp.log(jnp.where(given > 0, given, 1.0)), -jnp.inf)
            self._log_dry = jnp.where(given < 1, jnp.log1p(-jnp.where(given < 1, given, 0.0)), -jnp.inf)
        super().__init__(batch_shape=batch_shape, validate_args=validate_args)

    @lazy_property
    def probs(self):
        return jnp.exp(self._log_wet)

    @lazy_property
    def logits(self):
        return self._log_wet - self._log_dry

    @constraints.dependent_property(is_discrete=False, event_dim=0)  # pyright: ignore[reportArgumentType]
    def support(self):
        return _ZeroOr(self.positive.support)

    def _amount(self, value):
        """`value` where it is positive, elsewhere a number at which `positive` has finite derivatives."""
        assert self.positive.support is not None
        return jnp.where(value > 0, value, self.positive.support.feasible_like(value))

    @validate_sample
    def log_prob(self, value):
        value = jnp.asarray(value)
        wet = self._log_wet + self.positive.log_prob(self._amount(value))
        return jnp.where(value > 0, wet, jnp.where(value == 0, self._log_dry, -jnp.inf))

    def cdf(self, value):
        value = jnp.asarray(value)
        below = jnp.where(value > 0, self.positive.cdf(self._amount(value)), 0.0)
        return jnp.where(value < 0, 0.0, jnp.exp(self._log_dry) + jnp.exp(self._log_wet) * below)

    def sample(self, key, sample_shape=()):
        assert key is not None
        assert is_prng_key(key)
        k_wet, k_amount = random.split(key)
        wet = random.bernoulli(k_wet, jnp.exp(self._log_wet), (*sample_shape, *self.batch_shape))
        amount = self.positive.expand(self.batch_shape).sample(k_amount, sample_shape)
        return jnp.where(wet, amount, 0.0)

    @property
    def mean(self):
        return jnp.broadcast_to(jnp.exp(self._log_wet) * self.positive.mean, self.batch_shape)

    @property
    def variance(self):
        p, mean = jnp.exp(self._log_wet), self.positive.mean
        return jnp.broadcast_to(p * (self.positive.variance + (1 - p) * mean**2), self.batch_shape)
