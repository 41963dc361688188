"""The likelihood as guidance sees it: a function of the standardised field alone."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesdownscale._types import Field, Scalar
from bayesdownscale.likelihood.program import AbstractProgram, GaussianTerm, Theta
from bayesdownscale.prior.denoiser import Context
from bayesdownscale.prior.standardise import Standardisation


class AbstractLikelihood(eqx.Module):
    """log p(y | x) of a standardised field x (time, variable, lat, lon)."""

    @abc.abstractmethod
    def __call__(self, x: Field) -> Scalar:
        """log p(y | x), up to a constant."""

    @abc.abstractmethod
    def gaussian_terms(self, x: Field) -> list[GaussianTerm]:
        """Residuals and variances in units of the standardised field; raises where the noise is not Normal."""


class ProgramLikelihood(AbstractLikelihood):
    """The likelihood of a NumPyro program with its `data` = (args, kwargs) and its parameters `theta` given."""

    program: AbstractProgram = eqx.field(static=True)
    data: tuple[tuple, dict]
    standardisation: Standardisation
    context: Context
    theta: Theta

    def __call__(self, x: Field) -> Scalar:
        return self.program.bind(self.data).log_likelihood(self.standardisation.backward(x, self.context), self.theta)

    def gaussian_terms(self, x: Field) -> list[GaussianTerm]:
        x = self.standardisation.backward(x, self.context)
        terms = self.program.bind(self.data).gaussian_terms(x, self.theta)
        scale = self.standardisation.scale
        if scale.size > 1 and any(term.residual.ndim != 4 for term in terms):
            raise ValueError(
                "expected observed sites (time, variable, lat, lon) when a field has several variables, so that "
                "their units are known; use moment matching otherwise"
            )
        unit = scale[None, :, None, None] if scale.size > 1 else scale[0]
        return [GaussianTerm(term.residual / unit, term.variance / unit**2) for term in terms]


class LinearGaussianLikelihood(AbstractLikelihood):
    """y = A x + noise with known variances: the exact case, for tests and benchmarks."""

    observe: Callable[[Field], Float[Array, " obs"]]
    y: Float[Array, " obs"]
    variance: Float[Array, " obs"]

    def __call__(self, x: Field) -> Scalar:
        return -0.5 * jnp.sum((self.y - self.observe(x)) ** 2 / self.variance)

    def gaussian_terms(self, x: Field) -> list[GaussianTerm]:
        return [GaussianTerm(self.y - self.observe(x), self.variance)]
