"""A second-order multistep exponential solver for the reverse SDE: one evaluation of the denoiser a step."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import diffrax
import jax.numpy as jnp

from bayesdownscale._types import Field, Scalar
from bayesdownscale.prior.denoiser import Cost


class MultistepState(NamedTuple):
    """The denoised field and the length of the previous step (zero before the first), and the cost so far."""

    denoised: Field
    step: Scalar
    cost: Cost


class ExponentialMultistep(diffrax.AbstractItoSolver):
    """The linear part of dx = (1 + lambda)(D - x) dtau + sqrt(2 lambda) sigma dW solved exactly over a step h:

        x' = e^{-(1 + lambda) h} x + (1 - e^{-(1 + lambda) h}) D_bar + sigma' sqrt(1 - e^{-2 lambda h}) xi,

    with D_bar = D_n + h / (2 h_{n-1}) (D_n - D_{n-1}), D extrapolated to the middle of the step from the last
    two (Lu et al. 2022, arXiv 2211.01095: DPM-Solver++(2M) and its SDE form). Of order two for lambda = 0, where
    h may also be negative: the ODE climbed; of strong order one otherwise, and two in law. It reads lambda and D
    from the `ReverseDrift` in the terms of `reverse_terms`.
    """

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable[..., diffrax.LocalLinearInterpolation]] = diffrax.LocalLinearInterpolation

    def order(self, terms):
        return 2

    def strong_order(self, terms):
        return 1

    def init(self, terms, t0, t1, y0, args) -> MultistepState:
        return MultistepState(jnp.zeros_like(y0), jnp.zeros_like(t0), Cost.of())

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump) -> tuple[Any, ...]:
        drift, noise = terms.terms if isinstance(terms, diffrax.MultiTerm) else (terms, None)
        field = drift.term.vector_field  # diffrax wraps each term with the direction of time, and turns t0 and t1
        h, lam = drift.contr(t0, t1), field.stochasticity
        denoised, cost = field.denoise(drift.direction * t0, y0)
        has_previous = solver_state.step != 0
        ratio = jnp.where(has_previous, h / (2 * jnp.where(has_previous, solver_state.step, 1.0)), 0.0)
        extrapolated = denoised + ratio * (denoised - solver_state.denoised)
        decay = jnp.exp(-(1 + lam) * h)
        y1 = decay * y0 + (1 - decay) * extrapolated
        if noise is not None:
            xi = noise.contr(t0, t1) / jnp.sqrt(h)
            y1 = y1 + jnp.exp(-t1) * jnp.sqrt(-jnp.expm1(-2 * lam * h)) * xi
        state = MultistepState(denoised, h, solver_state.cost + cost)
        return y1, None, dict(y0=y0, y1=y1), state, diffrax.RESULTS.successful

    def func(self, terms, t0, y0, args):
        return terms.vf(t0, y0, args)
