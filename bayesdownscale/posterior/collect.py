"""From a sampler of one program to a labelled posterior: read, draw in batches, keep, label."""

import inspect
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree
from numpyro import handlers

from bayesdownscale.data.fields import Fields
from bayesdownscale.likelihood.graph import model_graph
from bayesdownscale.likelihood.program import AbstractProgram, Program, ProgramError, Theta
from bayesdownscale.likelihood.sites import set_field
from bayesdownscale.posterior.batches import draw_keys, fingerprint, finite, in_batches
from bayesdownscale.posterior.digest import structure
from bayesdownscale.posterior.result import Posterior, provenance
from bayesdownscale.prior.distribution import FieldPrior, UndatedError

AXES = {"chain", "draw", "time", "lat", "lon"}  # of the fields in a result

is_field = lambda fn: isinstance(fn, FieldPrior)


def read_model(model: Callable, args: tuple, kwargs: dict) -> tuple[Program, dict[str, Fields]]:
    """The program of a model called with `args` and `kwargs`, data included, and the `Fields` that its sites observe
    by name (the model sees their values; the labels go into the result).

    **Raises** `ProgramError` for a program that cannot be read, for dates among the arguments, which no compiled
    function takes, and for a parameter with the name of a physical variable or coordinate of the field.
    """
    as_leaf = lambda a: isinstance(a, Fields)
    leaves, form = jax.tree.flatten((args, kwargs), is_leaf=as_leaf)
    for leaf in leaves:
        if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "mM":
            raise ProgramError(
                f"expected numbers among the arguments of the model, got {leaf.dtype} of shape {leaf.shape}; define "
                "the model where these times are known and use them there, or give them in bd.Coords"
            )
    seen = [jnp.asarray(leaf.values) if as_leaf(leaf) else leaf for leaf in leaves]
    args, kwargs = jax.tree.unflatten(form, seen)
    program = Program(model, args, kwargs, is_field)
    names = {variable.name for variable in program.prior.variables}
    for name in program.latents:
        if name in names | AXES:
            what = "a variable" if name in names else "a coordinate"
            raise ProgramError(
                f"site {name!r}: expected a name of its own for a parameter, got that of {what} of the field; rename it"
            )
    return program, _labels(program, [(a, b) for a, b in zip(seen, leaves, strict=True) if as_leaf(b)])


def _labels(program: Program, given: list[tuple[Array, Fields]]) -> dict[str, Fields]:
    """The `Fields` of each site that observes some: those of its very array, or else, where the model computes what
    it observes, the only ones of that shape."""
    if not given:
        return {}
    bare = handlers.seed(set_field(program.model, jnp.zeros(program.shape), is_field), rng_seed=0)
    args, kwargs = program.data
    sites = handlers.trace(bare).get_trace(*args, **kwargs)
    labels = {}
    for name in program.observed:
        value = sites[name]["value"]
        same = [fields for array, fields in given if array is value]
        same = same or [fields for array, fields in given if array.shape == jnp.shape(value)]
        if same and all(fields.coords == same[0].coords for fields in same):
            labels[name] = same[0]
    return labels


def source_of(model: Callable) -> str:
    """The text of a program, for the record."""
    try:
        return inspect.getsource(model)
    except (OSError, TypeError):
        return f"{getattr(model, '__name__', 'model')}: source not available"


def unlabelled(tree: PyTree) -> PyTree:
    """A tree with its priors without times, for functions that are compiled once for all spans."""
    return jax.tree.map(lambda a: a.unlabelled() if is_field(a) else a, tree, is_leaf=is_field)


def reads_times(program: Program) -> bool:
    """Whether a program reads the times of a prior among its arguments. It must then be compiled with them."""

    def trace(data: tuple[tuple, dict]) -> None:
        bare = set_field(program.model, jnp.zeros(program.shape), is_field)
        handlers.seed(bare, rng_seed=0)(*data[0], **data[1])

    try:
        eqx.filter_eval_shape(trace, unlabelled(program.data))
    except UndatedError:
        return True
    return False


def collect(
    build: Callable[..., Callable[[Array], dict[str, Array]]],
    rng_key: Array,
    program: Program,
    labels: dict[str, Fields],
    *,
    draws: int,
    batch: int = 16,
    chains: int | None = None,
    settings: dict[str, Any] | None = None,
    method: str,
    approximate: bool,
    record: dict[str, Any] | None = None,
    on_batch: Callable[[int], None] = lambda done: None,
    keep: Path | None = None,
) -> Posterior:
    """`draws` draws of a program by the sampler that `build(program, prior, **settings)` makes.

    A sampler is a pure function of a key, written for one draw: it returns the arrays of a draw by name, "field" in
    physical units, "theta/NAME" for each unknown parameter and "stats/NAME" for what is worth keeping. It is mapped
    over the keys of a batch and compiled once a shape; `build` and the values of `settings` are static. With `chains`
    each key makes a chain, and every array of the sampler has its draws in front. `record` goes into the attributes,
    `on_batch` hears how many draws are done, `keep` is a folder for finished batches, from which a killed run goes on.
    """
    prior, abstract, began = program.prior, program.abstract(), time.monotonic()
    static = tuple(sorted((settings or {}).items()))
    given = (unlabelled(prior), program.data if reads_times(program) else unlabelled(program.data), program.given)
    draw_batch = lambda keys: _draw_batch(build, static, abstract, *given, keys)
    mark = {}
    if keep is not None:
        made_of = rng_key, program.model, prior, prior.coords, program.data, program.given, build, static
        mark = fingerprint(made_of, structure((prior, program.data, static)), repr((method, record)))
    keys = draw_keys(rng_key, draws if chains is None else chains)
    length = 1 if chains is None else draws // chains
    arrays = in_batches(draw_batch, keys, batch, on_batch=lambda n: on_batch(n * length), keep=keep, mark=mark)
    if chains is not None:
        arrays = {k: v.reshape(-1, *v.shape[2:]) for k, v in arrays.items()}
    check_density(arrays.pop("impossible"))
    part = lambda name: {k.removeprefix(f"{name}/"): v for k, v in arrays.items() if k.startswith(f"{name}/")}
    n = arrays["field"].shape[0]
    fixed = {k: np.broadcast_to(v, (n, *np.shape(v))) for k, v in program.given.items()}
    attrs = provenance(
        method,
        approximate=int(approximate),
        **(record or {}),
        prior_sha256=fingerprint(prior)["sha256"],
        sampling_seconds=round(time.monotonic() - began, 3),
        model_name=getattr(program.model, "__name__", "model"),
        model_source=source_of(program.model),
        model_graph=json.dumps(model_graph(program)),
    )
    observed = program.observed_values()
    return Posterior(
        program.field, arrays["field"], part("theta") | fixed, part("stats"), observed, prior.coords, labels, attrs,
        chains or 1, part("log_likelihood"),
    )  # fmt: skip


@eqx.filter_jit
def _draw_batch(
    build: Callable,
    settings: tuple,
    abstract: AbstractProgram,
    prior: FieldPrior,
    data: tuple,
    given: Theta,
    keys: Array,
) -> dict[str, Array]:
    """One batch. Arrays are arguments (prior, data, given), the rest is static: one compile a shape."""
    program = abstract.bind(data, given)
    draw = build(program, prior, **dict(settings))

    def with_stats(key: Array) -> dict[str, Array]:
        arrays = draw(key)
        fields = arrays["field"]
        theta = {k.removeprefix("theta/"): v for k, v in arrays.items() if k.startswith("theta/")}

        def of_one(x: Array, theta: Theta) -> dict[str, Array]:
            pointwise = {f"log_likelihood/{name}": value for name, value in program.pointwise(x, theta).items()}
            density, drawn = finite(program.log_likelihood(x, theta)), finite((x, theta))
            stats = {"coarse_residual": coarse_residual(program, x, theta), "diverging": ~(drawn & density)}
            return (
                {f"stats/{name}": value for name, value in stats.items()} | pointwise | {"impossible": drawn & ~density}
            )

        found = (jax.vmap(of_one) if fields.ndim == 5 else of_one)(fields, theta)
        if "stats/diverging" in arrays:  # of a sampler that has its own reasons, such as NUTS
            found["stats/diverging"] |= arrays["stats/diverging"]
        return arrays | found

    return jax.vmap(with_stats)(keys)


def check_density(impossible: np.ndarray) -> None:
    """Raise or warn where the data have no density given what was drawn, `impossible` (draw,) bool."""
    if impossible.all():
        raise FloatingPointError(
            f"expected data with a density under the program, got none (zero or not a number) given each of "
            f"{impossible.size} draws; check the support of the data, their units and the noise scale"
        )
    if impossible.any():
        warnings.warn(
            f"given {int(impossible.sum())} of {impossible.size} draws the data have no density (zero or not a number) "
            "under the program; these draws are among those marked in sample_stats.diverging and must not be used",
            RuntimeWarning,
            stacklevel=3,
        )


def coarse_residual(program: Program, x: Array, theta: Theta) -> Array:
    """Root mean square of the observed Normal sites' residuals in units of their noise; NaN for other sites."""
    try:
        terms = program.gaussian_terms(x, theta)
    except ProgramError:
        return jnp.asarray(jnp.nan)
    squares = sum(jnp.sum(t.residual**2 / t.variance) for t in terms)
    return jnp.sqrt(squares / sum(jnp.sum(jnp.isfinite(t.variance)) for t in terms))
