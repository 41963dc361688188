"""Fine weather given a coarse model, and a report that judges it. Run with `python study.py`."""

import jax

import bayesdownscale as bd
from models.area_mean import model  # yours now: change it, or write another beside it

prior = bd.load_prior()  # hourly 2 m temperature over the British Isles; or bd.load_prior("your/prior")
coarse = bd.open_coarse("coarse.nc", like=prior)  # the name of your file
prior = prior.spanning(coarse.first_and_last(prior.times[1] - prior.times[0]))
H = bd.area_mean(prior.grid, coarse.grid) @ bd.seen_in_time(prior.times, coarse)  # snapshots, or means in time

posterior = bd.GuidedSDE(model, steps=32).run(jax.random.key(0), prior, H, y=coarse, draws=16)

tree = posterior.to_datatree()
bd.write_atomic(tree, "posterior.zarr", overwrite=True)
bd.report(tree, "report.html", overwrite=True)
