"""CF-1.11: the IOOS compliance checker finds no error in the files that are written, and they are read as written."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from data_files import PSL, T2M, TIMES, domain, weather

from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords, Grid, Variable
from bayesdownscale.data.read import open_fields
from bayesdownscale.data.results import coords_of
from bayesdownscale.data.rotated import RotatedPole
from bayesdownscale.data.write import as_cf, to_cf, write_atomic

RAIN = Variable("pr", "kg m-2 s-1", "precipitation_flux", "precipitation")
ROTATED = Grid(-12.0 + 0.44 * np.arange(8), -20.0 + 0.44 * np.arange(8), pole=RotatedPole(39.25, -162.0))
MEANS = np.stack([TIMES, TIMES + np.timedelta64(6, "h")], axis=1)


def labels(grid):
    return Coords(TIMES, (T2M, RAIN, PSL), grid)


def means():
    """Six-hour means of three variables, one without a standard name, on a rotated grid."""
    coords = Coords(TIMES, (T2M, RAIN, Variable("index", "1")), ROTATED)
    return Fields(weather((4, 3, 8, 8)), coords, "a model", MEANS, ("mean",) * 3)


FILES = {
    "members": lambda: to_cf(weather((3, 4, 3, 8, 8)), labels(domain().grid), {"seed": 3, "model": {"sigma": 0.1}}),
    "members on a rotated grid": lambda: to_cf(weather((2, 4, 3, 8, 8)), labels(ROTATED), {"history": "drawn"}),
    "corrected fields": lambda: as_cf(
        Fields(weather((4, 1, 8, 8)), domain(), "an ESM").to_dataset(), domain().grid, {"bias_correction": "qdm"}
    ),
    "means on a rotated grid": lambda: as_cf(means().to_dataset(), ROTATED),
    "one member, one time": lambda: to_cf(
        weather((1, 1, 1, 8, 8)), Coords(TIMES[:1], (T2M,), domain().grid), method="mean"
    ),
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What the checker says of each file, all in one process of its own: its UDUNITS library and ecCodes, which other
    tests load, do not end well together."""
    pytest.importorskip("compliance_checker", reason="the checker is in the extra dev: pip install compliance-checker")
    folder = tmp_path_factory.mktemp("cf")
    bad = FILES["members"]()
    bad["t2m"].attrs["units"] = "furlongs"
    for k, ds in enumerate([*(make() for make in FILES.values()), bad]):
        write_atomic(ds, folder / f"{k}.nc")
    paths = [str(folder / f"{k}.nc") for k in range(len(FILES) + 1)]
    out = folder / "report.json"
    command = str(Path(sys.executable).parent / "compliance-checker")
    done = subprocess.run(
        [command, "-t", "cf:1.11", "-c", "strict", "-f", "json_new", "-o", str(out), *paths],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert out.exists(), done.stderr
    found = json.loads(out.read_text())
    return dict(zip([*FILES, "bad"], (found[path]["cf:1.11"] for path in paths), strict=True))


def complaints(report):
    """Every message of a report, from errors to suggestions."""
    levels = ("high_priorities", "medium_priorities", "low_priorities")
    return [message for level in levels for check in report[level] for message in check["msgs"]]


@pytest.mark.parametrize("name", FILES)
def test_the_compliance_checker_finds_nothing(reports, name):
    assert complaints(reports[name]) == []
    assert reports[name]["scored_points"] == reports[name]["possible_points"]


def test_the_compliance_checker_finds_something_where_there_is(reports):
    assert any("units" in message for message in complaints(reports["bad"]))


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_rotated_means_are_read_as_they_were_written(tmp_path, suffix):
    fields = means()
    path = write_atomic(as_cf(fields.to_dataset(), ROTATED), tmp_path / f"file{suffix}")
    options = {"engine": "zarr", "consolidated": False} if suffix == ".zarr" else {}
    with xr.open_dataset(path, decode_coords="all", **options) as ds:
        assert ds["t2m"].dims == ("time", "rlat", "rlon")
        assert {"lat", "lon", "crs", "rlat_bnds", "time_bnds"} <= set(ds.coords)
        np.testing.assert_allclose(ds["lat"], ROTATED.places()[0])
    back = open_fields(path, ["t2m", "pr", "index"])
    assert back.variables[:2] == fields.variables[:2]
    assert back.variables[2] == Variable("index", "1", "", "index")  # CF wants a name, so it has got one
    assert back.grid.pole == ROTATED.pole
    np.testing.assert_array_equal(back.values, fields.values)
    np.testing.assert_array_equal(back.grid.lat, ROTATED.lat)
    np.testing.assert_allclose(back.grid.lon_bounds, ROTATED.lon_bounds, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(back.bounds, fields.bounds)
    assert back.methods == fields.methods


def test_a_tree_on_a_rotated_grid_keeps_its_pole(tmp_path):
    coords = labels(ROTATED)
    place = coords.to_xarray()
    data = {v.name: (("chain", "draw", "time", "lat", "lon"), weather((1, 2, 4, 8, 8)), v.cf_attrs())
            for v in coords.variables}  # fmt: skip
    posterior = xr.Dataset(data, {name: place[name] for name in ("time", "lat", "lon")})
    path = write_atomic(xr.DataTree.from_dict({"/posterior": posterior}), tmp_path / "tree.nc")
    with xr.open_datatree(path) as tree:
        assert coords_of(tree) == coords


def test_histories_grow_and_inputs_stay_as_they_were():
    fields = Fields(weather((4, 1, 8, 8)), domain(), "an ESM").to_dataset()
    once = as_cf(fields, domain().grid, {"history": "corrected"})
    twice = as_cf(once, domain().grid)
    assert len(twice.attrs["history"].splitlines()) == 3
    assert twice.attrs["history"].endswith("corrected")
    assert "units_metadata" not in fields["t2m"].attrs
    assert twice["t2m"].encoding["chunksizes"] == (4, 8, 8)
