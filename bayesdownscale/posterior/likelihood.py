"""The likelihood as guidance sees it: a function of the standardised field alone."""

import abc
import dataclasses
from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesdownscale._precision import full_precision
from bayesdownscale._types import Field, Key, Scalar
from bayesdownscale.likelihood.program import AbstractProgram, Program, Theta
from bayesdownscale.likelihood.terms import GaussianTerm
from bayesdownscale.prior.denoiser import Context
from bayesdownscale.prior.distribution import FieldPrior
from bayesdownscale.prior.standardise import Standardisation


class AbstractLikelihood(eqx.Module):
    """log p(y | x) of a standardised field x (time, variable, lat, lon)."""

    @abc.abstractmethod
    def __call__(self, x: Field) -> Scalar:
        """log p(y | x), up to a constant."""

    @abc.abstractmethod
    def simulated_score(self, key: Key, x: Field) -> Field:
        """grad log p(y' | x) for data y' simulated at x: mean zero, covariance the Fisher information."""

    def smooth(self) -> "AbstractLikelihood":
        """The same with kinks rounded, for methods that need curvature."""
        return self

    @abc.abstractmethod
    def gaussian_terms(self, x: Field) -> list[GaussianTerm]:
        """Residuals and variances in units of the standardised field; raises where the noise is not Normal."""


class ProgramLikelihood(AbstractLikelihood):
    """The likelihood of a NumPyro program with its `data` = (args, kwargs) and all its parameters given: those the
    program has `fixed`, and the others, `theta`. `rounded`: densities with a kink are rounded."""

    program: AbstractProgram = eqx.field(static=True)
    data: tuple[tuple, dict]
    fixed: Theta
    standardisation: Standardisation
    context: Context
    theta: Theta
    rounded: bool = eqx.field(static=True, default=False)

    @staticmethod
    def of(program: Program, prior: FieldPrior, theta: Theta | None = None) -> "ProgramLikelihood":
        """The likelihood of `program` with its unknown parameters `theta`, of fields of `prior`."""
        place = prior.standardisation, prior.context
        return ProgramLikelihood(program.abstract(), program.data, program.given, *place, theta or {})

    def _physical(self, x: Field) -> Field:
        return self.standardisation.backward(x, self.context)

    def _bound(self) -> Program:
        return self.program.bind(self.data, self.fixed)

    def __call__(self, x: Field) -> Scalar:
        return self._log_likelihood(self._bound(), x, self.theta, None)

    def smooth(self) -> "ProgramLikelihood":
        return dataclasses.replace(self, rounded=True)

    def simulated_score(self, key: Key, x: Field) -> Field:
        program = self._bound()
        data = program.simulate(key, self._physical(x), self.theta)
        return jax.grad(lambda x: self._log_likelihood(program, x, self.theta, data))(x)

    def simulate(self, key: Key, x: Field, changed: Theta) -> dict[str, Array]:
        """Data of each observed site, with some parameters `changed`."""
        return self._bound().simulate(key, self._physical(x), {**self.theta, **changed})

    def log_joint(self, x: Field, theta: Theta, names: tuple[str, ...], data: Mapping[str, Array] | None) -> Scalar:
        """log p(y | x, theta) + log p(the parameters `names` | the others); of simulated `data` where given."""
        program = self._bound()
        return self._log_likelihood(program, x, theta, data) + program.log_prior(theta, names)

    def _log_likelihood(self, program: Program, x: Field, theta: Theta, data: Mapping[str, Array] | None) -> Scalar:
        if data is None:
            return program.log_likelihood(self._physical(x), theta, self.rounded)
        return program.log_simulated(self._physical(x), theta, data, self.rounded)

    def draw_theta(self, key: Key, given: Theta) -> Theta:
        """The unknown parameters from their prior, given some of them."""
        return self._bound().draw_theta(key, given)

    def gaussian_terms(self, x: Field) -> list[GaussianTerm]:
        terms = self._bound().gaussian_terms(self._physical(x), self.theta)
        scale = self.standardisation.scale
        if scale.size > 1 and any(term.residual.shape[1:2] != scale.shape or term.residual.ndim != 4 for term in terms):
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

    @full_precision
    def __call__(self, x: Field) -> Scalar:
        return -0.5 * jnp.sum((self.y - self.observe(x)) ** 2 / self.variance)

    @full_precision
    def simulated_score(self, key: Key, x: Field) -> Field:
        noise = jnp.sqrt(self.variance) * jax.random.normal(key, self.y.shape)
        return jax.vjp(self.observe, x)[1](noise / self.variance)[0]

    @full_precision
    def gaussian_terms(self, x: Field) -> list[GaussianTerm]:
        return [GaussianTerm(self.y - self.observe(x), self.variance)]
