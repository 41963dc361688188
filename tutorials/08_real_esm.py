# %% [markdown]
# # A real climate model: CNRM-CM5 over Iberia
#
# Daily temperature and precipitation of winters, from cells of 1.4 degrees to the 0.44 degree rotated grid of the
# regional model RACMO. Rain is often exactly zero, so the prior describes latent variables instead: each cell's values
# are made Gaussian, dry days are values below a floor, and what comes out is never negative and zero on dry days.
# CNRM-CM5 did not drive RACMO, so its days do not match: distributions are compared, not days.
# `python -m benchmarks.iberia` has the figures.

# %%
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import bayesdownscale as bd
from bayesdownscale.diagnostics.coastlines import coastlines_in
from bayesdownscale.recipes import find_recipe, load_recipe

out = Path(os.environ.get("TUTORIAL_OUT", "tutorial_08"))
draws = int(os.environ.get("TUTORIAL_DRAWS", "10"))
small = draws < 10
out.mkdir(exist_ok=True)

# %% [markdown]
# ## The files
#
# CORDEX_EUR44_Iberia_DJF.nc and CMIP5_Iberia_DJF.nc, converted from SantanderMetGroup/climate4R.datasets, in the folder
# `iberia` of the one that BAYESDOWNSCALE_DATA names. Without them this tutorial ends here.

# %%
named = os.environ.get("BAYESDOWNSCALE_DATA")
beside = [folder / "shared" / "data" for folder in Path(bd.__file__).resolve().parents[1:3]]
folders = [Path(f).expanduser() / "iberia" for f in ([named] if named else []) + beside]
folder = next((f for f in folders if (f / "CORDEX_EUR44_Iberia_DJF.nc").is_file()), None)
if folder is None:
    message = "skipped: no iberia/CORDEX_EUR44_Iberia_DJF.nc in the folder that BAYESDOWNSCALE_DATA names"
    (out / "skipped.txt").write_text(message + "\n")
    print(message)
    sys.exit(0)
fine = bd.open_fields(folder / "CORDEX_EUR44_Iberia_DJF.nc", ["tas", "pr"])
model = bd.open_fields(folder / "CMIP5_Iberia_DJF.nc", ["tas", "pr"])

# %% [markdown]
# Januaries only, of 31 days: 13 to learn from, 7 for the test. The coarse file gives no units; its values are in K and
# kg m-2 s-1. Coarse cells count where they lie wholly within RACMO's region.

# %%
january = fine.times.astype("datetime64[M]").astype(int) % 12 == 0
fine, model = fine.isel_times(np.flatnonzero(january)), model.isel_times(np.flatnonzero(january))
past = np.flatnonzero(fine.times < np.datetime64("1995-06-01"))
test = np.flatnonzero(fine.times > np.datetime64("1995-06-01"))
coarse = model.values * np.array([1.0, 86400.0])[:, None, None] - np.array([273.15, 0.0])[:, None, None]
known = bd.conservative_mean(fine, model.grid)
inside = np.isfinite(known.values[0, 0])
print(f"{inside.sum()} of {inside.size} coarse cells, {past.size} days to learn from, {test.size} for the test")

# %% [markdown]
# ## The prior
#
# Below 0.1 mm/d a day is dry. Of dry days only this is known, so their latent values are drawn: consistent with the wet
# cells around them, the days before and after, and temperature.

# %%
n_modes, sweeps = (60, 3) if small else (200, 30)
learned = bd.LatentPrior.fit(fine.isel_times(past), 31, {"pr": 0.1}, n_modes=n_modes, sweeps=sweeps)
weather = learned.draw(jax.random.key(0), 1)[0]
print(f"prior draw: dry share {np.mean(weather[:, 1] == 0):.2f}, RACMO {np.mean(fine.values[past, 1] < 0.1):.2f}")

# %% [markdown]
# ## The likelihood, and data that fit it
#
# The program says: data are means of the latent field over coarse cells, plus noise. The mean rain of a cell does not
# determine that mean, least of all where it is dry, and weather drawn from the prior tells how well it does: `Sight`.
# CNRM-CM5 is first mapped to the distribution of RACMO's own coarse means, quantile by quantile and in the correlation
# of temperature and rain. For files, `bayesdownscale correct` does the same in physical units, by `--method qdm` or,
# with correlations, `mbcn`; `python -m benchmarks.iberia_correction` compares the methods on these data.

# %%
H = bd.area_mean(fine.grid, model.grid)
cells = lambda values: np.asarray(values)[:, :, inside].astype(float)
ties = np.array([-np.inf, 0.01])  # coarse means below 0.01 mm/d differ by chance only
z = np.concatenate(np.asarray(learned.prior.sample(jax.random.key(1), (40,))))
means, seen = (cells(H(jnp.asarray(x))) for x in (z, learned.transform.backward(z)))
score = bd.ScoreMap.fit(seen, means, ties, recorrelate=False)
sight = bd.Sight.fit(score(seen), means)
rain_noise = sight.noise[[-1, 0], 1]
print(f"noise: temperature {sight.noise[:, 0].mean():.2f}, rain {rain_noise[0]:.2f} wet to {rain_noise[1]:.2f} dry")
mapped = bd.ScoreMap.fit(cells(coarse[past]), score(cells(known.values[past])), ties)(cells(coarse[test]))
y, sigma = (np.full((test.size, 2, *model.grid.shape), fill, np.float32) for fill in (np.nan, 1.0))
y[:, :, inside], sigma[:, :, inside] = sight(mapped)

# %% [markdown]
# ## The posterior
#
# Prior and likelihood are Gaussian here, so the draws are exact. One January at a time.

# %%
program = load_recipe(find_recipe("models", "area_mean")).model
sampler = bd.ExactGaussian(program)
runs = []
for k, days in enumerate(np.split(np.arange(test.size), 7)[: 1 if small else 7]):
    seen, sd = jnp.asarray(y[days]), jnp.asarray(sigma[days])
    posterior = sampler.run(jax.random.key(k), learned.prior, H, y=seen, sigma=sd, draws=draws)
    runs.append(learned.transform.backward(posterior.fields))
members = np.concatenate(runs, axis=1)  # (draw, day, variable, lat, lon), degC and mm/d
rain, right = members[:, :, 1], fine.values[test[: members.shape[1]], 1]
print(f"least rain {rain.min()} mm/d, exactly zero in {np.mean(rain == 0):.2f} of cells and days")
known_share, test_share = np.mean(fine.values[past, 1] >= 1), np.mean(right >= 1)
print(f"wet days: {np.mean(rain >= 1):.3f}, RACMO {test_share:.3f}, in the past {known_share:.3f}")

# %% [markdown]
# RACMO's test Januaries differ from those it was learned from, and CNRM-CM5 has a weather of its own: compare an error
# with how much samples of seven winters differ anyway, which `benchmarks.iberia` prints as `floor`.

# %%
lat, lon = np.meshgrid(fine.grid.lat_bounds, fine.grid.lon_bounds, indexing="ij")
if fine.grid.pole is not None:
    lat, lon = fine.grid.pole.to_geographic(lat, lon)
figure, grid = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained", sharey=True)
frequencies = {
    "RACMO, test": np.mean(right >= 1, axis=0),
    "RACMO, to learn from": np.mean(fine.values[past, 1] >= 1, axis=0),
    "posterior, CNRM-CM5": np.mean(rain >= 1, axis=(0, 1)),
}
for axes, (title, panel) in zip(grid, frequencies.items(), strict=True):
    mesh = axes.pcolormesh(lon, lat, panel, vmin=0, vmax=0.8, cmap="cividis")
    for coast in coastlines_in(lon.min(), lon.max(), lat.min(), lat.max()):
        axes.plot(*coast.T, color="white", linewidth=0.8)
    axes.set_xlim(lon.min(), lon.max())
    axes.set_ylim(lat.min(), lat.max())
    axes.set_title(title, fontsize=9)
    axes.set_aspect(1 / np.cos(np.deg2rad(40)))
    axes.set_xlabel("longitude [°E]")
grid[0].set_ylabel("latitude [°N]")
figure.colorbar(mesh, ax=grid, label="wet days (≥ 1 mm/d), share of January days")
figure.savefig(out / "wet_days.png", dpi=120)
