"""Draw exactly from the posterior of a program with a Gaussian prior and linear-Gaussian data.

For x ~ N(m, Sigma), y = A x + e and e ~ N(0, R), a draw is x + Sigma A^T (A Sigma A^T + R)^-1 (y - A x - e') with
x and e' from their priors (Matheron's rule: Wilson et al. 2020, arXiv 2002.09309). This is kriging with its
uncertainty, and the reference every other sampler is tested against. All parameters of the program must be fixed.
"""

import jax

import bayesdownscale as bd


def sampler(program, prior, *, draws):
    """The sampler of a "chain" of independent draws, which share one factorisation of A Sigma A^T + R."""
    posterior = bd.condition_gaussian(program, prior)
    draw = lambda key: prior.standardisation.backward(posterior.draw(key), prior.context)
    return lambda key: {"field": jax.lax.map(draw, jax.random.split(key, draws), batch_size=min(draws, 16))}


def run(key, model, *args, draws=16, on_batch=lambda done: None, keep=None, **kwargs):
    """`draws` exact draws of the field of `model(*args, **kwargs)` as a DataTree."""
    program, labels = bd.read_model(model, args, kwargs)
    bd.check_linear_gaussian(program, program.prior)
    posterior = bd.collect(
        sampler, key, program, labels,
        draws=draws, chains=1, settings={"draws": draws}, method="exact_gaussian", approximate=False,
        on_batch=on_batch, keep=keep,
    )  # fmt: skip
    return posterior.to_datatree()
