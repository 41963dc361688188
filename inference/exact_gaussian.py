"""Draw exactly from the posterior of a program with a Gaussian prior and linear-Gaussian data.

For x ~ N(m, Sigma), y = A x + e and e ~ N(0, R), a draw is x + Sigma A^T (A Sigma A^T + R)^-1 (y - A x - e') with
x and e' from their priors (Matheron's rule: Wilson et al. 2020, arXiv 2002.09309). This is kriging with its
uncertainty, and the reference every other sampler is tested against.
"""

import jax
import numpy as np

import bayesdownscale as bd


def run(key, model, *args, draws=16, on_batch=lambda done: None, **kwargs):
    """`draws` exact draws of the field of `model(*args, **kwargs)` as a DataTree; all parameters fixed."""
    program, _, labels = bd.read_model(model, args, kwargs)
    prior = program.prior
    posterior = bd.ExactGaussian(model).condition(*args, **kwargs)

    def draw(key):
        x = prior.standardisation.backward(posterior.draw(key), prior.context)
        return x, bd.coarse_residual(program, x, {})

    fields, residual = jax.lax.map(draw, bd.draw_keys(key, draws), batch_size=min(draws, 16))
    on_batch(draws)
    fields = np.asarray(fields)
    stats = {"coarse_residual": np.asarray(residual), "diverging": ~np.isfinite(fields).all((1, 2, 3, 4))}
    attrs = bd.provenance("exact_gaussian", approximate=0, model_source=bd.source_of(model))
    observed = program.observed_values()
    return bd.Posterior(program.field, fields, {}, stats, observed, prior.coords, labels, attrs).to_datatree()
