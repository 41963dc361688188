"""Which guidance draws an ensemble: its name on the command line and in stores, and the priors it can guide."""

from collections.abc import Callable
from functools import partial

from bayesdownscale.posterior.guidance import AbstractGuidance, FixedCovariance, MomentMatching
from bayesdownscale.prior.denoiser import AbstractSpreadDenoiser
from bayesdownscale.prior.windows import WindowedDenoiser

Guidance = Callable[..., AbstractGuidance]
GUIDANCE: dict[str, type[AbstractGuidance]] = {"moment_matching": MomentMatching, "fixed_covariance": FixedCovariance}
FORMER = "moment_matching"  # of stores that do not say


def name_of(guidance: Guidance) -> str:
    """What a store says of a `guidance`: the name in `GUIDANCE` or that of another class, and the settings of a
    partial, as in 'moment_matching(iterations=3)'. Raises `ValueError` for what has no name that tells it apart."""
    kind, settings = _parts(guidance)
    known = {method: name for name, method in GUIDANCE.items()}
    name = known.get(kind, f"{kind.__module__}.{kind.__qualname__}")
    said = ", ".join(f"{key}={value!r}" for key, value in sorted(settings.items()))
    return f"{name}({said})" if said else name


def check_guidance(guidance: Guidance, denoiser: WindowedDenoiser) -> None:
    """Raise `ValueError` where a `guidance` needs a covariance that the denoiser of a prior does not know."""
    kind, _ = _parts(guidance)
    if issubclass(kind, FixedCovariance) and not isinstance(denoiser.inner, AbstractSpreadDenoiser):
        raise ValueError(
            f"expected a prior that knows the covariance of its errors, which the guidance {name_of(guidance)} works "
            f"with, got one of {type(denoiser.inner).__name__}; use a prior of train_prior, which measures and stores "
            "it, or define the covariance (AbstractSpreadDenoiser)"
        )


def _parts(guidance: Guidance) -> tuple[type[AbstractGuidance], dict]:
    """The class of a guidance and the settings that partials give it."""
    settings, kind = {}, guidance
    while isinstance(kind, partial) and not kind.args:
        settings, kind = {**kind.keywords, **settings}, kind.func
    if not (isinstance(kind, type) and issubclass(kind, AbstractGuidance)):
        raise ValueError(
            f"expected as guidance a class of bayesdownscale.posterior.guidance, such as FixedCovariance, or a partial "
            f"of one with settings by name, got {kind!r}; other functions cannot be told apart when a run goes on"
        )
    return kind, settings
