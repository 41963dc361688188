"""Posteriors on rotated poles: maps in their coordinates, and an input on another pole put where it belongs."""

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

import bayesdownscale as bd
from bayesdownscale.data.overlap import mean_weights
from bayesdownscale.data.regrid import conservative_mean
from bayesdownscale.diagnostics.baselines import bilinear, means_over
from bayesdownscale.diagnostics.coastlines import coastlines_in
from bayesdownscale.diagnostics.figures import time_series
from bayesdownscale.diagnostics.frame import coast_of, corners, crossings, grid_of, map_edges, parallel, true_box
from bayesdownscale.diagnostics.layout import add_truth, read_fields
from bayesdownscale.diagnostics.maps import maps
from bayesdownscale.diagnostics.structure import coarse_consistency
from bayesdownscale.posterior.result import Posterior

POLE = bd.RotatedPole(39.25, -162.0)
FINE = bd.Grid(-13.0 + 0.44 * np.arange(20), -21.0 + 0.44 * np.arange(22), pole=POLE)  # most of Iberia
COARSE = bd.Grid(36.2 + 1.4 * np.arange(4), -7.4 + 1.4 * np.arange(5))
TIMES = np.datetime64("2000-01-01", "ns") + np.arange(3) * np.timedelta64(1, "D")
TAS = (bd.Variable("tas", "degC", "air_temperature"),)
ALL = (None, slice(None), None, None)


def plane(grid):
    """A field linear in true latitude and longitude, warmer each day: (time, 1, lat, lon)."""
    lat, lon = grid.places()
    return np.float32(20 - 0.8 * lat + 0.3 * lon + np.arange(3)[:, None, None])[:, None]


def posterior(coarse=COARSE, draws=2):
    fine = bd.Fields(plane(FINE), bd.Coords(TIMES, TAS, FINE))
    seen = conservative_mean(fine, coarse)
    fields = fine.values + np.float32(0.1) * np.arange(draws)[:, None, None, None, None]
    unmarked = {"diverging": np.zeros(draws, bool)}
    return Posterior("weather", fields, {}, unmarked, {"coarse": seen.values}, fine.coords, {"coarse": seen}), fine


@pytest.fixture(scope="module")
def field():
    made, fine = posterior()
    return read_fields(made.to_datatree(truth=fine))[0][0]


def test_poles_of_input_and_fields_survive_a_tree():
    """Of a regular input, and of one on the pole of the fields or another."""
    for pole in (None, POLE, bd.RotatedPole(39.25, -160.0)):
        near = bd.Grid(-11.5 + 0.9 * np.arange(6), -18.0 + 0.9 * np.arange(6), pole=pole) if pole else COARSE
        made, _ = posterior(near)
        back = Posterior.from_datatree(made.to_datatree())
        assert back.coords.grid.pole == POLE
        assert back.labels["coarse"].grid.pole == pole
        field = read_fields(made.to_datatree())[0][0]
        assert grid_of(field.ensemble).pole == POLE
        assert grid_of(field.coarse).pole == pole


def test_the_input_lies_where_it_is(field):
    """The corners of its cells, turned back, are those of its rows and columns; of fine fields, the edges."""
    lon, lat = corners(field.coarse.isel(time_coarse=0), field.ensemble)
    true_lat, true_lon = POLE.to_geographic(lat, lon)
    assert_allclose(true_lat, COARSE.lat_bounds[:, None] * np.ones(lat.shape), atol=1e-9)
    assert_allclose(true_lon, COARSE.lon_bounds * np.ones(lat.shape), atol=1e-9)
    bare = xr.DataArray(np.zeros(FINE.shape), dims=("lat", "lon"), coords={"lat": FINE.lat, "lon": FINE.lon})
    for got, want in zip(corners(bare, field.ensemble), map_edges(field.ensemble), strict=True):
        assert_allclose(got, want, atol=1e-9)


def test_coastlines_are_those_of_the_place(field):
    """Turned back they are pieces of the coastlines of the true box, and pass by Lisbon and Gibraltar."""
    points = np.concatenate(coast_of(field.ensemble))
    lat, lon = POLE.to_geographic(points[:, 1], points[:, 0])
    south, north, west, east = true_box(field.ensemble)
    every = np.concatenate(coastlines_in(west, east, south, north))
    assert_allclose(np.stack([lon, lat], axis=1), every, atol=1e-9)
    for place in ((38.7, -9.4), (36.1, -5.4)):
        assert np.hypot(lat - place[0], lon - place[1]).min() < 0.3
    edges = map_edges(field.ensemble)
    assert all(e.min() < points[:, k].mean() < e.max() for k, e in enumerate(edges))


def test_boxes_around_domains():
    lat, lon = FINE.places()
    south, north, west, east = true_box(on(FINE))
    assert south < lat.min() < lat.max() < north
    assert west < lon.min() < lon.max() < east
    assert_allclose([south, west], [lat.min(), lon.min()], atol=0.5)
    arctic = bd.Grid(-22.5 + 5.0 * np.arange(10), -22.5 + 5.0 * np.arange(10), pole=bd.RotatedPole(0.0, 180.0))
    south, *others = true_box(on(arctic))
    assert others == [90.0, -180.0, 180.0]
    assert 55 < south < 60  # of the corners, 34 degrees from the pole
    across = bd.Grid(-5.0 + np.arange(11), -5.0 + np.arange(11), pole=bd.RotatedPole(40.0, 0.0))  # around 50 N, 180
    *_, west, east = true_box(on(across))
    assert 10 < east - west < 25


def on(grid):
    return bd.Fields(np.zeros((1, 1, *grid.shape), np.float32), bd.Coords(TIMES[:1], TAS, grid)).to_dataset()["tas"]


def test_crossings():
    at = np.linspace(0.0, 1.0, 11)
    assert_allclose(crossings(at, 170 + 30 * at, 180.0), [1 / 3])
    assert_allclose(crossings(at, 170 + 30 * at, -175.0), [0.5])
    assert_allclose(crossings(at, 40 - 10 * at, 35.0), [0.5])
    assert_allclose(crossings(at, 40 * np.abs(at - 0.5), 10.0), [0.25, 0.75])
    assert crossings(at, 40 - 10 * at, 41.0) == []
    assert crossings(at, np.linspace(0, 20, 11), -170.0) == []  # the seam on the other side of the globe


def test_parallels_keep_their_latitude(field):
    points = parallel(field.ensemble, 40.0, true_box(field.ensemble)[2:])
    assert_allclose(POLE.to_geographic(points[:, 1], points[:, 0])[0], 40.0, atol=1e-9)


def test_interpolation_is_that_of_places(field):
    """Linear functions are interpolated exactly, at cells within the outermost coarse centres."""
    got = bilinear(field.coarse.fillna(0) * 0 + plane(COARSE)[:, 0], field.ensemble.isel(draw=0))
    lat, lon = FINE.places()
    inside = (lat >= COARSE.lat.min()) & (lat <= COARSE.lat.max()) & (lon >= COARSE.lon[0]) & (lon <= COARSE.lon[-1])
    assert 50 < inside.sum() < inside.size
    assert_allclose(got.values[:, inside], plane(FINE)[:, 0][:, inside], atol=1e-4)


def test_draws_agree_with_an_input_on_another_pole(field):
    """Their means over its cells are those of the exact overlaps: residuals 0 and 0.1 over noise of 0.1."""
    exact = coarse_consistency(field.ensemble, field.coarse, 0.1)
    assert_allclose(exact["rms"], [0.0, 1.0], atol=1e-3)
    assert_array_equal(np.isfinite(field.coarse[0]).values.ravel(), mean_weights(COARSE, FINE)[1] > 1 - 1e-6)
    with pytest.raises(ValueError, match="expected an input on the pole of the fine fields"):
        means_over(field.coarse, field.ensemble)


def test_maps_and_series_say_true_places(field):
    figure = maps(field.ensemble, None, field.truth, field.coarse, field.observed)
    axes = [a for part in figure.subfigs for a in part.axes if a.get_title()]
    assert "north pole lies at 39.25°N 162°W" in figure._supxlabel.get_text()
    beside = [t.get_text() for t in axes[0].get_yticklabels()]
    below = [t.get_text() for t in axes[-1].get_xticklabels()]  # of the lowest row
    assert "40°N" in beside
    assert set(below) & {"0°", "5°W", "4°W", "2°W"}
    for text, tick in zip(beside, axes[0].get_yticks(), strict=True):
        lat, _ = POLE.to_geographic(np.array([tick]), np.array([FINE.lon_bounds[0]]))
        assert abs(lat[0] - float(text.rstrip("°N"))) < 0.05
    title = time_series(field.ensemble, None, field.truth, field.coarse)._suptitle.get_text()
    assert "°N" in title
    assert 36 < float(title.split(" at ")[1].split("°N")[0]) < 45


def test_a_truth_from_a_rotated_file(tmp_path):
    """As xarray opens it, with rlat, rlon and the latitude and longitude of every cell."""
    made, fine = posterior()
    bd.write_atomic(bd.as_cf(fine.to_dataset(), FINE), tmp_path / "truth.nc")
    with xr.open_dataset(tmp_path / "truth.nc") as ds:
        tree = add_truth(made.to_datatree(), ds[["tas"]])
    assert_allclose(tree["truth"]["tas"].values, fine.values[:, 0], atol=1e-5)
    other = bd.Grid(FINE.lat, FINE.lon, pole=bd.RotatedPole(39.25, -160.0))
    elsewhere = bd.Fields(fine.values, bd.Coords(TIMES, TAS, other))
    with pytest.raises(ValueError, match="expected the truth of 'tas' on the pole of the posterior"):
        add_truth(made.to_datatree(), elsewhere)
