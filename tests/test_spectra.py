"""Spectra against Parseval, discrete Fourier sums, single waves, white and red noise, and scipy's periodogram.

Random tests use fixed seeds; "fails once in n" is the rate at which another seed would fail a correct program.
"""

import numpy as np
import pytest
import scipy.signal
import xarray as xr
from numpy.testing import assert_allclose

from bayesdownscale.data.grid import EARTH_RADIUS_KM
from bayesdownscale.diagnostics import blocks
from bayesdownscale.diagnostics.checks import squared
from bayesdownscale.diagnostics.spectra import log_ratio, radial_spectrum, temporal_spectrum

KM = np.deg2rad(EARTH_RADIUS_KM)  # of one degree of latitude
BOTH = pytest.mark.parametrize("spectrum", [radial_spectrum, temporal_spectrum])


def as_field(values, lat_0=50.0, step=(0.25, 0.5), hours=1, units="K"):
    """`values` ((draw,) time, lat, lon) on a grid centred at latitude `lat_0`, every `hours` h."""
    n_time, n_lat, n_lon = values.shape[-3:]
    time = np.datetime64("2020-01-01", "ns") + hours * np.arange(n_time) * np.timedelta64(1, "h")
    lat = lat_0 + step[0] * (np.arange(n_lat) - (n_lat - 1) / 2)
    place = {"time": time, "lat": lat, "lon": 3.0 + step[1] * np.arange(n_lon)}
    dims = ("draw", "time", "lat", "lon")[-values.ndim :]
    return xr.DataArray(values, place, dims, "t2m", {"units": units, "standard_name": "air_temperature"})


@pytest.fixture(scope="module")
def ensemble():
    """Three different draws with a gradient and a trend, in single precision as draws are stored."""
    rng = np.random.default_rng(0)
    trend = np.arange(9)[:, None, None] + 0.7 * np.arange(8)
    return as_field((280 + trend + rng.normal(size=(3, 9, 7, 8)).cumsum(axis=-1)).astype(np.float32))


def window(n):
    return 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n)


def windowed(x, w):
    """Numbers whose mean square is the variance under the window."""
    return w * (x - (w * x).sum() / w.sum()) / np.sqrt((w**2).mean())


def test_radial_spectrum_sums_to_the_variance(ensemble):
    spectrum = radial_spectrum(ensemble)
    w = np.outer(window(7), window(8))
    variance = [np.mean([(windowed(x, w) ** 2).mean() for x in draw]) for draw in ensemble.values.astype(float)]
    assert_allclose((spectrum * spectrum["ring_area"]).sum("wavenumber"), variance, rtol=1e-9)
    assert spectrum.dims == ("draw", "wavenumber")
    assert spectrum.attrs == {"long_name": "power spectral density", "units": "K2 km2"}


def test_temporal_spectrum_sums_to_the_variance(ensemble):
    spectrum = temporal_spectrum(ensemble.isel(draw=0, lat=[2]))
    series = ensemble.values[0, :, 2].astype(float).T
    variance = np.mean([(windowed(x, window(9)) ** 2).mean() for x in series])
    assert_allclose(spectrum.sum() / 9, variance, rtol=1e-9)
    assert spectrum.attrs["units"] == "K2 h"


def test_radial_spectrum_is_the_fourier_sum(ensemble):
    """Written out wave by wave, on cells that are not square."""
    x = ensemble.isel(draw=1, time=[4])
    dy, dx = 0.25 * KM, 0.5 * KM * np.cos(np.deg2rad(50.0))
    w = np.outer(window(7), window(8))
    field = windowed(x.values[0].astype(float), w)
    i, j = np.meshgrid(np.arange(7), np.arange(8), indexing="ij")
    width, rings = max(1 / (7 * dy), 1 / (8 * dx)), {}
    for m in range(-3, 4):
        for n in range(-4, 4):
            k = np.hypot(m / (7 * dy), n / (8 * dx))
            power = np.abs((field * np.exp(-2j * np.pi * (m * i / 7 + n * j / 8))).sum()) ** 2 * dx * dy / 56
            if k > 0:
                rings.setdefault(max(1, int(k / width + 0.5)), []).append((k, power))
    k, power = np.array([np.mean(rings[ring], axis=0) for ring in sorted(rings)]).T
    spectrum = radial_spectrum(x)
    assert_allclose(spectrum, power, rtol=1e-7)
    assert_allclose(spectrum["wavenumber"], k, rtol=1e-12)


@pytest.mark.parametrize(("lat_0", "n_lat"), [(0.0, 16), (60.0, 8)])
def test_a_wave_has_its_wavenumber_in_km(lat_0, n_lat):
    """Three waves over 16 cells in longitude: half their variance 2^2 / 2 times 2/3 at k, 1/6 at each neighbour."""
    wave = 2 * np.cos(2 * np.pi * 3 * np.arange(16) / 16 + 0.4)
    spectrum = radial_spectrum(as_field(np.broadcast_to(wave, (2, n_lat, 16)), lat_0, (0.25, 0.25)))
    length = 16 * 0.25 * KM * np.cos(np.deg2rad(lat_0))
    inside = spectrum["wavenumber"].values * length
    assert np.all(np.abs(inside[:4] - [1, 2, 3, 4]) < 0.35)
    expected = np.zeros(spectrum.size)
    expected[1:4] = 2 * np.array([1 / 6, 2 / 3, 1 / 6])
    assert_allclose(spectrum * spectrum["ring_area"], expected, atol=1e-12)


def test_white_noise_has_a_flat_spectrum():
    """s^2 dx dy at every wavenumber but the lowest, where the mean is missed; fails once in 100 000."""
    noise = as_field(3 * np.random.default_rng(1).normal(size=(400, 1, 12, 20)))
    spectrum = radial_spectrum(noise).isel(wavenumber=slice(1, None))
    exact = 9 * 0.25 * 0.5 * KM**2 * np.cos(np.deg2rad(50.0))
    assert np.all(abs(spectrum.mean("draw") - exact) < 5 * spectrum.std("draw") / 20)


def test_red_noise_has_the_spectrum_of_its_covariance():
    """AR(1): P = 2 dt s^2 (1 - r^2) / (1 - 2 r cos(2 pi f dt) + r^2); fails once in 10 000."""
    r, rng = 0.6, np.random.default_rng(2)
    x = np.asarray(scipy.signal.lfilter([np.sqrt(1 - r**2)], [1, -r], rng.normal(size=(800, 612))))[:, 100:]
    spectrum = temporal_spectrum(as_field(x[:, :, None, None], hours=3)).isel(frequency=slice(1, -1))
    closed = 6 * (1 - r**2) / (1 - 2 * r * np.cos(2 * np.pi * spectrum["frequency"] * 3) + r**2)
    assert_allclose(spectrum["frequency"][0], 2 / (512 * 3))
    assert np.all(abs(spectrum.mean("draw") - closed) < 5 * spectrum.std("draw") / np.sqrt(800) + 0.002 * closed)


@pytest.mark.parametrize("n", [8, 9])
def test_temporal_spectrum_is_that_of_scipy(ensemble, n):
    x = ensemble.isel(draw=2, time=slice(n))
    w, values = window(n)[:, None, None], x.values.astype(float)
    centred = values - (w * values).sum(axis=0) / w.sum()
    f, p = scipy.signal.periodogram(centred, 1.0, window(n), detrend=False, axis=0)  # type: ignore[arg-type]
    area = np.cos(np.deg2rad(x["lat"].values))
    spectrum = temporal_spectrum(x)
    assert_allclose(spectrum, (p.mean(axis=2) * area).sum(axis=1)[1:] / area.sum(), rtol=1e-9)
    assert_allclose(spectrum["frequency"], f[1:])


def test_log_ratio_weighs_every_octave_the_same():
    k = np.geomspace(0.01, 1.0, 9)[[0, 1, 2, 3, 5, 8]]
    reference = xr.DataArray(k**-3.0, {"wavenumber": k}, ("wavenumber",))
    signed, size = log_ratio(reference * 4, reference)
    assert_allclose([signed, size], np.log10(4), rtol=1e-12)
    signed, size = log_ratio(reference * reference["wavenumber"], reference)  # linear in log k: the middle
    assert_allclose([signed, size], [-1.0, 1.0], rtol=1e-12)
    draws = reference * xr.DataArray([0.5, 1.0, 2.0], dims="draw")
    assert_allclose(log_ratio(draws, reference)[0], np.log10([0.5, 1.0, 2.0]), atol=1e-12)
    one = reference.isel(wavenumber=[0])
    assert_allclose(log_ratio(one * 10, one), 1.0)


def test_a_smooth_field_has_a_negative_log_ratio(ensemble):
    smooth = ensemble.rolling(lon=3, center=True, min_periods=1).mean()
    signed, size = log_ratio(radial_spectrum(smooth), radial_spectrum(ensemble))
    assert np.all(signed < -0.05)
    assert np.all(size >= -signed)


@BOTH
def test_every_draw_has_the_spectrum_it_has_alone(ensemble, spectrum):
    together = spectrum(ensemble)
    for i in range(3):
        assert_allclose(together.isel(draw=i), spectrum(ensemble.isel(draw=i)), rtol=1e-12)


@BOTH
@pytest.mark.parametrize("block", [2**23, 1200, 100, 1])
def test_parts_give_what_the_whole_gives(ensemble, spectrum, block, tmp_path, monkeypatch):
    """Draws from a file, a few at a time or cut within a draw; order of dimensions and latitudes does not matter."""
    whole = spectrum(ensemble)
    ensemble.transpose("lat", "draw", "lon", "time").to_netcdf(tmp_path / "draws.nc")
    monkeypatch.setattr(blocks, "BLOCK", block)
    with xr.open_dataarray(tmp_path / "draws.nc") as lazy:
        assert_allclose(spectrum(lazy).transpose(*whole.dims), whole, rtol=1e-12)
        assert not lazy.variable._in_memory
    assert_allclose(spectrum(ensemble.isel(lat=slice(None, None, -1))), whole, rtol=1e-9)


@BOTH
def test_chunks_give_what_the_whole_gives(ensemble, spectrum, monkeypatch):
    pytest.importorskip("dask")
    monkeypatch.setattr(blocks, "BLOCK", 1200)
    assert_allclose(spectrum(ensemble.chunk(draw=2, time=3, lat=4)), spectrum(ensemble), rtol=1e-12)


@BOTH
def test_missing_values_are_an_error(ensemble, spectrum):
    with pytest.raises(ValueError, match="without missing values, got 1"):
        spectrum(ensemble.where(ensemble != ensemble[1, 2, 3, 4]))


@BOTH
def test_fields_without_labels_are_an_error(ensemble, spectrum):
    for field in (ensemble.rename(lat="y"), ensemble.drop_vars("lon"), ensemble.isel(lon=[]), ensemble.isel(lat=0)):
        with pytest.raises(ValueError, match="expected a field over time, lat and lon"):
            spectrum(field)


def test_too_little_and_unequal_are_errors(ensemble):
    with pytest.raises(ValueError, match="at least 4 cells along lat, got 1"):
        radial_spectrum(ensemble.isel(lat=[0]))
    with pytest.raises(ValueError, match="equal steps along lon"):
        radial_spectrum(ensemble.isel(lon=[0, 1, 2, 4]))
    with pytest.raises(ValueError, match="at least 4 times, got 1"):
        temporal_spectrum(ensemble.isel(time=[0]))
    with pytest.raises(ValueError, match="steps from 1 to 2 h"):
        temporal_spectrum(ensemble.isel(time=[0, 1, 2, 4]))
    with pytest.raises(ValueError, match="as datetime64, got int64"):
        temporal_spectrum(ensemble.assign_coords(time=np.arange(9)))


def test_spectra_that_cannot_be_compared_are_errors(ensemble):
    spectrum = radial_spectrum(ensemble)
    with pytest.raises(ValueError, match="at the same wavenumber"):
        log_ratio(spectrum, radial_spectrum(ensemble.assign_coords(lat=ensemble["lat"] + 5)))
    with pytest.raises(ValueError, match="one labelled wavenumber or frequency"):
        log_ratio(spectrum, temporal_spectrum(ensemble))
    with pytest.raises(ValueError, match="positive power"):
        log_ratio(spectrum * 0, spectrum)


def test_units_of_squares(ensemble):
    expected = {"m s-1": "(m s-1)2 km2", "1": "km2", "": "", "Pa": "Pa2 km2"}
    assert {units: squared(ensemble.assign_attrs(units=units), "km2") for units in expected} == expected
