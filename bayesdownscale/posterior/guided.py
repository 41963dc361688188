"""The guided reverse SDE for a NumPyro program: the sampler most users want."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jaxtyping import Array

from bayesdownscale.likelihood.program import Program, Theta
from bayesdownscale.posterior.collapse import CollapsedLikelihood, check_names
from bayesdownscale.posterior.collect import collect, read_model
from bayesdownscale.posterior.guidance import AbstractGuidance, MomentMatching
from bayesdownscale.posterior.likelihood import ProgramLikelihood
from bayesdownscale.posterior.result import Posterior
from bayesdownscale.posterior.start import start_theta
from bayesdownscale.posterior.theta import draw_theta_given_field
from bayesdownscale.prior.denoiser import Cost
from bayesdownscale.prior.distribution import FieldPrior
from bayesdownscale.prior.reverse_sde import DEFAULT, Integrator, reverse_sample


class GuidedSDE:
    """Draws from p(x, theta | y) of a NumPyro program by the guided reverse SDE. Approximate, and labelled so.

    **Arguments:** `model`, a program with one field site; `steps`, evaluations of the prior's denoiser a draw;
    `guidance`, a class of `bayesdownscale.posterior.guidance` or a partial of one; `integrator`, how the
    reverse process is solved; `batch`, draws in memory at once. Parameters theta of the program that
    are not given to `run` are drawn too, by `sweeps` of field given theta, theta given field (Gibbs; the field
    step is approximate). Parameters named in `collapse`, with a Gaussian prior and linear in the mean of the data, a
    bias say, are integrated out while the field is drawn: without that the pair would hardly move.
    """

    def __init__(
        self,
        model: Callable,
        *,
        steps: int = 32,
        guidance: Callable[..., AbstractGuidance] = MomentMatching,
        integrator: Integrator = DEFAULT,
        batch: int = 16,
        sweeps: int = 5,
        collapse: tuple[str, ...] = (),
    ):
        self.model, self.steps, self.guidance = model, steps, guidance
        self.integrator, self.batch, self.sweeps, self.collapse = integrator, batch, sweeps, collapse

    def run(
        self,
        rng_key: Array,
        *args: Any,
        draws: int,
        theta: Theta | None = None,
        on_batch: Callable[[int], None] = lambda done: None,
        keep: Path | None = None,
        **kwargs: Any,
    ) -> Posterior:
        """`draws` draws given the model's `args` and `kwargs`, data included (arrays or `Fields`).

        `theta` fixes parameters by name. `on_batch` hears how many draws are done; `keep` is a folder for
        finished batches, from which a killed run goes on. Raises `ProgramError` for a program that cannot be
        read, `FloatingPointError` when no draw is finite.
        """
        program, labels = read_model(self.model, args, kwargs)
        program = program.fix(theta or {})
        sweeps = self.sweeps if program.latents else 1
        settings = {"guidance": self.guidance, "steps": self.steps, "integrator": self.integrator, "sweeps": sweeps}
        settings["collapse"] = self.collapse
        integrator = self.integrator
        return collect(
            guided_sampler, rng_key, program, labels,
            draws=draws, batch=self.batch, settings=settings, method=_name(self.guidance), approximate=True,
            record={
                "steps": self.steps,
                "solver": type(integrator.solver).__name__,
                "stochasticity": integrator.stochasticity,
                "tolerance": "none" if integrator.tolerance is None else integrator.tolerance,
                "sweeps": sweeps,
                "collapsed": ", ".join(self.collapse) or "none",
            },
            on_batch=on_batch, keep=keep,
        )  # fmt: skip


def _name(guidance: Callable) -> str:
    while isinstance(guidance, partial):
        guidance = guidance.func
    return guidance.__name__


def guided_sampler(
    program: Program,
    prior: FieldPrior,
    *,
    guidance: Callable[..., AbstractGuidance] = MomentMatching,
    steps: int = 32,
    integrator: Integrator = DEFAULT,
    sweeps: int = 1,
    collapse: tuple[str, ...] = (),
) -> Callable[[Array], dict[str, Array]]:
    """The sampler of one draw: of the field, and by `sweeps` of Gibbs of the unknown parameters."""
    sigmas = prior.levels.levels(steps)
    check_names(program, collapse)

    def draw_field(key: Array, theta: Theta) -> tuple[Array, Cost]:
        if collapse:
            likelihood = CollapsedLikelihood.of(program, prior, theta, collapse)
        else:
            likelihood = ProgramLikelihood.of(program, prior, theta)
        denoiser = guidance(prior.denoiser, likelihood)
        x, cost = reverse_sample(key, denoiser, prior.context, sigmas, prior.coords.shape, integrator)
        return prior.standardisation.backward(x, prior.context), cost

    def draw(key: Array) -> dict[str, Array]:
        if not program.latents:
            x, cost = draw_field(key, {})
            return {"field": x, **cost_stats(cost)}
        k_theta, k_field, k_sweeps = jax.random.split(key, 3)
        theta = start_theta(k_theta, program, prior, collapse)

        def sweep(carry, key):
            k_theta, k_field = jax.random.split(key)
            theta, x, cost = carry
            theta = draw_theta_given_field(k_theta, program, x, theta)
            x, more = draw_field(k_field, theta)
            return (theta, x, cost + more), None

        k_last, *k_sweeps = jax.random.split(k_sweeps, sweeps)
        carry = theta, *draw_field(k_field, theta)
        if k_sweeps:
            carry, _ = jax.lax.scan(sweep, carry, jax.numpy.stack(k_sweeps))
        theta, x, cost = carry
        theta = draw_theta_given_field(k_last, program, x, theta)
        return {"field": x, **{f"theta/{k}": v for k, v in theta.items()}, **cost_stats(cost)}

    return draw


def cost_stats(cost: Cost) -> dict[str, Array]:
    """The cost of a draw as its statistics."""
    return {
        "stats/n_evaluations": cost.evaluations,
        "stats/n_products": cost.products,
        "stats/krylov_iterations": cost.iterations,
    }
