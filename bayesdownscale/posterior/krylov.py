"""The guarded Krylov solve of moment matching."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bayesdownscale._types import Count, Field, Scalar


class Solution(NamedTuple):
    """`shift` = V u for the u found, and the number of `iterations`, each one product with V."""

    shift: Field
    iterations: Count


class _State(NamedTuple):
    shift: Field
    r: Field
    p: Field
    v_p: Field
    rho: Scalar
    k: Count
    going: jax.Array


def solve_shift(
    covariance: Callable[[Field], Field],
    curvature: Callable[[Field], Field],
    gradient: Field,
    max_iterations: int,
    tolerance: float,
) -> Solution:
    """V u for (I + W V) u = g, with V = `covariance`, W = `curvature` and g = `gradient`.

    Conjugate gradients in the inner product <a, b> = a^T V b, in which I + W V is symmetric and positive; one
    product with V an iteration, and V u comes with it. A network's V is neither symmetric nor positive, so the
    solve stops, with what it has, at the first direction of non-positive or non-finite length or curvature; it
    never returns a value that is not finite.
    """
    v_g = covariance(gradient)
    rho = jnp.vdot(gradient, v_g)
    usable = lambda a: jnp.isfinite(a) & (a > 0)

    def step(s: _State) -> _State:
        a_p = s.p + curvature(s.v_p)
        bend = jnp.vdot(s.v_p, a_p)
        alpha = s.rho / jnp.where(bend > 0, bend, 1.0)
        good = usable(bend) & jnp.isfinite(alpha)
        shift, r = s.shift + alpha * s.v_p, s.r - alpha * a_p
        good = good & jnp.all(jnp.isfinite(shift)) & jnp.all(jnp.isfinite(r))
        more = good & (s.k + 1 < max_iterations)
        v_r = covariance(r)
        new_rho = jnp.vdot(r, v_r)
        beta = new_rho / s.rho
        going = more & usable(new_rho) & (new_rho > tolerance**2 * rho)
        keep = lambda new, old: jnp.where(good, new, old)
        p, v_p = r + beta * s.p, v_r + beta * s.v_p
        return _State(keep(shift, s.shift), keep(r, s.r), p, v_p, new_rho, s.k + 1, going)

    zero = jnp.zeros_like(gradient)
    start = _State(
        zero, gradient, gradient, v_g, rho, jnp.zeros((), jnp.int32), usable(rho) & jnp.all(jnp.isfinite(v_g))
    )
    end = jax.lax.while_loop(lambda s: s.going, step, start)
    return Solution(end.shift, end.k)
