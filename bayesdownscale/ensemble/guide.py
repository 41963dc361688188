"""Which guidance draws an ensemble: its name on the command line and in stores."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bayesdownscale.posterior.guidance import AbstractGuidance, FixedCovariance, MomentMatching

Guidance = Callable[..., AbstractGuidance]
GUIDANCE: dict[str, type[AbstractGuidance]] = {"moment_matching": MomentMatching, "fixed_covariance": FixedCovariance}
FORMER = "moment_matching"  # of stores that do not say


def name_of(guidance: Guidance) -> str:
    """What a store says of a `guidance`: the name in `GUIDANCE` or that of another class, and those settings of a
    partial that are not the usual ones, as in 'moment_matching(iterations=3)'. Raises `ValueError` for what has no name
    that tells it apart."""
    kind, settings = _parts(guidance)
    known = {method: name for name, method in GUIDANCE.items()}
    name = known.get(kind, f"{kind.__module__}.{kind.__qualname__}")
    usual = {field.name: field.default for field in dataclasses.fields(kind)}
    plain = {key: _plain(value) for key, value in sorted(settings.items())}
    said = ", ".join(f"{key}={value!r}" for key, value in plain.items() if value != usual.get(key))
    return f"{name}({said})" if said else name


def _plain(value: Any) -> bool | int | float | str:
    value = getattr(value, "item", lambda: value)() if np.ndim(value) == 0 else value
    if not isinstance(value, bool | int | float | str):
        raise ValueError(
            f"expected numbers or words as settings of a guidance, got {value!r}: a store writes them down"
        )
    return value


def _parts(guidance: Guidance) -> tuple[type[AbstractGuidance], dict[str, Any]]:
    """The class of a guidance and the settings that partials give it."""
    settings, kind = {}, guidance
    while isinstance(kind, partial) and not kind.args:
        settings, kind = {**kind.keywords, **settings}, kind.func
    if not (isinstance(kind, type) and issubclass(kind, AbstractGuidance)) or "<locals>" in kind.__qualname__:
        raise ValueError(
            f"expected as guidance a class of bayesdownscale.posterior.guidance, such as FixedCovariance, one defined "
            f"in a module, or a partial of one with settings by name, got {kind!r}; others cannot be told apart when a "
            "run goes on"
        )
    return kind, settings
