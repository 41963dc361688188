"""Grids and labels: areas, distances, coarsening, cropping, and cells at the edge of a domain."""

import json

import numpy as np
import pytest
from data_files import T2M, TIMES, domain, weather

from bayesdownscale.data.edges import edges_from_bounds, edges_from_centres
from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords, Grid, Variable
from bayesdownscale.data.rotated import RotatedPole

GLOBE = Grid(np.arange(-88.0, 90.0, 4.0), np.arange(2.0, 360.0, 4.0))


def test_edges_lie_half_way_between_centres_in_their_order():
    np.testing.assert_allclose(edges_from_centres(np.array([3.0, 2.0, 0.0])), [3.5, 2.5, 1.0, -1.0])
    with pytest.raises(ValueError, match=r"at least two cell centres .* got 1; give the cell bounds"):
        edges_from_centres(np.array([3.0]))
    with pytest.raises(ValueError, match="sort the axis first"):
        edges_from_centres(np.array([3.0, 2.0, 2.0]))


def test_bounds_go_to_the_turn_of_their_centre():
    bounds = np.array([[359.0, 1.0], [3.0, 1.0]])
    np.testing.assert_allclose(edges_from_bounds(np.array([0.0, 2.0]), bounds), [-1, 1, 3])
    np.testing.assert_allclose(edges_from_bounds(np.array([2.0, 0.0]), bounds[::-1]), [3, 1, -1])
    with pytest.raises(ValueError, match="neighbouring cells to touch"):
        edges_from_bounds(np.array([0.0, 2.0]), bounds + np.array([[0.0], [0.1]]))


def test_cells_of_the_globe_cover_the_sphere():
    np.testing.assert_allclose(GLOBE.cell_areas().sum(), 4 * np.pi, rtol=1e-12)
    assert np.abs(GLOBE.lat_bounds).max() == 90


def test_distances_are_those_of_known_arcs():
    distances = Grid(np.array([0.0, 90.0]), np.array([0.0, 90.0, 180.0])).distances_km()
    quarter = 6371.0 * np.pi / 2
    expected = np.array([0, 1, 2, 1, 1, 1]) * quarter  # from 0 N 0 E, then to the pole three times
    np.testing.assert_allclose(distances[0], expected, atol=1e-4)
    np.testing.assert_allclose(distances, distances.T)


def test_coarse_cells_hold_their_fine_cells():
    fine = domain().grid
    coarse = fine.coarsen(4)
    assert coarse.shape == (2, 2)
    np.testing.assert_allclose(coarse.cell_areas().sum(), fine.cell_areas().sum())
    np.testing.assert_allclose(coarse.lat_bounds, fine.lat_bounds[::4])
    with pytest.raises(ValueError, match=r"multiples of 3, got \(8, 8\); crop the grid"):
        fine.coarsen(3)


def test_restriction_keeps_the_cells_of_the_domain_in_its_order():
    coarse = domain().grid.coarsen(2)
    rows, columns, grid = GLOBE.restrict(GLOBE.crop(10, 10))
    np.testing.assert_array_equal(rows, np.arange(10))
    np.testing.assert_array_equal(columns, np.arange(10))
    assert grid == GLOBE.crop(10, 10)
    turned = Grid(coarse.lat[::-1], coarse.lon + 360)
    rows, _, grid = turned.restrict(domain().grid)
    np.testing.assert_array_equal(rows, [3, 2, 1, 0])
    np.testing.assert_allclose(grid.lon, coarse.lon)
    with pytest.raises(ValueError, match="outside the prior's domain"):
        Grid(coarse.lat, coarse.lon + 90).restrict(domain().grid)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="expected 9 lat edges"):
        Grid(domain().grid.lat, domain().grid.lon, np.zeros(8))
    with pytest.raises(ValueError, match=r"expected values of shape \(4, 1, 8, 8\), got \(4, 8, 8\)"):
        Fields(weather((4, 8, 8)), domain())


def test_equal_labels_are_equal_and_hash_alike():
    same, other = domain(), domain(lon_west=350.0)
    assert same == domain()
    assert hash(same) == hash(domain())
    assert same != other
    assert same != Coords(TIMES[:3], (T2M,), same.grid)
    assert same != Coords(TIMES, (Variable("t2m", "degC"),), same.grid)


def test_fields_are_cropped_and_chosen_with_their_labels():
    fields = Fields(weather((4, 1, 8, 8)), domain(), "made here")
    part = fields.isel_times([0, 2]).crop(3, 2)
    np.testing.assert_array_equal(part.values, fields.values[[0, 2], :, :3, :2])
    np.testing.assert_array_equal(part.times, TIMES[[0, 2]])
    assert part.grid == domain().grid.crop(3, 2)
    assert (part.variables, part.source) == ((T2M,), "made here")
    assert fields.isel_times(-1).values.shape == (1, 1, 8, 8)


@pytest.mark.parametrize("pole", [None, RotatedPole(39.25, -162.0, 10.0)], ids=["true", "rotated"])
def test_a_grid_survives_json(pole):
    grid = Grid(np.arange(3.0), np.array([5.0, 7.0, 10.0]), pole=pole)
    assert Grid.from_json(json.loads(json.dumps(grid.to_json()))) == grid
