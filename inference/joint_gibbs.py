"""Draw field and parameters of a program in turns: NumPyro's Gibbs, field by diffusion, parameters by NUTS.

    x | theta, y   a guided draw (approximate), or a step of an exact kernel
    theta | x, y   NUTS, which calls no network: p(theta | x, y) is proportional to p(y | x, theta) p(theta)

With `exact` the field moves by noise-denoise Metropolis-Hastings and the pair is exact under the learned prior, at
the price of correlated draws; without it the field is drawn afresh by the guided reverse SDE with a fixed covariance,
which takes no vector-Jacobian product, and the pair is as approximate as the guidance. References: Geman and Geman
1984; Heurtel-Depeiges et al. 2024 (arXiv 2402.19455); Hoffman and Gelman 2014 (arXiv 1111.4246). Needs
NumPyro 0.22, the first with composable Gibbs kernels.
"""

import jax
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, CustomGibbs, Gibbs, init_to_value

import bayesdownscale as bd


def sampler(program, prior, *, draws, warmup, thin, steps=32, exact=False):
    """The sampler of one chain of `draws` pairs, each after `thin` sweeps."""
    if not program.latents:
        raise ValueError("expected unknown parameters in the program, got none; use guided_sde or noise_denoise_mh")
    model = bd.unscored(handlers.condition(program.model, data=dict(program.given)))
    sigmas = prior.levels.levels(steps)

    def draw_field(theta, key):
        likelihood = bd.ProgramLikelihood.of(program, prior, theta)
        guided = bd.FixedCovariance(prior.denoiser, likelihood)
        x, _ = bd.reverse_sample(key, guided, prior.context, sigmas, prior.event_shape)
        return prior.standardisation.backward(x, prior.context)

    def guided_block(*, rng_key, gibbs_sites, hmc_sites):
        return {program.field: draw_field(hmc_sites, rng_key)}

    def chain(key):
        k_theta, k_start, k_run = jax.random.split(key, 3)
        theta = bd.start_theta(k_theta, program, prior)
        start = {program.field: draw_field(theta, k_start)}
        kernel = bd.FieldKernel(model, bd.NoiseDenoiseMH) if exact else CustomGibbs(guided_block)
        nuts = NUTS(model, init_strategy=init_to_value(values=theta))  # the first field is drawn given these
        gibbs = Gibbs([(kernel, [program.field]), (nuts, None)])
        mcmc = MCMC(gibbs, num_warmup=warmup, num_samples=draws * thin, thinning=thin, progress_bar=False)
        mcmc.run(k_run, *program.args, init_params=start, **program.kwargs)
        samples = mcmc.get_samples()
        return {
            "field": samples.pop(program.field),
            **{f"theta/{name}": value for name, value in samples.items()},
        }

    return chain


def run(
    key, model, *args, draws=16, chains=4, warmup=50, thin=5, steps=32, exact=False, batch=16,
    on_batch=lambda done: None, keep=None, **kwargs,
):  # fmt: skip
    """`draws` draws of the field and parameters of `model(*args, **kwargs)` as a DataTree, from `chains` chains."""
    chains = min(chains, draws)
    settings = {"draws": -(-draws // chains), "warmup": warmup, "thin": thin, "steps": steps, "exact": exact}
    posterior = bd.collect(
        sampler, key, *bd.read_model(model, args, kwargs),
        draws=chains * settings["draws"], chains=chains, batch=batch, settings=settings,
        method="joint_gibbs", approximate=not exact, record=settings, on_batch=on_batch, keep=keep,
    )  # fmt: skip
    return posterior.to_datatree()
