"""Where Gibbs sweeps start: parameters from an approximation of p(theta | y), the field integrated out.

Given a noise scale near zero the field fits the data, and given a field that fits them the scale stays near zero:
sweeps that start there hardly leave. So the first parameters are not drawn from their prior but resampled from it
(Rubin 1987, JASA 82, 543) with the evidence of the data under a Gaussian field,

    log N(r(0, theta); 0, A V A^T + B P^-1 B^T + R(theta)),

r(x, theta) the residuals of the observed Normal sites, R their variances, A their Jacobian in the standardised field at
zero, V the covariance of the prior as its denoiser knows it, and B and P the Jacobian and prior precision of those
parameters that are integrated out with the field. A V A^T is computed once, or, in a program whose A depends on theta
(a gain, an unknown footprint), for each candidate, from fewer data. Exact, as the number of candidates grows, for a
Gaussian prior with linear-Gaussian data; elsewhere a start from which sweeps go on.
"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.interpreters import partial_eval
from jaxtyping import Array, Float

from bayesdownscale._precision import full_precision
from bayesdownscale._types import Key, Scalar
from bayesdownscale.likelihood.program import Program, ProgramError, Theta
from bayesdownscale.likelihood.terms import GaussianTerm, stacked
from bayesdownscale.prior.denoiser import AbstractSpreadDenoiser
from bayesdownscale.prior.distribution import FieldPrior

CANDIDATES = 256
MOST_DATA, MOST_NUMBERS = 256, 2**26  # of the Jacobian A; more data are thinned
MOST_MOVING, MOST_MOVING_NUMBERS = 64, 2**22  # the same where each candidate has an A of its own
MISSING = 1e6  # variance of a datum that is not there, in units of the largest of A V A^T


@full_precision
def start_theta(key: Key, program: Program, prior: FieldPrior, collapse: tuple[str, ...] = ()) -> Theta:
    """One draw of the unknown parameters of `program`, those in `collapse` integrated out (their values are from the
    prior). Where noise is not Normal, or the denoiser does not know its covariance, a draw from the prior."""
    if not program.latents:
        return {}
    k_candidates, k_choice = jax.random.split(key)
    denoiser = prior.denoiser
    if not isinstance(denoiser, AbstractSpreadDenoiser):
        return program.draw_theta(k_candidates)
    try:
        n = _terms(program, prior, jnp.zeros(prior.event_shape), program.draw_theta(k_candidates))[0].size
    except ProgramError:
        return program.draw_theta(k_candidates)
    size = jnp.zeros(prior.event_shape).size
    candidates = jax.vmap(program.draw_theta)(jax.random.split(k_candidates, CANDIDATES))
    first = jax.tree.map(lambda values: values[0], candidates)
    moving = _moves(program, prior, first, collapse)
    most, numbers = (MOST_MOVING, MOST_MOVING_NUMBERS) if moving else (MOST_DATA, MOST_NUMBERS)
    some = jnp.arange(0, n, -(-n // max(1, min(most, numbers // size))))
    of_means = lambda theta: _of_means(program, prior, denoiser, _at_zero(theta, collapse), some)
    covariance = None if moving else of_means(first)

    def log_evidence(theta: Theta) -> Scalar:
        own = of_means(theta) if covariance is None else covariance
        return _log_evidence(program, prior, theta, collapse, own, some)

    log_weights = jax.lax.map(log_evidence, candidates, batch_size=1 if moving else 16)
    chosen = jax.random.categorical(k_choice, jnp.where(jnp.isfinite(log_weights), log_weights, -jnp.inf))
    return jax.tree.map(lambda values: values[chosen], candidates)


def _at_zero(theta: Theta, collapse: tuple[str, ...]) -> Theta:
    return {**theta, **{name: jnp.zeros_like(jnp.asarray(theta[name])) for name in collapse}}


def _moves(program: Program, prior: FieldPrior, theta: Theta, collapse: tuple[str, ...] = ()) -> bool:
    """Whether the Jacobian of the residuals in the field depends on the unknown parameters, as their computation says:
    known before any number is."""
    zero = jnp.zeros(prior.event_shape)
    residual = lambda x, theta: _terms(program, prior, x, _at_zero(theta, collapse))[0]
    along = lambda theta, v: jax.jvp(lambda x: residual(x, theta), (zero,), (v,))[1]
    computation = jax.make_jaxpr(along)(theta, zero).jaxpr
    _, used = partial_eval.dce_jaxpr(computation, [True] * len(computation.outvars))
    return any(used[: len(jax.tree.leaves(theta))])


def _terms(program: Program, prior: FieldPrior, x: Array, theta: Theta) -> GaussianTerm:
    """Residuals and variances of all data, (data,) each, given a standardised field."""
    return stacked(program.gaussian_terms(prior.standardisation.backward(x, prior.context), theta))


def _of_means(
    program: Program, prior: FieldPrior, denoiser: AbstractSpreadDenoiser, theta: Theta, some: Array
) -> Float[Array, "data data"]:
    """A V A^T of the data `some`."""
    zero = jnp.zeros(prior.event_shape)
    _, pull = jax.vjp(lambda x: _terms(program, prior, x, theta)[0][some], zero)
    rows = jax.lax.map(lambda e: pull(e)[0], jnp.eye(some.size), batch_size=16)
    spread = jax.lax.map(lambda row: denoiser.covariance(row, jnp.asarray(prior.levels.sigma_max)), rows, batch_size=16)
    flat = lambda fields: fields.reshape(some.size, -1)
    return flat(rows) @ flat(spread).T


def _log_evidence(
    program: Program, prior: FieldPrior, theta: Theta, collapse: tuple[str, ...], covariance: Array, some: Array
) -> Scalar:
    zero = jnp.zeros(prior.event_shape)
    if collapse:
        w, unravel = ravel_pytree({name: jnp.zeros_like(jnp.asarray(theta[name])) for name in collapse})
        given = lambda w: {**theta, **unravel(w)}
        B = jax.jacfwd(lambda w: _terms(program, prior, zero, given(w))[0][some])(w)
        precision = -jax.hessian(lambda w: program.log_prior(given(w), collapse))(w)
        covariance, theta = covariance + B @ jnp.linalg.solve(precision, B.T), given(w)
    residual, variance = (values[some] for values in _terms(program, prior, zero, theta))
    largest = jnp.max(jnp.diag(covariance))
    variance = jnp.where(jnp.isfinite(variance), variance, MISSING * largest) + 1e-6 * largest
    root = jnp.linalg.cholesky(covariance + jnp.diag(variance))
    scaled = jax.scipy.linalg.solve_triangular(root, residual, lower=True)
    return -0.5 * jnp.sum(scaled**2) - jnp.sum(jnp.log(jnp.diag(root)))
