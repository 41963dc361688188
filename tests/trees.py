"""Posterior trees that are calibrated by construction, shared by the tests."""

import numpy as np
import xarray as xr

N_TIME, N_LAT, N_LON, DRAWS = 13, 12, 16, 20
TIME = np.datetime64("2019-03-25T00", "ns") + np.arange(N_TIME) * np.timedelta64(1, "h")
LAT, LON = 56.0 - 0.25 * np.arange(N_LAT), -6.0 + 0.25 * np.arange(N_LON)
ATTRS = {"units": "K", "long_name": "2 metre temperature", "standard_name": "air_temperature"}


def calibrated_tree(draws=DRAWS, seed=0, chains=1, error=1.0, truth=True, stats=True):
    """Draws and truth N(centre, 1) independent in every cell: an exactly calibrated Gaussian posterior; `error`
    scales the distance of the truth. The input: 3 x 4 block means every 6 h with noise 0.1."""
    rng = np.random.default_rng(seed)
    shape = (N_TIME, N_LAT, N_LON)
    centre = 280 + 5 * np.sin(LAT)[:, None] + LON + np.arange(N_TIME)[:, None, None] / 3 + 3 * rng.normal(size=shape)
    fields = centre + rng.normal(size=(chains, draws, *shape))
    real = centre + error * rng.normal(size=shape)
    blocks = real[::6].reshape(3, 4, 3, 4, 4).mean(axis=(2, 4))[:, None]
    place = {"time": TIME, "lat": LAT, "lon": LON}
    dims = ("chain", "draw", "time", "lat", "lon")
    posterior = xr.Dataset({"t2m": (dims, fields.astype(np.float32), ATTRS)}, place)
    posterior["sigma"] = (("chain", "draw"), rng.uniform(0.05, 0.15, (chains, draws)))
    centres = {"lat_coarse": LAT.reshape(4, 3).mean(axis=1), "lon_coarse": LON.reshape(4, 4).mean(axis=1)}
    axes = ("time_coarse", "variable", "lat_coarse", "lon_coarse")
    observed = xr.Dataset({"coarse": (axes, blocks + 0.1 * rng.normal(size=blocks.shape))}, centres)
    observed = observed.assign_coords(time_coarse=TIME[::6], variable=["t2m"])
    by_draw = {"n_evaluations": np.full((chains, draws), 32), "diverging": np.zeros((chains, draws), bool)}
    by_draw["coarse_residual"] = rng.normal(1.0, 0.02, (chains, draws))
    attrs = {"method": "Test", "approximate": 1, "steps": 32, "model_source": "def model():\n    assert 1 < 2 & 3"}
    groups = {"/": xr.Dataset(attrs=attrs), "/posterior": posterior, "/observed_data": observed}
    if stats:
        groups["/sample_stats"] = xr.Dataset({name: (("chain", "draw"), value) for name, value in by_draw.items()})
    if truth:
        groups["/truth"] = xr.Dataset({"t2m": (("time", "lat", "lon"), real, ATTRS)}, place)
    return xr.DataTree.from_dict(groups)


def replaced(tree, path, dataset):
    groups = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    return xr.DataTree.from_dict({**groups, path: dataset})
