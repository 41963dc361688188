"""Exact under the learned prior: Markov kernels of the field, sequential Monte Carlo, and their NumPyro faces."""

from bayesdownscale.posterior.kernels.base import AbstractFieldKernel
from bayesdownscale.posterior.kernels.flow_reparam import FlowReparam
from bayesdownscale.posterior.kernels.flow_slice import FlowSlice
from bayesdownscale.posterior.kernels.noise_denoise import NoiseDenoiseMH
from bayesdownscale.posterior.kernels.numpyro_kernel import FieldKernel, unscored
from bayesdownscale.posterior.kernels.twisted_smc import (
    Evidence,
    Particles,
    equally_weighted,
    log_evidence,
    twisted_smc,
)

__all__ = [
    "AbstractFieldKernel",
    "Evidence",
    "FieldKernel",
    "FlowReparam",
    "FlowSlice",
    "NoiseDenoiseMH",
    "Particles",
    "equally_weighted",
    "log_evidence",
    "twisted_smc",
    "unscored",
]
