"""The network in half precision, for accelerators that are fast at it."""

import copy

import jax
import jax.numpy as jnp

from bayesdownscale.prior.distribution import FieldPrior
from bayesdownscale.prior.network import UNet


def in_bfloat16(prior: FieldPrior) -> FieldPrior:
    """The same prior with a network that computes in bfloat16, 8 bits of mantissa (Kalamkar et al. 2019,
    arXiv 1905.12322).

    Weights and activations of the U-Net are rounded; its norms and softmax, and all around it stay float32: the
    Gaussian that it corrects, the preconditioning, guidance, the state of the solver and the noise. Draws by the same
    keys change, and processors take, as `python -m benchmarks.precision` measures. Raises `ValueError` for a prior
    without a network.
    """
    is_network = lambda node: isinstance(node, UNet)
    if not any(map(is_network, jax.tree.leaves(prior.denoiser, is_leaf=is_network))):
        raise ValueError(
            f"expected a prior with a network, got one of {type(prior.denoiser).__name__}; a Gaussian stays in float32"
        )
    half = lambda leaf: leaf.astype(jnp.bfloat16)
    lower = lambda node: jax.tree.map(half, node) if is_network(node) else node
    changed = copy.copy(prior)
    changed.denoiser = jax.tree.map(lower, prior.denoiser, is_leaf=is_network)
    return changed
