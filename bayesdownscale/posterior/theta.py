"""The parameters given the field: NUTS on p(theta | x, y), which calls no network."""

from numpyro.infer import MCMC, NUTS, init_to_value

from bayesdownscale._precision import full_precision
from bayesdownscale._types import Field, Key
from bayesdownscale.likelihood.program import Program, Theta


@full_precision
def draw_theta_given_field(key: Key, program: Program, x: Field, start: Theta, *, warmup: int = 64) -> Theta:
    """The unknown parameters of `program` after a short run of NUTS (Hoffman and Gelman 2014, arXiv 1111.4246) on
    p(theta | x, y) from `start`, adapted on its way.

    A step of Gibbs: what is left of the start after `warmup` steps is what the sweeps before had found, so that modes
    and necks that one run does not cross are visited as often as the sweeps do. Only the adaptation is not exact.
    `x` in physical units; vmap over keys and fields.
    """
    kernel = NUTS(program.given_field(x), init_strategy=init_to_value(values=dict(start)))
    mcmc = MCMC(kernel, num_warmup=warmup, num_samples=1, progress_bar=False)
    mcmc.run(key, *program.args, **program.kwargs)
    samples = mcmc.get_samples()
    return {name: samples[name][0] for name in program.latents}
