"""Guidance: each method maps a denoiser of the prior to a denoiser of the posterior, one file a method."""

from bayesdownscale.posterior.guidance.base import AbstractGuidance
from bayesdownscale.posterior.guidance.moment_matching import MomentMatching
from bayesdownscale.posterior.guidance.sda import SDA
from bayesdownscale.posterior.guidance.seed_rule import SeedRule

__all__ = ["SDA", "AbstractGuidance", "MomentMatching", "SeedRule"]
