"""Training windows from the data to the device: cut on the host, one batch ahead, spread over devices.

Values may be an array in memory or anything that gives one for a slice of time steps, such as `Anomalies` of a Zarr
store larger than memory. Which windows make a batch depends on the seed and the step alone, so a training that is
resumed, or fed from disk instead of memory, goes the same way.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bayesdownscale.prior.denoiser import Context
from bayesdownscale.prior.standardise import Standardisation

PIECE, SPANS = 2**24, 24  # numbers read at once; spans of a sample
KEPT = 2**28  # numbers of windows kept in memory, 1 GiB


@runtime_checkable
class Values(Protocol):
    """Fields (time, variable, lat, lon) from which time steps can be read."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, steps: slice, /) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Anomalies:
    """Physical `values` standardised as they are read, a slice of time steps at a time."""

    values: Values
    standardisation: Standardisation
    context: Context

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __getitem__(self, steps: slice) -> np.ndarray:
        at = Context(self.context.hour[steps], self.context.day[steps])
        return np.asarray(_forward(self.standardisation, np.asarray(self.values[steps], np.float32), at))


class Remembered:
    """`values`, of which the slices that were read are kept in memory, up to `most` numbers: for windows that are cut
    again and again, such as those of validation."""

    def __init__(self, values: Values, most: int = KEPT):
        self.values, self.room = values, most
        self.kept: dict[tuple[int | None, int | None], np.ndarray] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __getitem__(self, steps: slice) -> np.ndarray:
        key = steps.start, steps.stop
        if key in self.kept:
            return self.kept[key]
        read = np.asarray(self.values[steps])
        if read.size <= self.room:
            self.room -= read.size
            self.kept[key] = read
        return read


@jax.jit
def _forward(standardisation: Standardisation, x: Any, at: Context) -> Any:
    return standardisation.forward(x, at)


def scan(values: Values) -> tuple[np.ndarray, str]:
    """Which time steps (time,) have missing values, and the SHA-256 of all of them, read once in pieces."""
    digest, missing = hashlib.sha256(), []
    step = max(1, PIECE // max(1, int(np.prod(values.shape[1:]))))
    for start in range(0, values.shape[0], step):
        piece = np.ascontiguousarray(values[start : start + step])
        digest.update(piece)
        missing.append(~np.isfinite(piece).all(axis=tuple(range(1, piece.ndim))))
    return np.concatenate(missing), digest.hexdigest()


def some_steps(usable: np.ndarray, cells: int, most: int, window: int) -> np.ndarray:
    """Positions of all `usable` (time,) steps where they hold at most `most` numbers, of `cells` each; otherwise of
    those in at most 24 equal spans, evenly spread and each four times `window` long or longer, that do."""
    if usable.sum() * cells <= most:
        return np.flatnonzero(usable)
    n = int(np.clip(most // (4 * window * cells), 1, SPANS))
    length = min(usable.size, max(window, most // (n * cells)))
    chosen = np.unique(np.linspace(0, usable.size - length, n).astype(int)[:, None] + np.arange(length))
    return chosen[usable[chosen]]


class Windows(NamedTuple):
    """Training windows: `values` (time, variable, lat, lon) standardised, `context` of every time step, and the
    first time step of each window (n_windows,)."""

    values: Values
    context: Context
    starts: np.ndarray

    def cut(self, starts: np.ndarray, length: int) -> "Batch":
        """The windows of `length` time steps that begin at `starts` (...), as (..., time, variable, lat, lon)."""
        index = starts[..., None] + np.arange(length)
        read = np.stack([np.asarray(self.values[s : s + length], np.float32) for s in starts.ravel().tolist()])
        hour, day = (np.asarray(each)[index] for each in (self.context.hour, self.context.day))
        return Batch(read.reshape(*starts.shape, *read.shape[1:]), hour, day)

    def some(self, most: int) -> "Windows":
        """At most so many of the windows, evenly spread."""
        chosen = np.linspace(0, self.starts.size - 1, min(most, self.starts.size)).astype(int)
        return self._replace(starts=self.starts[chosen])


class Batch(NamedTuple):
    """Windows `x` (..., time, variable, lat, lon), and the `hour` and `day` (..., time) of their `Context`."""

    x: Any
    hour: Any
    day: Any

    @property
    def context(self) -> Context:
        return Context(self.hour, self.day)


def ahead(load: Callable[[int], Any], first: int) -> Iterator[Any]:
    """`load(first)`, `load(first + 1)`, ...: the next is loaded while the last is used."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        waiting = reader.submit(load, first)
        while True:
            first += 1
            ready, waiting = waiting.result(), reader.submit(load, first)
            yield ready


def layouts(devices: list[Any], size: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Two functions that move trees of arrays to `devices`: one lays them out along their second axis, of `size`
    windows at once; the other copies them to every device.

    Raises ValueError where the size is not a multiple of the number of devices.
    """
    if size % len(devices):
        raise ValueError(
            f"expected windows that {len(devices)} devices can share, got {size} at once; choose a batch, divided by "
            "the parts it is accumulated in, that is a multiple"
        )
    mesh = Mesh(np.asarray(devices), ("window",))
    apart, everywhere = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in ((None, "window"), ()))
    return lambda tree: jax.device_put(tree, apart), lambda tree: jax.device_put(tree, everywhere)
