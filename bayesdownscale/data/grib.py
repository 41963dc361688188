"""What cfgrib leaves out: the axes and the pole of rotated grids."""

import numpy as np
import xarray as xr

from .rotated import RotatedPole


def with_rotated_axes(ds: xr.Dataset) -> xr.Dataset:
    """A dataset of cfgrib, which gives a rotated grid (gridType rotated_ll) as rows y and columns x with the latitude
    and longitude of each cell, with the coordinates rlat and rlon and the grid mapping that its keys tell.

    GRIB tells where the south pole of the rotated grid lies; CF where the north pole does.
    """
    for name in list(ds.data_vars):
        keys = {str(key)[5:]: value for key, value in ds[name].attrs.items() if str(key).startswith("GRIB_")}
        if keys.get("gridType") != "rotated_ll" or not {"y", "x"} <= set(ds[name].dims):
            continue
        if keys.get("angleOfRotationInDegrees", 0.0) != 0.0:
            continue
        south = keys["latitudeOfSouthernPoleInDegrees"], keys["longitudeOfSouthernPoleInDegrees"]
        pole = RotatedPole(-float(south[0]), (float(south[1]) + 360.0) % 360.0 - 180.0)
        down = 1.0 if keys.get("jScansPositively") else -1.0
        left = -1.0 if keys.get("iScansNegatively") else 1.0
        axes = {
            "y": ("grid_latitude", "latitudeOfFirstGridPointInDegrees", down, "jDirectionIncrementInDegrees"),
            "x": ("grid_longitude", "longitudeOfFirstGridPointInDegrees", left, "iDirectionIncrementInDegrees"),
        }
        for dim, (standard_name, first, sign, step) in axes.items():
            values = float(keys[first]) + sign * float(keys[step]) * np.arange(ds.sizes[dim])
            values = np.round(np.where(values > 180.0, values - 360.0, values), 6)
            attrs = {"standard_name": standard_name, "units": "degrees"}
            ds = ds.assign_coords({"rlat" if dim == "y" else "rlon": (dim, values, attrs)})
        ds = ds.assign_coords(crs=((), np.int32(0), pole.cf_attrs()))
        ds[name].attrs["grid_mapping"] = "crs"
    return ds
