# %% [markdown]
# # Bias correction inside the posterior
#
# Climate models are biased. The usual remedy is to correct the coarse data first and downscale them after, as if the
# correction were known. Here the bias is a parameter: a smooth field, constant in time, with a prior of its own, drawn
# with the weather. Its uncertainty goes where it belongs, into the fine field.

# %%
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from numpyro import handlers

import bayesdownscale as bd
from bayesdownscale.recipes import find_recipe, load_recipe

out = Path(os.environ.get("TUTORIAL_OUT", "tutorial_05"))
draws = int(os.environ.get("TUTORIAL_DRAWS", "64"))
steps = int(os.environ.get("TUTORIAL_STEPS", "16"))
out.mkdir(exist_ok=True)

# %% [markdown]
# ## A biased coarse model
#
# Three weeks of 2 m temperature, once a day, on 16 x 16 cells: the truth a draw from the Gaussian prior
# (standard deviation 1.5 K). The coarse model sees 1 x 1 degree means with a bias of about 3 K and noise of 0.3 K.

# %%
prior, H, coords = bd.gaussian_example(times=21, step_h=24, cells=16)
program = load_recipe(find_recipe("models", "additive_bias")).model
made_with = {"coords": coords, "sigma": 0.3, "offset": jnp.asarray([2.0]), "amplitude": 0.7, "length_km": 300.0}
simulated = handlers.trace(handlers.seed(program, jax.random.key(2))).get_trace(prior, H, **made_with)
truth, bias, y = (np.asarray(simulated[name]["value"]) for name in ("weather", "bias", "coarse"))
data = {"y": bd.Fields(y, coords), "coords": coords, "length_km": 300.0}

# %% [markdown]
# ## With and without
#
# The program of `models/additive_bias.py`, once with the bias unknown and once told that there is none. Noise and
# bias are drawn with the field by Gibbs sampling. Given precise data the field and the bias determine each other, and
# a sampler that draws one given the other would hardly move: `collapse` integrates the bias out of the field's step.

# %%
settings = {"steps": steps, "batch": 32, "guidance": bd.FixedCovariance}
with_bias = bd.GuidedSDE(program, sweeps=6, collapse=("offset", "whitened"), **settings)
posterior = with_bias.run(jax.random.key(0), prior, H, draws=draws, **data)
without = bd.GuidedSDE(program, **settings).run(
    jax.random.key(0), prior, H, draws=draws, bias=jnp.asarray(0.0), sigma=jnp.asarray(0.3), **data
)


# %%
def smooth_bias(theta):
    """The bias field that one draw of the parameters stands for."""
    held = handlers.substitute(handlers.seed(program, jax.random.key(0)), theta)
    return handlers.trace(held).get_trace(prior, H, coords=coords, length_km=300.0)["bias"]["value"]


biases = np.asarray(jax.lax.map(smooth_bias, posterior.theta))
print(f"noise: {posterior.theta['sigma'].mean():.2f} +- {posterior.theta['sigma'].std():.2f} K, truth 0.30")
print(f"mean bias: {biases.mean():.2f} +- {biases.mean((1, 2, 3)).std():.2f} K, truth {bias.mean():.2f}")


def scores(fields):
    low, high = np.quantile(fields, (0.05, 0.95), axis=0)
    error = np.sqrt(np.mean((fields.mean(0) - truth) ** 2))
    return f"error of the mean {error:.2f} K, spread {fields.std(0).mean():.2f} K, 90 % intervals hold " \
        f"{np.mean((low < truth) & (truth < high)):.0%} of the truth"  # fmt: skip


print("bias inferred: ", scores(posterior.fields))
print("bias ignored:  ", scores(without.fields))

# %%
lon, lat = coords.grid.lon, coords.grid.lat
figure, panels = plt.subplots(1, 4, figsize=(13, 3.3), layout="constrained")
top = np.abs(bias).max()
for axes, values, title in (
    (panels[0], bias[0], "bias: truth"),
    (panels[1], biases.mean(0)[0], "bias: posterior mean"),
):
    image = axes.pcolormesh(lon, lat, values, cmap="RdBu_r", vmin=-top, vmax=top)
    axes.set(title=title, xlabel="longitude [°E]", aspect=1 / np.cos(np.deg2rad(lat.mean())))
figure.colorbar(image, ax=panels[:2], label="bias [K]", shrink=0.9)
spread = panels[2].pcolormesh(lon, lat, biases.std(0)[0], cmap="viridis", vmin=0)
panels[2].set(title="bias: posterior sd", xlabel="longitude [°E]", aspect=1 / np.cos(np.deg2rad(lat.mean())))
figure.colorbar(spread, ax=panels[2], label="standard deviation [K]", shrink=0.9)
panels[0].set(ylabel="latitude [°N]")
days = np.arange(21)
for fields, colour, label in ((without.fields, "#D55E00", "bias ignored"), (posterior.fields, "#0072B2", "inferred")):
    low, high = np.quantile(fields[:, :, 0, 8, 8], (0.05, 0.95), axis=0)
    panels[3].fill_between(days, low - 273.15, high - 273.15, color=colour, alpha=0.45, lw=0, label=f"{label}, 90 %")
panels[3].plot(days, truth[:, 0, 8, 8] - 273.15, color="black", lw=1, label="truth")
panels[3].set(title="one fine cell", xlabel="day", ylabel="2 m temperature [°C]")
panels[3].legend(fontsize=8)
figure.savefig(out / "bias.png", dpi=110)

# %% [markdown]
# The bias is told from the weather by time only: weather comes and goes, a bias stays. Its mean is known no better than
# the mean of the weather itself, to sd / sqrt(days) or so; fewer days, or a climate that drifts, leave more of it
# open, and the posterior says so. What the prior believes about the mean climate is an assumption that the data cannot
# check: with a prior trained on another climate, change and bias are the same thing to the likelihood.
