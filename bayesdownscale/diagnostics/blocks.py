"""Statistics over draws, and of each draw, a block at a time: a posterior larger than memory is read in parts."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xarray as xr

from bayesdownscale.diagnostics.checks import FIELD_DIMS, labelled

BLOCK = 2**21  # numbers of an ensemble in memory at once


def by_cell(function: Callable[..., Any], ensemble: xr.DataArray, *fields: xr.DataArray) -> Any:
    """`function` of the members (M, n) and of each of `fields` (n,), for blocks of n cells: an array (n,) or a
    tuple of them.

    **Arguments:** `ensemble` (draw, ...) in memory or lazy, floating; `fields` (...), with the same coordinates.
    **Returns:** the array, or the tuple of arrays, (...) without attributes.
    **Raises:** ValueError where dimensions or coordinates differ.
    """
    like = fields[0] if fields else ensemble.isel(draw=0, drop=True)
    ensemble, *others = xr.align(ensemble, *fields, join="exact", exclude=["draw"], copy=False)
    if any(set(ensemble.dims) != {"draw", *field.dims} for field in others):
        raise ValueError(
            f"expected an ensemble with the dimension draw and those of the truth, got {ensemble.dims} and "
            f"{fields[0].dims}; rename or select"
        )
    ensemble, others = ensemble.transpose("draw", *like.dims), [field.transpose(*like.dims) for field in others]
    out: tuple[np.ndarray, ...] | None = None
    alone, done = True, 0
    for part in blocks(ensemble):
        members = ensemble.isel(part).values.reshape(ensemble.sizes["draw"], -1)
        found = function(members, *(field.isel(part).values.ravel() for field in others))
        alone = not isinstance(found, tuple)
        arrays = [np.atleast_1d(each) for each in ((found,) if alone else found)]
        if out is None:  # each result is written into its place: parts and a whole together would be twice as much
            out = tuple(np.empty(like.size, array.dtype) for array in arrays)
        for whole, array in zip(out, arrays, strict=True):
            whole[done : done + array.size] = array
        done += arrays[0].size
    assert out is not None
    results = tuple(xr.DataArray(whole.reshape(like.shape), like.coords, like.dims) for whole in out)
    return results[0] if alone else results


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


def by_part(function: Callable[..., Any], field: xr.DataArray, *others: xr.DataArray, along: str | None = None) -> Any:
    """`function` of parts of a field, and of the same parts of `others`, that fit in memory; results side by side.

    **Arguments:** `function` of arrays in double precision, (draw,) time, lat, lon in this order, which treats each
    draw, and each place along `along`, by itself and keeps both; `field` ((draw,) time, lat, lon), in memory or
    lazy; `others`, with some of its dimensions and the same coordinates; `along`, the dimension along which a
    draw larger than a part is cut (None: never).
    **Returns:** what `function` returns, DataArray or Dataset, of all parts.
    **Raises:** ValueError where dimensions or coordinates are not as expected or a value is missing.
    """
    if any(set(other.dims) - {"draw", *FIELD_DIMS} for other in others):
        got = [other.dims for other in others]
        raise ValueError(f"expected dimensions among draw, time, lat and lon, got {got}; rename or select")
    aligned = xr.align(labelled(field), *others, join="exact", copy=False)
    arrays = [each.transpose("draw", *FIELD_DIMS, missing_dims="ignore") for each in aligned]
    draw = field.size // field.sizes.get("draw", 1)
    rows = []
    for some in _slices(field, "draw", BLOCK // draw):
        fits = BLOCK * field.sizes[along] // draw if along else 0
        cuts = [{along: cut} for cut in _slices(field, along, fits)] if along else [{}]
        rows.append(_joined([function(*_read(arrays, {"draw": some, **cut})) for cut in cuts], along))
    return _joined(rows, "draw")


def _slices(field: xr.DataArray, dim: str, fits: int) -> list[slice]:
    """Cuts of `dim` into parts of at most `fits`, at least 1, and of whole chunks where they fit."""
    chunk = field.chunksizes.get(dim, (1,))[0]
    step = max(1, fits - fits % chunk if fits > chunk else fits)
    return [slice(start, start + step) for start in range(0, field.sizes.get(dim, 1), step)]


def _read(arrays: list[xr.DataArray], part: dict[Any, slice]) -> list[xr.DataArray]:
    """That part of each array, in memory and double precision."""
    cut = [array.isel(part, missing_dims="ignore").drop_attrs(deep=False) for array in arrays]
    read = [array.compute().astype(np.float64) for array in cut]
    missing = max(int((~np.isfinite(array)).sum()) for array in read)
    if missing:
        raise ValueError(f"expected fields without missing values, got {missing}; fill them or select cells without")
    return read


def _joined(parts: list[Any], dim: str | None) -> Any:
    return parts[0] if len(parts) == 1 else xr.concat(parts, dim, coords="minimal", compat="override", join="override")
