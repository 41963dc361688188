"""A Gaussian prior over variables that are not Gaussian: made Gaussian cell by cell, dry days filled, then fitted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import jax.numpy as jnp
import numpy as np

from bayesdownscale._types import Key
from bayesdownscale.data.censored import fill
from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords
from bayesdownscale.data.transform import Anamorphosis
from bayesdownscale.prior.denoiser import AbstractSpreadDenoiser
from bayesdownscale.prior.distribution import FieldPrior, GaussianPrior
from bayesdownscale.prior.fit_gaussian import fit_gaussian
from bayesdownscale.prior.noise import NoiseLevels
from bayesdownscale.prior.standardise import Standardisation
from bayesdownscale.prior.training import usual_step
from bayesdownscale.prior.windows import WindowedDenoiser

PATTERNS = 15  # of the variables without dry days, that dry days are filled with


@dataclass(frozen=True, eq=False)
class LatentPrior:
    """`prior`, a NumPyro distribution over latent fields z (time, variable, lat, lon) of mean 0 and variance 1, and the
    `transform` that makes weather of them: x = transform.backward(z), physical, with precipitation exactly 0 on dry
    days. `latent`, the training fields as the prior sees them.

    A field with N(0, 1) in each cell and Gaussian dependence is a Gaussian copula of the variables themselves.
    """

    prior: FieldPrior
    transform: Anamorphosis
    latent: Fields

    @staticmethod
    def fit(
        fields: Fields,
        window: int,
        dry: Mapping[str, float] | None = None,
        *,
        n_modes: int = 400,
        shrink_space: float = 0.1,
        shrink_time: float = 0.1,
        sweeps: int = 40,
        seed: int = 0,
        on_sweep: Callable[[int], None] = lambda sweep: None,
    ) -> "LatentPrior":
        """The Gaussian prior over `window` steps of time of the latent fields of `fields`.

        **Arguments:** `fields` (time, variable, lat, lon) without missing values; gaps in time, as between winters, are
        no steps; `dry`, as for `Anamorphosis.fit`; `n_modes`, `shrink_space` and `shrink_time` as for `fit_gaussian`,
        smaller since a thousand days or more are expected; `sweeps` of `fill`.
        **Raises:** `DataError` as `Anamorphosis.fit`.
        """
        transform = Anamorphosis.fit(fields, dry)
        latent = latent_fields(fields, transform, sweeps, seed, on_sweep)
        breaks = np.flatnonzero(~follows(fields.times))
        spans = [slice(a, b) for a, b in pairwise([*breaks.tolist(), fields.times.size])]
        field = fit_gaussian(
            latent.values, fields.grid, window, spans,
            n_modes=n_modes, shrink_space=shrink_space, shrink_time=shrink_time,
        )  # fmt: skip
        times = fields.times[0] + np.arange(window) * usual_step(fields.times)
        coords = Coords(times, latent.variables, fields.grid)
        levels = NoiseLevels.covering(float(jnp.sqrt(jnp.max(field.variances))))
        prior = GaussianPrior(field, Standardisation.identity(coords.shape[1:]), levels, coords)
        return LatentPrior(prior, transform, latent)

    def windowed(self, stride: int | None = None) -> FieldPrior:
        """The prior of latent trajectories of any length, its window now one of many, every `stride` steps (default:
        half of it): what `Ensemble` draws from. Give its values to `transform.backward`."""
        prior, window = self.prior, self.prior.times.size
        inner = prior.denoiser
        assert isinstance(inner, AbstractSpreadDenoiser)  # of a Gaussian
        denoiser = WindowedDenoiser(inner, window, stride or max(window // 2, 1))
        return FieldPrior(denoiser, prior.standardisation, prior.levels, prior.coords)

    def draw(self, key: Key, draws: int) -> np.ndarray:
        """Weather of the prior: (draw, time, variable, lat, lon), physical units."""
        return np.asarray(self.transform.backward(np.asarray(self.prior.sample(key, (draws,)))))


def follows(times: np.ndarray) -> np.ndarray:
    """Whether each of `times` (n,) is one usual step after the one before it."""
    return np.append(False, np.diff(times) == usual_step(times))


def latent_fields(
    fields: Fields,
    transform: Anamorphosis,
    sweeps: int = 40,
    seed: int = 0,
    on_sweep: Callable[[int], None] = lambda sweep: None,
) -> Fields:
    """`fields` as latent ones, dry days filled (`censored.fill`) with the leading patterns of the variables that have
    none as covariates; each variable with dry days by itself."""
    z = transform.forward(fields.values)
    n, n_var = z.shape[:2]
    flat = z.reshape(n, n_var, -1)
    censored = [v for v in range(n_var) if np.isfinite(transform.dry[v])]
    known = [v for v in range(n_var) if v not in censored]
    covariates = np.zeros((n, 0))
    if known:
        u, _, _ = np.linalg.svd(flat[:, known].reshape(n, -1).astype(np.float64), full_matrices=False)
        covariates = u[:, :PATTERNS] * np.sqrt(n)
    for v in censored:
        distance, floor = fields.grid.distances_km(), transform.floor[v].ravel()
        after = follows(fields.times)
        flat[:, v] = fill(flat[:, v], floor, distance, after, covariates, sweeps, seed + v, on_sweep)
    return transform.latent(fields, flat.reshape(z.shape))
