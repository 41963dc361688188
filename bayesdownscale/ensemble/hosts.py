"""Several processes that draw one job together (`jax.distributed`): the first decides and writes, all compute."""

import jax
import numpy as np


def several() -> bool:
    """Whether JAX spans several processes, which then must start every computation together."""
    return jax.process_count() > 1


def first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def agreed(numbers: np.ndarray | list[int]) -> np.ndarray:
    """The whole `numbers` of the first process, in every process; all call it together, with as many numbers."""
    numbers = np.asarray(numbers, np.int32)
    if not several():
        return numbers
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return np.asarray(broadcast_one_to_all(numbers))
