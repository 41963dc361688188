"""The methods that `benchmarks/mixture.py` compares, each a function of a key and a problem, run on all seeds at once
(a problem's arrays with a leading axis) and compiled once a size."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.infer import NUTS

from bayesdownscale._precision import full_precision
from bayesdownscale._types import Field, Scalar
from bayesdownscale.posterior.guidance import DPS, SDA, TMPD, AbstractGuidance, MomentMatching, PiGDM, SeedRule
from bayesdownscale.posterior.kernels import (
    AbstractFieldKernel,
    FlowSlice,
    NoiseDenoiseMH,
    equally_weighted,
    twisted_smc,
)
from bayesdownscale.posterior.kernels.noise_denoise import NoiseDenoiseState
from bayesdownscale.posterior.kernels.resampling import effective_sample_size
from bayesdownscale.posterior.likelihood import LinearGaussianLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context, Cost
from bayesdownscale.prior.flow import pull, push
from bayesdownscale.prior.integrator import Integrator
from bayesdownscale.prior.mixture import GaussianMixture
from bayesdownscale.prior.noise import NoiseLevels
from bayesdownscale.prior.reverse_sde import reverse_sample

DRAWS, SIGMA_MIN, GUIDED_SEEDS = 1000, 0.03, 20
EVALUATIONS = 128  # of a path of the SDE
ODE_STEPS, SPACING = 64, 0.15  # of the kernels: some 10 / 64 in log sigma
CHAINS, WARMUP, THIN = 100, 100, 60  # then THIN steps a draw and chain
NUTS_CHAINS, NUTS_WARMUP, NUTS_THIN = 20, 50, 2
ISLANDS, PARTICLES = 4, 1000

GUIDED: dict[str, tuple[Callable[..., AbstractGuidance], int, float]] = {  # evaluations, stochasticity
    "moment_matching": (partial(MomentMatching, iterations=12), EVALUATIONS, 1.0),
    "pigdm": (PiGDM, EVALUATIONS, 1.0),
    "tmpd": (TMPD, EVALUATIONS, 1.0),
    "sda": (SDA, EVALUATIONS, 1.0),
    "dps": (partial(DPS, zeta=0.01), EVALUATIONS, 1.0),  # the best of 0.003, 0.01, 0.03 .. 1 here, d_y = 1 and 4
    "seed_rule": (SeedRule, 256, 0.0),
}


class Problem(NamedTuple):
    mixture: GaussianMixture
    matrix: Float[Array, "obs size"]
    y: Float[Array, " obs"]
    variance: Float[Array, " obs"]


class Run(NamedTuple):
    """`draws` (DRAWS, 1, 1, 1, d); evaluations and products of all of them, divided by their number; `trace`
    (chain, step, functional) of chains; (log p(y), its standard error, effective sample size) of particles."""

    draws: Array
    evaluations: Array
    products: Array
    trace: Array
    evidence: Array


class UnitMixtureDenoiser(AbstractDenoiser):
    """`MixtureDenoiser` where all variances are one, by two small matrix products:

    D = (x_sigma + sigma^2 sum_k w_k m_k) / (1 + sigma^2), log w_k = (m_k . x_sigma - |m_k|^2 / 2) / (1 + sigma^2) + c.
    """

    log_weights: Array
    means: Float[Array, "component size"]

    @staticmethod
    def of(mixture: GaussianMixture) -> "UnitMixtureDenoiser":
        return UnitMixtureDenoiser(jnp.log(mixture.weights), mixture.means.reshape(len(mixture.weights), -1))

    @full_precision
    def evaluate(self, x_sigma: Field, sigma: Scalar, context: Context) -> tuple[Field, Cost]:
        variance = 1 + sigma**2
        exponents = self.means @ x_sigma.ravel() - 0.5 * jnp.sum(self.means**2, 1)
        w = jax.nn.softmax(self.log_weights + exponents / variance)
        return (x_sigma + sigma**2 * (w @ self.means).reshape(x_sigma.shape)) / variance, Cost.of(evaluations=1)


class Matrix(eqx.Module):
    """A, an argument of what is compiled."""

    matrix: Float[Array, "obs size"]

    def __call__(self, x: Field) -> Float[Array, " obs"]:
        return self.matrix @ x.ravel()


def noise_levels(d: int) -> NoiseLevels:
    """From 10 standard deviations along the leading direction of the mixture with equal weights, 8 sqrt(d)."""
    return NoiseLevels(SIGMA_MIN, 80 * math.sqrt(d))


def parts(problem: Problem) -> tuple[AbstractDenoiser, LinearGaussianLikelihood, Context, NoiseLevels]:
    """What every kernel is made of."""
    likelihood = LinearGaussianLikelihood(Matrix(problem.matrix), problem.y, problem.variance)
    context, levels = Context(jnp.zeros(1), jnp.zeros(1)), noise_levels(problem.matrix.shape[1])
    return UnitMixtureDenoiser.of(problem.mixture), likelihood, context, levels


@partial(jax.jit, static_argnames="method")
def guided_draws(key: Array, problem: Problem, method: str) -> Run:
    denoiser, likelihood, context, levels = parts(problem)
    guidance, steps, stochasticity = GUIDED[method]
    sigmas, solve, shape = levels.levels(steps), Integrator(stochasticity=stochasticity), problem.mixture.shape
    draw = lambda key: reverse_sample(key, guidance(denoiser, likelihood), context, sigmas, shape, solve)
    draws, cost = jax.vmap(draw)(jax.random.split(key, DRAWS))
    return Run(draws, jnp.mean(cost.evaluations), jnp.mean(cost.products), jnp.zeros(0), jnp.zeros(0))


def functionals(x: Field, log_likelihood: Scalar) -> Float[Array, " functional"]:
    return jnp.append(x.ravel()[:2], log_likelihood)


def any_level(key: Array, state: NoiseDenoiseState) -> NoiseDenoiseState:
    """sigma* of the next step drawn log-uniformly, whatever it was adapted to: low levels move a field within its
    mode, high ones between modes; a mixture of kernels that are each exact."""
    levels = noise_levels(state.x.size)
    low, high = math.log(2 * levels.sigma_min), math.log(levels.sigma_max)
    return state._replace(log_sigma=jax.random.uniform(key, minval=low, maxval=high))


@partial(jax.jit, static_argnames=("kind", "prepare"))
def field_chains(
    key: Array,
    problem: Problem,
    start: Array,
    kind: Callable[..., AbstractFieldKernel],
    prepare=lambda key, state: state,
) -> Run:
    """Chains of a kernel, from the first fields of `start`, settings adapted in warm-up; `prepare` the state for
    each step."""
    kernel = kind(*parts(problem))
    k_init, k_warmup, k_draws = jax.random.split(key, 3)
    state = jax.vmap(kernel.init)(jax.random.split(k_init, CHAINS), start[:CHAINS])

    def move(key: Array, state):
        k_prepare, k_step = jax.random.split(key)
        return kernel.step(k_step, prepare(k_prepare, state))

    def step(adapting: bool, state, key):
        state, info = jax.vmap(move)(jax.random.split(key, CHAINS), state)
        state = jax.vmap(kernel.adapt)(state, info) if adapting else state
        return state, (jax.vmap(functionals)(state.x, state.log_likelihood), jnp.sum(info.cost.evaluations))

    def draw(state, key):
        state, told = jax.lax.scan(partial(step, False), state, jax.random.split(key, THIN))
        return state, (state.x, *told)

    state, (_, cost) = jax.lax.scan(partial(step, True), state, jax.random.split(k_warmup, WARMUP))
    state, (x, trace, more) = jax.lax.scan(draw, state, jax.random.split(k_draws, DRAWS // CHAINS))
    evaluations = (jnp.sum(cost) + jnp.sum(more)) / DRAWS
    trace = jnp.swapaxes(trace.reshape(-1, *trace.shape[2:]), 0, 1)
    return Run(x.reshape(DRAWS, *x.shape[2:]), evaluations, jnp.zeros(()), trace, jnp.zeros(0))


@jax.jit
def flow_nuts(key: Array, problem: Problem, start: Array) -> Run:
    """NUTS (Hoffman and Gelman 2014) over z with density N(z; 0, I) L(push(z)); the draws are spread over chains."""
    denoiser, likelihood, context, levels = parts(problem)
    sigmas = levels.levels(ODE_STEPS)
    field = lambda z: push(z, denoiser, context, sigmas)
    nuts = NUTS(potential_fn=lambda z: 0.5 * jnp.sum(z**2) - likelihood(field(z)), max_tree_depth=6)

    def chain(key: Array, x: Field):
        state = nuts.init(key, NUTS_WARMUP, pull(x, denoiser, context, sigmas), (), {})

        def step(state, _):
            state = nuts.sample(state, (), {})
            return state, (state.z, state.num_steps)

        _, (z, leapfrogs) = jax.lax.scan(step, state, None, NUTS_WARMUP + NUTS_THIN * DRAWS // NUTS_CHAINS)
        x = jax.vmap(field)(z[NUTS_WARMUP:])
        return x, jax.vmap(functionals)(x, jax.vmap(likelihood)(x)), jnp.sum(leapfrogs)

    x, trace, leapfrogs = jax.vmap(chain)(jax.random.split(key, NUTS_CHAINS), start[:NUTS_CHAINS])
    evaluations = jnp.sum(leapfrogs) * ODE_STEPS / DRAWS
    draws = x[:, NUTS_THIN - 1 :: NUTS_THIN].reshape(DRAWS, *x.shape[2:])
    return Run(draws, evaluations, evaluations, trace, jnp.zeros(0))


@jax.jit
def smc(key: Array, problem: Problem, start: Array) -> Run:
    """Islands of `twisted_smc`, twisted by moment matching, each weighted by its estimate of p(y)."""
    denoiser, likelihood, context, levels = parts(problem)
    guidance = MomentMatching(denoiser, likelihood, iterations=12)
    sigmas, shape = levels.levels(EVALUATIONS), problem.mixture.shape
    island = lambda key: twisted_smc(key, guidance, likelihood, context, sigmas, shape, PARTICLES)
    k_islands, k_draws = jax.random.split(key)
    islands = jax.lax.map(island, jax.random.split(k_islands, ISLANDS))
    relative = jnp.exp(islands.log_evidence - jnp.max(islands.log_evidence))
    log_evidence = jnp.max(islands.log_evidence) + jnp.log(jnp.mean(relative))
    error = jnp.std(relative, ddof=1) / jnp.mean(relative) / math.sqrt(ISLANDS)
    together = islands._replace(
        x=islands.x.reshape(-1, *shape), log_weights=islands.log_weights.ravel(), log_evidence=log_evidence
    )
    draws = equally_weighted(k_draws, together, DRAWS)
    evidence = jnp.stack([log_evidence, error, effective_sample_size(together.log_weights)])
    cost = jax.tree.map(lambda c: jnp.sum(c) / DRAWS, islands.cost)
    return Run(draws, cost.evaluations, cost.products, jnp.zeros(0), evidence)


noise_denoise = partial(field_chains, kind=partial(NoiseDenoiseMH, spacing=SPACING, candidates=4))
KERNELS: dict[str, tuple[Callable[[Array, Problem, Array], Run], int]] = {  # and the number of seeds
    "noise_denoise_mh": (noise_denoise, 8),
    "any_level_mh": (partial(noise_denoise, prepare=any_level), 8),
    "flow_slice": (partial(field_chains, kind=partial(FlowSlice, steps=ODE_STEPS)), 8),
    "flow_nuts": (flow_nuts, 3),
    "twisted_smc": (smc, GUIDED_SEEDS),
}
