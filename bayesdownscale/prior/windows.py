"""Windows: a denoiser of short windows composed into a denoiser of a trajectory of any length."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from bayesdownscale._types import Field, Key, Scalar
from bayesdownscale.prior.denoiser import AbstractSpreadDenoiser, Context, Cost


def window_layout(length: int, window: int, stride: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First steps of the windows (n_windows,), and for each of `length` time steps the window it is taken
    from and its place inside that window, (length,) each.

    Windows start every `stride` steps; the last one is moved back to end with the trajectory. A step is taken
    from the window whose middle is nearest, so a margin of about (window - stride) / 2 steps on either side of
    a window is only context, except at the ends of the trajectory.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"expected a stride between 1 and the window of {window} steps, got {stride}")
    if length < window:
        raise ValueError(
            f"expected a trajectory of at least {window} time steps, the window of this prior, got {length}; "
            "ask for a longer span and keep the hours you need"
        )
    starts = np.unique(np.append(np.arange(0, length - window, stride), length - window))
    middles = starts + (window - 1) / 2
    chosen = np.argmin(np.abs(np.arange(length)[:, None] - middles), axis=1)
    return starts, chosen, np.arange(length) - starts[chosen]


class WindowedDenoiser(AbstractSpreadDenoiser):
    """D of a trajectory from D of its windows: every window is denoised with the others in one batch, and each
    time step is taken from the window in which it lies most centrally (Schmidt et al. 2025, arXiv 2412.15361,
    who keep one centre step of every stride-1 window; a stride > 1 costs window / stride instead).

    What a step far outside its window knows about it is lost: exact when the process is Markov and the margin
    covers its memory at the given noise level, otherwise an approximation that grows with sigma.

    Its covariance is that of overlapping windows, each step's variance shared among the windows that hold it:
    exact within a window's middle, and falling to zero over the overlap between hours that no window sees together.

    With a `batch` no more windows than that are in memory at once, those of a product with the Jacobian included:
    it computes them again instead of keeping what they left. `place` lays the windows over the devices of a mesh.
    """

    inner: AbstractSpreadDenoiser
    window: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)
    batch: int | None = eqx.field(static=True, default=None)
    place: jax.sharding.NamedSharding | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if not isinstance(self.inner, AbstractSpreadDenoiser):
            raise TypeError(
                f"expected a denoiser that knows the covariance of its errors for windows, got "
                f"{type(self.inner).__name__}; define `covariance` and `draw_error` (AbstractSpreadDenoiser)"
            )

    def evaluate(self, x_sigma: Field, sigma: Scalar, context: Context) -> tuple[Field, Cost]:
        starts, chosen, place = window_layout(x_sigma.shape[0], self.window, self.stride)
        if starts.size == 1:
            return self.inner.evaluate(x_sigma, sigma, context)
        index = self._for_devices(starts[:, None] + np.arange(self.window))
        windows = self._laid((x_sigma[index], Context(context.hour[index], context.day[index])))
        denoised = self._each(lambda window: self.inner(window[0], sigma, window[1]), windows)
        return denoised[jnp.asarray(chosen), jnp.asarray(place)], Cost.of(evaluations=1)

    def covariance(self, v: Field, sigma: Scalar) -> Field:
        index, weight = self._shares(v.shape[0])
        index, weight = self._for_devices(index), self._for_devices(weight, repeated=0.0)
        products = self._each(lambda window: self.inner.covariance(window, sigma), self._laid(weight * v[index]))
        return jnp.zeros_like(v).at[index].add(weight * products)

    def draw_error(self, key: Key, sigma: Scalar, shape: tuple[int, int, int, int]) -> Field:
        index, weight = self._shares(shape[0])
        draw = lambda key: self.inner.draw_error(key, sigma, (self.window, *shape[1:]))
        errors = self._each(draw, jax.random.split(key, len(index)))
        return jnp.zeros(shape).at[index].add(weight * errors)

    def _each(self, one: Callable, windows: Any) -> Array:
        """`one` of each of the `windows`, `batch` of them at once."""
        n = len(jax.tree.leaves(windows)[0])
        if self.batch is None or self.batch >= n:
            return jax.vmap(one)(windows)
        return jax.lax.map(jax.checkpoint(one), windows, batch_size=self.batch)

    def _laid(self, windows: Any) -> Any:
        """The same `windows`, divided among devices."""
        return windows if self.place is None else jax.lax.with_sharding_constraint(windows, self.place)

    def _for_devices(self, rows: np.ndarray, repeated: float = 1.0) -> np.ndarray:
        """So many rows that every device gets as many: the last one, times `repeated`, stands for those missing."""
        if self.place is None:
            return rows
        more = np.repeat(repeated * rows[-1:], -len(rows) % self.place.num_devices, axis=0)
        return np.concatenate([rows, more.astype(rows.dtype)])

    def _shares(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """The time steps of each window (window, step), and the root of its share in each of them."""
        starts, _, _ = window_layout(length, self.window, self.stride)
        index = starts[:, None] + np.arange(self.window)
        part = np.broadcast_to(np.hanning(self.window + 2)[1:-1], index.shape)
        share = np.bincount(index.ravel(), part.ravel())
        weight = np.sqrt(part / share[index])
        return index, weight[:, :, None, None, None].astype(np.float32)
