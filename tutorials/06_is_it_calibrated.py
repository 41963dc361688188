# %% [markdown]
# # Is it calibrated?
#
# A posterior is right when its probabilities are: of all its 90 % intervals, 90 % hold the truth. Here two samplers
# meet the same tests: moment matching, the default, and the released rule of the seed paper, which leaves out the
# network's Jacobian and moves only the hours that have input. Scores at those hours cannot tell them apart. The tests
# below can.

# %%
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import bayesdownscale as bd
from bayesdownscale.recipes import find_recipe, load_recipe

out = Path(os.environ.get("TUTORIAL_OUT", "tutorial_06"))
draws = int(os.environ.get("TUTORIAL_DRAWS", "99"))
steps = int(os.environ.get("TUTORIAL_STEPS", "32"))
replicates = 8 if draws < 99 else 100
out.mkdir(exist_ok=True)

# %% [markdown]
# ## The problem
#
# A day of hourly 2 m temperature on 8 x 8 cells, a Gaussian prior, means over 4 x 4 cells every six hours with a noise
# of 0.2 K. The rule is run as it was released: the deterministic solver, with four times as many evaluations.

# %%
prior, _, coarse = bd.gaussian_example(times=25)
times = prior.times[::6]
coords = bd.Coords(times, coarse.variables, coarse.grid)
H = bd.area_mean(prior.grid, coarse.grid) @ bd.snapshots(prior.times, times)
area_mean = load_recipe(find_recipe("models", "area_mean")).model
sigma = jnp.asarray(0.2)
k_truth, k_noise, k_good, k_seed, k_sbc = jax.random.split(jax.random.key(6), 5)
truth = prior.sample(k_truth)
y = bd.Fields(np.asarray(H(truth) + sigma * jax.random.normal(k_noise, coords.shape)), coords)
known = bd.Fields(np.asarray(truth), prior.coords)
ode = bd.Integrator(stochasticity=0.0)
good = bd.GuidedSDE(area_mean, steps=steps, batch=draws)
rule = bd.GuidedSDE(area_mean, steps=4 * steps, batch=draws, guidance=bd.SeedRule, integrator=ode)
trees = {
    "moment matching": good.run(k_good, prior, H, y=y, sigma=sigma, draws=draws).to_datatree(truth=known),
    "seed rule": rule.run(k_seed, prior, H, y=y, sigma=sigma, draws=draws).to_datatree(truth=known),
}

# %% [markdown]
# ## One truth
#
# `bd.exchangeability` asks whether the truth is one more draw: its statistics are ranked among those of draws put in
# its place, so that correlation between cells cannot mislead. `bd.jerk_ratio` compares second differences in time at
# hours with input with those at other hours.

# %%
observed = known.to_dataset()["t2m"]["time"].isin(times).drop_vars("time").assign_coords(time=prior.times)
for name, tree in trees.items():
    ensemble = tree["posterior"]["t2m"].isel(chain=0, drop=True)
    of_truth = tree["truth"]["t2m"]
    p = bd.exchangeability(ensemble, of_truth)
    print(f"{name}: 90 % intervals hold {float(bd.coverage(ensemble, of_truth)):.0%}, ", end="")
    print(f"jerk {float(bd.jerk_ratio(ensemble, observed).mean()):.2f} (truth ", end="")
    print(f"{float(bd.jerk_ratio(of_truth, observed)):.2f}); p-values", end=" ")
    print(", ".join(f"{test} {float(p.sel(test=test)):.2f}" for test in p["test"].values))

# %% [markdown]
# The report says the same with pictures, for both side by side.

# %%
page = bd.report(
    trees["moment matching"], out / "report.html", compare={"seed rule": trees["seed rule"]}, overwrite=True
)
seed_page = bd.report(trees["seed rule"], out / "report_seed_rule.html", overwrite=True)
print(f"reports: {page}, {seed_page}")

# %% [markdown]
# ## Many truths
#
# One truth is one sample of weather. Simulation-based calibration needs no more than the program: truths and data are
# drawn from it, and the rank of each truth among its posterior draws must be uniform. `tarp` ranks all quantities
# together.

# %%
samplers = {
    "moment matching": (bd.guided_sampler, {"steps": steps}),
    "seed rule": (bd.guided_sampler, {"steps": 4 * steps, "guidance": bd.SeedRule, "integrator": ode}),
}
ranks = {}
for name, (sampler, settings) in samplers.items():
    ranks[name] = bd.sbc(
        k_sbc, area_mean, sampler, prior, H,
        theta={"sigma": sigma}, replicates=replicates, draws=31, settings=settings,
    )  # fmt: skip
    judged = bd.uniformity(ranks[name])
    worst = judged.isel(quantity=int(judged["p"].argmin("quantity")))
    print(f"{name}: smallest p-value {float(worst['p']):.2g} ({worst['quantity'].item()})")

# %%
figure, axes = plt.subplots(2, 4, figsize=(12, 5), sharey=True, layout="constrained")
for row, (name, result) in zip(axes, ranks.items(), strict=True):
    for panel, quantity in zip(row, ("t2m mean", "t2m gradient", "t2m middle_cell", "tarp"), strict=True):
        values = result["rank"].sel(quantity=quantity).values
        counts, edges = np.histogram(values, bins=8, range=(0, 32))
        panel.stairs(counts / replicates * 8, edges, fill=True, color="#56B4E9")
        panel.axhline(1.0, color="black", linewidth=1)
        panel.set(title=f"{quantity}\n{name}", xlabel="rank of the truth among 31 draws")
    row[0].set_ylabel("density (uniform: 1)")
figure.savefig(out / "ranks.png", dpi=120)
