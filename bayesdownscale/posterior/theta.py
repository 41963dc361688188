"""The parameters given the field: NUTS on p(theta | x, y), which calls no network."""

from numpyro import handlers
from numpyro.infer import MCMC, NUTS

from bayesdownscale._types import Field, Key
from bayesdownscale.likelihood.program import Program, Theta


def draw_theta_given_field(
    key: Key, program: Program, data: tuple[tuple, dict], x: Field, given: Theta, *, warmup: int = 64
) -> Theta:
    """One draw of the other parameters from p(theta | x, y, given): the last state of a short NUTS run (Hoffman
    and Gelman 2014, arXiv 1111.4246) started anew. `x` in physical units; vmap over keys and fields."""
    args, kwargs = data
    kernel = NUTS(handlers.condition(program.given_field(x), data=dict(given)))
    mcmc = MCMC(kernel, num_warmup=warmup, num_samples=1, progress_bar=False)
    mcmc.run(key, *args, **kwargs)
    samples = mcmc.get_samples()
    return {name: samples[name][0] for name in program.latents if name not in given}
