"""Bayesian downscaling of climate models: a diffusion prior, a NumPyro likelihood, a calibrated posterior.

    prior = bd.load_prior()                            p(x), a NumPyro distribution over fine fields
    H = bd.area_mean(...) @ bd.snapshots(...)          what a coarse model sees of them
    posterior = bd.GuidedSDE(model).run(key, y=coarse, draws=64)
    bd.report(posterior.to_datatree(), "report.html")

Names are imported when first used, so that `import bayesdownscale` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayesdownscale.data.bias import BiasCorrection
    from bayesdownscale.data.catalogue import list_data, open_data
    from bayesdownscale.data.coarse import check_overlap, open_coarse
    from bayesdownscale.data.correct import correct
    from bayesdownscale.data.datasets import era5_uk
    from bayesdownscale.data.errors import DataError
    from bayesdownscale.data.fields import Fields
    from bayesdownscale.data.grid import Coords, Grid, Variable
    from bayesdownscale.data.intervals import interval_bounds
    from bayesdownscale.data.land import land_fraction
    from bayesdownscale.data.lazy import LazyFields, open_lazy
    from bayesdownscale.data.read import open_fields
    from bayesdownscale.data.regrid import conservative_mean, observed_cells
    from bayesdownscale.data.rotated import RotatedPole
    from bayesdownscale.data.score_map import ScoreMap
    from bayesdownscale.data.transform import Anamorphosis
    from bayesdownscale.data.twin.planet import Planet
    from bayesdownscale.data.twin.weather import coarse_model, twin, twins
    from bayesdownscale.data.write import as_cf, to_cf, write_atomic
    from bayesdownscale.demo import gaussian_example
    from bayesdownscale.diagnostics.baselines import bcsd, bilinear, climatology
    from bayesdownscale.diagnostics.calibration import exchangeability
    from bayesdownscale.diagnostics.comparison import compare
    from bayesdownscale.diagnostics.digest import digest
    from bayesdownscale.diagnostics.events import brier, reliability, tw_crps
    from bayesdownscale.diagnostics.extremes import return_levels
    from bayesdownscale.diagnostics.indices import indices
    from bayesdownscale.diagnostics.kriging import gaussian_crps, kriging
    from bayesdownscale.diagnostics.multivariate import energy_score, variogram_score
    from bayesdownscale.diagnostics.report import report
    from bayesdownscale.diagnostics.sbc import sbc, uniformity
    from bayesdownscale.diagnostics.scores import cell_scores, coverage, crps, pit, spread_skill
    from bayesdownscale.diagnostics.skill import skill_score
    from bayesdownscale.diagnostics.spectra import log_ratio, radial_spectrum, temporal_spectrum
    from bayesdownscale.diagnostics.structure import jerk_ratio, lag1_autocorrelation, second_difference_energy
    from bayesdownscale.ensemble.executors import Dask, Processes
    from bayesdownscale.ensemble.run import Ensemble
    from bayesdownscale.likelihood.extremes import GEV, GeneralizedPareto
    from bayesdownscale.likelihood.hurdle import Hurdle
    from bayesdownscale.likelihood.in_time import seen_in_time
    from bayesdownscale.likelihood.operators import LinearOperator, area_mean, snapshots, stations, time_mean
    from bayesdownscale.likelihood.program import Program, ProgramError
    from bayesdownscale.likelihood.sight import Sight
    from bayesdownscale.posterior.batches import draw_keys, fingerprint, in_batches
    from bayesdownscale.posterior.check import Check, posterior_check
    from bayesdownscale.posterior.collect import collect, read_model
    from bayesdownscale.posterior.exact import ExactGaussian, check_linear_gaussian, condition_gaussian
    from bayesdownscale.posterior.guidance import DPS, SDA, TMPD, FixedCovariance, MomentMatching, PiGDM, SeedRule
    from bayesdownscale.posterior.guided import GuidedSDE, guided_sampler
    from bayesdownscale.posterior.kernels import (
        FieldKernel,
        FlowReparam,
        FlowSlice,
        NoiseDenoiseMH,
        equally_weighted,
        log_evidence,
        twisted_smc,
        unscored,
    )
    from bayesdownscale.posterior.likelihood import LinearGaussianLikelihood, ProgramLikelihood
    from bayesdownscale.posterior.result import Posterior, provenance
    from bayesdownscale.posterior.start import start_theta
    from bayesdownscale.prior.denoiser import AbstractDenoiser, Context
    from bayesdownscale.prior.distribution import FieldPrior, GaussianPrior
    from bayesdownscale.prior.gaussian import GaussianField, GaussianPosterior, matern
    from bayesdownscale.prior.integrator import Integrator
    from bayesdownscale.prior.latent import LatentPrior
    from bayesdownscale.prior.mixture import GaussianMixture, MixtureDenoiser, MixturePosterior
    from bayesdownscale.prior.network import UNetConfig
    from bayesdownscale.prior.noise import NoiseLevels
    from bayesdownscale.prior.precision import in_bfloat16
    from bayesdownscale.prior.reverse_sde import reverse_path, reverse_sample, reverse_terms
    from bayesdownscale.prior.solver import ExponentialMultistep
    from bayesdownscale.prior.standardise import Standardisation
    from bayesdownscale.prior.trained import load_gaussian_prior, load_prior, train_prior
    from bayesdownscale.prior.training import TrainingConfig
    from bayesdownscale.study import problem_from_files

_HOME = {
    "data.bias": ("BiasCorrection",),
    "data.catalogue": ("list_data", "open_data"),
    "data.coarse": ("check_overlap", "open_coarse"),
    "data.correct": ("correct",),
    "data.datasets": ("era5_uk",),
    "data.errors": ("DataError",),
    "data.fields": ("Fields",),
    "data.grid": ("Coords", "Grid", "Variable"),
    "data.intervals": ("interval_bounds",),
    "data.land": ("land_fraction",),
    "data.lazy": ("LazyFields", "open_lazy"),
    "data.read": ("open_fields",),
    "data.regrid": ("conservative_mean", "observed_cells"),
    "data.rotated": ("RotatedPole",),
    "data.score_map": ("ScoreMap",),
    "data.transform": ("Anamorphosis",),
    "data.twin.planet": ("Planet",),
    "data.twin.weather": ("coarse_model", "twin", "twins"),
    "data.write": ("as_cf", "to_cf", "write_atomic"),
    "demo": ("gaussian_example",),
    "diagnostics.baselines": ("bcsd", "bilinear", "climatology"),
    "diagnostics.calibration": ("exchangeability",),
    "diagnostics.comparison": ("compare",),
    "diagnostics.digest": ("digest",),
    "diagnostics.events": ("brier", "reliability", "tw_crps"),
    "diagnostics.extremes": ("return_levels",),
    "diagnostics.indices": ("indices",),
    "diagnostics.kriging": ("gaussian_crps", "kriging"),
    "diagnostics.multivariate": ("energy_score", "variogram_score"),
    "diagnostics.report": ("report",),
    "diagnostics.sbc": ("sbc", "uniformity"),
    "diagnostics.scores": ("cell_scores", "coverage", "crps", "pit", "spread_skill"),
    "diagnostics.skill": ("skill_score",),
    "diagnostics.spectra": ("log_ratio", "radial_spectrum", "temporal_spectrum"),
    "diagnostics.structure": ("jerk_ratio", "lag1_autocorrelation", "second_difference_energy"),
    "ensemble.executors": ("Dask", "Processes"),
    "ensemble.run": ("Ensemble",),
    "likelihood.extremes": ("GEV", "GeneralizedPareto"),
    "likelihood.hurdle": ("Hurdle",),
    "likelihood.in_time": ("seen_in_time",),
    "likelihood.operators": ("LinearOperator", "area_mean", "snapshots", "stations", "time_mean"),
    "likelihood.program": ("Program", "ProgramError"),
    "likelihood.sight": ("Sight",),
    "posterior.batches": ("draw_keys", "fingerprint", "in_batches"),
    "posterior.check": ("Check", "posterior_check"),
    "posterior.collect": ("collect", "read_model"),
    "posterior.exact": ("ExactGaussian", "check_linear_gaussian", "condition_gaussian"),
    "posterior.guidance": ("DPS", "SDA", "TMPD", "FixedCovariance", "MomentMatching", "PiGDM", "SeedRule"),
    "posterior.guided": ("GuidedSDE", "guided_sampler"),
    "posterior.kernels": (
        "FieldKernel",
        "FlowReparam",
        "FlowSlice",
        "NoiseDenoiseMH",
        "equally_weighted",
        "log_evidence",
        "twisted_smc",
        "unscored",
    ),
    "posterior.likelihood": ("LinearGaussianLikelihood", "ProgramLikelihood"),
    "posterior.result": ("Posterior", "provenance"),
    "posterior.start": ("start_theta",),
    "prior.denoiser": ("AbstractDenoiser", "Context"),
    "prior.distribution": ("FieldPrior", "GaussianPrior"),
    "prior.gaussian": ("GaussianField", "GaussianPosterior", "matern"),
    "prior.integrator": ("Integrator",),
    "prior.latent": ("LatentPrior",),
    "prior.mixture": ("GaussianMixture", "MixtureDenoiser", "MixturePosterior"),
    "prior.network": ("UNetConfig",),
    "prior.noise": ("NoiseLevels",),
    "prior.precision": ("in_bfloat16",),
    "prior.reverse_sde": ("reverse_path", "reverse_sample", "reverse_terms"),
    "prior.solver": ("ExponentialMultistep",),
    "prior.standardise": ("Standardisation",),
    "prior.trained": ("load_gaussian_prior", "load_prior", "train_prior"),
    "prior.training": ("TrainingConfig",),
    "study": ("problem_from_files",),
}
_HOME_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'bayesdownscale' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"bayesdownscale.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
