"""Noise that belongs to a time step: the same for every job, device and order of work."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bayesdownscale._types import Field, Key, Scalar


class KeyedNoise(eqx.Module):
    """Standard normal fields (time, variable, lat, lon) of one member at the absolute time steps from `first`.

    The number at (level, time step) depends on the key, the member, the level and the absolute number of the time
    step, and on nothing else: blocks that overlap hold the same noise where they do. `first` is not negative.
    """

    key: Key
    member: Int[Array, ""]
    first: Int[Array, ""]
    shape: tuple[int, int, int, int] = eqx.field(static=True)

    def __call__(self, level: int | Int[Array, ""]) -> Field:
        key = jax.random.fold_in(jax.random.fold_in(self.key, self.member), level)
        steps = self.first + jnp.arange(self.shape[0])
        one = lambda step: jax.random.normal(jax.random.fold_in(key, step), self.shape[1:])
        return jax.vmap(one)(steps)


class KeyedPath(diffrax.AbstractPath):
    """A Brownian path that is read once from each noise level to the next, in steps between neighbouring `taus`:
    the increment over step i is sqrt(h) times the noise of level i + 1. Level 0 is the start's."""

    noise: KeyedNoise
    taus: Float[Array, " level"]

    @property
    def t0(self) -> Scalar:
        return self.taus[0]

    @property
    def t1(self) -> Scalar:
        return self.taus[-1]

    def evaluate(self, t0, t1=None, left=True, use_levy=False):  # pyright: ignore[reportIncompatibleMethodOverride]
        assert t1 is not None, "a path of increments"
        step = jnp.argmin(jnp.abs(self.taus - t0))
        return jnp.sqrt(t1 - t0) * self.noise(step + 1)
