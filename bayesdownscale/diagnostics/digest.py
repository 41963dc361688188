"""A posterior small enough for ArviZ: parameters, named functionals and some cells, with chains kept apart.

ArviZ's statistics hold all draws of all variables in memory and take minutes for a field. What they say of a field is
said as well by functionals of it and by cells at random.
"""

import numpy as np
import xarray as xr

from bayesdownscale.diagnostics.blocks import blocks
from bayesdownscale.diagnostics.checks import FIELD_DIMS
from bayesdownscale.diagnostics.functionals import FUNCTIONALS, Functional, of_ensemble
from bayesdownscale.diagnostics.layout import field_names, stack_chains


def digest(
    tree: xr.DataTree, cells: int = 2000, seed: int = 0, functionals: dict[str, Functional] = FUNCTIONALS
) -> xr.DataTree:
    """A posterior tree that every function of ArviZ takes: `az.summary(bd.digest(tree))`, `az.rhat`, `az.plot_trace`.

    **Arguments:** `tree`, a posterior tree (`Posterior.to_datatree`), in memory or lazy; `cells`, how many cells and
    times at random, the same for every variable, with the seed `seed`; `functionals` by name.
    **Returns:** a tree whose group `posterior` holds (chain, draw, ...): every parameter under its name; for a
    physical variable t2m "t2m mean", "t2m maximum", ... and "t2m cells" (chain, draw, cell); a group `constant_data`,
    `time`, `lat` and `lon` of the cells. Other groups and the attributes are those of `tree`.
    """
    posterior = tree["posterior"].to_dataset()
    names = field_names(tree)
    if not names:
        raise ValueError("expected fields (chain, draw, time, lat, lon) in the group 'posterior', got none")
    small = posterior.drop_vars(names).drop_dims(FIELD_DIMS, errors="ignore").load()
    small, places = small.drop_vars([dim for dim in FIELD_DIMS if dim in small.coords]), xr.Dataset()
    for name in names:
        ensemble = stack_chains(posterior[name])
        apart = lambda values, field=posterior[name]: values.reshape(*_chains(field), *values.shape[1:])
        for key, values in of_ensemble(ensemble, functionals).items():
            small[f"{name} {key}"] = (("chain", "draw"), apart(values.values), values.attrs)
        if cells:
            index = _cells(ensemble, cells, seed)
            attrs = {"long_name": "cells and times at random", "units": ensemble.attrs.get("units", "")}
            small[f"{name} cells"] = (("chain", "draw", "cell"), apart(_values_at(ensemble, index)), attrs)
            at = {dim: ensemble[dim].values[i] for dim, i in zip(FIELD_DIMS, index, strict=True)}
            places = xr.Dataset({dim: ("cell", values) for dim, values in at.items()})
    groups = {node.path: node.to_dataset(inherit=False) for node in tree.subtree if node.path != "/posterior"}
    return xr.DataTree.from_dict({**groups, "/posterior": small, "/constant_data": places})


def _chains(field: xr.DataArray) -> tuple[int, int]:
    return field.sizes.get("chain", 1), field.sizes["draw"]


def _cells(ensemble: xr.DataArray, cells: int, seed: int) -> tuple[np.ndarray, ...]:
    """Positions (time, lat, lon) of cells at random without repetition, in order."""
    shape = tuple(ensemble.sizes[dim] for dim in FIELD_DIMS)
    size = int(np.prod(shape))
    chosen = np.sort(np.random.default_rng(seed).choice(size, min(cells, size), replace=False))
    return np.unravel_index(chosen, shape)


def _values_at(ensemble: xr.DataArray, index: tuple[np.ndarray, ...]) -> np.ndarray:
    """The values (draw, cell) at the positions `index`, block by block."""
    times, rows, columns = index
    parts = []
    for part in blocks(ensemble):
        span = part["time"]
        here = (times >= span.start) & (times < span.stop)
        block = ensemble.isel(part).values
        parts.append(block[:, times[here] - span.start, rows[here], columns[here]])
    return np.concatenate(parts, axis=1)
