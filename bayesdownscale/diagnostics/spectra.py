"""Power spectra of fields in space and in time: is the small-scale and fast variability of each draw right?

A draw is a possible weather, so each has a spectrum of its own; the ensemble mean is smooth and has none to
compare. Domains and periods are not periodic: a jump between opposite edges would leak power like k^-2 into all
scales and hide a steeper spectrum. A Hann window w goes to zero at the edges and leaks like k^-6, so neither a
trend nor the jump needs to be removed first; dividing by the mean of w^2 keeps the variance (Harris 1978, Proc.
IEEE 66, 51). The mean removed is that under the window, so nothing is left at wavenumber zero.
"""

from typing import Any

import numpy as np
import scipy.fft
import xarray as xr

from bayesdownscale.data.grid import EARTH_RADIUS_KM
from bayesdownscale.diagnostics.blocks import by_part
from bayesdownscale.diagnostics.checks import hours_apart, labelled, squared
from bayesdownscale.diagnostics.scores import domain_mean

FEWEST = 4  # cells or times under a window


def radial_spectrum(field: xr.DataArray) -> xr.DataArray:
    """Power spectral density averaged over the rings of equal wavenumber and over time, not normalised.

    P(k) = |sum_x w (x - mean) exp(-2 pi i k x)|^2 dx dy / sum_x w^2, with the Hann window w in both directions.
    White noise of variance s^2 has P = s^2 dx dy. Parseval: the sum of P times the coordinate `ring_area` is the
    variance of the windowed field; 2 pi k P(k) is the isotropic spectrum, whose slope the literature gives. The
    grid is taken as flat, its cells dx wide at the mean latitude and dy high; rings are as wide as the coarser of
    the two wavenumber steps. Beyond the smaller Nyquist wavenumber rings are no longer whole.

    **Arguments:** `field` ((draw,) time, lat, lon) on a regular grid of at least 4 x 4 cells.
    **Returns:** ((draw,) wavenumber), squared units times km2, over wavenumber [km-1], the mean of each ring.
    **Raises:** ValueError for missing values, or a grid that is too small or not regular.
    """
    dy = _spacing(field, "lat") * np.deg2rad(EARTH_RADIUS_KM)
    dx = _spacing(field, "lon") * np.deg2rad(EARTH_RADIUS_KM) * np.cos(np.deg2rad(float(field["lat"].mean())))
    n_lat, n_lon = field.sizes["lat"], field.sizes["lon"]
    k = np.hypot(np.fft.fftfreq(n_lat, dy)[:, None], np.fft.fftfreq(n_lon, dx))
    width = max(1 / (n_lat * dy), 1 / (n_lon * dx))
    index = np.maximum(np.floor(k / width + 0.5), 1)
    index[0, 0] = 0
    rings = [index == i for i in np.unique(index)[1:]]

    def spectra(part: xr.DataArray) -> xr.DataArray:
        power = _power(part.values, (-2, -1)) * dx * dy
        values = np.stack([power[..., ring].mean(axis=-1) for ring in rings], axis=-1)
        return part.isel(lat=0, lon=0, drop=True).expand_dims({"wavenumber": len(rings)}, -1).copy(data=values)

    attrs = {"long_name": "power spectral density", "units": squared(field, "km2")}
    wavenumber = ("wavenumber", [k[ring].mean() for ring in rings], {"long_name": "wavenumber", "units": "km-1"})
    area = ("wavenumber", [ring.sum() / (k.size * dx * dy) for ring in rings], {"units": "km-2"})
    mean = by_part(spectra, field, along="time").mean("time")
    return mean.assign_coords(wavenumber=wavenumber, ring_area=area).rename("power").assign_attrs(attrs)


def temporal_spectrum(field: xr.DataArray) -> xr.DataArray:
    """Power spectral density of the series of each cell, one-sided, under a Hann window; mean over cells by area.

    P(f) = 2 |sum_t w (x - mean) exp(-2 pi i f t)|^2 dt / sum_t w^2, at the Nyquist frequency half of it; its sum
    times the frequency step is the variance of the windowed series.

    **Arguments:** `field` ((draw,) time, lat, lon) with at least 4 times, equally spaced.
    **Returns:** ((draw,) frequency), squared units times h, over frequency [h-1].
    **Raises:** ValueError for missing values, fewer times or unequal steps.
    """
    step, n = hours_apart(field, FEWEST), field.sizes["time"]
    sides = np.full(n // 2, 2.0)
    if n % 2 == 0:
        sides[-1] = 1.0

    def spectra(part: xr.DataArray) -> xr.DataArray:
        power = _power(part.values, (-3,))[..., 1 : n // 2 + 1, :, :].mean(axis=-1) * sides[:, None] * step
        like = part.isel(time=0, lon=0, drop=True)
        return like.expand_dims({"frequency": n // 2}, -2).copy(data=power)

    attrs = {"long_name": "power spectral density", "units": squared(field, "h")}
    frequency = ("frequency", np.arange(1, n // 2 + 1) / (n * step), {"long_name": "frequency", "units": "h-1"})
    mean = domain_mean(by_part(spectra, field, along="lat"), ["lat"])
    return mean.assign_coords(frequency=frequency).rename("power").assign_attrs(attrs)


def log_ratio(spectrum: xr.DataArray, reference: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Mean of log10(spectrum / reference) over the logarithm of the wavenumber or frequency, and of its size.

    Every octave counts the same (trapezoidal rule). A field that is too smooth has a negative mean; one that is
    too smooth at some scales and too rough at others shows in the second number alone.

    **Arguments:** `spectrum` ((draw,) k) and `reference` (k), or with the same draws, at equal k.
    **Returns:** the signed mean and the mean absolute value, dimensionless, with draw where there is one.
    **Raises:** ValueError where the wavenumbers differ or power is not positive.
    """
    dims = [dim for dim in spectrum.dims if dim != "draw"]
    if len(dims) != 1 or set(reference.dims) - {"draw"} != set(dims) or not set(dims) <= set(spectrum.coords):
        raise ValueError(
            f"expected two spectra over one labelled wavenumber or frequency, got {spectrum.dims} and "
            f"{reference.dims}; make both with the same function"
        )
    (dim,) = dims
    if not spectrum.indexes[dim].equals(reference.indexes[dim]):
        raise ValueError(f"expected spectra at the same {dim}, got others; make both on one grid and at the same times")
    if not bool((spectrum > 0).all()) or not bool((reference > 0).all()):
        raise ValueError("expected positive power at every scale, got zero or missing; leave constant fields out")
    nodes = np.log(spectrum[dim].values)
    weights = np.diff(np.concatenate([nodes[:1], (nodes[1:] + nodes[:-1]) / 2, nodes[-1:]])) if nodes.size > 1 else [1]
    octaves = xr.DataArray(weights, {dim: spectrum[dim]}, (dim,))
    ratio = xr.ufuncs.log10(spectrum.drop_attrs() / reference.drop_attrs())
    attrs = {"long_name": "log10 ratio of power", "units": "1"}
    signed, size = (each.weighted(octaves).mean(dim).assign_attrs(attrs) for each in (ratio, abs(ratio)))
    return signed, size


def _power(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """|sum w (x - mean) exp(...)|^2 / sum w^2 along `axes`, of the shape of `x`; w is a Hann window, sin^2."""
    w = np.ones((1,) * x.ndim)
    for axis in axes:
        n = x.shape[axis]
        one = np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2
        w = w * one.reshape([n if i == axis % x.ndim else 1 for i in range(x.ndim)])
    mean = (w * x).sum(axis=axes, keepdims=True) / w.sum()
    transformed: Any = scipy.fft.fftn(w * (x - mean), axes=axes)
    return (transformed.real**2 + transformed.imag**2) / (w**2).sum()


def _spacing(field: xr.DataArray, dim: str) -> float:
    """The step of a regular axis [degrees]."""
    centres = labelled(field)[dim].values.astype(np.float64)
    if centres.size < FEWEST:
        raise ValueError(f"expected at least {FEWEST} cells along {dim}, got {centres.size}; take a larger domain")
    steps = np.diff(centres)
    if np.ptp(steps) > 0.01 * np.abs(steps).min():
        raise ValueError(f"expected equal steps along {dim}, got {steps.min():g} to {steps.max():g}; regrid the field")
    return float(np.abs(steps.mean()))
