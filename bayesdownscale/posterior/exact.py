"""The exact posterior of a NumPyro program with a Gaussian prior and linear-Gaussian data."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from bayesdownscale.likelihood.program import ProgramError, Theta
from bayesdownscale.posterior.batches import draw_keys, fingerprint
from bayesdownscale.posterior.guided import coarse_residual, read_model, source_of
from bayesdownscale.posterior.likelihood import ProgramLikelihood
from bayesdownscale.posterior.result import Posterior, provenance
from bayesdownscale.prior.distribution import GaussianPrior
from bayesdownscale.prior.gaussian import GaussianPosterior

LINEARITY = 1e-3  # relative departure from a linear map that float32 arithmetic may show


class ExactGaussian:
    """Exact draws from p(x | y, theta) for a program whose field has a `GaussianPrior` and whose observed sites
    are Normal with means linear in the field. All parameters must be given: with them unknown the posterior is
    not Gaussian."""

    def __init__(self, model: Callable):
        self.model = model

    def condition(self, *args: Any, theta: Theta | None = None, **kwargs: Any) -> GaussianPosterior:
        """The exact posterior of the standardised field."""
        program, data, _ = read_model(self.model, args, kwargs)
        prior, theta = program.prior, theta or {}
        if not isinstance(prior, GaussianPrior):
            raise ProgramError(
                f"site {program.field!r}: expected a GaussianPrior, got {type(prior).__name__}; use GuidedSDE"
            )
        unknown = sorted(set(program.latents) - set(theta))
        if unknown:
            raise ProgramError(f"expected a value for parameter {unknown[0]!r} in theta; it must be fixed here")
        likelihood = ProgramLikelihood(program.abstract(), data, prior.standardisation, prior.context, theta)
        stacked = lambda x, what: jnp.concatenate([getattr(t, what).ravel() for t in likelihood.gaussian_terms(x)])
        origin = jnp.zeros(prior.event_shape)
        variance = stacked(origin, "variance")
        seen = np.flatnonzero(np.isfinite(np.asarray(variance)))
        y = stacked(origin, "residual")[seen]
        observe = lambda x: y - stacked(x, "residual")[seen]
        probe = jax.random.normal(jax.random.key(0), origin.shape)
        bend = observe(2 * probe) - 2 * observe(probe)
        if jnp.max(jnp.abs(bend)) > LINEARITY * (1 + jnp.max(jnp.abs(observe(probe)))):
            raise ProgramError("expected means linear in the field, got a non-linear program; use GuidedSDE")
        return GaussianPosterior(prior.field, observe, y, variance[seen])

    def run(self, rng_key: Array, *args: Any, draws: int, theta: Theta | None = None, **kwargs: Any) -> Posterior:
        """`draws` exact draws given the model's `args` and `kwargs`, data included (arrays or `Fields`)."""
        began = time.monotonic()
        program, data, labels = read_model(self.model, args, kwargs)
        posterior = self.condition(*args, theta=theta, **kwargs)
        prior, given = program.prior, theta or {}
        draw = lambda key: prior.standardisation.backward(posterior.draw(key), prior.context)
        fields = jax.lax.map(draw, draw_keys(rng_key, draws), batch_size=min(draws, 16))
        residual = jax.vmap(lambda x: coarse_residual(program.abstract().bind(data), x, given))(fields)
        stats = {
            "coarse_residual": np.asarray(residual),
            "diverging": ~np.isfinite(np.asarray(fields)).all((1, 2, 3, 4)),
        }
        attrs = provenance(
            "ExactGaussian",
            approximate=0,
            prior_sha256=fingerprint(prior)["sha256"],
            sampling_seconds=round(time.monotonic() - began, 3),
            model_name=getattr(self.model, "__name__", "model"),
            model_source=source_of(self.model),
        )
        repeated = {k: np.broadcast_to(v, (draws, *np.shape(v))) for k, v in given.items()}
        observed = program.observed_values()
        return Posterior(program.field, np.asarray(fields), repeated, stats, observed, prior.coords, labels, attrs)
