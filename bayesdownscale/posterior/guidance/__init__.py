"""Guidance: each method maps a denoiser of the prior to a denoiser of the posterior, one file a method."""

from bayesdownscale.posterior.guidance.base import AbstractGuidance, Twist
from bayesdownscale.posterior.guidance.dps import DPS
from bayesdownscale.posterior.guidance.fixed_covariance import FixedCovariance
from bayesdownscale.posterior.guidance.moment_matching import MomentMatching
from bayesdownscale.posterior.guidance.pigdm import PiGDM
from bayesdownscale.posterior.guidance.sda import SDA
from bayesdownscale.posterior.guidance.seed_rule import SeedRule
from bayesdownscale.posterior.guidance.tmpd import TMPD

__all__ = ["DPS", "SDA", "TMPD", "AbstractGuidance", "FixedCovariance", "MomentMatching", "PiGDM", "SeedRule", "Twist"]
