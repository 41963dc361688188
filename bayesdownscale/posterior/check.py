"""How far the fast sampler is from the exact posterior: guided draws move by an exact kernel, and are watched."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import numpy as np
from arviz_stats.base import array_stats
from jaxtyping import Array

from bayesdownscale.likelihood.program import Program, Theta
from bayesdownscale.posterior.batches import draw_keys, in_batches
from bayesdownscale.posterior.collect import read_model
from bayesdownscale.posterior.drift import MOVED, drift, error_of_mean, in_scales
from bayesdownscale.posterior.guidance import AbstractGuidance, MomentMatching
from bayesdownscale.posterior.guided import guided_sampler
from bayesdownscale.posterior.kernels import AbstractFieldKernel, NoiseDenoiseMH, twisted_smc
from bayesdownscale.posterior.likelihood import ProgramLikelihood
from bayesdownscale.posterior.theta import draw_theta_given_field
from bayesdownscale.prior.distribution import FieldPrior

CELLS = 256  # at random, watched besides the parameters
SOLID = 0.7  # Pareto k up to which importance weights can be trusted (Vehtari et al. 2024)
FEWEST = 4  # chains for a standard error
ENOUGH = 25  # chains for the tail of their weights to be fitted
WARMUP = 100  # steps in which the kernel is tuned


@dataclass(frozen=True)
class Check:
    """What `posterior_check` found. Lengths are in posterior standard deviations, +- is one standard error.

    `mean_error`, `mean_error_se`: the root mean square over cells of the error of the guided mean; `sd_ratio`,
    `sd_ratio_se`: the mean over cells of guided over exact standard deviation; `parameters`: for each parameter
    (error, standard error) of its mean; `domain`: the same for the mean of each variable over the domain and all
    times; `forgotten`: the share that the exact kernel replaced of what it replaced least of: a scale of the draws, see
    `posterior_check`, or a parameter;
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
    domain: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.forgotten < MOVED:
            return (
                f"The exact kernel replaced only {self.forgotten:.0%} of the slowest part of the guided draws in "
                f"{self.steps} steps ({self.chains} chains): how far they are from the exact posterior is not known; "
                "ask for more steps."
            )
        sentence = (
            f"Guided draws differ from the exact posterior under the learned prior by {self.mean_error:.2f} +- "
            f"{self.mean_error_se:.2f} posterior standard deviations in the mean (root mean square over cells), and "
            f"are {self.sd_ratio:.2f} +- {self.sd_ratio_se:.2f} times as wide, as {self.steps} steps of an exact "
            f"kernel on {self.chains} chains show, which replaced {self.forgotten:.0%} of each draw at least."
        )
        means = {f"{name} over the domain and all times": found for name, found in self.domain.items()}
        for name, (error, se) in {**means, **self.parameters}.items():
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
    variance with rho^2n. A kernel forgets large scales and what is not observed more slowly, so a field is split into
    `SCALES`, each with a slope of its own for each time and variable, and the error of a cell is the sum of theirs.
    Where less than a tenth is forgotten the extrapolation stops at ten times the change. The root mean square over
    cells has its Monte-Carlo part taken off. Exact means invariant under the learned, discretised prior (see the
    kernel). `batch` chains are in memory at once, `on_batch` hears how many are done. Raises `ValueError` for fewer
    than 4 `chains`. The check costs `chains` x (`guided_steps` + `steps` x evaluations of a step): choose both for a
    large prior, and a subset of its data or a shorter span of time if that is too much.
    """
    if chains < FEWEST:
        raise ValueError(f"expected at least {FEWEST} chains for a standard error, got {chains}")
    program, _ = read_model(model, args, kwargs)
    program = program.fix(theta or {})
    prior = program.prior
    settings = (guidance, guided_steps, sweeps, kernel)
    given = program.abstract(), prior, program.data, program.given
    k_pilot, k_chains, k_paths = jax.random.split(rng_key, 3)
    _, tuned = _chains(*given, settings, WARMUP, None, draw_keys(k_pilot, 1))
    draw_batch = lambda keys: _chains(*given, settings, steps, tuned, keys)[0]
    moved = in_batches(draw_batch, draw_keys(k_chains, chains), batch, on_batch=on_batch)
    chosen = np.random.default_rng(0).permutation(int(np.prod(prior.event_shape)))[:CELLS]
    group = chosen // int(np.prod(prior.event_shape[2:]))  # time and variable
    first, last = (in_scales(moved[name], chosen) for name in ("field_0", "field_n"))
    error, error_se, ratio, ratio_se, forgotten = drift(first, last, group)
    domain = {v.name: error_of_mean(*(moved[f"field_{i}"][:, :, k].mean((1, 2, 3))[:, None] for i in "0n"))
              for k, v in enumerate(prior.variables)}  # fmt: skip
    vectors = {name: [moved[f"{name}_{i}"].reshape(chains, -1) for i in "0n"] for name in program.latents}
    parameters = {name: error_of_mean(*ends) for name, ends in vectors.items()}
    forgotten = min([forgotten, *(left for _, _, left in (domain | parameters).values())])
    pareto_k = None
    if not program.latents and chains >= ENOUGH:
        weights = _path_weights(*given, guidance, guided_steps, chains, k_paths)
        pareto_k = float(array_stats.psislw(np.asarray(weights, np.float64))[1])
    plain = lambda found: {name: (b, se) for name, (b, se, _) in found.items()}
    return Check(
        error, error_se, ratio, ratio_se, plain(parameters), forgotten, pareto_k, chains, steps, plain(domain)
    )  # fmt: skip


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
                theta = draw_theta_given_field(k_theta, program, physical(state.x), theta)
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
