"""What the diagnostics read from a posterior tree: one physical variable at a time, labelled and aligned."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from bayesdownscale.data.errors import quoted
from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Variable
from bayesdownscale.data.units import convert
from bayesdownscale.diagnostics.blocks import blocks
from bayesdownscale.diagnostics.checks import FIELD_DIMS
from bayesdownscale.diagnostics.frame import near, pole_of

COARSE_DIMS = ("time_coarse", "lat_coarse", "lon_coarse")
Known = xr.Dataset | xr.DataArray | Fields  # of fine fields by name
OTHER_NAMES = {"latitude": "lat", "longitude": "lon", "rlat": "lat", "rlon": "lon", "valid_time": "time"}
SPACE = ("lat", "lon")  # their attributes hold the pole of rotated grids


@dataclass(frozen=True, eq=False)
class FieldDraws:
    """One physical variable of a posterior.

    `ensemble` (draw, time, lat, lon): the finite draws, chains one after the other; `truth` (time, lat, lon),
    NaN where unknown; `coarse` (time_coarse, lat_coarse, lon_coarse): the input, NaN where missing;
    `observed` (time,) bool: the times with a coarse snapshot; `training` (time, lat, lon): past weather. All in the
    units of `ensemble`. None: unknown.
    """

    name: str
    ensemble: xr.DataArray
    truth: xr.DataArray | None = None
    coarse: xr.DataArray | None = None
    observed: xr.DataArray | None = None
    training: xr.DataArray | None = None

    def periods(self) -> dict[str, slice | np.ndarray]:
        """The times of each period: all, those with input (`observed`) and those without (`between`), where known."""
        if self.observed is None or bool(self.observed.all()):
            return {"all": slice(None)}
        return {"all": slice(None), "observed": self.observed.values, "between": ~self.observed.values}


def field_names(tree: xr.DataTree) -> list[str]:
    """The physical variables of the posterior: those with time, lat and lon."""
    posterior = tree["posterior"].to_dataset()
    return [str(name) for name, values in posterior.data_vars.items() if set(FIELD_DIMS) <= set(values.dims)]


def read_fields(tree: xr.DataTree, training: Known | None = None) -> tuple[list[FieldDraws], int, int]:
    """All physical variables, with past weather if given, the number of draws, and how many of them were left out.

    A draw with a number that is not finite, in any variable, is left out of every variable.
    Raises `ValueError` where the tree holds no fields or no finite draw.
    """
    if "posterior" not in tree.children or not field_names(tree):
        raise ValueError(
            "expected a group 'posterior' with a variable (chain, draw, time, lat, lon), got none; "
            "make the tree with Posterior.to_datatree"
        )
    posterior = tree["posterior"].to_dataset()
    stacked = {name: stack_chains(posterior[name]) for name in field_names(tree)}
    finite = np.all([_finite(values) for values in stacked.values()], axis=0)
    if not finite.any():
        raise ValueError(f"expected finite draws, got none among {finite.size}; check units and noise scale")
    truth = tree["truth"].to_dataset() if "truth" in tree.children else xr.Dataset()
    past = xr.Dataset() if training is None else _by_name(training, field_names(tree), "past weather")
    fields = []
    for name, ensemble in stacked.items():
        coarse = _coarse(tree, name)
        fields.append(
            FieldDraws(
                name,
                ensemble if finite.all() else ensemble.isel(draw=np.flatnonzero(finite)),
                align(truth[name], ensemble, "the truth") if name in truth else None,
                coarse,
                None if coarse is None else _observed(ensemble["time"], coarse),
                _past(past[name], ensemble) if name in past else None,
            )
        )
    return fields, finite.size, int((~finite).sum())


def add_truth(tree: xr.DataTree, truth: Known) -> xr.DataTree:
    """A copy of `tree` with the group `truth`, on the grid and at the times of the posterior.

    **Arguments:** `truth`, a Dataset with variables named as in the posterior (time, lat, lon); or one
    DataArray, for a posterior of one variable; or `Fields`. Latitudes in either order, longitudes in any
    convention; values at times the posterior does not have are dropped, missing times become NaN.
    **Raises:** ValueError where names, units or grids do not fit.
    """
    posterior = tree["posterior"].to_dataset()
    found = _by_name(truth, field_names(tree), "a truth")
    aligned = {str(name): align(values, posterior[name], "the truth") for name, values in found.items()}
    groups = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    return xr.DataTree.from_dict({**groups, "/truth": xr.Dataset(aligned)})


def _by_name(fields: Known, names: list[str], what: str) -> xr.Dataset:
    """Those variables of `fields` that a posterior of `names` has."""
    if isinstance(fields, Fields):
        fields = fields.to_dataset()
    if isinstance(fields, xr.DataArray):
        if fields.name not in names and len(names) > 1:
            raise ValueError(f"expected {what} named as one of {', '.join(names)}, got {fields.name!r}; rename it")
        fields = fields.to_dataset(name=fields.name if fields.name in names else names[0])
    shared = [name for name in names if name in fields]
    if not shared:
        raise ValueError(f"expected {what} with {quoted(names)}, got {quoted(fields.data_vars)}; rename its variables")
    return fields[shared]


def _past(training: xr.DataArray, ensemble: xr.DataArray) -> xr.DataArray:
    """Past weather, which must not hold the hours it is to be compared at."""
    if np.isin(training["time"].values, ensemble["time"].values).any():
        raise ValueError("expected past weather without the hours of the posterior, got some of them; leave them out")
    return training


def align(field: xr.DataArray, like: xr.DataArray, what: str) -> xr.DataArray:
    """`field` as (time, lat, lon) at the coordinates of `like`, within a hundredth of a grid step.

    **Raises:** ValueError, naming `what`, where units differ or the grid or all times are missing.
    """
    field = field.drop_vars([name for name, coord in field.coords.items() if coord.ndim > 1])
    field = field.rename({old: new for old, new in OTHER_NAMES.items() if old in field.dims and new not in field.dims})
    field = field.drop_vars([name for name in field.coords if name not in FIELD_DIMS]).squeeze()
    missing = [dim for dim in FIELD_DIMS if dim not in field.dims]
    field = field.expand_dims([dim for dim in missing if dim in field.coords or like.sizes[dim] == 1])
    if set(field.dims) != set(FIELD_DIMS) or not set(FIELD_DIMS) <= set(field.coords):
        raise ValueError(f"expected {what} with coordinates time, lat and lon, got {field.dims}; name its axes")
    field = _in_units(field, like, what)
    own, wanted = pole_of(field), pole_of(like)
    if own is not None and wanted is not None and own != wanted:
        raise ValueError(
            f"expected {what} of '{field.name}' on the pole of the posterior, {wanted}, got {own}; regrid it to the "
            "posterior's grid"
        )
    middle = float(like["lon"].mean())
    field = field.assign_coords(lon=near(field["lon"], middle))
    for dim in ("lat", "lon"):
        wanted, given = like[dim].values, field[dim].values
        tolerance = 0.01 * float(np.abs(np.diff(wanted)).min()) if wanted.size > 1 else 0.01
        if np.abs(wanted[:, None] - given).min(axis=1).max() > tolerance:
            raise ValueError(
                f"expected {what} of '{field.name}' at every {dim} of the posterior, got others; "
                "regrid it to the posterior's grid"
            )
        field = field.sortby(dim).drop_duplicates(dim)
        field = field.reindex({dim: like[dim]}, method="nearest", tolerance=tolerance)
    field = field.sortby("time").drop_duplicates("time").reindex(time=like["time"])
    if not field.notnull().any():
        raise ValueError(f"expected {what} of '{field.name}' at times of the posterior, got no value there")
    return field.transpose(*FIELD_DIMS)


def _in_units(field: xr.DataArray, like: xr.DataArray, what: str) -> xr.DataArray:
    """`field` in the units of `like`, as it is where either has none."""
    given, wanted = (str(array.attrs.get("units", "")) for array in (field, like))
    if not given or not wanted or given == wanted:
        return field
    name = str(field.name)
    values = convert(field.values, Variable(name, given), Variable(name, wanted), f"{what} of '{name}'")
    return field.copy(data=values).assign_attrs(units=wanted)


def stack_chains(values: xr.DataArray) -> xr.DataArray:
    """(chain, draw, time, lat, lon), or without chain, as (draw, time, lat, lon): chain after chain; lazy if it was."""
    if "chain" not in values.dims:
        values = values.expand_dims("chain")
    values = values.transpose("chain", "draw", *FIELD_DIMS)
    shape = (values.sizes["chain"] * values.sizes["draw"], *(values.sizes[dim] for dim in FIELD_DIMS))
    coords = {"time": values["time"].values} | {dim: (dim, values[dim].values, values[dim].attrs) for dim in SPACE}
    return xr.DataArray(values.data.reshape(shape), coords, ("draw", *FIELD_DIMS), values.name, values.attrs)


def _finite(ensemble: xr.DataArray) -> np.ndarray:
    """Which draws (draw,) have finite values only."""
    parts = [np.isfinite(ensemble.isel(part).values).all(axis=(1, 2, 3)) for part in blocks(ensemble)]
    return np.all(parts, axis=0)


def _coarse(tree: xr.DataTree, name: str) -> xr.DataArray | None:
    """The observed coarse field of a variable, or None where none is labelled."""
    if "observed_data" not in tree.children:
        return None
    for site in tree["observed_data"].to_dataset().data_vars.values():
        if not (set(COARSE_DIMS) <= set(site.dims) and set(COARSE_DIMS) <= set(site.coords)):
            continue
        if "variable" in site.coords and name in site["variable"].values:
            site = site.sel(variable=name, drop=True)
        elif site.sizes.get("variable") == 1 and len(field_names(tree)) == 1:
            site = site.isel(variable=0, drop=True)
        if set(site.dims) == set(COARSE_DIMS) and bool(site.notnull().any()):
            return site.transpose(*COARSE_DIMS)
    return None


def _observed(time: xr.DataArray, coarse: xr.DataArray) -> xr.DataArray | None:
    """Which times (time,) have a coarse snapshot; None for time averages, or where no time coincides."""
    if "time: mean" in str(coarse.attrs.get("cell_methods", "")):
        return None
    seen = coarse["time_coarse"].values[coarse.notnull().any(("lat_coarse", "lon_coarse")).values]
    is_seen = np.isin(time.values.astype("datetime64[s]"), seen.astype("datetime64[s]"))
    return xr.DataArray(is_seen, {"time": time.values}, ("time",)) if is_seen.any() else None
