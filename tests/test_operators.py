"""Observation operators: adjoints, areas, times, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesdownscale.data.grid import Grid
from bayesdownscale.data.overlap import mean_weights
from bayesdownscale.data.regrid import observed_cells
from bayesdownscale.data.rotated import RotatedPole
from bayesdownscale.likelihood.operators import LinearOperator, area_mean, snapshots, stations, time_mean

FINE = Grid(np.arange(50.25, 54, 0.5), np.arange(-2.75, 2, 0.5))  # 8 x 10
POLE = RotatedPole(39.25, -162.0)
ROTATED = Grid(-12.0 + 0.44 * np.arange(8), -20.0 + 0.44 * np.arange(10), pole=POLE)
REGULAR = Grid(36.3 + 0.9 * np.arange(6), -8.7 + 1.1 * np.arange(8))  # some cells in ROTATED, some not, some cut
TIMES = np.datetime64("2020-01-01", "ns") + np.arange(6) * np.timedelta64(1, "h")
SHAPE = (6, 2, 8, 10)
BOUNDS = np.stack([TIMES[[0, 3]], TIMES[[3, 5]]], axis=1)


def fractional() -> Grid:
    """Cells whose edges cut the fine cells, southwards."""
    lat_bounds, lon_bounds = np.asarray([53.3, 51.9, 50.3]), np.asarray([-2.9, -0.9, 0.9, 1.7])
    return Grid(np.asarray([52.6, 51.1]), np.asarray([-1.9, 0.0, 1.3]), lat_bounds, lon_bounds)


def area() -> LinearOperator:
    return area_mean(FINE, fractional())


def points() -> LinearOperator:
    """Two stations between centres, one on a centre, one in the outer half of a corner cell."""
    return stations(FINE, np.asarray([50.4, 53.1, 51.25, 53.9]), np.asarray([-2.6, 1.33, 0.25, 1.95]))


OPERATORS = {
    "nested area mean": lambda: area_mean(FINE, FINE.coarsen(2)),
    "fractional area mean": area,
    "rotated to regular": lambda: area_mean(ROTATED, REGULAR),
    "regular to rotated": lambda: area_mean(FINE, Grid(np.asarray([1.0, 2.0]), np.asarray([-13.0, -12.0]), pole=POLE)),
    "rotated to regular of snapshots": lambda: area_mean(ROTATED, REGULAR) @ snapshots(TIMES, TIMES[::3]),
    "snapshots": lambda: snapshots(TIMES, TIMES[[4, 1]]),
    "time mean": lambda: time_mean(TIMES, BOUNDS),
    "stations": points,
    "stations of snapshots": lambda: points() @ snapshots(TIMES, TIMES[::3]),
    "area mean of snapshots": lambda: area() @ snapshots(TIMES, TIMES[::3]),
    "time mean of area mean of snapshots": lambda: (
        time_mean(TIMES[::2], np.stack([TIMES[[0]], TIMES[[3]]], axis=1)) @ area() @ snapshots(TIMES, TIMES[::2])
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
class TestEveryOperator:
    def test_adjoint(self, name):
        """<H x, y> = <x, H.T y>, and H.T.T is H."""
        H = OPERATORS[name]()
        x = jax.random.normal(jax.random.key(0), SHAPE)
        y = jax.random.normal(jax.random.key(1), H(x).shape)
        assert H.T(y).shape == SHAPE
        np.testing.assert_allclose(jnp.vdot(H(x), y), jnp.vdot(x, H.T(y)), rtol=1e-4)
        np.testing.assert_array_equal(H.T.T(x), H(x))

    def test_a_mean_keeps_constants(self, name):
        H = OPERATORS[name]()
        np.testing.assert_allclose(H(jnp.full(SHAPE, 7.0)), 7.0, rtol=1e-6)

    def test_leading_axes_pass_through(self, name):
        H = OPERATORS[name]()
        x = jax.random.normal(jax.random.key(0), (3, *SHAPE))
        np.testing.assert_allclose(H(x), jnp.stack([H(x[k]) for k in range(3)]), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(H(x), jax.jit(jax.vmap(H))(x), rtol=1e-5, atol=1e-6)


def test_nested_cells_are_weighted_by_their_areas():
    x = np.random.default_rng(0).normal(size=SHAPE)
    areas = FINE.cell_areas()
    block = lambda a: a.reshape(*a.shape[:-2], 4, 2, 5, 2).sum((-3, -1))
    want = block(x * areas) / block(areas)
    got = area_mean(FINE, FINE.coarsen(2))(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_fractional_cells_are_weighted_by_the_overlap():
    """Against the areas of all intersections, cell by cell."""
    x = np.random.default_rng(0).normal(size=FINE.shape)
    coarse = fractional()
    steradians = lambda s, n, w, e: (np.sin(np.deg2rad(n)) - np.sin(np.deg2rad(s))) * np.deg2rad(e - w)
    want = np.empty(coarse.shape)
    for a in range(2):
        for b in range(3):
            south, north = np.sort(coarse.lat_bounds[a : a + 2])
            west, east = coarse.lon_bounds[b : b + 2]
            total = weight = 0.0
            for i in range(8):
                for j in range(10):
                    s, n = max(south, FINE.lat_bounds[i]), min(north, FINE.lat_bounds[i + 1])
                    w, e = max(west, FINE.lon_bounds[j]), min(east, FINE.lon_bounds[j + 1])
                    if s < n and w < e:
                        total += steradians(s, n, w, e) * x[i, j]
                        weight += steradians(s, n, w, e)
            assert np.isclose(weight, steradians(south, north, west, east))
            want[a, b] = total / weight
    got = area_mean(FINE, coarse)(jnp.asarray(x, jnp.float32)[None, None])[0, 0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


class TestBetweenCells:
    def test_means_are_those_of_the_conservative_weights(self):
        weights, covered = mean_weights(REGULAR, ROTATED)
        inside = observed_cells(ROTATED, REGULAR)
        np.testing.assert_array_equal(inside.ravel(), covered > 1 - 1e-6)
        assert 3 < inside.sum() < (covered > 0).sum() < covered.size
        x = np.random.default_rng(0).normal(size=(5, *ROTATED.shape))
        want = (weights @ x.reshape(5, -1).T).T.reshape(5, *REGULAR.shape)
        got = np.asarray(area_mean(ROTATED, REGULAR)(jnp.asarray(x, jnp.float32)))
        part = (covered > 0).reshape(REGULAR.shape)
        np.testing.assert_allclose(got[:, part], want[:, part], atol=1e-6)

    def test_cells_outside_have_the_nearest_value(self):
        x = jnp.arange(80.0).reshape(8, 10)
        _, covered = mean_weights(REGULAR, ROTATED)
        cell = int(np.flatnonzero(covered == 0)[-1])  # in the far north-east
        lat, lon = (each.ravel() for each in ROTATED.places())
        to = REGULAR.lat[cell // 8], REGULAR.lon[cell % 8]
        near = np.argmin((lat - to[0]) ** 2 + ((lon - to[1]) * np.cos(np.deg2rad(to[0]))) ** 2)
        assert area_mean(ROTATED, REGULAR)(x).ravel()[cell] == float(near)

    def test_derivatives_are_the_adjoint(self):
        """vjp, jvp, and a vjp of a vmap under jit, of a mean of data of which some are missing."""
        H = area_mean(ROTATED, REGULAR)
        inside = jnp.asarray(observed_cells(ROTATED, REGULAR))
        x, v = jax.random.normal(jax.random.key(0), (2, 3, *ROTATED.shape))
        y = jnp.where(inside, jax.random.normal(jax.random.key(1), REGULAR.shape), jnp.nan)

        def loss(x, H):
            gap = jnp.where(inside, H(x) - jnp.where(inside, y, 0.0), 0.0)  # as NumPyro's mask
            return 0.5 * jnp.sum(gap**2, axis=(-2, -1))

        gradient = jax.jit(lambda x, H: jax.vmap(jax.grad(loss), (0, None))(x, H))(x, H)
        dense = mean_weights(REGULAR, ROTATED)[0].toarray()[np.asarray(inside).ravel()]
        want = (x.reshape(3, -1) @ dense.T - y[inside][None]) @ dense
        np.testing.assert_allclose(gradient.reshape(3, -1), want, atol=2e-6)
        np.testing.assert_allclose(jax.jvp(H, (x,), (v,))[1], H(v), atol=1e-6)
        np.testing.assert_allclose(jax.vjp(H, x)[1](H(v))[0], H.T(H(v)), atol=1e-6)
        hessian_times_v = jax.jvp(jax.grad(lambda x: jax.vmap(lambda x: loss(x, H))(x).sum()), (x,), (v,))[1]
        np.testing.assert_allclose(hessian_times_v.reshape(3, -1), v.reshape(3, -1) @ dense.T @ dense, atol=2e-6)

    def test_grids_apart(self):
        with pytest.raises(ValueError, match=r"wholly inside the fine grid .*of a rotated pole.*got none of lat 50"):
            area_mean(ROTATED, FINE)


def test_the_order_of_rows_does_not_matter():
    """The same place is observed whether a grid runs north or south."""
    x = jax.random.normal(jax.random.key(0), FINE.shape)
    north = Grid(FINE.lat[::-1], FINE.lon, FINE.lat_bounds[::-1], FINE.lon_bounds)
    a = area_mean(FINE, fractional())(x[None, None])
    b = area_mean(north, fractional())(x[None, None, ::-1])
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_snapshots_take_the_times_asked_for():
    x = jax.random.normal(jax.random.key(0), SHAPE)
    np.testing.assert_array_equal(snapshots(TIMES, TIMES[[4, 1]])(x), x[jnp.asarray([4, 1])])


def test_time_means_include_the_start_and_not_the_end():
    x = jax.random.normal(jax.random.key(0), SHAPE)
    want = jnp.stack([x[:3].mean(0), x[3:5].mean(0)])
    np.testing.assert_allclose(time_mean(TIMES, BOUNDS)(x), want, rtol=1e-5, atol=1e-6)


class TestStations:
    def test_planes_are_interpolated_exactly(self):
        """a + b lat + c lon + d lat lon between centres, whatever the order of rows and columns."""
        lat, lon = np.asarray([50.3, 52.6, 53.7]), np.asarray([-2.7, 0.1, 1.7])
        plane = lambda lat, lon: 3.0 + 0.5 * lat - 2.0 * lon + 0.1 * lat * lon
        for fine in (FINE, Grid(FINE.lat[::-1], FINE.lon), Grid(FINE.lat, FINE.lon[::-1])):
            x = jnp.asarray(plane(fine.lat[:, None], fine.lon), jnp.float32)[None, None]
            got = stations(fine, lat, lon)(x)
            assert got.shape == (1, 1, 3)
            np.testing.assert_allclose(got[0, 0], plane(lat, lon), rtol=1e-5)

    def test_at_a_centre_and_in_an_outer_half_cell(self):
        x = jax.random.normal(jax.random.key(0), SHAPE)
        got = points()(x)
        np.testing.assert_allclose(got[..., 2], x[..., 2, 6], rtol=1e-5)
        np.testing.assert_allclose(got[..., 3], x[..., -1, -1], rtol=1e-5)

    def test_longitudes_in_either_convention(self):
        x = jax.random.normal(jax.random.key(0), SHAPE)
        east = stations(FINE, np.asarray([50.4]), np.asarray([357.4]))
        np.testing.assert_allclose(east(x), points()(x)[..., :1], rtol=1e-5)

    @pytest.mark.parametrize(("lat", "lon"), [(54.3, 0.0), (52.0, 2.3), (np.nan, 0.0)])
    def test_outside_the_grid(self, lat, lon):
        with pytest.raises(ValueError, match=r"inside the grid \(lat 50 to 54 .*got station 1 at.*leave it out"):
            stations(FINE, np.asarray([52.0, lat]), np.asarray([0.0, lon]))

    def test_sizes(self):
        with pytest.raises(ValueError, match=r"one latitude and one longitude a station, got shapes \(2,\) and \(1,\)"):
            stations(FINE, np.asarray([52.0, 53.0]), np.asarray([0.0]))
        with pytest.raises(ValueError, match="expected a field with 10 longitudes, got 9"):
            points()(jnp.zeros((6, 2, 8, 9)))
        with pytest.raises(ValueError, match="expected a field with 4 points, got 3"):
            points().T(jnp.zeros((6, 2, 3)))


class TestRefusals:
    @pytest.mark.parametrize(
        ("coarse", "words"),
        [
            (Grid(np.asarray([49.5, 51.5]), np.asarray([-1.0, 1.0])), "latitude cells inside the fine grid"),
            (Grid(np.asarray([51.0, 52.0]), np.asarray([0.0, 3.0])), "longitude cells inside the fine grid"),
        ],
    )
    def test_coarse_cells_outside(self, coarse, words):
        with pytest.raises(ValueError, match=f"{words}.*crop the coarse grid"):
            area_mean(FINE, coarse)

    def test_times_between_the_fields_times(self):
        with pytest.raises(ValueError, match=r"among the field's 6 times.*got 2020-01-01T01:30"):
            snapshots(TIMES, TIMES[:2] + np.timedelta64(30, "m") * np.arange(2))

    def test_an_interval_without_times(self):
        later = BOUNDS + np.timedelta64(10, "h")
        with pytest.raises(ValueError, match=r"expected field times between 2020-01-01T10.*got none"):
            time_mean(TIMES, later)

    def test_fields_of_another_size(self):
        with pytest.raises(ValueError, match="expected a field with 10 longitudes, got 9"):
            area()(jnp.zeros((6, 2, 8, 9)))
        with pytest.raises(ValueError, match="expected a field with 8 latitudes, got 7"):
            area()(jnp.zeros((6, 2, 7, 10)))
        with pytest.raises(ValueError, match="expected a field with 6 times, got 5"):
            snapshots(TIMES, TIMES[:1])(jnp.zeros((5, 2, 8, 10)))

    def test_products_with_arrays(self):
        with pytest.raises(TypeError, match=r"expected an operator on the right of @.*H\(x\)"):
            area() @ jnp.zeros(SHAPE)
