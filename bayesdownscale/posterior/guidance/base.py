"""What every guidance method is: a denoiser of the posterior made from a denoiser of the prior."""

import abc
from typing import NamedTuple

import equinox as eqx

from bayesdownscale._types import Field, Scalar
from bayesdownscale.posterior.likelihood import AbstractLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context, Cost


class Twist(NamedTuple):
    """What a method knows at x_sigma: the prior's `prior_mean` D, the guided `mean` D_y, and `log_weight`, its
    approximation of log p(y | x_sigma) up to a constant in x_sigma."""

    prior_mean: Field
    mean: Field
    log_weight: Scalar
    cost: Cost


class AbstractGuidance(AbstractDenoiser):
    """D_y(x_sigma, sigma, context) ~ E[x | x_sigma, y] from the prior's `denoiser` and a `likelihood`.

    One method to write, `twist`; importance weights and sequential Monte Carlo read all of it, solvers its mean.
    """

    denoiser: eqx.AbstractVar[AbstractDenoiser]
    likelihood: eqx.AbstractVar[AbstractLikelihood]

    @abc.abstractmethod
    def twist(self, x_sigma: Field, sigma: Scalar, context: Context) -> Twist:
        """D, D_y, log p(y | x_sigma) and their cost, for one field x_sigma and a scalar sigma."""

    def evaluate(self, x_sigma: Field, sigma: Scalar, context: Context) -> tuple[Field, Cost]:
        twist = self.twist(x_sigma, sigma, context)
        return twist.mean, twist.cost
