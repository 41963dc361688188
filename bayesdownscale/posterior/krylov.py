"""The guarded Krylov solve of moment matching."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bayesdownscale._precision import inner
from bayesdownscale._types import Count, Field, Scalar


class Solution(NamedTuple):
    """The `u` found, `shift` = V u, `residual` = g - (I + W V) u, and the number of `iterations`, each one
    product with V."""

    u: Field
    shift: Field
    residual: Field
    iterations: Count


class _State(NamedTuple):
    u: Field
    shift: Field
    r: Field
    p: Field
    v_p: Field
    rho: Scalar
    rho_0: Scalar
    k: Count
    going: jax.Array


def solve_shift(
    covariance: Callable[[Field], Field],
    curvature: Callable[[Field], Field],
    gradient: Field,
    max_iterations: int | Count,
    tolerance: float,
) -> Solution:
    """V u for (I + W V) u = g, with V = `covariance`, W = `curvature` and g = `gradient`.

    Conjugate gradients in the inner product <a, b> = a^T V b, in which I + W V is symmetric and positive where
    W is; one product with V an iteration, and V u comes with it. A network's V is neither symmetric nor
    positive, so the solve stops, with what it has, at the first direction of non-positive or non-finite length;
    it never returns a value that is not finite. It stops too at the first direction along which W bends the
    wrong way; if that is the very first, it is followed without W, and the caller has to search along it.
    """
    usable = lambda a: jnp.isfinite(a) & (a > 0)

    def step(s: _State) -> _State:
        first = s.k == 0
        v_r = covariance(s.r)
        rho = inner(s.r, v_r)
        rho_0 = jnp.where(first, rho, s.rho_0)
        beta = jnp.where(first, 0.0, rho / s.rho)
        p, v_p = s.r + beta * s.p, v_r + beta * s.v_p
        w_v_p = curvature(v_p)
        length, bend = inner(p, v_p), inner(v_p, w_v_p)
        concave = bend >= 0
        alpha = rho / (length + jnp.where(concave, bend, 0.0))
        u, shift, r = s.u + alpha * p, s.shift + alpha * v_p, s.r - alpha * (p + w_v_p)
        finite = jnp.all(jnp.isfinite(u) & jnp.isfinite(shift) & jnp.isfinite(r))
        left = first | (rho > tolerance**2 * rho_0)
        good = usable(rho) & usable(length) & (concave | first) & left & finite
        keep = lambda new, old: jnp.where(good, new, old)
        going = good & concave & (s.k + 1 < max_iterations)
        return _State(keep(u, s.u), keep(shift, s.shift), keep(r, s.r), p, v_p, rho, rho_0, s.k + 1, going)

    zero, one = jnp.zeros_like(gradient), jnp.ones((), gradient.dtype)
    start = _State(
        zero, zero, gradient, zero, zero, one, one, jnp.zeros((), jnp.int32), jnp.all(jnp.isfinite(gradient))
    )
    end = jax.lax.while_loop(lambda s: s.going, step, start)
    return Solution(end.u, end.shift, end.r, end.k)
