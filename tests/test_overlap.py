"""Conservative weights: exact areas, closed forms, and CDO where it is installed."""

import shutil
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose

from bayesdownscale.data.grid import Grid
from bayesdownscale.data.overlap import mean_weights, overlap_areas
from bayesdownscale.data.rotated import RotatedPole
from bayesdownscale.likelihood.operators import area_mean

EUR44 = RotatedPole(39.25, -162.0)  # of EURO-CORDEX
FINE = Grid(-14.85 + 0.44 * np.arange(28), -22.93 + 0.44 * np.arange(30), pole=EUR44)
COARSE = Grid(34.32 + 1.4 * np.arange(8), -9.844 + 1.40625 * np.arange(11))


def finer(grid: Grid, k: int) -> Grid:
    """Every cell cut into k x k."""
    cut = lambda b: np.interp(np.arange(k * (b.size - 1) + 1) / k, np.arange(b.size), b)
    lat, lon = cut(grid.lat_bounds), cut(grid.lon_bounds)
    return Grid((lat[1:] + lat[:-1]) / 2, (lon[1:] + lon[:-1]) / 2, lat, lon, grid.pole)


def test_the_pole_of_a_grid_is_found_from_places():
    lat, lon = FINE.places()
    assert RotatedPole.fit(FINE.lat, FINE.lon, lat, lon) == EUR44
    turned = RotatedPole(-32.5, 77.0, 41.0)
    assert (
        RotatedPole.fit(FINE.lat, FINE.lon, *turned.to_geographic(*np.meshgrid(FINE.lat, FINE.lon, indexing="ij")))
        == turned
    )
    with pytest.raises(ValueError, match="expected a rotated pole to explain"):
        RotatedPole.fit(FINE.lat, FINE.lon, lat * 1.01, lon)


def test_rotation_there_and_back_and_the_pole_itself():
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(-80, 80, 50), rng.uniform(-170, 170, 50)
    assert_allclose(EUR44.to_geographic(*EUR44.from_geographic(lat, lon)), (lat, lon), atol=1e-10)
    assert_allclose(EUR44.to_geographic(np.array(90.0), np.array(0.0)), (39.25, -162.0), atol=1e-6)
    assert_allclose(EUR44.from_geographic(np.array(90.0), np.array(0.0)), (39.25, 0.0), atol=1e-10)
    assert_allclose(EUR44.to_geographic(np.array(0.0), np.array(0.0)), (50.75, 18.0), atol=1e-10)  # CORDEX, archived
    np.testing.assert_allclose(RotatedPole(90.0, 180.0).to_geographic(lat, lon), (lat, lon), atol=1e-10)


@pytest.mark.parametrize(
    ("coarse", "fine"), [(COARSE, FINE), (FINE, finer(COARSE, 7))], ids=["to regular", "to rotated"]
)
def test_areas_are_exact(coarse, fine):
    areas = overlap_areas(coarse, fine)
    for grid, axis in ((coarse, 1), (fine, 0)):
        part = areas.sum(axis=axis) / grid.cell_areas().ravel()
        whole = part > 1 - 1e-7
        assert whole.sum() > 50
        assert np.abs(part[whole] - 1).max() < 1e-10
        assert part.max() < 1 + 1e-10


def test_boxes_have_the_closed_form_and_longitudes_any_convention():
    fine, coarse = Grid(50 + 0.5 * np.arange(8), 0.5 * np.arange(8)), Grid(51 + np.arange(2.0), 1 + np.arange(2.0))
    overlap = lambda a, b: np.clip(np.minimum(a[1:], b[1:, None]) - np.maximum(a[:-1], b[:-1, None]), 0, None)
    in_lat = overlap(np.sin(np.deg2rad(fine.lat_bounds)), np.sin(np.deg2rad(coarse.lat_bounds)))
    in_lon = overlap(np.deg2rad(fine.lon_bounds), np.deg2rad(coarse.lon_bounds))
    areas = overlap_areas(coarse, fine).toarray()
    assert_allclose(areas, np.kron(in_lat, in_lon), atol=1e-15)
    assert_allclose(overlap_areas(Grid(coarse.lat, coarse.lon + 360), fine).toarray(), areas, atol=1e-15)


def test_agrees_with_the_operator_on_regular_grids():
    fine = Grid(60 - 0.25 * np.arange(40), -8 + 0.25 * np.arange(48))
    coarse = Grid(57.9 - 1.1 * np.arange(6), -6.3 + 1.3 * np.arange(7))
    weights, covered = mean_weights(coarse, fine)
    x = np.random.default_rng(0).standard_normal(fine.shape).astype(np.float32)
    assert_allclose(covered, 1.0, rtol=1e-12)
    want = area_mean(fine, coarse)(jnp.asarray(x)[None, None])[0, 0]
    assert_allclose((weights @ x.ravel()).reshape(coarse.shape), want, atol=1e-5)


def test_a_constant_stays_and_uncovered_cells_have_no_weight():
    weights, covered = mean_weights(COARSE, FINE)
    assert_allclose(weights.sum(axis=1)[covered > 0], 1.0, rtol=1e-13)
    far, none = mean_weights(Grid(np.arange(-12.0, -9), np.arange(3.0)), FINE)
    assert far.nnz == 0
    assert not none.any()


def test_poles_and_hemispheres_are_refused():
    with pytest.raises(ValueError, match="a region away from the poles"):
        overlap_areas(COARSE, Grid(np.arange(85.0, 90, 1), np.arange(0.0, 10)))


def cell_file(grid: Grid, path, regular: bool):
    """A file with the grid for CDO: regular with bounds, or the corners of every cell."""
    names = ("lat", "lon")
    if regular:
        bounds = {
            f"{n}_bnds": (
                (n, "two"),
                np.stack([getattr(grid, f"{n}_bounds")[i:][: grid.shape[names.index(n)]] for i in (0, 1)], 1),
            )
            for n in names
        }
        coords = {
            n: (n, getattr(grid, n), {"units": f"degrees_{'north' if n == 'lat' else 'east'}", "bounds": f"{n}_bnds"})
            for n in names
        }
        data = xr.Dataset({"x": (names, np.ones(grid.shape))} | bounds, coords)
    else:
        lat, lon = np.meshgrid(grid.lat_bounds, grid.lon_bounds, indexing="ij")
        lat, lon = (lat, lon) if grid.pole is None else grid.pole.to_geographic(lat, lon)
        corners = lambda b: np.stack([b[:-1, :-1], b[:-1, 1:], b[1:, 1:], b[1:, :-1]], -1)
        places = grid.places()
        coords = {
            n: (("y", "x"), p, {"units": f"degrees_{'north' if n == 'lat' else 'east'}", "bounds": f"{n}_bnds"})
            for n, p in zip(names, places, strict=True)
        }
        data = xr.Dataset({"v": (("y", "x"), np.ones(grid.shape), {"coordinates": "lat lon"})}, None)
        data = data.assign(
            {n: c for n, c in coords.items()}
            | {f"{n}_bnds": (("y", "x", "four"), corners(b)) for n, b in zip(names, (lat, lon), strict=True)}
        )
    data.to_netcdf(path)


def by_cdo(coarse: Grid, fine: Grid, folder) -> np.ndarray:
    """CDO's first-order conservative weights (coarse cell, fine cell)."""
    cell_file(coarse, folder / "coarse.nc", True)
    cell_file(fine, folder / "fine.nc", fine.pole is None)
    command = ["cdo", "-s", f"gencon,{folder / 'coarse.nc'}", str(folder / "fine.nc"), str(folder / "weights.nc")]
    subprocess.run(command, check=True, capture_output=True)
    with xr.open_dataset(folder / "weights.nc") as found:
        out = np.zeros((coarse.lat.size * coarse.lon.size, fine.lat.size * fine.lon.size))
        out[found["dst_address"].values - 1, found["src_address"].values - 1] = found["remap_matrix"].values[:, 0]
    return out


@pytest.mark.skipif(shutil.which("cdo") is None, reason="CDO (Debian package cdo) is not installed")
@pytest.mark.parametrize("rotated", [False, True], ids=["regular", "rotated"])
def test_agrees_with_cdo(rotated, tmp_path):
    """CDO's cells with corners have great circles as sides: 12 x 12 parts of each come near to its parallels."""
    fine, k = (Grid(FINE.lat[:10], FINE.lon[:12], pole=EUR44), 12) if rotated else (finer(COARSE, 5), 1)
    coarse = (
        Grid(COARSE.lat[1:3], COARSE.lon[1:4])
        if rotated
        else Grid(36.0 + 1.3 * np.arange(5), -7.0 + 1.7 * np.arange(4))
    )
    weights, covered = mean_weights(coarse, fine)
    parts = by_cdo(coarse, finer(fine, k), tmp_path)
    n, m = fine.shape
    other = parts.reshape(-1, n, k, m, k).sum(axis=(2, 4)).reshape(-1, n * m)
    whole = covered > 1 - 1e-9
    assert whole.any()
    assert np.abs(weights.toarray() - other)[whole].max() < 1e-6
