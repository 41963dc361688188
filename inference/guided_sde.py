"""Draw from the posterior of a program by the guided reverse SDE, with the solve in plain sight.

With tau = -log sigma, the reverse SDE of the posterior is

    dx = 2 (D_y(x, sigma) - x) dtau + sqrt(2) sigma dW,

where D_y(x_sigma) ~ E[x | x_sigma, y] comes from the prior's denoiser D by moment matching: D_y = D + V u with
(I + W V) u = grad log p(y | D), V = sigma^2 dD/dx_sigma, W = -hess log p(y | D). Approximate: exact for Gaussian
priors and linear-Gaussian data, up to the steps of the solver. References: Song et al. 2021 (arXiv 2011.13456),
Rozet et al. 2024 (arXiv 2405.13712), Lu et al. 2022 (arXiv 2211.01095).

All parameters of the program must be fixed; `bayesdownscale.GuidedSDE` draws them too.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import bayesdownscale as bd


def run(key, model, *args, draws=16, steps=32, batch=16, on_batch=lambda done: None, keep=None, **kwargs):
    """`draws` draws of the field of `model(*args, **kwargs)` as a DataTree; `steps` evaluations a draw."""
    program, data, labels = bd.read_model(model, args, kwargs)
    if program.latents:
        raise ValueError(f"expected all parameters fixed, got unknown {program.latents}; pass them to the model")
    prior = program.prior
    likelihood = bd.ProgramLikelihood(program.abstract(), data, prior.standardisation, prior.context, {})
    denoiser = bd.MomentMatching(prior.denoiser, likelihood)
    sigmas = prior.levels.levels(steps)
    taus = -np.log(sigmas).astype(np.float32)

    def draw(denoiser, key):
        k_start, k_path = jax.random.split(key)
        start = float(sigmas[0]) * jax.random.normal(k_start, prior.event_shape)
        noise = diffrax.UnsafeBrownianPath(jax.eval_shape(lambda: start), k_path)
        solution = diffrax.diffeqsolve(
            bd.reverse_terms(denoiser, prior.context, 1.0, noise),
            bd.ExponentialMultistep(),
            t0=taus[0],
            t1=taus[-1],
            dt0=None,
            y0=start,
            stepsize_controller=diffrax.StepTo(ts=taus),
            saveat=diffrax.SaveAt(t1=True, solver_state=True),
            max_steps=steps,
            adjoint=diffrax.ForwardMode(),
        )
        assert solution.ys is not None
        assert solution.solver_state is not None
        x, last = denoiser.evaluate(solution.ys[0], jnp.exp(-taus[-1]), prior.context)
        x = prior.standardisation.backward(x, prior.context)
        cost = solution.solver_state.cost + last
        return {
            "field": x,
            "n_evaluations": cost.evaluations,
            "n_products": cost.products,
            "krylov_iterations": cost.iterations,
            "coarse_residual": bd.coarse_residual(program, x, {}),
            "diverging": ~jnp.all(jnp.isfinite(x)),
        }

    draw_batch = eqx.filter_jit(lambda keys: jax.vmap(draw, (None, 0))(denoiser, keys))
    mark = bd.fingerprint(key, prior, data, steps=steps)
    stats = bd.in_batches(draw_batch, bd.draw_keys(key, draws), batch, on_batch=on_batch, keep=keep, mark=mark)
    fields = stats.pop("field")
    attrs = bd.provenance("guided_sde", approximate=1, steps=steps, model_source=bd.source_of(model))
    observed = program.observed_values()
    result = bd.Posterior(program.field, fields, {}, stats, observed, prior.coords, labels, attrs)
    return result.to_datatree()
