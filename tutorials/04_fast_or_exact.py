# %% [markdown]
# # Fast or exact?
#
# Guided draws cost little more than draws from the prior, and are exact for Gaussian priors with Gaussian noise. For
# other noise they approximate: how badly, for your program and your data? Here the noise is Student's t with tails so
# heavy that a bad value can be believed or not: a hard case. We measure the error without knowing the truth, remove it
# with exact kernels, and then look at the truth.

# %%
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

import bayesdownscale as bd
from bayesdownscale.recipes import find_recipe, load_recipe

out = Path(os.environ.get("TUTORIAL_OUT", "tutorial_04"))
draws = int(os.environ.get("TUTORIAL_DRAWS", "400"))
steps = int(os.environ.get("TUTORIAL_STEPS", "16"))
out.mkdir(exist_ok=True)

# %% [markdown]
# ## The problem
#
# Three hours of 2 m temperature on 8 x 8 cells, a Gaussian prior, twelve coarse means with a noise scale of 0.3 K and
# 2 degrees of freedom. One value, at the second hour in the north-west, is 2.5 K too warm for its neighbours.

# %%
prior, H, coords = bd.gaussian_example(times=3)
student_t = load_recipe(find_recipe("models", "student_t")).model
numbers = {"sigma": jnp.asarray(0.3), "nu": jnp.asarray(2.0)}
k_truth, k_noise, k_draws, k_check = jax.random.split(jax.random.key(4), 4)
truth = prior.sample(k_truth)
y = H(truth) + 0.3 * jax.random.normal(k_noise, coords.shape)
y = y.at[1, 0, 0, 0].set(H(truth)[1, 0, 0, 0] + 2.5)
data = {"y": bd.Fields(np.asarray(y), coords), **numbers}
mean_there = lambda fields: np.asarray(H(jnp.asarray(fields)))[..., 1, 0, 0, 0]  # [K]

# %% [markdown]
# ## Fast
#
# `posterior_check` moves guided draws by steps of an exact kernel, here noise-denoise Metropolis-Hastings, and watches
# where they go: exact draws would go nowhere.

# %%
guided = bd.GuidedSDE(student_t, steps=steps, batch=100).run(k_draws, prior, H, draws=draws, **data)
chains = min(max(draws, 4), 200)
check = bd.posterior_check(
    student_t, k_check, prior, H, chains=chains, steps=16 * steps, guided_steps=steps, batch=100, **data
)
print(check)

# %% [markdown]
# ## Exact
#
# Kernels that leave the posterior invariant, each a recipe. What they cost is counted in evaluations of the prior's
# denoiser, which is what takes the time with a network.

# %%
recipe = lambda name: load_recipe(find_recipe("inference", name)).run
found = {"guided SDE": (guided.fields, guided.stats["n_evaluations"].mean() + guided.stats["n_products"].mean())}
settings = {
    "noise_denoise_mh": {"thin": 2 * steps, "warmup": 8 * steps, "batch": 50},
    "twisted_smc": {"particles": 8 * steps, "steps": steps},
}
for name, chosen in settings.items():
    tree = recipe(name)(k_draws, student_t, prior, H, draws=draws, chains=max(draws // 20, 2), **chosen, **data)
    fields = tree["posterior"]["t2m"].values.reshape(-1, *prior.event_shape)
    found[name] = fields, float(tree["sample_stats"]["n_evaluations"].mean())

# %% [markdown]
# ## The truth
#
# The prior is Gaussian and the data see the field only through twelve means, so NUTS in the space of these twelve
# numbers gives their posterior to any accuracy. With a trained prior there is no such reference: that is what
# the check is for.

# %%
n, cells = int(np.prod(coords.shape)), int(np.prod(prior.event_shape))
basis = jnp.eye(cells).reshape(cells, *prior.event_shape)
A = np.asarray(jax.vmap(lambda e: H(e).ravel())(basis), np.float64).T
cov = 1.5**2 * np.asarray(jax.vmap(prior.field.covariance)(basis), np.float64).reshape(cells, -1)
root = jnp.asarray(np.linalg.cholesky(A @ cov @ A.T), jnp.float32)


def twelve_means():
    z = numpyro.sample("z", dist.Normal(jnp.zeros(n), 1.0).to_event(1))
    eta = numpyro.deterministic("eta", 280.0 + root @ z)
    numpyro.sample("y", dist.StudentT(numbers["nu"], eta, numbers["sigma"]).to_event(1), obs=y.ravel())


vectorized = {"num_chains": 10, "chain_method": "vectorized", "progress_bar": False}
mcmc = MCMC(NUTS(twelve_means), num_warmup=20 * steps, num_samples=100 * steps, **vectorized)
mcmc.run(jax.random.key(0))
exact = np.asarray(mcmc.get_samples()["eta"]).reshape(-1, *coords.shape)[:, 1, 0, 0, 0]

# %%
figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
bins = np.linspace(exact.min(), exact.max(), 60)
axes.hist(exact, bins, density=True, color="0.85", label="NUTS in 12 dimensions (truth)")
for colour, (name, (fields, cost)) in zip(("#D55E00", "#0072B2", "#009E73"), found.items(), strict=True):
    values = mean_there(fields)
    error, ratio = (values.mean() - exact.mean()) / exact.std(), values.std() / exact.std()
    label = f"{name}: error {error:+.2f} sd, {ratio:.2f} x as wide"
    axes.hist(values, bins[::2], density=True, histtype="step", lw=1.6, color=colour, label=label)
    print(f"{name:17} {cost:7.0f} evaluations and products a draw, mean {error:+.2f} sd off, {ratio:.2f} times as wide")
axes.axvline(float(y[1, 0, 0, 0]), color="black", lw=1)
axes.annotate("the bad value", (float(y[1, 0, 0, 0]), 0.97), (-4, 0), xycoords=("data", "axes fraction"),
              textcoords="offset points", ha="right", va="top", fontsize=9)  # fmt: skip
axes.set(xlabel="mean 2 m temperature of the coarse cell with the bad value [K]", ylabel="density [1/K]")
axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
axes.legend(fontsize=8, loc="upper left")
figure.savefig(out / "fast_or_exact.png", dpi=110)

# %% [markdown]
# The guided draws believe the bad value too often: far above the noise level of the data, where the reverse process
# decides, they see the likelihood through one Gaussian. The check, which knows nothing of the truth, says how far they
# are off. Both exact kernels find the right law: noise-denoise Metropolis-Hastings at many times the price, twisted
# SMC here at little more than the guided draws it is made of, though particles that come from few ancestors hide how
# few they are: look at `ess` in `sample_stats`. So: run guided draws, check them once for each kind of program and
# data, and pay for exactness where the check says that it matters to you.
