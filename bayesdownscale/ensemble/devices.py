"""One block over several devices, of one host or many: members along one axis of a mesh, windows along the other.

The compiler splits the work (`jax.jit` with `NamedSharding`), so the code and the draws are those of one device. Over
hosts, call `jax.distributed.initialize` first, then the same `Solver` with the same arguments in every process.
"""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree


def mesh_over(members: int, windows: int) -> NamedSharding:
    """How windows lie on `members` x `windows` devices. Raises `ValueError` where there are fewer."""
    devices = jax.devices()
    if members < 1 or windows < 1 or members * windows > len(devices):
        raise ValueError(
            f"expected at most {len(devices)} devices, which JAX sees, got {members} x {windows}; ask for fewer or set "
            "jax_num_cpu_devices before JAX computes"
        )
    grid = np.asarray(devices[: members * windows]).reshape(members, windows)
    return NamedSharding(Mesh(grid, ("member", "window")), PartitionSpec("window"))


def spread(members: Any, place: NamedSharding) -> jax.Array:
    """The numbers of the members, laid along the mesh's first axis, whose size must divide their number."""
    n, devices = len(members), place.mesh.shape["member"]
    if n % devices:
        raise ValueError(f"expected a multiple of {devices} members, one or more for each device, got {n}")
    return jax.device_put(np.asarray(members, np.int32), NamedSharding(place.mesh, PartitionSpec("member")))


def everywhere(tree: PyTree, place: NamedSharding) -> PyTree:
    """The arrays of a tree on every device of the mesh."""
    return eqx.filter_shard(tree, NamedSharding(place.mesh, PartitionSpec()))
