# %% [markdown]
# # Train a prior
#
# A prior is learned from fine weather: reanalysis, or a regional model. Here the "reanalysis" is drawn from a
# Gaussian field we know, so that we can see what training gets right, and everything runs in a minute. For real
# data, replace `weather` with `bd.open_fields("era5.nc", ["t2m"])`; the command line does the same:
#
#     bayesdownscale train era5.nc --variable t2m --out prior

# %%
import os
from pathlib import Path

import jax
import numpy as np

import bayesdownscale as bd

out = Path(os.environ.get("TUTORIAL_OUT", "tutorial_02"))
training_steps = int(os.environ.get("TUTORIAL_STEPS", "400"))

# %% [markdown]
# ## Weather to learn from
#
# Twenty days, hourly, 8 x 12 cells: a daily cycle that is stronger in the south, plus a Gaussian field with a
# correlation length of 150 km and a memory of 8 hours.

# %%
grid = bd.Grid(np.linspace(55.0, 53.25, 8), np.linspace(-3.0, -0.25, 12))
times = np.datetime64("2020-06-01T00", "ns") + np.timedelta64(1, "h") * np.arange(480)
hours = np.arange(times.size)
in_time = np.exp(-np.abs(hours[:, None] - hours) / 8.0)
in_space = 4.0 * bd.matern(grid.distances_km(), 150.0, 1.5)
anomalies = bd.GaussianField.separable(in_time, in_space, (1, *grid.shape)).draw(jax.random.key(0))
cycle = np.cos(2 * np.pi * (hours - 15) / 24)[:, None, None, None] * np.linspace(2, 4, 8)[:, None]
variables = (bd.Variable("t2m", "K", "air_temperature"),)
weather = bd.Fields(np.float32(285 + cycle + anomalies), bd.Coords(times, variables, grid), "made-up weather")

# %% [markdown]
# ## Training
#
# The climatology of each hour and the covariance of the anomalies are estimated first; the network then learns
# what is left. The folder holds the state of training too: run this again after a kill, and it goes on bit for
# bit. The validation loss is in units of the best linear denoiser's error: for Gaussian weather the network has
# nothing to add, and the loss stays where it starts.

# %%
prior = bd.train_prior(
    weather,
    out / "prior",
    window=7,
    network=bd.UNetConfig(widths=(8, 16), blocks=1, embedding=16),
    training=bd.TrainingConfig(steps=training_steps, batch=8, warmup=20, validate_every=max(training_steps // 4, 1)),
    on_progress=lambda p: print(f"step {p.step}: validation {p.validation_loss:.3f}, linear {p.linear_loss:.3f}"),
)

# %% [markdown]
# ## What it learned
#
# Draws from the prior against the weather it was trained on: mean, spread, and correlation from one hour to the
# next.

# %%
draws = np.asarray(prior.sample(jax.random.key(1), (32,)))
anomaly = draws - draws.mean(0)
print(f"mean   of draws {draws.mean():.2f} K, of weather {weather.values.mean():.2f} K")
print(f"spread of draws {anomaly.std():.2f} K, of weather {np.std(np.asarray(anomalies)):.2f} K")
lag = (anomaly[:, 1:] * anomaly[:, :-1]).mean() / (anomaly**2).mean()
print(f"lag-1 correlation of draws {lag:.3f}, true {np.exp(-1 / 8):.3f}")
