"""The sites of a program: handlers that give or silence its field, and what the sites say of themselves."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from numpyro.distributions import constraints
from numpyro.primitives import Messenger

from bayesdownscale._types import Field, Scalar
from bayesdownscale.likelihood.kinks import smooth_log_prob


class ProgramError(ValueError):
    """A program that cannot be read as prior x likelihood with one field; the sentence names the site."""


class set_field(Messenger):
    """A NumPyro handler that gives the field site of a program the value `x`, as an observation of density one:
    neither the prior's sampler nor its density is called. `is_field` recognises the site by its distribution."""

    def __init__(self, fn: Callable, x: Field, is_field: Callable[[Any], bool]):
        self.x, self.is_field = x, is_field
        super().__init__(fn)

    def process_message(self, msg: dict) -> None:
        if msg["type"] == "sample" and not msg["is_observed"] and self.is_field(behind(msg["fn"])):
            msg["infer"] = {**msg.get("infer", {}), "field_prior": behind(msg["fn"])}
            msg["fn"] = dist.Delta(self.x, event_dim=self.x.ndim)
            msg["value"], msg["is_observed"] = self.x, True


class mask_field(Messenger):
    """A NumPyro handler under which the field's log-density is zero and not computed; the site stays latent."""

    def __init__(self, fn: Callable, is_field: Callable[[Any], bool]):
        self.is_field = is_field
        super().__init__(fn)

    def process_message(self, msg: dict) -> None:
        if msg["type"] == "sample" and self.is_field(msg["fn"]):
            msg["fn"] = msg["fn"].mask(False)


def behind(fn: Any) -> Any:
    """The distribution behind masks and what plates make of it."""
    while isinstance(fn, dist.MaskedDistribution | dist.ExpandedDistribution):
        fn = fn.base_dist
    return fn


def check_field(msg: dict) -> None:
    """Refuse what would change the field's prior and is not followed."""
    name = msg["name"]
    if msg["is_observed"]:
        raise ProgramError(
            f"site {name!r}: expected the field to be unknown, got it observed; give the data to another site"
        )
    if msg["cond_indep_stack"]:
        raise ProgramError(
            f"site {name!r}: expected one field, got it in plate {msg['cond_indep_stack'][0].name!r}; draw it outside"
        )
    masked = isinstance(msg["fn"], dist.MaskedDistribution) and msg["fn"]._mask is not False  # as `mask_field` does
    if masked or msg["scale"] is not None:
        raise ProgramError(
            f"site {name!r}: expected the field's prior as it is, got it masked or scaled; move the handler to the data"
        )


def same(a: Any, b: Any) -> bool:
    """Whether two priors hold the same numbers; traced ones, which cannot be looked at, are taken to."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    known = [(x, y) for x, y in leaves if not isinstance(x, Tracer) and not isinstance(y, Tracer)]
    return all(x is y or np.array_equal(x, y, equal_nan=True) for x, y in known)


def is_real(support: Any) -> bool:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real


def scale_of(site: dict) -> Any:
    return 1.0 if site["scale"] is None else site["scale"]


def log_prob_of(site: dict, value: Any, scale: Any, smooth: bool) -> Scalar:
    fn = site["fn"]
    return jnp.sum(scale * (smooth_log_prob(fn, value) if smooth else fn.log_prob(value)))


def is_data(site: dict) -> bool:
    return (
        site["type"] == "sample"
        and site["is_observed"]
        and not isinstance(site["fn"], dist.Unit)
        and "field_prior" not in site["infer"]
    )


def unmasked(site: dict) -> bool:
    """Whether missing data enter a density; traced data, which cannot be looked at, are taken as they are."""
    value, fn = site["value"], site["fn"]
    if isinstance(value, Tracer) or not np.isnan(value).any():
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPyro's, that NaN is outside the support
        return not np.isfinite(fn.log_prob(value)).all()
