"""Elliptical slice sampling in the noise of the probability-flow ODE."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from bayesdownscale._types import Count, Field, Key, Scalar
from bayesdownscale.posterior.kernels.base import AbstractFieldKernel
from bayesdownscale.posterior.likelihood import AbstractLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context, Cost
from bayesdownscale.prior.flow import pull, push
from bayesdownscale.prior.noise import NoiseLevels


class FlowSliceState(NamedTuple):
    """The noise `z`, the field `x` = push(z) and its log-likelihood."""

    z: Field
    x: Field
    log_likelihood: Scalar


class FlowSliceInfo(NamedTuple):
    """How often the bracket was contracted, the `angle` moved along the ellipse (zero where the contractions ran out)
    and the cost of a step."""

    contractions: Count
    angle: Scalar
    cost: Cost


class _Bracket(NamedTuple):
    key: Key
    low: Scalar
    high: Scalar
    angle: Scalar
    state: FlowSliceState
    tried: Count
    found: Bool[Array, ""]


class FlowSlice(AbstractFieldKernel):
    """Leaves N(z; 0, I) L(push(z)) invariant, hence p(x | y) under the prior that pushes z ~ N(0, I) through the
    probability-flow ODE, discretised by `steps` evaluations: exact for that prior (ESS-Flow, 2025, arXiv 2510.05849).

    Elliptical slice sampling (Murray, Adams and MacKay 2010, arXiv 1001.0175): with nu ~ N(0, I) and a threshold
    log L(z) + log u, u uniform, angles t are drawn from a bracket that shrinks towards zero,

        z' = z cos t + nu sin t,

    until log L(push(z')) is above the threshold. No gradients, nothing to tune. Of sequences with the same number of
    rejected angles each is as likely as its reverse, so to stay after `contractions` of them is exact too. Precise
    data on many cells make the angles small: log_2 of 1 / angle contractions a step, each `steps` evaluations.
    """

    denoiser: AbstractDenoiser
    likelihood: AbstractLikelihood
    context: Context
    levels: NoiseLevels
    steps: int = eqx.field(static=True, default=32)
    contractions: int = eqx.field(static=True, default=24)

    def init(self, key: Key, x: Field) -> FlowSliceState:
        """Starts from the noise that the ODE, climbed, makes of `x`; the field reported first is near x."""
        z = pull(x, self.denoiser, self.context, self.levels.levels(self.steps))
        x, log_likelihood = self._push(z)
        return FlowSliceState(z, x, log_likelihood)

    def step(self, key: Key, state: FlowSliceState) -> tuple[FlowSliceState, FlowSliceInfo]:
        k_noise, k_height, k_first, k_later = jax.random.split(key, 4)
        nu = jax.random.normal(k_noise, state.z.shape)
        height = jnp.log(1 - jax.random.uniform(k_height)) + _or_zero(state.log_likelihood)

        def attempt(b: _Bracket) -> _Bracket:
            z = state.z * jnp.cos(b.angle) + nu * jnp.sin(b.angle)
            x, log_likelihood = self._push(z)
            found = _or_zero(log_likelihood) > height
            low, high = jnp.where(b.angle < 0, b.angle, b.low), jnp.where(b.angle < 0, b.high, b.angle)
            key, k_angle = jax.random.split(b.key)
            next_angle = jax.random.uniform(k_angle, minval=low, maxval=high)
            new = FlowSliceState(z, x, log_likelihood)
            keep = jax.tree.map(lambda a, old: jnp.where(found, a, old), new, b.state)
            angle = jnp.where(found, b.angle, next_angle)
            return _Bracket(key, low, high, angle, keep, b.tried + 1, found)

        first = jax.random.uniform(k_first, maxval=2 * math.pi)
        start = _Bracket(
            k_later, first - 2 * math.pi, first, first, state, jnp.zeros((), jnp.int32), jnp.asarray(False)
        )
        going = lambda b: ~b.found & (b.tried <= self.contractions)
        end = jax.lax.while_loop(going, attempt, start)
        angle = jnp.where(end.found, end.angle, 0.0)
        return end.state, FlowSliceInfo(end.tried - end.found, angle, Cost.of(self.steps * end.tried))

    def refresh(self, state: FlowSliceState) -> FlowSliceState:
        return state._replace(log_likelihood=self.likelihood(state.x))

    def adapt(self, state: FlowSliceState, info: FlowSliceInfo) -> FlowSliceState:
        return state

    def tuned_as(self, state: FlowSliceState, other: FlowSliceState) -> FlowSliceState:
        return state

    def _push(self, z: Field) -> tuple[Field, Scalar]:
        x = push(z, self.denoiser, self.context, self.levels.levels(self.steps))
        return x, self.likelihood(x)


def _or_zero(log_likelihood: Scalar) -> Scalar:
    """Likelihood zero for what is not a number."""
    return jnp.where(jnp.isfinite(log_likelihood), log_likelihood, -jnp.inf)
