"""Draw from the posterior of a program by twisted sequential Monte Carlo, with its evidence.

Particles follow the guided reverse SDE; weights pay for the difference between the guided process and the prior's,
so whatever the guidance the weighted particles are draws from the posterior under the learned prior as their number
grows, and the product of their mean weights is an unbiased estimate of the evidence

    p(y) = integral of p(y | x) p(x) dx.

Particles with low weight die at resampling: the effective sample size at the end says how many of the draws are
different. Each chain is an island of `particles`, with an estimate of the evidence of its own, whose spread over
islands is the error of log p(y). An island of few particles is not a fair sample: only together, each weighted by its
estimate, are they, so the draws of all are resampled by these weights at the end, and a heavy island is repeated in
the places of light ones; log_evidence and ess stay with the island that ran in a place. References: Wu et al. 2023
(arXiv 2306.17775); Rozet et al. 2024 (arXiv 2405.13712) for the guidance.

All parameters of the program must be fixed.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import bayesdownscale as bd


def sampler(program, prior, *, draws, particles, steps=32):
    """The sampler of an island: `draws` equally weighted fields."""
    if program.latents:
        raise ValueError(f"expected all parameters fixed, got unknown {program.latents}; pass them to the model")
    likelihood = bd.ProgramLikelihood.of(program, prior)
    guidance = bd.MomentMatching(prior.denoiser, likelihood)
    sigmas = prior.levels.levels(steps)

    def island(key):
        k_run, k_draw = jax.random.split(key)
        swarm = bd.twisted_smc(k_run, guidance, likelihood, prior.context, sigmas, prior.event_shape, particles)
        x = bd.equally_weighted(k_draw, swarm, draws)
        same = lambda value: jnp.broadcast_to(value, (draws,))
        return {
            "field": jax.vmap(lambda x: prior.standardisation.backward(x, prior.context))(x),
            "stats/log_evidence": same(swarm.log_evidence),
            "stats/diverging": same(~jnp.isfinite(swarm.log_evidence)),  # all particles have weight zero
            "stats/ess": same(swarm.ess[-1]),
            "stats/n_evaluations": same(swarm.cost.evaluations // draws),
            "stats/n_products": same(swarm.cost.products // draws),
        }

    return island


def by_evidence(key, posterior):
    """The draws of all islands, resampled (systematically) with the weights of their islands."""
    log_weights = posterior.stats["log_evidence"].astype(np.float64)
    if not np.isfinite(log_weights).any():
        return posterior
    n, cumulative = log_weights.size, np.cumsum(np.exp(log_weights - log_weights.max()))
    positions = (np.arange(n) + 1 - float(jax.random.uniform(key))) / n  # in (0, 1]
    pick = np.searchsorted(cumulative / cumulative[-1], positions)
    of_draws = {"coarse_residual", "diverging"}
    return dataclasses.replace(
        posterior,
        fields=posterior.fields[pick],
        theta={name: value[pick] for name, value in posterior.theta.items()},
        stats={name: value[pick] if name in of_draws else value for name, value in posterior.stats.items()},
        log_likelihood={name: value[pick] for name, value in posterior.log_likelihood.items()},
    )


def run(
    key, model, *args, draws=16, chains=4, particles=32, steps=32, batch=1,
    on_batch=lambda done: None, keep=None, **kwargs,
):  # fmt: skip
    """`draws` draws of the field of `model(*args, **kwargs)` as a DataTree, from `chains` islands."""
    chains = min(chains, draws)
    settings = {"draws": -(-draws // chains), "particles": max(particles, -(-draws // chains)), "steps": steps}
    k_islands, k_draws = jax.random.split(key)
    posterior = bd.collect(
        sampler, k_islands, *bd.read_model(model, args, kwargs),
        draws=chains * settings["draws"], chains=chains, batch=batch, settings=settings,
        method="twisted_smc", approximate=False, record=settings, on_batch=on_batch, keep=keep,
    )  # fmt: skip
    return by_evidence(k_draws, posterior).to_datatree()
