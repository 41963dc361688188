"""The probability-flow ODE as a map from noise to fields, as its approximate inverse, and as a density."""

import math

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from bayesdownscale._precision import inner
from bayesdownscale._types import Field, Key, Scalar
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context
from bayesdownscale.prior.integrator import Integrator
from bayesdownscale.prior.reverse_sde import reverse_path

ODE = Integrator(stochasticity=0.0)
EXACT_UP_TO = 512  # cells whose divergence is taken exactly
BATCH = 32  # reverse sweeps in memory at once
STAGES = 6  # of Tsit5: evaluations a step of `log_density`


def push(z: Field, denoiser: AbstractDenoiser, context: Context, sigmas: np.ndarray | Array) -> Field:
    """The field, in standardised units, that the ODE makes of the latent `z` ~ N(0, I) (time, variable, lat, lon).

    From sigmas[0] z down the levels `sigmas` to the denoised mean at sigmas[-1], with one evaluation of the
    denoiser a level: what `reverse_sample` draws at stochasticity 0, as a function of its noise. Differentiable
    backwards; vmap for more.
    """
    start = jnp.asarray(sigmas[0], z.dtype) * z
    x, _ = reverse_path(None, start, denoiser, context, sigmas, ODE)
    return denoiser(x, jnp.asarray(sigmas[-1], x.dtype), context)


def pull(x: Field, denoiser: AbstractDenoiser, context: Context, sigmas: np.ndarray | Array) -> Field:
    """The latent z from which the ODE comes to `x` at sigmas[-1] (standardised units): the same path upwards.

    An inverse of the path in `push` to second order in the steps. The denoising at its end is not undone: a clean
    field has less variance than one at sigmas[-1], so add sigmas[-1] times white noise to it for a z as large as
    a standard normal one.
    """
    top, _ = reverse_path(None, x, denoiser, context, sigmas[::-1], ODE)
    return top / jnp.asarray(sigmas[0], x.dtype)


class _Augmented(eqx.Module):
    """The vector field of (u, log |du / du_n|) in s = log sigma; `scale` times the sum over `directions` of
    e . (dD/dx)^T e is the trace of dD/dx, or an estimate of it."""

    denoiser: AbstractDenoiser
    context: Context
    directions: Float[Array, "direction time variable lat lon"]
    scale: float = eqx.field(static=True)

    def __call__(self, t, y, args):
        u, sigma = y[0], jnp.exp(t)
        c = jnp.sqrt(1 + sigma**2)
        mean, vjp = jax.vjp(lambda x: self.denoiser(x, sigma, self.context), c * u)
        traces = lax.map(lambda e: inner(e, vjp(e)[0]), self.directions, batch_size=BATCH)
        return u / c**2 - mean / c, u.size / c**2 - self.scale * jnp.sum(traces)


def log_density(
    x: Field,
    denoiser: AbstractDenoiser,
    context: Context,
    sigmas: np.ndarray | Array,
    key: Key | None = None,
    probes: int = 8,
    exact_up_to: int = EXACT_UP_TO,
) -> Scalar:
    """log p(x) of the prior smoothed by noise of sigmas[-1], in standardised units: the instantaneous change of
    variables (Chen et al. 2018, arXiv 1806.07366) along the probability-flow ODE (Song et al. 2021, arXiv
    2011.13456), from x at sigma_n = sigmas[-1] up to N(0, sigma_0^2 I) at sigma_0 = sigmas[0], where the sampler
    starts. With s = log sigma and u = x / c, c = sqrt(1 + sigma^2), which moves little, and d cells,

        du/ds = u / c^2 - D(c u) / c,
        log p(x) = log N(c_0 u_0; 0, sigma_0^2 I) + d log(c_0 / c_n) + int (d / c^2 - tr dD/dx) ds.

    Solved by diffrax's Tsit5 with `sigmas` as steps, six evaluations of the denoiser each. This is the law of what
    the ODE draws; the SDE's is the same where D is exact. Its start leaves out terms of the order of |mean| /
    sigma_0 and variance / sigma_0^2.

    The trace is exact, d reverse sweeps an evaluation, for up to `exact_up_to` cells. For more it is Hutchinson's:
    the mean of e . (dD/dx)^T e over `probes` random signs e, drawn with `key` and the same along the whole path
    (FFJORD: Grathwohl et al. 2019, arXiv 1810.01367); unbiased but for the steps, its variance 2 / probes times the
    sum of squares of the off-diagonal elements of int dD/dx ds, where that is symmetric. Differentiable backwards.
    Raises `ValueError` for more cells than `exact_up_to` and no key.
    """
    d = x.size
    if d <= exact_up_to:
        directions, scale = jnp.eye(d, dtype=x.dtype).reshape(d, *x.shape), 1.0
    elif key is None:
        raise ValueError(f"expected a key for the random trace of a field of {d} cells, got None")
    else:
        directions, scale = jax.random.rademacher(key, (probes, *x.shape), x.dtype), 1 / probes
    levels = jnp.log(jnp.asarray(sigmas, x.dtype))[::-1]
    c_n, c_0 = (jnp.sqrt(1 + jnp.exp(2 * s)) for s in (levels[0], levels[-1]))
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(_Augmented(denoiser, context, directions, scale)),
        diffrax.Tsit5(),
        t0=levels[0],
        t1=levels[-1],
        dt0=None,
        y0=(x / c_n, jnp.zeros((), x.dtype)),
        stepsize_controller=diffrax.StepTo(levels),
        max_steps=len(levels),
        throw=False,
    )
    assert solution.ys is not None
    u, log_determinant = (y[0] for y in solution.ys)
    z = c_0 * u / jnp.exp(levels[-1])
    base = -0.5 * jnp.sum(z**2) - d * (levels[-1] + 0.5 * math.log(2 * math.pi))
    return base + d * jnp.log(c_0 / c_n) + log_determinant
