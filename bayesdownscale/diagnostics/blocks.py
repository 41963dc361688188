"""Statistics over draws, a block of cells at a time: a posterior larger than memory is read once, in parts."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xarray as xr

BLOCK = 2**23  # numbers of an ensemble in memory at once


def by_cell(function: Callable[..., Any], ensemble: xr.DataArray, *fields: xr.DataArray) -> Any:
    """`function` of the members (M, n) and of each of `fields` (n,), for blocks of n cells: an array (n,) or a
    tuple of them.

    **Arguments:** `ensemble` (draw, ...) in memory or lazy, floating; `fields` (...), with the same coordinates.
    **Returns:** the array, or the tuple of arrays, (...) without attributes.
    **Raises:** ValueError where dimensions or coordinates differ.
    """
    like = fields[0] if fields else ensemble.isel(draw=0, drop=True)
    ensemble, *others = xr.align(ensemble, *fields, join="exact", exclude=["draw"])
    if any(set(ensemble.dims) != {"draw", *field.dims} for field in others):
        raise ValueError(
            f"expected an ensemble with the dimension draw and those of the truth, got {ensemble.dims} and "
            f"{fields[0].dims}; rename or select"
        )
    ensemble, others = ensemble.transpose("draw", *like.dims), [field.transpose(*like.dims) for field in others]
    results: list[Any] = []
    for part in blocks(ensemble):
        members = ensemble.isel(part).values.reshape(ensemble.sizes["draw"], -1)
        results.append(function(members, *(field.isel(part).values.ravel() for field in others)))
    if not isinstance(results[0], tuple):
        return _labelled(results, like)
    return tuple(_labelled(list(each), like) for each in zip(*results, strict=True))


def blocks(ensemble: xr.DataArray) -> Iterator[dict[Any, slice]]:
    """Parts of an ensemble (draw, ...) that fit in memory, as slices of its first dimension after draw (time), in
    order; of a chunked one, of whole chunks where they fit."""
    rest = [dim for dim in ensemble.dims if dim != "draw"]
    if not rest:
        yield {}
        return
    length = ensemble.sizes[rest[0]]
    fits = max(1, BLOCK * length // max(1, ensemble.size))
    chunks = ensemble.chunksizes.get(rest[0])
    if chunks and fits > chunks[0]:
        fits -= fits % chunks[0]
    for start in range(0, length, fits):
        yield {rest[0]: slice(start, min(start + fits, length))}


def _labelled(parts: list[np.ndarray], like: xr.DataArray) -> xr.DataArray:
    values = np.concatenate([np.atleast_1d(part) for part in parts]).reshape(like.shape)
    return xr.DataArray(values, like.coords, like.dims)
