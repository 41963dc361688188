"""An ensemble of a prior of latent fields: rain and temperature over a winter, in jobs."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from ensembles import MODEL

import bayesdownscale as bd
from bayesdownscale.ensemble.problem import CoarseInMemory, Problem
from bayesdownscale.ensemble.run import Ensemble

DAY, DRY = np.timedelta64(1, "D"), 0.1
GRID = bd.Grid(40 + 0.5 * np.arange(2), -4 + 0.5 * np.arange(2))
TIMES = np.datetime64("2000-12-01", "ns") + DAY * np.arange(90)


def weather() -> bd.Fields:
    """Red noise of four cells that share most of it; rain is its positive part."""
    rng = np.random.default_rng(0)
    z = np.zeros((TIMES.size, 2, 2, 2))
    for t in range(1, TIMES.size):
        z[t] = 0.6 * z[t - 1] + 0.7 * rng.normal(size=(2, 1, 1)) + 0.3 * rng.normal(size=(2, 2, 2))
    values = np.stack([280 + 3 * z[:, 0], np.maximum(5 * z[:, 1], 0)], axis=1)
    variables = bd.Variable("tas", "K"), bd.Variable("pr", "mm d-1")
    return bd.Fields(values.astype(np.float32), bd.Coords(TIMES, variables, GRID), "made by a test")


@pytest.fixture(scope="module")
def learned():
    return bd.LatentPrior.fit(weather(), 7, {"pr": DRY}, n_modes=8, sweeps=3)


def test_windows_of_a_latent_prior(learned):
    prior = learned.windowed()
    assert prior.lengths == (7, np.inf)
    assert (prior.denoiser.window, prior.denoiser.stride) == (7, 3)
    assert prior.at(TIMES[:20]).event_shape == (20, 2, 2, 2)


@pytest.mark.slow
def test_weather_of_an_ensemble(learned, tmp_path):
    """Latent means of the four cells every day, noise 0.1: rain is never negative and dry where the data are lowest;
    spans drawn apart, or in one, agree to a twentieth of a latent standard deviation."""
    prior, coarse_grid = learned.windowed(), GRID.coarsen(2)
    H = bd.area_mean(GRID, coarse_grid)
    y = np.asarray(H(jnp.asarray(learned.latent.values[:28])))
    coarse = bd.Fields(y, bd.Coords(TIMES[:28], prior.variables, coarse_grid), "latent means")
    build = lambda: Problem(prior, CoarseInMemory(coarse), MODEL, {"sigma": 0.1})
    drawn = []
    for name, span in (("many", 9), ("one", 28)):
        out = tmp_path / f"{name}.zarr"
        Ensemble(build, out, members=2, span=span * DAY, steps=8, halo=6, stride=3).run()
        with xr.open_dataset(out, engine="zarr", consolidated=False) as ds:
            drawn.append(np.stack([ds[v.name].values for v in prior.variables], axis=2))
    assert np.abs(drawn[0] - drawn[1]).max() < 0.05
    np.testing.assert_allclose(drawn[0].mean((-2, -1)), np.broadcast_to(y[..., 0, 0], (2, 28, 2)), atol=0.5)
    rain = learned.transform.backward(drawn[0])[:, :, 1]
    assert rain.min() == 0
    lowest, highest = (np.argsort(y[:, 1, 0, 0])[k] for k in (slice(5), slice(-5, None)))
    assert (rain[:, lowest] == 0).mean() > 0.9
    assert (rain[:, highest] > 0).mean() > 0.9
