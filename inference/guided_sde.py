"""Draw from the posterior of a program by the guided reverse SDE, with the solve in plain sight.

With tau = -log sigma, the reverse SDE of the posterior is

    dx = 2 (D_y(x, sigma) - x) dtau + sqrt(2) sigma dW,

where D_y(x_sigma) ~ E[x | x_sigma, y] comes from the prior's denoiser D by moment matching: D_y = D + V u with
(I + W V) u = grad log p(y | D), V = sigma^2 dD/dx_sigma, W = -hess log p(y | D). Approximate: exact for Gaussian
priors and linear-Gaussian data, up to the steps of the solver. References: Song et al. 2021 (arXiv 2011.13456),
Rozet et al. 2024 (arXiv 2405.13712), Lu et al. 2022 (arXiv 2211.01095).

All parameters of the program must be fixed; `joint_gibbs` draws them too.
"""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import bayesdownscale as bd


def sampler(program, prior, *, steps=32):
    """The sampler of one draw of the field."""
    if program.latents:
        raise ValueError(f"expected all parameters fixed, got unknown {program.latents}; pass them to the model")
    denoiser = bd.MomentMatching(prior.denoiser, bd.ProgramLikelihood.of(program, prior))
    sigmas = prior.levels.levels(steps)
    taus = -np.log(sigmas).astype(np.float32)

    def draw(key):
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
        cost = solution.solver_state.cost + last
        return {
            "field": prior.standardisation.backward(x, prior.context),
            "stats/n_evaluations": cost.evaluations,
            "stats/n_products": cost.products,
            "stats/krylov_iterations": cost.iterations,
        }

    return draw


def run(key, model, *args, draws=16, steps=32, batch=16, on_batch=lambda done: None, keep=None, **kwargs):
    """`draws` draws of the field of `model(*args, **kwargs)` as a DataTree; `steps` evaluations a draw."""
    settings = {"steps": steps}
    posterior = bd.collect(
        sampler, key, *bd.read_model(model, args, kwargs),
        draws=draws, batch=batch, settings=settings, method="guided_sde", approximate=True, record=settings,
        on_batch=on_batch, keep=keep,
    )  # fmt: skip
    return posterior.to_datatree()
