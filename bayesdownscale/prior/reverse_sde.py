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

from bayesdownscale._types import Field, Key, Scalar
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context, Cost
from bayesdownscale.prior.solver import ExponentialMultistep


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
    denoiser: AbstractDenoiser, context: Context, stochasticity: float, path: diffrax.AbstractPath
) -> diffrax.AbstractTerm:
    """The terms of the reverse process, for any diffrax solver; stochasticity 0 gives an ODE."""
    drift = diffrax.ODETerm(ReverseDrift(denoiser, context, stochasticity))
    if stochasticity == 0:
        return drift
    return diffrax.MultiTerm(drift, ReverseNoise(path, stochasticity))


def reverse_sample(
    key: Key,
    denoiser: AbstractDenoiser,
    context: Context,
    sigmas: np.ndarray,
    shape: tuple[int, int, int, int],
    stochasticity: float = 1.0,
) -> tuple[Field, Cost]:
    """One draw, in standardised units, by one evaluation of the denoiser at each of `sigmas` (decreasing).

    Starts from N(0, sigmas[0]^2 I) and ends with the denoised mean at sigmas[-1]. Returns the draw and what it
    cost. vmap over keys for more.
    """
    k_start, k_path = jax.random.split(key)
    taus = -np.log(np.asarray(sigmas, np.float64)).astype(np.float32)
    start = float(sigmas[0]) * jax.random.normal(k_start, shape)
    path = diffrax.UnsafeBrownianPath(jax.eval_shape(lambda: start), k_path)
    solution = diffrax.diffeqsolve(
        reverse_terms(denoiser, context, stochasticity, path),
        ExponentialMultistep(),
        t0=taus[0],
        t1=taus[-1],
        dt0=None,
        y0=start,
        stepsize_controller=diffrax.StepTo(ts=taus),
        saveat=diffrax.SaveAt(t1=True, solver_state=True),
        max_steps=len(taus),
        adjoint=diffrax.RecursiveCheckpointAdjoint() if stochasticity == 0 else diffrax.ForwardMode(),
    )
    assert solution.ys is not None
    assert solution.solver_state is not None
    mean, last = denoiser.evaluate(solution.ys[0], jnp.exp(-taus[-1]), context)
    return mean, solution.solver_state.cost + last
