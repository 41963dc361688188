"""A field site rewritten as noise pushed through the probability-flow ODE: any NumPyro inference then applies."""

from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.infer.reparam import Reparam

from bayesdownscale._types import Field
from bayesdownscale.likelihood.program import ProgramError
from bayesdownscale.prior.distribution import FieldPrior
from bayesdownscale.prior.flow import pull


class FlowReparam(Reparam):
    """The site `name` with a field prior becomes a standard normal site `name`_noise of the field's shape and a
    deterministic site `name`, the noise pushed through the probability-flow ODE of the prior with `steps` evaluations:

        model = numpyro.handlers.reparam(model, config={"weather": bd.FlowReparam(steps=32)})

    is a program without a diffusion prior, with the same law up to the discretisation of the ODE, which makes the
    prior it is exact for. NUTS on it differentiates through the ODE: some 3 x `steps` evaluations a leapfrog step,
    and memory for checkpoints along the path. Start it from a guided draw `x`, in physical units,

        init_strategy=numpyro.infer.init_to_value(values={"weather_noise": bd.FlowReparam(32).noise(prior, x)}),

    or, from one for each chain, by `init_params={"weather_noise": ...}`. Raises `ProgramError` for a site that is
    observed or has no field prior. (NumPyro's reparameterisations: Gorinova et al. 2020, arXiv 1906.03028.)
    """

    def __init__(self, steps: int = 32):
        self.steps = steps

    def __call__(self, name: str, fn: Any, obs: Array | None) -> tuple[None, Array]:
        if not isinstance(fn, FieldPrior):
            raise ProgramError(
                f"site {name!r}: expected a field prior to write as noise, got {type(fn).__name__}; "
                "name the field's site in the config of numpyro.handlers.reparam"
            )
        if obs is not None:
            raise ProgramError(f"site {name!r}: expected the field to be unknown, got it observed")
        white = dist.Normal(0.0, 1.0).expand(fn.event_shape).to_event(len(fn.event_shape))
        noise = jnp.asarray(numpyro.sample(f"{name}_noise", white))
        return None, fn.push(noise, self.steps)

    def noise(self, prior: FieldPrior, x: Field) -> Field:
        """The noise that is pushed near to the field `x` in physical units: where to start."""
        x = prior.standardisation.forward(x, prior.context)
        return pull(x, prior.denoiser, prior.context, prior.levels.levels(self.steps))
