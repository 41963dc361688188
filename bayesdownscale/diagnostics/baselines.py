"""What a forecaster without a prior would do: interpolate the coarse field."""

import numpy as np
import xarray as xr
from scipy.ndimage import distance_transform_edt


def bilinear(coarse: xr.DataArray, like: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """A coarse field interpolated bilinearly in space and linearly in time: the baseline of every score.

    Beyond the outermost coarse centres and times the nearest value holds. A missing cell takes the value of
    the nearest valid cell of its time (in cells); a time without any valid cell is left out. Longitudes may
    come in any convention.

    **Arguments:** `coarse` (time_coarse, lat_coarse, lon_coarse), coordinates in datetime64 and degrees, in
    any order, NaN where missing; `like`, with coordinates time, lat and lon.
    **Returns:** (time, lat, lon) float64 in the units of `coarse`.
    **Raises:** ValueError where no coarse cell is valid.
    """
    coarse = coarse.transpose("time_coarse", "lat_coarse", "lon_coarse")
    values = coarse.values.astype(np.float64)
    has_data = np.isfinite(values).any(axis=(1, 2))
    if not has_data.any():
        raise ValueError("expected at least one coarse value, got only missing ones; check the coarse file")
    values = np.stack([_fill_from_nearest(layer) for layer in values[has_data]])
    middle = float(like["lon"].mean())
    lon_coarse = (coarse["lon_coarse"].values - middle + 180.0) % 360.0 - 180.0 + middle
    in_time = _weights(_hours(coarse["time_coarse"].values[has_data]), _hours(like["time"].values))
    in_lat = _weights(coarse["lat_coarse"].values, like["lat"].values)
    in_lon = _weights(lon_coarse, like["lon"].values)
    fine = np.einsum("tT,yY,xX,TYX->tyx", in_time, in_lat, in_lon, values, optimize=True)
    coords = {dim: like[dim].values for dim in ("time", "lat", "lon")}
    return xr.DataArray(fine, coords, ("time", "lat", "lon"), "bilinear", dict(coarse.attrs))


def _hours(times: np.ndarray) -> np.ndarray:
    return (times - np.datetime64("2000-01-01")) / np.timedelta64(1, "h")


def _weights(nodes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The matrix (points, nodes) of linear interpolation, constant beyond the outermost nodes."""
    order = np.argsort(nodes)
    units = np.eye(nodes.size)[:, order]
    return np.stack([np.interp(points, nodes[order], unit) for unit in units], axis=1)


def _fill_from_nearest(layer: np.ndarray) -> np.ndarray:
    """`layer` (lat, lon), its missing cells filled from the nearest valid one."""
    missing = ~np.isfinite(layer)
    if not missing.any():
        return layer
    nearest = np.asarray(distance_transform_edt(missing, return_distances=False, return_indices=True))
    return layer[nearest[0], nearest[1]]
