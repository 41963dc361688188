"""The likelihood with some Gaussian parameters integrated out: a field that does not wait for its bias."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from bayesdownscale._precision import full_precision
from bayesdownscale._types import Field, Key, Scalar
from bayesdownscale.likelihood.program import Program, ProgramError, Theta
from bayesdownscale.likelihood.terms import GaussianTerm
from bayesdownscale.posterior.likelihood import AbstractLikelihood, ProgramLikelihood
from bayesdownscale.prior.distribution import FieldPrior


class CollapsedLikelihood(AbstractLikelihood):
    """log p(y | x, theta) = log of the integral of p(y | x, w, theta) p(w | theta) over the parameters w named `names`,

        l(x) = f(x, 0) + g^T P^-1 g / 2 - log det P / 2,   f(x, w) = log p(y | x, w, theta) + log p(w | theta),

    g the gradient and P minus the Hessian of f in w at 0, up to a constant: exact where f is quadratic in w, as for a
    bias, additive or a factor, with a Gaussian prior under Gaussian noise, else a Laplace approximation about 0. Field
    and bias are strongly correlated given precise data, and a Gibbs sampler that draws one given the other hardly
    moves; drawn from p(x | y, theta) and then p(w, theta | x, y) (partially collapsed: van Dyk and Park 2008,
    doi:10.1198/016214508000000409) it does.
    """

    likelihood: ProgramLikelihood
    shapes: Theta
    names: tuple[str, ...] = eqx.field(static=True)

    @staticmethod
    def of(program: Program, prior: FieldPrior, theta: Theta, names: tuple[str, ...]) -> "CollapsedLikelihood":
        """With the values of the other parameters, and any values of `names`, in `theta`."""
        check_names(program, names)
        return CollapsedLikelihood(ProgramLikelihood.of(program, prior, theta), {n: theta[n] for n in names}, names)

    def __call__(self, x: Field) -> Scalar:
        return self._integrate(x, None)

    def smooth(self) -> "CollapsedLikelihood":
        return CollapsedLikelihood(self.likelihood.smooth(), self.shapes, self.names)

    def simulated_score(self, key: Key, x: Field) -> Field:
        k_w, k_data = jax.random.split(key)
        simulated = self.likelihood.simulate(k_data, x, self._draw_w(k_w))
        return jax.grad(lambda x: self._integrate(x, simulated))(x)

    def gaussian_terms(self, x: Field) -> list[GaussianTerm]:
        raise ProgramError("collapsed parameters correlate the data; use moment matching or a fixed covariance")

    @full_precision
    def _integrate(self, x: Field, data: dict[str, Array] | None) -> Scalar:
        zero, unravel = ravel_pytree(jax.tree.map(jnp.zeros_like, dict(self.shapes)))

        def f(w: Float[Array, " parameter"]) -> Scalar:
            theta = {**self.likelihood.theta, **unravel(w)}
            return self.likelihood.log_joint(x, theta, self.names, data)

        value, gradient = jax.value_and_grad(f)(zero)
        precision = -jax.hessian(f)(zero)
        return value + 0.5 * (gradient @ jnp.linalg.solve(precision, gradient) - jnp.linalg.slogdet(precision)[1])

    def _draw_w(self, key: Key) -> Theta:
        known = {name: value for name, value in self.likelihood.theta.items() if name not in self.names}
        drawn = self.likelihood.draw_theta(key, known)
        return {name: drawn[name] for name in self.names}


def check_names(program: Program, names: tuple[str, ...]) -> None:
    """Raise `ProgramError` where one of `names` is no unknown parameter of `program`, or not a real one."""
    unknown = sorted(set(names) - set(program.latents))
    if unknown:
        raise ProgramError(f"expected parameters among {program.latents} to collapse, got {unknown[0]!r}")
    for name in names:
        if name not in program.real:
            raise ProgramError(
                f"expected parameters that are Normal to collapse, got {name!r}, which cannot be any real number; "
                "leave it to the sweeps"
            )
