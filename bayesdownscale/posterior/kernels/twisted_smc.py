"""Twisted sequential Monte Carlo: weighted particles from the posterior, and the evidence p(y)."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from bayesdownscale._types import Key, Scalar
from bayesdownscale.posterior.guidance import AbstractGuidance
from bayesdownscale.posterior.kernels.resampling import Weights, effective_sample_size, log_mean_exp, systematic
from bayesdownscale.posterior.likelihood import AbstractLikelihood
from bayesdownscale.prior.denoiser import Context, Cost

Fields = Float[Array, "particle time variable lat lon"]


class Particles(NamedTuple):
    """Standardised fields `x` with `log_weights`, whose log-mean-exp is `log_evidence`; the effective sample size
    `ess` at each noise level, before resampling; the `cost` of all particles."""

    x: Fields
    log_weights: Weights
    log_evidence: Scalar
    ess: Float[Array, " level"]
    cost: Cost


class Evidence(NamedTuple):
    """log p(y) and its standard error, from the estimates of independent `islands`."""

    log_evidence: Scalar
    standard_error: Scalar
    islands: Float[Array, " island"]
    cost: Cost


class _Swarm(NamedTuple):
    x: Fields
    previous: Fields  # D one level above
    log_weights: Weights  # since the last resampling, less log psi at x
    log_evidence: Scalar  # of the resamplings so far


class _Level(NamedTuple):
    """One step of the chain: from `sigma` by h, with `ratio` = h / (2 h_previous), decay = e^{-2 h} and `scale` the
    standard deviation of the noise added."""

    sigma: Array
    ratio: Array
    decay: Array
    scale: Array
    key: Key


def twisted_smc(
    key: Key,
    guidance: AbstractGuidance,
    likelihood: AbstractLikelihood,
    context: Context,
    sigmas: np.ndarray,
    shape: tuple[int, int, int, int],
    particles: int,
    *,
    ess_threshold: float = 0.5,
) -> Particles:
    """`particles` weighted draws from p(x | y) (Wu et al. 2023, arXiv 2306.17775), and an unbiased estimate of p(y).

    The prior is the chain of `reverse_sample` along the decreasing `sigmas` (level,), noise N(0, sigmas[0]^2 I) and
    the multistep solver with stochasticity 1, where h = log(sigma / sigma') and D_bar extrapolates D:

        x' = mu_p + s xi,   mu_p = e^{-2h} x + (1 - e^{-2h}) D_bar,   s^2 = sigma'^2 (1 - e^{-2h}),

    ended by the field D(x). Particles move by mu_q = mu_p + (1 - e^{-2h}) (D_y - D) and are weighted by

        w' = w N(x'; mu_p, s^2) psi'(x') / (N(x'; mu_q, s^2) psi(x)),

    psi the twist of the `guidance`, the likelihood of D(x) at the last level. They are resampled (systematically)
    where the effective sample size falls below `ess_threshold` times their number; 0 never resamples, and the weights
    are the importance weights of guided paths. Whatever the guidance, the expectation of exp(log_evidence) is p(y)
    under the discretised prior, up to the constant that `likelihood` leaves out; a poor one costs variance. So do
    large steps: with an exact twist the variance of the log-weights falls in proportion to h, and grows with the
    number of directions that the data determine.

    A particle that is not finite has weight zero; with none left log_evidence is -inf. Memory: `particles` fields
    and what the guidance needs for each. As `reverse_sample`, to be called within jit.
    """
    log_sigmas = np.log(np.asarray(sigmas, np.float64))
    h = -np.diff(log_sigmas)
    k_start, k_steps = jax.random.split(key)
    levels = _Level(
        *(jnp.asarray(a, jnp.float32) for a in (sigmas[:-1], np.append(0.0, h[1:] / (2 * h[:-1])), np.exp(-2 * h))),
        scale=jnp.asarray(sigmas[1:] * np.sqrt(-np.expm1(-2 * h)), jnp.float32),
        key=jax.random.split(k_steps, len(h)),
    )

    def step(swarm: _Swarm, level: _Level) -> tuple[_Swarm, tuple[Scalar, Cost]]:
        k_resample, k_move = jax.random.split(level.key)
        twist = jax.vmap(lambda x: guidance.twist(x, level.sigma, context))(swarm.x)
        log_weights = _or_zero(swarm.log_weights + twist.log_weight)
        ess = effective_sample_size(log_weights)
        resample = ess < ess_threshold * particles
        ancestors = jnp.where(resample, systematic(k_resample, log_weights, particles), jnp.arange(particles))
        gathered = (swarm.x, twist.prior_mean, twist.mean, swarm.previous, twist.log_weight)
        x, d, d_y, previous, log_psi = jax.tree.map(lambda a: a[ancestors], gathered)
        log_evidence = swarm.log_evidence + jnp.where(resample, log_mean_exp(log_weights), 0.0)
        log_weights = jnp.where(resample, 0.0, log_weights)

        mu_p = level.decay * x + (1 - level.decay) * (d + level.ratio * (d - previous))
        delta = (1 - level.decay) * (d_y - d) / level.scale
        xi = jax.random.normal(k_move, x.shape)
        x = mu_p + level.scale * (delta + xi)
        log_ratio = -jnp.sum(xi * delta + delta**2 / 2, axis=(1, 2, 3, 4))
        log_weights = _or_zero(log_weights + log_ratio - log_psi)
        alive = jnp.isfinite(log_weights) & _finite(x)
        swarm = _Swarm(_where(alive, x), _where(alive, d), jnp.where(alive, log_weights, -jnp.inf), log_evidence)
        return swarm, (ess, total(twist.cost))

    x = jnp.asarray(sigmas[0], jnp.float32) * jax.random.normal(k_start, (particles, *shape))
    swarm = _Swarm(x, jnp.zeros_like(x), jnp.zeros(particles), jnp.zeros(()))
    swarm, (ess, costs) = jax.lax.scan(step, swarm, levels)

    last = jnp.asarray(sigmas[-1], jnp.float32)
    x, cost = jax.vmap(lambda x: guidance.denoiser.evaluate(x, last, context))(swarm.x)
    log_weights = _or_zero(swarm.log_weights + jax.vmap(likelihood)(x))
    log_weights = jnp.where(_finite(x), log_weights, -jnp.inf)
    ess = jnp.append(ess, effective_sample_size(log_weights))
    log_weights = swarm.log_evidence + log_weights
    return Particles(x, log_weights, log_mean_exp(log_weights), ess, total(costs) + total(cost))


def log_evidence(
    key: Key,
    guidance: AbstractGuidance,
    likelihood: AbstractLikelihood,
    context: Context,
    sigmas: np.ndarray,
    shape: tuple[int, int, int, int],
    particles: int,
    *,
    islands: int = 8,
    ess_threshold: float = 0.5,
) -> Evidence:
    """log p(y) from `islands` independent runs of `twisted_smc`, one after the other: the log of the mean of their
    unbiased estimates Z_i, and its standard error by the delta method,

        sd(Z) / (mean(Z) sqrt(islands)),

    which says little when it is above one half: then a single island carries the mean, and more particles or a
    better guidance are needed.
    """
    if islands < 2:
        raise ValueError(f"expected at least 2 islands for a standard error, got {islands}")

    def island(key: Key) -> tuple[Scalar, Cost]:
        run = twisted_smc(key, guidance, likelihood, context, sigmas, shape, particles, ess_threshold=ess_threshold)
        return run.log_evidence, run.cost

    each, costs = jax.lax.map(island, jax.random.split(key, islands))
    mean = log_mean_exp(each)
    relative = jnp.exp(each - mean)
    error = jnp.std(relative, ddof=1) / math.sqrt(islands)
    return Evidence(mean, error, each, total(costs))


def equally_weighted(key: Key, particles: Particles, draws: int) -> Fields:
    """`draws` fields of equal weight, by systematic resampling; a heavy particle is repeated."""
    return particles.x[systematic(key, particles.log_weights, draws)]


def total(cost: Cost) -> Cost:
    """The sum over particles, levels or islands."""
    return jax.tree.map(jnp.sum, cost)


def _or_zero(log_weights: Weights) -> Weights:
    """Weight zero for what is not a number."""
    return jnp.where(jnp.isfinite(log_weights), log_weights, -jnp.inf)


def _finite(x: Fields) -> Bool[Array, " particle"]:
    return jnp.all(jnp.isfinite(x), axis=(1, 2, 3, 4))


def _where(alive: Bool[Array, " particle"], a: Fields) -> Fields:
    """A harmless field in place of a particle that is not finite, which would keep a solver busy."""
    return jnp.where(alive[:, None, None, None, None], a, 0.0)
