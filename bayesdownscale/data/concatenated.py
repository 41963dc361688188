"""Variables of several files one after another, of which only what is asked for is read.

xarray's own `concat` loads them, or makes one dask task of each file, which reads all of it for any part.
"""

from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing


def concatenated(parts: list[xr.Variable], dim: str) -> xr.Variable:
    """The `parts`, open but not loaded, one after another along `dim`, not loaded either; a part without that
    dimension counts as one step. Dimensions, attributes and encoding are those of the first."""
    first = parts[0]
    dims = tuple(map(str, first.dims)) if dim in first.dims else (dim, *map(str, first.dims))
    data = indexing.LazilyIndexedArray(_OneAfterAnother(parts, dims, dim))
    return xr.Variable(dims, data, first.attrs, dict(first.encoding))


class _OneAfterAnother(BackendArray):
    def __init__(self, parts: list[xr.Variable], dims: tuple[str, ...], dim: str):
        self.parts, self.dims, self.dim = parts, dims, dim
        lengths = [part.sizes.get(dim, 1) for part in parts]
        self.ends = np.cumsum(lengths)
        self.shape = tuple(int(self.ends[-1]) if d == dim else parts[0].sizes[d] for d in dims)
        self.dtype = np.result_type(*(part.dtype for part in parts))

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple) -> np.ndarray:
        """The values at integers, slices or positions along each dimension."""
        single = tuple(k for k, each in enumerate(key) if isinstance(each, int | np.integer))
        keys = {
            d: slice(int(each), int(each) + 1) if k in single else each
            for k, (d, each) in enumerate(zip(self.dims, key, strict=True))
        }
        at = np.arange(self.ends[-1])[keys.pop(self.dim)]
        which = np.searchsorted(self.ends, at, side="right")
        cuts = np.flatnonzero(np.diff(which)) + 1
        runs = [run for run in np.split(np.arange(at.size), cuts) if run.size]
        pieces = [self._of_part(int(which[run[0]]), at[run], keys) for run in runs]
        axis = self.dims.index(self.dim)
        empty = [len(np.arange(n)[keys[d]]) if d in keys else 0 for d, n in zip(self.dims, self.shape, strict=True)]
        values = np.concatenate(pieces, axis) if pieces else np.empty(empty, self.dtype)
        return values.astype(self.dtype, copy=False).squeeze(single)

    def _of_part(self, part: int, at: np.ndarray, keys: dict[str, Any]) -> np.ndarray:
        """The values of one part at positions `at` of all."""
        own, at = self.parts[part], at - (self.ends[part - 1] if part else 0)
        if self.dim in own.dims:
            found = own.isel({**keys, self.dim: as_slice(at)})
            return xr.Variable(found.dims, found.values).transpose(*self.dims).values
        found = own.isel(keys)
        one = xr.Variable(found.dims, found.values).transpose(*(d for d in self.dims if d != self.dim)).values
        return np.repeat(np.expand_dims(one, self.dims.index(self.dim)), at.size, self.dims.index(self.dim))


def as_slice(index: np.ndarray) -> slice | np.ndarray:
    """Positions as a slice where they follow each other, which files are read faster by."""
    if not index.size or not np.all(np.diff(index) == 1):
        return index
    return slice(int(index[0]), int(index[-1]) + 1)
