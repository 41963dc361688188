# %% [markdown]
# # Which noise model?
#
# The likelihood says how a coarse value differs from the mean of the fine field over its cell, and a posterior is
# only as good as that. Here three coarse data sets of one truth meet four noise models. Two tools judge them: the
# evidence p(y | model), and posterior predictive checks. They answer different questions, and here they disagree.

# %%
import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from numpyro.infer import Predictive

import bayesdownscale as bd
from bayesdownscale.recipes import find_recipe, load_recipe

out = Path(os.environ.get("TUTORIAL_OUT", "tutorial_03"))
draws = int(os.environ.get("TUTORIAL_DRAWS", "64"))
steps = int(os.environ.get("TUTORIAL_STEPS", "32"))
particles = max(draws // 2, 2)
out.mkdir(exist_ok=True)

# %% [markdown]
# ## A prior whose every answer is known
#
# A Gaussian field: six hours of 2 m temperature on 8 x 8 cells of 0.25 degrees, standard deviation 1.5 K, correlation
# length 150 km, memory 6 h. The coarse model reports means over 1 x 1 degree every hour: 24 values.

# %%
prior, H, coords = bd.gaussian_example()

# %% [markdown]
# ## Three data sets
#
# The first has independent noise of 0.5 K. The second is the first with 5 K added to one value. The errors of the
# third also have a standard deviation of 0.5 K, but drift together over the whole domain.

# %%
recipe = lambda name: load_recipe(find_recipe("models", name)).model
programs = {
    "area_mean": recipe("area_mean"),
    "student_t": recipe("student_t"),
    "correlated_noise": partial(recipe("correlated_noise"), coords=coords),
}
drifting = {"sigma": jnp.asarray(0.5), "length_km": jnp.asarray(300.0), "tau_h": jnp.asarray(12.0)}
truth = {"weather": prior.sample(jax.random.key(0), (1,))}


def simulate(name, **numbers):
    return Predictive(programs[name], truth)(jax.random.key(1), prior, H, **numbers)["coarse"][0]


independent = simulate("area_mean", sigma=0.5)
data = {
    "independent": independent,
    "one bad value": independent.at[2, 0, 1, 0].add(5.0),
    "drifting": simulate("correlated_noise", **drifting),
}

# %% [markdown]
# ## Four noise models
#
# The evidence compares models with every number fixed. The second Normal gets the standard deviation that suits the
# data with the bad value best: for a Gaussian prior with Normal noise the evidence has a closed form.


# %%
@jax.jit
def closed_form(y, sigma):
    return bd.ExactGaussian(programs["area_mean"]).condition(prior, H, y=y, sigma=sigma).log_evidence()


best = max((0.5, 0.7, 0.9, 1.1, 1.3, 1.5), key=lambda sigma: closed_form(data["one bad value"], sigma))
models = {
    "Normal, sd 0.5 K": ("area_mean", {"sigma": jnp.asarray(0.5)}),
    f"Normal, sd {best} K": ("area_mean", {"sigma": jnp.asarray(best)}),
    "Student-t, 3 d.o.f.": ("student_t", {"sigma": jnp.asarray(0.4), "nu": jnp.asarray(3.0)}),
    "correlated, sd 0.5 K": ("correlated_noise", drifting),
}

# %% [markdown]
# ## Evidence
#
# Each of eight islands of particles estimates p(y) without bias; their spread gives the standard error. Believe it
# while it is well below one half. Data that are not Normal bend the log-likelihood, hence `iterations=25`.

# %%
guide = partial(bd.MomentMatching, iterations=25)


@partial(jax.jit, static_argnames="name")
def evidence(key, name, y, numbers):
    program, _ = bd.read_model(programs[name], (prior, H), {"y": y, **numbers})
    likelihood = bd.ProgramLikelihood.of(program, prior)
    place = prior.context, prior.levels.levels(steps), prior.event_shape
    return bd.log_evidence(key, guide(prior.denoiser, likelihood), likelihood, *place, particles=particles, islands=8)


found = {}
for label, (name, numbers) in models.items():
    for kind, y in data.items():
        e = evidence(jax.random.key(2), name, y, numbers)
        found[label, kind] = float(e.log_evidence), float(e.standard_error)
        exact = f", closed form {closed_form(y, numbers['sigma']):.1f}" if name == "area_mean" else ""
        print(f"{label:21} {kind:14} log evidence {found[label, kind][0]:7.1f} +- {found[label, kind][1]:.1f}{exact}")

# %%
figure, panels = plt.subplots(1, 3, figsize=(10, 2.8), sharey=True, layout="constrained")
for axes, kind in zip(panels, data, strict=True):
    top = max(found[label, kind][0] for label in models)
    for row, label in enumerate(models):
        value, error = found[label, kind][0] - top, found[label, kind][1]
        shown = max(value, -25.0)
        axes.errorbar(shown, row, xerr=2 * error, fmt="o" if shown == value else "<", color="#0072B2", capsize=3)
        axes.annotate(f"{value:.1f}", (shown, row), (0, 7), textcoords="offset points", ha="center", fontsize=8)
    axes.set(title=f"data: {kind}", xlim=(-29, 3))
    axes.grid(axis="x", color="0.9")
panels[0].set(yticks=range(4), yticklabels=list(models), ylim=(3.5, -0.7))
figure.supxlabel("log evidence below the best of the four [nats], ± 2 standard errors", fontsize=10)
figure.savefig(out / "evidence.png", dpi=110)

# %% [markdown]
# Each data set prefers the noise that made it: the bad value calls for Student's t, by nats, even against the best
# Normal; without it there is little to choose between Student's t and the Normal. The correlated model has no way to
# explain a lone bad value.
#
# ## Posterior predictive checks
#
# Would data replicated from the posterior look like ours? For each draw x of the field a statistic of the residuals
# y - H x of our data is set against the same of replicated data y' ~ p(y | x). p is the share of draws in which the
# replicated one is the larger: near 0 or 1, the model does not make such data.


# %%
def lag_one(r):
    mean = lambda a: a.mean((1, 2, 3, 4))
    return mean(r[:, 1:] * r[:, :-1]) / np.sqrt(mean(r[:, 1:] ** 2) * mean(r[:, :-1] ** 2))


checks = {
    "one bad value": ("largest |y - H x| [K]", lambda r: np.abs(r).max((1, 2, 3, 4))),
    "drifting": ("correlation of y - H x at 1 h [1]", lag_one),
}
figure, panels = plt.subplots(1, 2, figsize=(10, 3), sharey=True, layout="constrained")
for axes, (kind, (what, statistic)) in zip(panels, checks.items(), strict=True):
    for row, (label, (name, numbers)) in enumerate(models.items()):
        sampler = bd.GuidedSDE(programs[name], steps=steps, guidance=guide, batch=64)
        y = bd.Fields(np.asarray(data[kind]), coords)
        posterior = sampler.run(jax.random.key(3), prior, H, y=y, draws=draws, **numbers)
        again = Predictive(programs[name], posterior.get_samples())(jax.random.key(4), prior, H, **numbers)["coarse"]
        Hx = np.asarray(H(posterior.fields))
        ours, replicated = statistic(np.asarray(data[kind]) - Hx), statistic(np.asarray(again) - Hx)
        print(f"{label:21} {kind:14} {what}: p = {np.mean(replicated >= ours):.2f}")
        shown = (-0.12, ours, "black", "our data"), (0.12, replicated, "#D55E00", "replicated data")
        for shift, values, colour, of in shown:
            low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
            axes.plot([low, high], [row + shift] * 2, color=colour, lw=2, label=of if row == 0 else None)
            axes.plot(middle, row + shift, "o", color=colour)
    axes.set(title=f"data: {kind}", xlabel=f"{what}: median and 90 % of draws")
    axes.grid(axis="x", color="0.9")
panels[0].set(yticks=range(4), yticklabels=list(models), ylim=(3.6, -0.6))
panels[0].legend(fontsize=8)
figure.savefig(out / "predictive.png", dpi=110)

# %% [markdown]
# The check finds the bad value under the first Normal, and says where to look for a better model. But it passes the
# correlated model on the same data, which the evidence rejects most of all: the field itself went to the bad value,
# so the residuals look well. A check conditions on what the data have already bent; the evidence asks what the model
# said before it saw them. It pays for that by depending on the prior of the field: compare models under one prior.
