"""Several processes that draw one job together (`jax.distributed`): the first decides and writes, all compute.

Where the first fails at what it does alone (a full disk, a store of another run) all end, each with a sentence. Where a
process is killed, JAX ends the others: within seconds if it was the first, else once its heartbeat is missed.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np


def several() -> bool:
    """Whether JAX spans several processes, which then must start every computation together."""
    return jax.process_count() > 1


def first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def decided(action: Callable[[], Sequence[int] | np.ndarray | None], n: int = 0) -> np.ndarray:
    """The `n` whole numbers that `action` returns in the first process, in every process; all call it together. With no
    numbers it may return nothing.

    What `action` raises is raised in the first process, and `ChildProcessError` in the others.
    """
    numbers, failure = np.zeros(1 + n, np.int32), None
    if first():
        try:
            found = action()
            numbers[1:] = [] if found is None else found
        except Exception as error:  # the others wait for an answer, whatever went wrong
            numbers[0], failure = 1, error
    numbers = _of_the_first(numbers)
    if failure is not None:
        raise failure
    if numbers[0]:
        raise ChildProcessError(
            "expected the first of several processes to go on, got its failure, which it has named; start all again "
            "once that is mended: finished jobs are safe"
        )
    return numbers[1:]


def _of_the_first(numbers: np.ndarray) -> np.ndarray:
    """The `numbers` of the first process."""
    if not several():
        return numbers
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return np.asarray(broadcast_one_to_all(numbers))
