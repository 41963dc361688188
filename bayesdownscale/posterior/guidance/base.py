"""What every guidance method is: a denoiser of the posterior made from a denoiser of the prior."""

import equinox as eqx

from bayesdownscale.posterior.likelihood import AbstractLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser


class AbstractGuidance(AbstractDenoiser):
    """D_y(x_sigma, sigma, context) ~ E[x | x_sigma, y] from the prior's `denoiser` and a `likelihood`."""

    denoiser: eqx.AbstractVar[AbstractDenoiser]
    likelihood: eqx.AbstractVar[AbstractLikelihood]
