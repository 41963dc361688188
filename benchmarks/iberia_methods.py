"""The posterior of `benchmarks.iberia` and its baselines: coarse fields in, weather out."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import distance_transform_edt

import bayesdownscale as bd
from benchmarks.iberia_data import Data

SPAN = 30  # days that are drawn at once: a third of a winter
TIES = np.array([-np.inf, 0.01])  # tas, pr [mm/d]: coarse means below it differ by chance only


def program(prior, H, inside, noise, y=None):
    """z ~ prior, latent; y ~ Normal(means of z over the coarse cells inside, noise): (day, variable, cell, 1)."""
    z = numpyro.sample("weather", prior)
    means = H(z)[..., inside[0], inside[1]][..., None]
    numpyro.sample("coarse", dist.Normal(means, noise).to_event(4), obs=y)


def over_cells(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(day, variable, coarse lat, coarse lon) to (day, variable, cell), the cells inside."""
    return values[:, :, inside].astype(np.float64)


def learn_sight(latent: bd.LatentPrior, H, inside: np.ndarray, key: jax.Array) -> tuple[bd.ScoreMap, bd.Sight]:
    """The map from coarse values [degC, mm/d] to scores, and the `Sight` of these, from 40 draws of the prior."""
    z = np.asarray(latent.prior.sample(key, (40,))).reshape(-1, *latent.prior.event_shape[1:])
    means, seen = (over_cells(np.asarray(H(jnp.asarray(x))), inside) for x in (z, latent.transform.backward(z)))
    plain = bd.ScoreMap.fit(seen, means, TIES, recorrelate=False)
    return plain, bd.Sight.fit(plain(seen), means)


class Sampler:
    """Exact draws of latent weather given data: the prior's part of the data's covariance is computed once."""

    def __init__(self, latent: bd.LatentPrior, data: Data):
        H = bd.area_mean(data.fine.grid, data.coarse.grid)
        at = tuple(jnp.asarray(i) for i in np.nonzero(data.inside))
        shape = (SPAN, 2, at[0].size, 1)
        read, _ = bd.read_model(program, (latent.prior, H, at, jnp.ones(shape)), {"y": jnp.zeros(shape)})
        self.posterior, self.transform = bd.condition_gaussian(read, latent.prior), latent.transform
        factor = self.posterior.factor
        self.gram = factor @ factor.T - jnp.eye(len(factor))

    def __call__(self, key: jax.Array, y: np.ndarray, noise: np.ndarray, members: int) -> np.ndarray:
        """Weather (member, day, variable, lat, lon), physical, for data (day, variable, cell) of whole winters."""
        spans = []
        cut = lambda x: x.reshape(-1, SPAN * x.shape[1] * x.shape[2])
        for k, (own, sd) in enumerate(zip(cut(y), cut(noise), strict=True)):
            keys = jax.random.split(jax.random.fold_in(key, k), members)
            z = _draws(self.posterior, self.gram, jnp.asarray(own, jnp.float32), jnp.asarray(sd, jnp.float32), keys)
            spans.append(self.transform.backward(np.asarray(z)))
        return np.concatenate(spans, axis=1)


@eqx.filter_jit
def _draws(posterior, gram, y, noise, keys):
    factor = jnp.linalg.cholesky(gram + jnp.diag(noise**2))
    known = lambda p: (p.y, p.noise_variance, p.factor)
    return jax.lax.map(eqx.tree_at(known, posterior, (y, noise**2, factor)).draw, keys)


def corrected_by(method: str, data: Data, model: bd.Fields, days: slice) -> bd.Fields:
    """The coarse `model` at `days`, corrected by month with the winters before the test; cells outside, the values of
    the nearest one inside."""
    past = slice(0, data.test)
    fill = lambda fields: replace(fields, values=_filled(fields.values, data.inside))
    parts = (fill(each) for each in (model.isel_times(days), data.perfect.isel_times(past), model.isel_times(past)))
    return bd.correct(*parts, method=method, multiplicative=("pr",), wet={"pr": 1.0})[0]


def baselines(data: Data, model: bd.Fields, days: slice, method: str = "eqm") -> dict[str, np.ndarray]:
    """`BCSD` and `interpolation` of the coarse `model` at `days`, corrected: (day, variable, lat, lon)."""
    past = slice(0, data.test)
    reference = data.perfect.isel_times(past)
    fill = lambda fields: replace(fields, values=_filled(fields.values, data.inside))
    corrected = corrected_by(method, data, model, days)
    lat, lon = data.fine.grid.places()
    month = lambda fields: fields.times.astype("datetime64[M]").astype(int) % 12
    fine, own = data.fine.isel_times(past), fill(reference)
    usual_fine, usual = np.empty((len(corrected.values), *fine.values.shape[1:])), np.empty(corrected.values.shape)
    for m in np.unique(month(corrected)):
        usual_fine[month(corrected) == m] = fine.values[month(fine) == m].mean(axis=0)
        usual[month(corrected) == m] = own.values[month(own) == m].mean(axis=0)
    plain = _interpolated(corrected.values, data.coarse.grid, lat, lon)
    tas = _interpolated(corrected.values[:, :1] - usual[:, :1], data.coarse.grid, lat, lon) + usual_fine[:, :1]
    ratio = corrected.values[:, 1:] / np.maximum(usual[:, 1:], 1e-6)
    pr = _interpolated(ratio, data.coarse.grid, lat, lon) * usual_fine[:, 1:]
    return {"BCSD": np.concatenate([tas, pr], axis=1), "interpolation": plain}


def _filled(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Cells outside with the value of the nearest one inside."""
    nearest = np.asarray(distance_transform_edt(~inside, return_distances=False, return_indices=True))
    return values[:, :, nearest[0], nearest[1]]


def _interpolated(values: np.ndarray, grid: bd.Grid, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Bilinear at places; the nearest value beyond the outermost centres."""
    axes = grid.lat, grid.lon
    places = np.stack([np.clip(x, a.min(), a.max()) for x, a in zip((lat, lon), axes, strict=True)], axis=-1)
    on_grid = RegularGridInterpolator(axes, np.moveaxis(values.astype(np.float64), (-2, -1), (0, 1)))
    return np.moveaxis(on_grid(places), (0, 1), (-2, -1))
