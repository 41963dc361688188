"""Physical to standardised units and back: remove the climatology of the hour and the season, then scale."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesdownscale._precision import full_precision
from bayesdownscale._types import Field
from bayesdownscale.prior.denoiser import Context

DAY, YEAR = 24.0, 365.2425


def harmonics(context: Context, season: bool) -> Float[Array, "time harmonic"]:
    """Two harmonics of the day, times one of the year when `season`: (time, 5) or (time, 15)."""
    hour, day = 2 * jnp.pi * context.hour / DAY, 2 * jnp.pi * context.day / YEAR
    one = jnp.ones_like(hour)
    daily = jnp.stack([one, jnp.cos(hour), jnp.sin(hour), jnp.cos(2 * hour), jnp.sin(2 * hour)], axis=-1)
    if not season:
        return daily
    yearly = jnp.stack([one, jnp.cos(day), jnp.sin(day)], axis=-1)
    return (daily[:, :, None] * yearly[:, None, :]).reshape(hour.size, -1)


class Standardisation(eqx.Module):
    """x_physical = climatology(hour, day) + scale * x_standardised, cell by cell.

    `coefficients` (harmonic, variable, lat, lon) and `scale` (variable,) in physical units.
    """

    coefficients: Float[Array, "harmonic variable lat lon"]
    scale: Float[Array, " variable"]

    @staticmethod
    def identity(shape: tuple[int, int, int]) -> "Standardisation":
        """No change of units, for fields whose cells have `shape` (variable, lat, lon)."""
        return Standardisation(jnp.zeros((5, *shape)), jnp.ones(shape[0]))

    @property
    def season(self) -> bool:
        return self.coefficients.shape[0] == 15

    @full_precision
    def climatology(self, context: Context) -> Field:
        """The mean field at the context's hours, in physical units."""
        return jnp.tensordot(harmonics(context, self.season), self.coefficients, axes=1)

    def forward(self, x: Field, context: Context) -> Field:
        return (x - self.climatology(context)) / self.scale[None, :, None, None]

    def backward(self, x: Field, context: Context) -> Field:
        return self.climatology(context) + self.scale[None, :, None, None] * x


def fit_standardisation(values: np.ndarray, context: Context, folds: int = 4) -> tuple[Standardisation, np.ndarray]:
    """Least-squares climatology of `values` (time, variable, lat, lon), and cross-fitted anomalies.

    The anomalies of each of `folds` contiguous spans are taken from the climatology of the other spans, so
    that their variance is that of weather *not* seen when the climatology was fitted: anomalies from the
    climatology's own data are too small, and a prior made from them over-confident. The season enters when the
    data cover at least 300 different days of the year.
    """
    season = np.unique(np.asarray(context.day)).size >= 300
    basis = np.asarray(harmonics(context, season), np.float64)
    flat = values.reshape(values.shape[0], -1).astype(np.float64)
    solve = lambda keep: np.linalg.lstsq(basis[keep], flat[keep], rcond=None)[0]
    fold = np.arange(flat.shape[0]) * folds // flat.shape[0]
    anomalies = np.empty_like(flat)
    for f in range(folds):
        anomalies[fold == f] = flat[fold == f] - basis[fold == f] @ solve(fold != f)
    anomalies = anomalies.reshape(values.shape)
    scale = np.maximum(anomalies.std(axis=(0, 2, 3)), np.finfo(np.float32).tiny)
    coefficients = solve(slice(None)).reshape(-1, *values.shape[1:])
    standardisation = Standardisation(jnp.asarray(coefficients, jnp.float32), jnp.asarray(scale, jnp.float32))
    return standardisation, (anomalies / scale[:, None, None]).astype(np.float32)
