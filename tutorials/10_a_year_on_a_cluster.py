# %% [markdown]
# # A year on a cluster
#
# `GuidedSDE` draws a trajectory in one piece, which is right for days. A year, or a century, is drawn as an
# *ensemble*: cut into spans, one job a member and span, into one Zarr store. Jobs know nothing of each other, so they
# run in any order, on one machine or on many, and a run that was stopped goes on where it was. Yet a member is one
# draw: the noise of each hour belongs to that hour, so that the two jobs beside a seam, which both solve a halo around
# their span, solve the same equation there.
#
# Here: days instead of a year, on a cluster inside this machine. The same on the command line:
#
#     bayesdownscale ensemble coarse.nc --members 30 --set sigma=0.05 --workers 2 --out ens.zarr

# %%
import os
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

import bayesdownscale as bd

out = Path(os.environ.get("TUTORIAL_OUT", "tutorial_10"))
members = int(os.environ.get("TUTORIAL_DRAWS", "4"))
steps = int(os.environ.get("TUTORIAL_STEPS", "16"))

# %% [markdown]
# ## Coarse data
#
# Six-hourly block means in a file. Each job reads its own hours of it.


# %%
def write_coarse(path: Path, days: int) -> None:
    """Red noise around 281 K on 8 x 8 blocks of the shipped prior's grid."""
    prior, rng = bd.load_prior(), np.random.default_rng(0)
    grid = prior.grid.coarsen(8)
    times = np.datetime64("2019-03-01", "ns") + np.timedelta64(6, "h") * np.arange(4 * days)
    values = np.empty((times.size, 1, *grid.shape), np.float32)
    state = rng.normal(size=values.shape[1:])
    for t in range(times.size):
        state = 0.9 * state + 0.4 * rng.normal(size=state.shape)
        values[t] = 281 + 2 * state
    coarse = bd.Fields(values, bd.Coords(times, prior.variables, grid), "made up")
    bd.write_atomic(coarse.to_dataset(), path, overwrite=True)


# %% [markdown]
# ## The ensemble
#
# What is downscaled is given as a function that makes it, here from files, because workers make their own. Parameters
# of the program must be fixed: draw them on a short span with `GuidedSDE` first. `guidance=bd.FixedCovariance` (on the
# command line `--guidance fixed_covariance`) draws by a covariance that is stored with the prior and takes no product
# with the network's Jacobian: cheaper, and on Gaussian problems next to as accurate (`docs/a_century.md`). A store
# remembers its guidance; a run with another one is refused.


# %%
def ensemble() -> bd.Ensemble:
    build = partial(bd.problem_from_files, None, out / "coarse.nc", "area_mean", {"sigma": 0.05})
    return bd.Ensemble(build, out / "ens.zarr", members=members, span=np.timedelta64(3, "D"), steps=steps)


class PowerCut(Exception):
    pass


def main() -> None:
    from distributed import Client, LocalCluster

    out.mkdir(parents=True, exist_ok=True)
    write_coarse(out / "coarse.nc", days=8)
    run = ensemble()
    plan = run.plan
    print(f"{members} members x {plan.spans} spans of {plan.span} hours")
    print(f"the network sees {plan.cost:.2f} times the hours that are kept; 1.5 with the default span of 30 days")

    # ## Interrupted and resumed
    #
    # On a real cluster, replace LocalCluster by `dask_jobqueue.SLURMCluster(cores=1, memory="4 GB", ...)` and
    # `cluster.scale(jobs=100)`. Without dask, an array job does the same: each task runs
    # `bayesdownscale ensemble ... --job-index $SLURM_ARRAY_TASK_ID --num-jobs 100`.

    def stop_after_two(done: int) -> None:
        if done == 2:
            raise PowerCut

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        try:
            run.run(bd.Dask(client), on_done=stop_after_two)
        except PowerCut:
            print("interrupted after two jobs")
        ensemble().run(bd.Dask(client), on_done=lambda done: print(f"{done} of {len(plan.jobs())} jobs"))

    # ## What is there
    #
    # A CF store, one chunk a job. `verify=True` compares every chunk with the checksum that was written with it.

    assert ensemble().run(verify=True) == []
    with xr.open_dataset(out / "ens.zarr", engine="zarr", consolidated=False) as ds:
        print(ds)
        steps_of_an_hour = np.abs(np.diff(ds["t2m"].values, axis=1)).mean((0, 2, 3))
        before_data = np.arange(plan.every, plan.length, plan.every) - 1  # a seam lies before an hour with data
        at_seam = (before_data + 1) % plan.span == 0
        changes = steps_of_an_hour[before_data]
        print(f"mean change to an hour with data [K]: {changes[~at_seam].mean():.3f} within a span, from")
        print(f"{changes[~at_seam].min():.3f} to {changes[~at_seam].max():.3f}; over the seams {changes[at_seam]}")


if __name__ == "__main__":  # workers import this file
    main()
