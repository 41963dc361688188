"""Guidance: each method maps a denoiser of the prior to a denoiser of the posterior, one file a method."""
