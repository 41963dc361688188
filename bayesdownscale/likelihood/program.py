"""Reading a NumPyro program: from `model(y=...)` to log p(y | x, theta) of its one field site."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from jaxtyping import Array
from numpyro import handlers
from numpyro.primitives import Messenger

from bayesdownscale._precision import full_precision
from bayesdownscale._types import Field, Scalar
from bayesdownscale.likelihood.sites import (
    ProgramError,
    behind,
    check_field,
    is_data,
    is_real,
    log_prob_of,
    same,
    scale_of,
    set_field,
    unmasked,
)
from bayesdownscale.likelihood.terms import GaussianTerm, gaussian_term, pointwise_log_prob, unwrapped

Theta = Mapping[str, Any]  # numbers or arrays by site name


class Program:
    """A NumPyro program with one field site, read once and checked.

    **Arguments:** `model`, its `args` and `kwargs` (data included), and `is_field`, which recognises the
    field's prior. **Raises** `ProgramError` when there is not exactly one field site, when nothing is observed,
    when data and distribution have different shapes (they would broadcast), or for `obs_mask`, subsampling plates,
    improper priors, latent sites that depend on the field and a prior of the field that depends on them, which this
    reader does not take.

    Attributes: `field` (site name), `prior` (its distribution), `latents` (names of the unknown parameters theta),
    `real` (those of them that may be any real number), `given` (values of those that were fixed by `fix`), `observed`
    (names of the data's sites).
    """

    def __init__(self, model: Callable, args: tuple, kwargs: dict, is_field: Callable[[Any], bool]):
        self.model, self.args, self.kwargs, self.is_field = model, args, kwargs, is_field
        self.given: Theta = {}
        prior, self.field = self._find_field(0)
        if not same(prior, self._find_field(1)[0]):
            raise ProgramError(
                f"site {self.field!r}: the field's prior depends on an unknown parameter, which no sampler here "
                "follows; give the program a known prior, and let parameters change what is seen of the field"
            )
        self.prior = prior
        self.shape = prior.event_shape
        sites = self._sites(jnp.zeros(self.shape), {})
        self.latents = [n for n, s in sites.items() if s["type"] == "sample" and not s["is_observed"]]
        self.observed = [n for n, s in sites.items() if is_data(s)]
        self.real = {n for n in self.latents if is_real(sites[n]["fn"].support)}
        self._check(sites)

    @property
    def data(self) -> tuple[tuple, dict]:
        """The arguments of the model, (args, kwargs)."""
        return self.args, self.kwargs

    def bind(self, data: tuple[tuple, dict], given: Theta | None = None) -> "Program":
        """This program, already checked, on other `data` = (args, kwargs) of the same shapes (tracers too), with
        other values of the parameters that were fixed."""
        return self._with(args=data[0], kwargs=data[1], given=self.given if given is None else given)

    def fix(self, theta: Theta) -> "Program":
        """This program with the parameters in `theta` known; raises `ProgramError` for a name it does not have."""
        unknown = sorted(set(theta) - set(self.latents))
        if unknown:
            raise ProgramError(f"expected parameters among {self.latents}, got {unknown[0]!r} in theta")
        given = {**self.given, **{name: jnp.asarray(value) for name, value in theta.items()}}
        return self._with(latents=[name for name in self.latents if name not in theta], given=given)

    def _with(self, **changes: Any) -> "Program":
        changed = object.__new__(Program)
        changed.__dict__.update(self.__dict__, **changes)
        return changed

    def abstract(self) -> "AbstractProgram":
        """What is left of this program without its data."""
        return AbstractProgram(self)

    def observed_values(self) -> dict[str, np.ndarray]:
        """The data of each observed site."""
        sites = self._sites(jnp.zeros(self.shape), {})
        return {name: np.asarray(sites[name]["value"]) for name in self.observed}

    def _find_field(self, seed: int) -> tuple[Any, str]:
        found: list[tuple[str, Any]] = []

        class Stop(Messenger):
            def process_message(inner, msg):  # pyright: ignore[reportSelfClsParameterName]
                if msg["type"] != "sample":
                    return
                if isinstance(msg["fn"], dist.ImproperUniform) and not msg["is_observed"]:
                    raise ProgramError(
                        f"site {msg['name']!r} has an improper prior, from which nothing can be drawn; give it a "
                        "proper one, however wide"
                    )
                if self.is_field(behind(msg["fn"])):
                    check_field(msg)
                    found.append((msg["name"], behind(msg["fn"])))
                    msg["value"] = jnp.zeros(msg["fn"].shape())

        with handlers.seed(rng_seed=seed), Stop():
            self.model(*self.args, **self.kwargs)
        if len(found) != 1:
            names = ", ".join(repr(name) for name, _ in found) or "none"
            raise ProgramError(
                f"expected exactly one site with a field prior in the program, got {names}; "
                'write x = numpyro.sample("weather", prior) once'
            )
        return found[0][1], found[0][0]

    @full_precision
    def _sites(self, x: Field, theta: Theta) -> dict[str, dict]:
        program = handlers.substitute(set_field(self.model, x, self.is_field), data=dict(theta))
        return handlers.trace(handlers.seed(program, rng_seed=0)).get_trace(*self.args, **self.kwargs)

    def _check(self, sites: dict[str, dict]) -> None:
        if not self.observed:
            raise ProgramError(
                "expected at least one observed site in the program, got none; write "
                "numpyro.sample(name, distribution, obs=y) and pass y"
            )
        for name, site in sites.items():
            if name.endswith("_observed") and f"{name.removesuffix('_observed')}_unobserved" in sites:
                raise ProgramError(
                    f"site {name.removesuffix('_observed')!r} uses obs_mask, which hides latent values in the data; "
                    "use distribution.mask(isfinite(y)) instead"
                )
            if site["type"] == "plate" and site["args"][1] not in (None, site["args"][0]):
                raise ProgramError(f"plate {name!r} subsamples the data; pass all of them")
        for name in self.observed:
            got, expected = np.shape(sites[name]["value"]), sites[name]["fn"].shape()
            if got != expected:
                raise ProgramError(
                    f"site {name!r}: expected data of shape {expected}, the shape of its distribution, got {got}; "
                    "they would broadcast silently"
                )
            if unmasked(sites[name]):
                raise ProgramError(
                    f"site {name!r}: the data have missing values (NaN) that are not masked, so they have no "
                    "density; write distribution.mask(jnp.isfinite(y))"
                )
        if self.latents:
            theta = {name: sites[name]["value"] for name in self.latents}
            other = self._sites(jax.random.normal(jax.random.key(0), self.shape), theta)
            for name in self.latents:
                before, after = (s[name]["fn"].log_prob(theta[name]) for s in (sites, other))
                if isinstance(before, Tracer) or isinstance(after, Tracer):
                    continue
                if not np.array_equal(before, after, equal_nan=True):
                    raise ProgramError(
                        f"latent site {name!r} depends on the field; make it a deterministic function of the field "
                        "or observe it"
                    )

    def _complete(self, theta: Theta | None) -> Theta:
        """The parameters given and those in `theta`, all of them there. Deterministic sites, which samples hold too,
        are left out: with their values given, nothing would depend on the field."""
        theta = theta or {}
        missing = [name for name in self.latents if name not in theta]
        if missing:
            raise ProgramError(f"expected a value for each of {self.latents} in theta, got none for {missing[0]!r}")
        return {**self.given, **{name: theta[name] for name in self.latents}}

    @full_precision
    def log_likelihood(self, x: Field, theta: Theta | None = None, smooth: bool = False) -> Scalar:
        """log p(y | x, theta): the log-densities of all observed sites and factors, times their scales. With `smooth`,
        densities with a kink are rounded (`kinks.py`)."""
        sites = self._sites(x, self._complete(theta))
        seen = [s for name, s in sites.items() if s["type"] == "sample" and s["is_observed"] and name != self.field]
        terms = (log_prob_of(site, site["value"], scale_of(site), smooth) for site in seen)
        return sum(terms, start=jnp.zeros(()))

    @full_precision
    def log_simulated(self, x: Field, theta: Theta | None, data: Mapping[str, Array], smooth: bool = False) -> Scalar:
        """The log-density of simulated `data`, by site, times the roots of the sites' scales: its gradient has the
        Fisher information of the scaled likelihood as covariance. Factors have no data and are left out."""
        sites = self._sites(x, self._complete(theta))
        terms = (log_prob_of(sites[n], value, jnp.sqrt(scale_of(sites[n])), smooth) for n, value in data.items())
        return sum(terms, start=jnp.zeros(()))

    @full_precision
    def pointwise(self, x: Field, theta: Theta | None = None) -> dict[str, Array]:
        """The log-density of each datum of each observed site, NaN where masked: what leave-one-out needs."""
        sites = self._sites(x, self._complete(theta))
        density = lambda site: scale_of(site) * pointwise_log_prob(site["fn"], site["value"])
        return {name: density(sites[name]) for name in self.observed}

    @full_precision
    def log_prior(self, theta: Theta, names: Sequence[str]) -> Scalar:
        """The sum of the log-densities of the parameters `names`, given the others."""
        sites = self._sites(jnp.zeros(self.shape), self._complete(theta))
        terms = (log_prob_of(sites[n], sites[n]["value"], scale_of(sites[n]), False) for n in names)
        return sum(terms, start=jnp.zeros(()))

    @full_precision
    def simulate(self, key: Any, x: Field, theta: Theta | None = None) -> dict[str, Array]:
        """Data of each observed site, drawn given the field and theta."""
        sites = self._sites(x, self._complete(theta))
        keys = jax.random.split(key, len(self.observed))
        try:
            return {name: sites[name]["fn"].sample(k) for name, k in zip(self.observed, keys, strict=True)}
        except NotImplementedError as e:
            kinds = ", ".join(type(behind(sites[name]["fn"])).__name__ for name in self.observed)
            raise ProgramError(
                f"expected distributions of the data that can be sampled, as this method simulates data, got {kinds}; "
                "write their `sample`"
            ) from e

    @full_precision
    def gaussian_terms(self, x: Field, theta: Theta | None = None) -> list[GaussianTerm]:
        """The observed sites as residuals and variances (over their scales); raises `ProgramError` for one that is not
        Normal, and for factors."""
        sites = self._sites(x, self._complete(theta))
        for name, site in sites.items():
            if site["type"] == "sample" and isinstance(site["fn"], dist.Unit):
                raise ProgramError(
                    f"site {name!r} is a factor, and this method needs Normal noise alone; use moment matching, which "
                    "takes any differentiable likelihood"
                )
        terms = []
        for name in self.observed:
            value = sites[name]["value"]
            base, mask = unwrapped(sites[name]["fn"], jnp.shape(value))
            if not isinstance(base, dist.Normal):
                raise ProgramError(
                    f"site {name!r}: this guidance method needs Normal noise, got {type(base).__name__}; "
                    "use moment matching, which takes any differentiable likelihood"
                )
            term = gaussian_term(base, mask, value)
            terms.append(term._replace(variance=term.variance / scale_of(sites[name])))
        return terms

    def given_field(self, x: Field) -> Callable:
        """The program of the unknown parameters given the field: what NUTS needs to draw p(theta | x, y)."""
        return handlers.condition(set_field(full_precision(self.model), x, self.is_field), data=dict(self.given))

    @full_precision
    def draw_theta(self, key: Any, given: Theta | None = None) -> Theta:
        """The unknown parameters from their prior, given some of them, the field at zero (no latent site depends on
        it). Raises `ProgramError` for a discrete one, which no sampler here draws."""
        program = handlers.condition(self.given_field(jnp.zeros(self.shape)), data=dict(given or {}))
        sites = handlers.trace(handlers.seed(program, key)).get_trace(*self.args, **self.kwargs)
        for name in self.latents:
            if sites[name]["fn"].support.is_discrete:
                raise ProgramError(
                    f"site {name!r} is discrete, and parameters are drawn by their gradients; sum it out "
                    "(numpyro.distributions.MixtureSameFamily) or fix it"
                )
        return {name: sites[name]["value"] for name in self.latents}


class AbstractProgram:
    """A checked program without data and values, equal to every other reading of the same model with the same
    shapes: a static argument of compiled functions. `bind(data, given)` gives the program back."""

    def __init__(self, program: Program):
        self._program = program.bind(((), {}), {})
        self._program.prior = None
        p = self._program
        self._key = (p.model, p.is_field, p.field, p.shape, tuple(p.latents), tuple(program.given), tuple(p.observed))

    def bind(self, data: tuple[tuple, dict], given: Theta | None = None) -> Program:
        return self._program.bind(data, given)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AbstractProgram) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)
