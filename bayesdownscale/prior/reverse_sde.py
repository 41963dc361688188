"""The reverse SDE as diffrax terms, and its integration from noise to a field.

With tau = -log sigma and x_sigma = x + sigma eps, the family of reverse processes with stochasticity lambda is

    dx = (1 + lambda) (D(x, sigma) - x) dtau + sqrt(2 lambda) sigma dW,

lambda = 1 the reverse SDE (Anderson 1982; Song et al. 2021, arXiv 2011.13456), lambda = 0 the probability-flow
ODE. It stands with the prior because a prior draws itself by it; guided denoisers go through the same terms.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from bayesdownscale._types import Field, Key, Scalar
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context, Cost
from bayesdownscale.prior.integrator import DEFAULT, Integrator, evaluations
from bayesdownscale.prior.solver import MultistepState

MAX_STEPS = 4096  # of an adaptive solve


class ReverseDrift(eqx.Module):
    """The vector field (1 + lambda) (D - x); `denoise` gives D itself, and its cost, to solvers that ask."""

    denoiser: AbstractDenoiser
    context: Context
    stochasticity: float = eqx.field(static=True)

    def denoise(self, tau: Scalar, x: Field) -> tuple[Field, Cost]:
        return self.denoiser.evaluate(x, jnp.exp(-tau), self.context)

    def __call__(self, t, y, args):
        return (1 + self.stochasticity) * (self.denoise(t, y)[0] - y)


class ReverseNoise(diffrax.AbstractTerm):
    """The diffusion term sqrt(2 lambda) sigma dW, the same at every point of the field."""

    path: diffrax.AbstractPath
    stochasticity: float = eqx.field(static=True)

    def vf(self, t, y, args):
        return jnp.sqrt(2 * self.stochasticity) * jnp.exp(-t)

    def contr(self, t0, t1, **kwargs):
        return self.path.evaluate(t0, t1, **kwargs)

    def prod(self, vf, control):
        return jax.tree.map(lambda c: vf * c, control)


def reverse_terms(
    denoiser: AbstractDenoiser, context: Context, stochasticity: float, path: diffrax.AbstractPath | None
) -> diffrax.AbstractTerm:
    """The terms of the reverse process, for any diffrax solver; stochasticity 0 gives an ODE."""
    drift = diffrax.ODETerm(ReverseDrift(denoiser, context, stochasticity))
    if stochasticity == 0:
        return drift
    assert path is not None
    return diffrax.MultiTerm(drift, ReverseNoise(path, stochasticity))


def reverse_path(
    key: Key | None,
    x_sigma: Field,
    denoiser: AbstractDenoiser,
    context: Context,
    sigmas: np.ndarray | Array,
    integrator: Integrator = DEFAULT,
) -> tuple[Field, Cost]:
    """The reverse process from `x_sigma` at sigmas[0] to x at sigmas[-1], which is not denoised; and its cost.

    Standardised units. `sigmas` (level,), a NumPy array or a traced one, decrease; with stochasticity 0 they may
    also increase, and the ODE is climbed. `key` is not used, and may be None, for stochasticity 0. Paths can be
    differentiated backwards, but those of an SDE with fixed steps only forwards. diffrax's solvers tell the
    evaluations, not the products and iterations of a guided denoiser (-1: not counted).
    """
    lam = integrator.stochasticity
    if isinstance(sigmas, np.ndarray):
        if lam > 0 and sigmas[-1] > sigmas[0]:
            raise ValueError("expected decreasing noise levels; only the ODE, stochasticity 0, runs upwards too")
        sigmas = sigmas.astype(np.float64)
        taus = jnp.asarray(-np.log(sigmas), jnp.float32)
    else:
        taus = -jnp.log(sigmas)
    path = None
    if lam > 0:
        if key is None:
            raise ValueError(f"expected a key for stochasticity {lam}, got None; only the ODE needs none")
        path = integrator.path(key, taus[0], taus[-1], x_sigma)
    fixed = integrator.tolerance is None
    solution = diffrax.diffeqsolve(
        reverse_terms(denoiser, context, lam, path),
        integrator.solver,
        t0=taus[0],
        t1=taus[-1],
        dt0=None if fixed else taus[1] - taus[0],
        y0=x_sigma,
        stepsize_controller=integrator.controller(taus),
        saveat=diffrax.SaveAt(t1=True, solver_state=True, controller_state=True),
        max_steps=len(taus) if fixed else MAX_STEPS,
        adjoint=diffrax.ForwardMode() if fixed and lam > 0 else diffrax.RecursiveCheckpointAdjoint(),
        throw=False,
    )
    assert solution.ys is not None
    x = solution.ys[0]
    if isinstance(solution.solver_state, MultistepState):
        return x, solution.solver_state.cost
    x = jnp.where(diffrax.is_okay(solution.result), x, jnp.nan)
    return x, Cost.of(evaluations(integrator, solution), products=-1, iterations=-1)


def reverse_sample(
    key: Key,
    denoiser: AbstractDenoiser,
    context: Context,
    sigmas: np.ndarray | Array,
    shape: tuple[int, int, int, int],
    integrator: Integrator = DEFAULT,
) -> tuple[Field, Cost]:
    """One draw, in standardised units, and what it cost.

    Starts from N(0, sigmas[0]^2 I), follows `reverse_path` along `sigmas` (decreasing) and ends with the denoised
    mean at sigmas[-1]. vmap over keys for more.
    """
    k_start, k_path = jax.random.split(key)
    white = jax.random.normal(k_start, shape)
    start = jnp.asarray(sigmas[0], white.dtype) * white
    x, cost = reverse_path(k_path, start, denoiser, context, sigmas, integrator)
    mean, last = denoiser.evaluate(x, jnp.asarray(sigmas[-1], x.dtype), context)
    return mean, cost + last
