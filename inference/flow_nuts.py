"""Draw field and parameters of a program jointly by NUTS in the noise of the probability-flow ODE.

The probability-flow ODE makes a field x = push(z) of white noise z ~ N(0, I), so any program becomes one without a
diffusion prior,

    z ~ N(0, I),   theta ~ p(theta),   y ~ p(y | push(z), theta),

which NUTS samples exactly, up to the discretisation of the ODE: it is that prior's posterior. Each leapfrog step
differentiates through `steps` evaluations of the network: the slowest of the exact methods, and the one that needs
no tuning and no fixed parameters. Where the noise scale is unknown and data are few, the posterior has a funnel: the
smaller the scale, the closer the field to the data. Its neck needs short steps, so `target_accept` is above NumPyro's
0.8 (Betancourt and Girolami 2013, arXiv 1312.0906). Each chain starts from a guided draw. References: Song et al. 2021
(arXiv 2011.13456), Hoffman and Gelman 2014 (arXiv 1111.4246).
"""

import jax
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, init_to_value

import bayesdownscale as bd


def sampler(program, prior, *, draws, warmup, steps=32, depth=7, target_accept=0.95):
    """The sampler of one chain of `draws` fields and parameters; trees of up to 2^`depth` leapfrog steps."""
    noise = f"{program.field}_noise"
    model = handlers.condition(program.model, data=dict(program.given))
    model = handlers.reparam(model, config={program.field: bd.FlowReparam(steps)})

    def chain(key):
        k_theta, k_guided, k_nuts = jax.random.split(key, 3)
        theta = bd.start_theta(k_theta, program, prior)
        likelihood = bd.ProgramLikelihood.of(program, prior, theta)
        guided = bd.MomentMatching(prior.denoiser, likelihood)
        sigmas = prior.levels.levels(steps)
        x, _ = bd.reverse_sample(k_guided, guided, prior.context, sigmas, prior.event_shape)
        z = prior.pull(prior.standardisation.backward(x, prior.context), steps)

        start = init_to_value(values={noise: z, **theta})
        kernel = NUTS(model, init_strategy=start, max_tree_depth=depth, target_accept_prob=target_accept)
        mcmc = MCMC(kernel, num_warmup=warmup, num_samples=draws, progress_bar=False)
        mcmc.run(k_nuts, *program.args, extra_fields=("accept_prob", "num_steps", "diverging"), **program.kwargs)
        samples, extra = mcmc.get_samples(), mcmc.get_extra_fields()
        return {
            "field": samples.pop(program.field),
            **{f"theta/{name}": value for name, value in samples.items() if name != noise},
            "stats/acceptance": extra["accept_prob"],
            "stats/n_evaluations": steps * extra["num_steps"],
            "stats/diverging": extra["diverging"],
        }

    return chain


def run(
    key, model, *args, draws=16, chains=4, warmup=100, steps=32, batch=4,
    on_batch=lambda done: None, keep=None, **kwargs,
):  # fmt: skip
    """`draws` draws of the field and parameters of `model(*args, **kwargs)` as a DataTree, from `chains` chains."""
    chains = min(chains, draws)
    settings = {"draws": -(-draws // chains), "warmup": warmup, "steps": steps}
    posterior = bd.collect(
        sampler, key, *bd.read_model(model, args, kwargs),
        draws=chains * settings["draws"], chains=chains, batch=batch, settings=settings,
        method="flow_nuts", approximate=False, record=settings, on_batch=on_batch, keep=keep,
    )  # fmt: skip
    return posterior.to_datatree()
