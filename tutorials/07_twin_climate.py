# %% [markdown]
# # A climate whose truth never ends
#
# Whether a posterior can be believed shows over many truths, and real weather has one. The twin climate makes as many
# as are wanted: two layers of quasi-geostrophic flow over mountains, a sea and a coast, from which pressure, wind and
# temperature follow with the balances of the atmosphere. The same weather seen by a coarse model with a wrong surface
# (too cold, a daily cycle too weak and too early, winds too weak over land and too strong over the sea) is a
# climate model whose bias is known. Here three ways to live with that bias are compared.

# %%
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr

import bayesdownscale as bd

out = Path(os.environ.get("TUTORIAL_OUT", "tutorial_07"))
draws = int(os.environ.get("TUTORIAL_DRAWS", "16"))
steps = int(os.environ.get("TUTORIAL_STEPS", "16"))
truths, days = (10, 30) if draws >= 16 else (1, 10)
out.mkdir(exist_ok=True)

# %% [markdown]
# ## A truth and a climate model
#
# `bd.twin` gives weather by its key: any length, any grid, any step. With the same key and `planet=bd.coarse_model()`
# it is the same weather, seen by the wrong surface. The model reports means over 4 x 4 cells every six hours.

# %%
prior = bd.load_prior("twin")
coarse_grid = prior.grid.coarsen(4)
names = [f"{v.name} [{v.units}]" for v in prior.variables]


def past_of(planet):
    """Means over coarse cells every six hours of `days` days that both models saw."""
    return bd.conservative_mean(
        bd.twin(jax.random.key(7), "2101-01-01", days, step_hours=6, planet=planet), coarse_grid
    )


reference, hindcast = past_of(bd.Planet()), past_of(bd.coarse_model())
difference = (hindcast.values - reference.values)[:-1].reshape(-1, 4, *reference.values.shape[1:])  # by hour of the day
for k, name in enumerate(names):
    print(f"{name}: mean difference by hour of the day {difference[:, :, k].mean((0, 2, 3)).round(2)}, "
          f"sd of the rest {difference[:, :, k].std(0).mean():.2f}")  # fmt: skip

# %% [markdown]
# ## Three programs
#
# Ignored: the coarse values are taken as they come. Corrected: their distribution is mapped on that of the reference,
# month by month (EQM), and then taken as true. In the posterior: the bias of every coarse value is unknown,
# normal, with the mean and the standard deviation that the past gives for its cell and hour; being linear and Gaussian,
# it is integrated out while the field is drawn (`collapse`).

# %%
noise = jnp.asarray([10.0, 0.1, 0.1, 0.1])[:, None, None]
usual, unusual = (jnp.asarray(a[[0, 1, 2]]) for a in (difference.mean(0), difference.std(0)))


def as_it_comes(prior, H, y=None):
    x = numpyro.sample("weather", prior)
    numpyro.sample("coarse", dist.Normal(H(x), noise).to_event(4), obs=y)


def with_bias(prior, H, y=None):
    x = numpyro.sample("weather", prior)
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand(usual.shape).to_event(4))
    numpyro.sample("coarse", dist.Normal(H(x) + usual + unusual * w, noise).to_event(4), obs=y)


plain = bd.GuidedSDE(as_it_comes, steps=steps)
biased = bd.GuidedSDE(with_bias, steps=steps, sweeps=1, collapse=("w",))

# %% [markdown]
# ## Many truths
#
# Each 13 hours, none of which the prior or the correction has seen; some six minutes on two cores.

# %%
span = {"start": "2101-01-05", "days": 0.5}
weather = bd.twins(jax.random.key(100), truths, **span)
seen = bd.twins(jax.random.key(100), truths, **span, planet=bd.coarse_model())
scores = {}
for i, (truth, view) in enumerate(zip(weather, seen, strict=True)):
    coarse = bd.conservative_mean(view.isel_times(slice(0, None, 6)), coarse_grid)
    better, _ = bd.correct(coarse, reference, hindcast, method="eqm")
    here = prior.at(truth.times)
    H = bd.area_mean(here.grid, coarse.grid) @ bd.snapshots(here.times, coarse.times)
    for name, sampler, y in (
        ("ignored", plain, coarse),
        ("corrected", plain, better),
        ("in the posterior", biased, coarse),
    ):
        fields = sampler.run(jax.random.key(i), here, H, y=y, draws=draws).fields
        for k, label in enumerate(names):
            dims = ("time", "lat", "lon")
            members, known = (
                xr.DataArray(fields[:, :, k], dims=("draw", *dims)),
                xr.DataArray(truth.values[:, k], dims=dims),
            )
            row = float(bd.crps(members, known).mean()), float(bd.coverage(members, known, 0.9))
            scores.setdefault((label, name), []).append(row)
table = {key: np.mean(rows, axis=0) for key, rows in scores.items()}
for (label, name), (score, covered) in table.items():
    print(f"{label:<14} {name:<18} CRPS {score:8.3f}   90 % intervals hold {covered:.0%} of the truth")

# %%
figure, panels = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
ways, colours = ("ignored", "corrected", "in the posterior"), ("#D55E00", "#E69F00", "#0072B2")
for j, (way, colour) in enumerate(zip(ways, colours, strict=True)):
    place = np.arange(len(names)) + 0.25 * (j - 1)
    relative = [table[label, way][0] / table[label, "ignored"][0] for label in names]
    panels[0].bar(place, relative, 0.23, color=colour, label=way)
    panels[1].plot(place, [table[label, way][1] for label in names], "o", color=colour)
panels[1].axhline(0.9, color="black", lw=1)
panels[0].set(ylabel="CRPS over that with the bias ignored", title="score: lower is better")
panels[1].set(ylabel="coverage of 90 % intervals", title="calibration: 0.9 is right", ylim=(0, 1))
for axes in panels:
    axes.set_xticks(np.arange(len(names)), [label.split(" ")[0] for label in names])
figure.legend(loc="outside lower center", ncols=3, fontsize=8)
figure.savefig(out / "bias.png", dpi=110)

# %% [markdown]
# What is ignored is taken for weather. What is corrected is taken as true, with the errors of the hour and of the day
# that the correction leaves. A bias with a distribution leaves them open, and pays in width where the past says so.
# A few truths are few: raise `truths`, the twin has no end.
