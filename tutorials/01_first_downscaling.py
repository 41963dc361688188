# %% [markdown]
# # A first downscaling
#
# From a coarse file to a report, in Python, with the prior that ships with the package: hourly 2 m temperature
# over the UK on a 0.25 degree grid, learned from ERA5, March 2019.
#
# A coarse model says what the mean temperature of 2 x 2 degree boxes was every six hours. Many fine histories
# agree with that. We draw some of them.

# %%
import os
from pathlib import Path

import jax
import numpyro
import numpyro.distributions as dist

import bayesdownscale as bd
from bayesdownscale.demo import demo_truth

out = Path(os.environ.get("TUTORIAL_OUT", "tutorial_01"))
draws = int(os.environ.get("TUTORIAL_DRAWS", "16"))
steps = int(os.environ.get("TUTORIAL_STEPS", "32"))
out.mkdir(exist_ok=True)

# %% [markdown]
# ## A coarse file
#
# Yours comes from a climate model. Here we make one whose truth we know: a draw from the prior, averaged over
# blocks of 8 x 8 cells every 6 hours, with 0.05 K of noise.

# %%
_, truth, coarse, noise_sd = demo_truth("prior", seed=1)
bd.write_atomic(coarse.to_dataset(), out / "coarse.nc", overwrite=True)
print(coarse.to_dataset())

# %% [markdown]
# ## The prior
#
# A NumPyro distribution over fine fields, in kelvin. `open_coarse` reads the file in the prior's units and
# orientation; `spanning` gives the prior the hours that the coarse times cover.

# %%
prior = bd.load_prior()
coarse = bd.open_coarse(out / "coarse.nc", like=prior)
prior = prior.spanning(coarse.times)
print(prior.event_shape, prior.times[0], prior.times[-1])

# %% [markdown]
# ## The likelihood
#
# What the coarse model reports about a fine field x: area means at the coarse times, with noise. This is the
# whole of the statistical model; change it, and the posterior changes with it.

# %%
H = bd.area_mean(prior.grid, coarse.grid) @ bd.snapshots(prior.times, coarse.times)


def model(y=None, sigma=noise_sd):
    x = numpyro.sample("weather", prior)
    numpyro.sample("coarse", dist.Normal(H(x), sigma).to_event(4), obs=y)


# %% [markdown]
# ## The posterior
#
# Each draw integrates the guided reverse SDE. `to_datatree` labels the result for ArviZ and xarray.

# %%
posterior = bd.GuidedSDE(model, steps=steps).run(jax.random.key(0), y=coarse, draws=draws)
tree = posterior.to_datatree()
bd.write_atomic(tree, out / "posterior.zarr", overwrite=True)
print(tree)

# %% [markdown]
# ## Is it right?
#
# Each member must agree with the coarse values to within their noise: the coarse residual is near 1. And because
# the truth is known here, the report can score the members against it, at every hour and in every cell.

# %%
print("coarse residual:", tree["sample_stats"]["coarse_residual"].values.round(2))
print("report:", bd.report(tree, out / "report.html", truth=truth, overwrite=True))
