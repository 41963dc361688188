"""Draw from the posterior of a program by noise-denoise Metropolis-Hastings, exact under the learned prior.

A step adds noise to a field up to a level sigma* and denoises it by the prior's reverse SDE: a move that leaves the
prior invariant. Accepting it with probability min(1, p(y | x') / p(y | x)) leaves the posterior invariant. sigma* is
adapted in warm-up to an acceptance of 0.3: precise data make it small and the chain slow, which R-hat and the
effective sample size show. Each chain starts from a guided draw, which is approximate and soon forgotten or not:
compare the two. Exact up to the `spacing` of the solver's steps in log sigma. References: Meng et al. 2022
(arXiv 2108.01073) for the move; Liu 1996 (doi:10.1007/BF00143556) for several candidates.

All parameters of the program must be fixed; `joint_gibbs` draws them too.
"""

import jax
import jax.numpy as jnp

import bayesdownscale as bd


def sampler(program, prior, *, draws, warmup, thin, start_steps=16, spacing=0.2, candidates=1):
    """The sampler of one chain of `draws` fields, each after `thin` steps."""
    if program.latents:
        raise ValueError(f"expected all parameters fixed, got unknown {program.latents}; pass them to the model")
    likelihood = bd.ProgramLikelihood.of(program, prior)
    kernel = bd.NoiseDenoiseMH(prior.denoiser, likelihood, prior.context, prior.levels, spacing, candidates)
    guided = bd.MomentMatching(prior.denoiser, likelihood)

    def warm_up(state, key):
        state, info = kernel.step(key, state)
        return kernel.adapt(state, info), None

    def step(state, key):
        return kernel.step(key, state)

    def draw(state, key):
        state, infos = jax.lax.scan(step, state, jax.random.split(key, thin))
        x = prior.standardisation.backward(state.x, prior.context)
        stats = {
            "stats/acceptance": jnp.mean(infos.acceptance),
            "stats/noising": infos.sigma[-1],
            "stats/n_evaluations": jnp.sum(infos.cost.evaluations),
        }
        return state, {"field": x, **stats}

    def chain(key):
        k_guided, k_init, k_warmup, k_draws = jax.random.split(key, 4)
        sigmas = prior.levels.levels(start_steps)
        x, _ = bd.reverse_sample(k_guided, guided, prior.context, sigmas, prior.event_shape)
        state = kernel.init(k_init, x)
        state, _ = jax.lax.scan(warm_up, state, jax.random.split(k_warmup, warmup))
        return jax.lax.scan(draw, state, jax.random.split(k_draws, draws))[1]

    return chain


def run(
    key, model, *args, draws=16, chains=4, warmup=100, thin=10, batch=16, candidates=1,
    on_batch=lambda done: None, keep=None, **kwargs,
):  # fmt: skip
    """`draws` draws of the field of `model(*args, **kwargs)` as a DataTree, from `chains` chains."""
    chains = min(chains, draws)
    settings = {"draws": -(-draws // chains), "warmup": warmup, "thin": thin, "candidates": candidates}
    posterior = bd.collect(
        sampler, key, *bd.read_model(model, args, kwargs),
        draws=chains * settings["draws"], chains=chains, batch=batch, settings=settings,
        method="noise_denoise_mh", approximate=False, record=settings, on_batch=on_batch, keep=keep,
    )  # fmt: skip
    return posterior.to_datatree()
