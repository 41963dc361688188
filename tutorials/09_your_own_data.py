# %% [markdown]
# # Your own data
#
# Files from climate models are seldom as a prior wants them. This makes an untidy one whose truth is known, opens it,
# says what the file does not say, and chooses the operator in time: six-hour means are no snapshots, and taking them
# for snapshots costs skill. What happens to 88 other kinds of files is in docs/awkward_files.md.

# %%
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr

import bayesdownscale as bd

out = Path(os.environ.get("TUTORIAL_OUT", "tutorial_09"))
draws = int(os.environ.get("TUTORIAL_DRAWS", "16"))
steps = int(os.environ.get("TUTORIAL_STEPS", "16"))
out.mkdir(exist_ok=True)

# %% [markdown]
# ## An untidy file
#
# A day of temperature, drawn from the shipped prior, is averaged over 8 x 8 cells and six hours, with 0.05 K of noise,
# and stored as many a model stores it: degrees Celsius, an unusual name, no standard name, longitudes of 0 to 360,
# south to north, packed in 16 bits, dates of a calendar without leap days, stamped at the end of each mean, with
# bounds. One cell is missing.

# %%
start = np.datetime64("2019-03-26T00", "ns")
hours = start + np.timedelta64(1, "h") * np.arange(24)
prior = bd.load_prior().spanning(hours)
k_truth, k_noise = jax.random.split(jax.random.key(0))
truth = jax.jit(prior.sample)(k_truth)
coarse_grid = prior.grid.coarsen(8)
ends = np.stack([hours[::6], hours[::6] + np.timedelta64(6, "h")], axis=1)
six_hours = bd.area_mean(prior.grid, coarse_grid) @ bd.time_mean(prior.times, ends)
values = six_hours(truth) + 0.05 * jax.random.normal(k_noise, six_hours(truth).shape)

untidy = xr.Dataset(
    {"T2": (("time", "nav_lat", "nav_lon"), np.asarray(values)[:, 0, ::-1] - 273.15)},
    {"nav_lat": coarse_grid.lat[::-1], "nav_lon": coarse_grid.lon % 360},
)
untidy["T2"][1, 2, 3] = np.nan
untidy["T2"].attrs = {"units": "Celsius", "cell_methods": "area: mean time: mean"}
since = lambda times: (times - np.datetime64("2019-01-01", "ns")) / np.timedelta64(1, "D")  # no leap day in between
untidy["time_bnds"] = (("time", "bnds"), since(ends))
untidy = untidy.assign_coords(time=since(ends[:, 1]))
untidy["time"].attrs = {"units": "days since 2019-01-01", "calendar": "noleap", "bounds": "time_bnds"}
packed = {"dtype": "int16", "scale_factor": 0.001, "_FillValue": -32768}
untidy.to_netcdf(out / "untidy.nc", encoding={"T2": packed})
print(untidy)

# %% [markdown]
# ## Opening it
#
# What cannot be known is asked for, in one sentence. A map of names answers (on the command line: `--name t2m=T2`);
# were the units missing, `units={"t2m": "degC"}` would say them (`--units t2m=degC`). All else the file says itself.

# %%
try:
    bd.open_coarse(out / "untidy.nc", like=prior)
except bd.DataError as error:
    print("DataError:", error)

coarse = bd.open_coarse(out / "untidy.nc", like=prior, variables={"t2m": "T2"})
print(coarse.variables, "\n", coarse.grid.extent(), "\n", coarse.times, coarse.methods, "\n", coarse.bounds)
known = np.isfinite(coarse.values)
print("largest error of a coarse value:", np.abs(coarse.values - np.asarray(values))[known].max(), "K; missing:",
      int((~known).sum()))  # fmt: skip

# %% [markdown]
# ## Many files, many levels
#
# Archives keep a file a year or a file a variable, and some files hold several levels or members. Files are given by a
# list or by wildcards, and joined along time without being loaded; `at` says which level or member is meant (on the
# command line: `bayesdownscale downscale 'morning.nc' 'evening.nc' --at member=1`, or `'part_*.nc'` in quotes).

# %%
with xr.open_dataset(out / "untidy.nc", decode_times=False) as untidy:
    for name, times in {"evening": slice(2, 4), "morning": slice(0, 2)}.items():
        part = untidy.isel(time=times)
        two = part.assign(T2=part.T2.expand_dims(member=[0, 1]).copy(deep=True))
        two["T2"][0] += 5.0  # another weather
        two["T2"].attrs = part.T2.attrs
        two.to_netcdf(out / f"part_{name}.nc")
try:
    bd.open_coarse(out / "part_*.nc", like=prior, variables={"t2m": "T2"})
except bd.DataError as error:
    print("DataError:", error)
again = bd.open_coarse(out / "part_*.nc", like=prior, variables={"t2m": "T2"}, at={"member": 1})
print("the same again:", np.allclose(again.values, coarse.values, equal_nan=True), "from", again.source)

# %% [markdown]
# ## Snapshots or means?
#
# `seen_in_time` chooses from the file's cell_methods and bounds; for a file that says neither, say it:
# `coarse.stamped_at("start")`, or `--stamp start`. The missing cell is masked in the model.

# %%
prior = prior.spanning(coarse.first_and_last(np.timedelta64(1, "h")))
in_space = bd.area_mean(prior.grid, coarse.grid)
operators = {
    "six-hour means, as the file says": in_space @ bd.seen_in_time(prior.times, coarse),
    "taken for snapshots at their ends": in_space @ bd.snapshots(prior.times, coarse.times),
}


def model(H, y=None, sigma=0.05):
    x = numpyro.sample("weather", prior)
    seen = True if y is None else jnp.isfinite(y)
    numpyro.sample("coarse", dist.Normal(H(x), sigma).mask(seen).to_event(4), obs=y)


# %%
fine = xr.DataArray(np.asarray(truth)[:, 0], dims=("time", "lat", "lon"), attrs={"units": "K"})
for name, H in operators.items():
    posterior = bd.GuidedSDE(model, steps=steps, batch=draws).run(jax.random.key(1), H, y=coarse, draws=draws)
    tree = posterior.to_datatree()
    members = tree["posterior"]["t2m"].isel(chain=0).drop_vars(("time", "lat", "lon"))
    score = float(bd.crps(members, fine.isel(time=slice(members.sizes["time"]))).mean())
    print(f"{name}: mean CRPS {score:.3f} K, {int(members.sizes['draw'])} members")
    if name.startswith("six"):
        bd.write_atomic(tree, out / "posterior.zarr", overwrite=True)
        right = np.asarray(members)

# %% [markdown]
# ## A CF file to hand on
#
# Members as CF-1.11 NetCDF, which the compliance checker of IOOS passes; `bayesdownscale downscale` writes the same:
#
#     bayesdownscale downscale untidy.nc --name t2m=T2 --set sigma=0.05 --out posterior.zarr --cf members.nc

# %%
cf = bd.to_cf({"t2m": right}, prior.coords, {"title": "Tutorial 09", "institution": "you"})
print(bd.write_atomic(cf, out / "members.nc", overwrite=True), "\n", cf)
