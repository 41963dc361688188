"""Float32 that stays float32: the matrix products of everything but the network.

GPUs and TPUs round the factors of a float32 product to TF32 or bfloat16, 10 or 7 bits of mantissa, unless they are told
not to (`jax_default_matmul_precision`). A pressure of 101 325 Pa is then wrong by up to 32 Pa in its own area mean. A
network bears that, as it bears `in_bfloat16`, and is faster by it: it follows the user's setting. Units, operators,
covariances and likelihoods do not; they are small, and always computed in full.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from bayesdownscale._types import Scalar


def full_precision[**P, T](function: Callable[P, T]) -> Callable[P, T]:
    """`function` with all matrix products in float32, in its derivatives too."""

    @functools.wraps(function)
    def in_full(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return in_full


def inner(a: Array, b: Array) -> Scalar:
    """The sum of products of all elements of two arrays of one shape."""
    return jnp.vdot(a, b, precision="highest")
