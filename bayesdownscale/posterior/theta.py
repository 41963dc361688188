"""The parameters given the field: NUTS on p(theta | x, y), which calls no network."""

from numpyro.infer import MCMC, NUTS

from bayesdownscale._precision import full_precision
from bayesdownscale._types import Field, Key
from bayesdownscale.likelihood.program import Program, Theta


@full_precision
def draw_theta_given_field(key: Key, program: Program, x: Field, *, warmup: int = 64) -> Theta:
    """One draw of the unknown parameters of `program` from p(theta | x, y): the last state of a short NUTS run
    (Hoffman and Gelman 2014, arXiv 1111.4246) started anew. `x` in physical units; vmap over keys and fields."""
    kernel = NUTS(program.given_field(x))
    mcmc = MCMC(kernel, num_warmup=warmup, num_samples=1, progress_bar=False)
    mcmc.run(key, *program.args, **program.kwargs)
    samples = mcmc.get_samples()
    return {name: samples[name][0] for name in program.latents}
