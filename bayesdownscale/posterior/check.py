"""How far the fast sampler is from the exact posterior: guided draws move by an exact kernel, and are watched."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np
from arviz_stats.base import array_stats
from jaxtyping import Array

from bayesdownscale.likelihood.program import Program, Theta
from bayesdownscale.posterior.batches import draw_keys, in_batches
from bayesdownscale.posterior.collect import read_model
from bayesdownscale.posterior.guidance import AbstractGuidance, MomentMatching
from bayesdownscale.posterior.guided import guided_sampler
from bayesdownscale.posterior.kernels import AbstractFieldKernel, NoiseDenoiseMH, twisted_smc
from bayesdownscale.posterior.likelihood import ProgramLikelihood
from bayesdownscale.posterior.theta import draw_theta_given_field
from bayesdownscale.prior.distribution import FieldPrior

CELLS = 256  # at random, watched besides the parameters
SOLID = 0.7  # Pareto k up to which importance weights can be trusted (Vehtari et al. 2024)
ENOUGH = 25  # chains for the tail of their weights to be fitted
WARMUP = 100  # steps in which the kernel is tuned
MOVED = 0.1  # share of a chain's memory that must be gone for its drift to be extrapolated


@dataclass(frozen=True)
class Check:
    """What `posterior_check` found. Lengths are in posterior standard deviations, +- is one standard error.

    `mean_error`, `mean_error_se`: the root mean square over cells of the error of the guided mean; `sd_ratio`,
    `sd_ratio_se`: the mean over cells of guided over exact standard deviation; `parameters`: for each parameter
    (error, standard error) of its mean; `forgotten`: the share of a draw that the exact kernel replaced;
    `pareto_k` of the weights of guided paths, None where there are unknown parameters or fewer than 25 chains;
    `chains` and `steps` of the kernel.
    """

    mean_error: float
    mean_error_se: float
    sd_ratio: float
    sd_ratio_se: float
    parameters: dict[str, tuple[float, float]]
    forgotten: float
    pareto_k: float | None
    chains: int
    steps: int

    def __str__(self) -> str:
        if self.forgotten < MOVED:
            return (
                f"The exact kernel replaced only {self.forgotten:.0%} of the guided draws in {self.steps} steps "
                f"({self.chains} chains): how far they are from the exact posterior is not known; ask for more steps."
            )
        sentence = (
            f"Guided draws differ from the exact posterior under the learned prior by {self.mean_error:.2f} +- "
            f"{self.mean_error_se:.2f} posterior standard deviations in the mean (root mean square over cells), and "
            f"are {self.sd_ratio:.2f} +- {self.sd_ratio_se:.2f} times as wide, as {self.steps} steps of an exact "
            f"kernel on {self.chains} chains show, which replaced {self.forgotten:.0%} of each draw."
        )
        for name, (error, se) in self.parameters.items():
            sentence += f" {name}: {error:+.2f} +- {se:.2f} standard deviations in the mean."
        if self.pareto_k is not None:
            verdict = "can be trusted" if self.pareto_k <= SOLID else "cannot be trusted"
            sentence += f" Pareto k of the weights of guided paths: {self.pareto_k:.2f}, importance weights {verdict}."
        return sentence


def posterior_check(
    model: Callable,
    rng_key: Array,
    *args: Any,
    theta: Theta | None = None,
    guidance: Callable[..., AbstractGuidance] = MomentMatching,
    guided_steps: int = 32,
    sweeps: int = 5,
    kernel: Callable[..., AbstractFieldKernel] = NoiseDenoiseMH,
    chains: int = 64,
    steps: int = 50,
    batch: int = 16,
    on_batch: Callable[[int], None] = lambda done: None,
    **kwargs: Any,
) -> Check:
    """Distance of guided draws from the posterior that an exact kernel leaves invariant, for any program.

    `chains` guided draws f_0 are moved by `steps` steps of `kernel`, with parameters drawn by NUTS in between. Were
    they exact draws, nothing would change in law. A kernel that forgets as rho^n in n steps takes an error b of the
    mean to rho^n b, so b is estimated by

        (mean f_0 - mean f_n) / (1 - rho^n),

    rho^n the slope of f_n on f_0, paired, hence precisely and long before the chain has converged; likewise the
    variance with rho^2n. The root mean square over cells has its Monte-Carlo part taken off. Exact means invariant
    under the learned, discretised prior (see the kernel). `batch` chains are in memory at once, `on_batch` hears how
    many are done. The check costs `chains` x (`guided_steps` + `steps` x evaluations of a step): choose both for a
    large prior, and a subset of its data or a shorter span of time if that is too much.
    """
    program, _ = read_model(model, args, kwargs)
    program = program.fix(theta or {})
    prior = program.prior
    settings = (guidance, guided_steps, sweeps, kernel)
    given = program.abstract(), prior, program.data, program.given
    pilot_key, rng_key = jax.random.split(rng_key)
    _, tuned = _chains(*given, settings, WARMUP, None, draw_keys(pilot_key, 1))
    draw_batch = lambda keys: _chains(*given, settings, steps, tuned, keys)[0]
    moved = in_batches(draw_batch, draw_keys(rng_key, chains), batch, on_batch=on_batch)
    chosen = np.random.default_rng(0).permutation(int(np.prod(prior.event_shape)))[:CELLS]
    cells = lambda name: moved[name].reshape(chains, -1)[:, chosen].astype(np.float64)
    error, error_se, ratio, ratio_se, forgotten = drift(cells("field_0"), cells("field_n"))
    parameters = {}
    for name in program.latents:
        first, last = (moved[f"{name}_{i}"].reshape(chains, -1).astype(np.float64) for i in "0n")
        b, se, *_ = _errors(first, last)
        parameters[name] = (float(b.mean()), float(np.sqrt(np.mean(se**2))))
    pareto_k = None
    if not program.latents and chains >= ENOUGH:
        weights = _path_weights(*given, guidance, guided_steps, chains, rng_key)
        pareto_k = float(array_stats.psislw(np.asarray(weights, np.float64))[1])
    return Check(error, error_se, ratio, ratio_se, parameters, forgotten, pareto_k, chains, steps)


def _errors(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """For f_0 and f_n (chain, functional): error of the mean in standard deviations, its standard error, ratio of
    standard deviations, each (functional,), and 1 - rho^n, with rho^n the slope of f_n on f_0 (their median)."""
    n, (a, b) = first.shape[0], (first - first.mean(0), last - last.mean(0))
    before, after = (a**2).mean(0), (b**2).mean(0)
    slope = float(np.clip(np.median((a * b).mean(0) / before), 0.0, 0.999))
    variance = np.maximum((after - slope**2 * before) / (1 - slope**2), 1e-6 * after)
    change = (first - last) / np.sqrt(variance) / (1 - slope)
    return change.mean(0), change.std(0, ddof=1) / np.sqrt(n), np.sqrt(before / variance), 1 - slope


def drift(first: np.ndarray, last: np.ndarray) -> tuple[float, float, float, float, float]:
    """(error of the mean, its standard error, ratio of standard deviations, its standard error, share forgotten) of
    f_0 and f_n (chain, cell), over all cells. Standard errors by the jackknife over 8 groups of chains, since cells
    are correlated."""

    def summary(keep: np.ndarray) -> np.ndarray:
        error, error_se, ratio, left = _errors(first[keep], last[keep])
        return np.array([np.mean(error**2) - np.mean(error_se**2), np.mean(ratio), left])

    n = first.shape[0]
    groups = np.arange(n) % min(8, n // 2)
    whole = summary(np.ones(n, bool))
    parts = np.stack([summary(groups != g) for g in np.unique(groups)])
    se = np.sqrt((len(parts) - 1) * parts.var(0))
    error = np.sqrt(max(whole[0], 0.0))
    error_se = se[0] / (2 * error) if error**2 > se[0] else np.sqrt(se[0])
    return float(error), float(error_se), float(whole[1]), float(se[1]), float(whole[2])


@eqx.filter_jit
def _chains(abstract, prior: FieldPrior, data, given, settings, steps, tuned, keys) -> tuple[dict[str, Array], Any]:
    """Fields and parameters before and after `steps` of the kernel, and its last state in the first chain. Its settings
    are those of the state `tuned`; with None it adapts them."""
    program: Program = abstract.bind(data, given)
    guidance, guided_steps, sweeps, kernel = settings
    sweeps = sweeps if program.latents else 1
    guided = guided_sampler(program, prior, guidance=guidance, steps=guided_steps, sweeps=sweeps)
    bind = lambda theta: kernel(
        prior.denoiser, ProgramLikelihood.of(program, prior, theta), prior.context, prior.levels
    )
    physical = lambda x: prior.standardisation.backward(x, prior.context)

    def chain(key: Array) -> tuple[dict[str, Array], Any]:
        k_guided, k_init, k_steps = jax.random.split(key, 3)
        start = guided(k_guided)
        theta_0 = {name: start[f"theta/{name}"] for name in program.latents}
        state = bind(theta_0).init(k_init, prior.standardisation.forward(start["field"], prior.context))
        if tuned is not None:
            state = bind(theta_0).tuned_as(state, tuned)
        x_0 = physical(state.x)

        def step(carry, key):
            k_field, k_theta = jax.random.split(key)
            state, theta = carry
            moving = bind(theta)
            state, info = moving.step(k_field, moving.refresh(state))
            if tuned is None:
                state = moving.adapt(state, info)
            if program.latents:
                theta = draw_theta_given_field(k_theta, program, physical(state.x))
            return (state, theta), None

        (state, theta_n), _ = jax.lax.scan(step, (state, theta_0), jax.random.split(k_steps, steps))
        ends = {f"{k}_0": v for k, v in theta_0.items()} | {f"{k}_n": v for k, v in theta_n.items()}
        return {"field_0": x_0, "field_n": physical(state.x), **ends}, state

    moved, states = jax.vmap(chain)(keys)
    return moved, jax.tree.map(lambda a: a[0], states)


@eqx.filter_jit
def _path_weights(abstract, prior: FieldPrior, data, given, guidance, steps, particles: int, key) -> Array:
    """Log importance weights of guided paths, (particles,)."""
    likelihood = ProgramLikelihood.of(abstract.bind(data, given), prior)
    guided, sigmas = guidance(prior.denoiser, likelihood), prior.levels.levels(steps)
    swarm = twisted_smc(
        key, guided, likelihood, prior.context, sigmas, prior.coords.shape, particles, ess_threshold=0.0
    )
    return swarm.log_weights
