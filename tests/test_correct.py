"""Whole files corrected: from a biased coarse model and finer observations on a rotated grid to one file."""

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from numpy.testing import assert_allclose, assert_array_equal

from bayesdownscale.cli import main
from bayesdownscale.data.correct import correct
from bayesdownscale.data.errors import DataError
from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords, Grid, Variable
from bayesdownscale.data.overlap import mean_weights
from bayesdownscale.data.read import open_fields
from bayesdownscale.data.regrid import conservative_mean
from bayesdownscale.data.rotated import RotatedPole

DAYS = np.arange("1990-01-01", "1993-01-01", dtype="datetime64[D]").astype("datetime64[ns]")
COARSE = Grid(41.0 + np.arange(3), -5.0 + np.arange(4))
ROTATED = Grid(-8.7 + 0.4 * np.arange(12), -18.2 + 0.4 * np.arange(12), pole=RotatedPole(39.25, -162.0))


def made(grid, seed, bias=0.0, wet=0.4, units=("K", "mm day-1")):
    """Daily temperature with a gradient to the north, and rain, the same for all cells but for noise."""
    rng = np.random.default_rng(seed)
    shape = (DAYS.size, *grid.shape)
    lat, _ = grid.places()
    season = 8 * np.sin(2 * np.pi * np.arange(DAYS.size) / 365.25)[:, None, None]
    tas = 285 + bias + season - lat + rng.normal(0, 3, (DAYS.size, 1, 1)) + 0.1 * rng.standard_normal(shape)
    rain = rng.gamma(0.8, 5.0, (DAYS.size, 1, 1)) * (rng.random((DAYS.size, 1, 1)) < wet) * np.ones(shape)
    variables = (Variable("tas", units[0], "air_temperature"), Variable("pr", units[1]))
    return Fields(np.stack([tas, rain], 1).astype(np.float32), Coords(DAYS, variables, grid), "made")


MODEL, REFERENCE = made(COARSE, 0, bias=4.0, wet=0.3), made(ROTATED, 1)


def written(fields, path):
    """Fields as NetCDF; a rotated grid with rlat, rlon and its grid mapping."""
    ds = fields.to_dataset()
    if fields.grid.pole is not None:
        ds = ds.drop_vars(["lat_bnds", "lon_bnds"]).rename(lat="rlat", lon="rlon")
        for name in ("rlat", "rlon"):
            ds[name].attrs, ds[name].encoding = {}, {}
        for name in list(ds.data_vars):
            ds[name].attrs["grid_mapping"] = "crs"
        ds["crs"] = ((), 0, fields.grid.pole.cf_attrs())
    ds.to_netcdf(path)
    return str(path)


def test_means_over_cells_of_another_grid():
    """A function that is linear on the sphere's tangent: its mean over a cell is near its value in the middle."""
    means = conservative_mean(REFERENCE, COARSE)
    want = 285 - COARSE.places()[0]
    apart = (means.values[:, 0] - REFERENCE.values[:, 0].mean(axis=(1, 2))[:, None, None])[0]
    assert_allclose(apart - apart.mean(), want - want.mean(), atol=0.1)
    assert_allclose(means.values[:, 1], REFERENCE.values[:, 1, :1, :1] * np.ones((1, *COARSE.shape)), rtol=1e-5)
    gap = REFERENCE.values.copy()
    gap[3, 0, 5, 5] = np.nan
    with_gap = conservative_mean(Fields(gap, REFERENCE.coords), COARSE).values
    touched = mean_weights(COARSE, ROTATED)[0].toarray()[:, 5 * 12 + 5] > 0
    assert_array_equal(np.isnan(with_gap[3, 0]).ravel(), touched)
    assert 1 <= touched.sum() <= 4
    assert np.isfinite(with_gap[3, 1]).all()
    far = Grid(COARSE.lat, COARSE.lon + 30)
    with pytest.raises(ValueError, match="expected coarse cells wholly within"):
        conservative_mean(REFERENCE, far)


def test_a_model_agrees_with_the_reference_afterwards():
    corrected, fits = correct(MODEL, REFERENCE, multiplicative=["pr"], wet={"pr": 1.0})
    want = conservative_mean(REFERENCE, COARSE)
    assert set(fits) == {"tas", "pr"}
    assert corrected.coords.grid == COARSE
    assert_allclose(corrected.values[:, 0].mean(axis=0), want.values[:, 0].mean(axis=0), atol=0.1)
    dry = lambda fields: (fields.values[:, 1] < 1.0).mean()
    assert abs(dry(corrected) - dry(want)) < 0.03 < abs(dry(MODEL) - dry(want))
    assert corrected.values[:, 1].min() >= 0.0


def test_on_the_command_line(tmp_path):
    model = written(made(COARSE, 0, 4.0, 0.3, units=("K", "")), tmp_path / "model.nc")
    reference = written(REFERENCE, tmp_path / "reference.nc")
    out = tmp_path / "better.nc"
    command = ["correct", model, "--reference", reference, "--out", str(out), "--ratio", "pr", "--wet", "pr=1"]
    command += ["--learn", "1990-01-01/1991-12-31", "--units", "pr=kg m-2 day-1"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "2 variables, 1096 times, corrected" in result.output
    better = open_fields(out)
    early = slice("1990-01-01", "1991-12-31")
    learned = open_fields(reference, times=early)
    again, _ = correct(MODEL, learned, open_fields(model, times=early), multiplicative=["pr"], wet={"pr": 1.0})
    assert_array_equal(better.values[:, 0], again.values[:, 0])
    assert better.variables[1].units == "mm day-1"
    with xr.open_dataset(out) as ds:
        assert ds.attrs["bias_correction"] == "qdm"
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 1
    assert "exists; choose another --out" in again.output


def test_corrections_are_saved_and_used_again(tmp_path):
    """Fitted once and kept; of the same model they make the same of it, of another period what that asks for."""
    model, reference = written(MODEL, tmp_path / "model.nc"), written(REFERENCE, tmp_path / "reference.nc")
    run = lambda *words: CliRunner().invoke(main, ["correct", model, *words])
    first, second, kept = (str(tmp_path / name) for name in ("first.nc", "second.nc", "kept"))
    made = run("--reference", reference, "--ratio", "pr", "--save", kept, "--out", first, "--method", "eqm")
    assert made.exit_code == 0, made.output
    used = run("--fitted", kept, "--out", second)
    assert used.exit_code == 0, used.output
    assert_array_equal(open_fields(second, ["tas", "pr"]).values, open_fields(first, ["tas", "pr"]).values)
    with xr.open_dataset(second) as ds:
        assert ds.attrs["bias_correction"] == "eqm"
    both = run("--fitted", kept, "--reference", reference, "--out", str(tmp_path / "third.nc"))
    assert "expected --reference to learn from or --fitted corrections, got both or none" in both.output
    empty = run("--fitted", str(tmp_path), "--out", str(tmp_path / "third.nc"))
    assert "expected a bias correction" in empty.output
    assert not (tmp_path / "third.nc").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--learn", "1990"], "expected FIRST/LAST, such as"),
        (["--learn", "1950-01-01/1951-01-01"], "expected times of the model from 1950-01-01 to 1951-01-01"),
        (["--ratio", "snow"], "expected 'snow' in model and reference"),
        (["--units", "snow=mm"], "expected variables to set the units of, got 'snow'"),
        (["--wet", "pr"], "expected NAME=VALUE, got 'pr'"),
    ],
    ids=["days", "period", "ratio", "units", "wet"],
)
def test_bad_options_end_in_one_sentence_and_write_nothing(options, says, tmp_path):
    fields = MODEL.isel_times(slice(0, 40))
    path = written(fields, tmp_path / "model.nc")
    command = ["correct", path, "--reference", path, "--out", str(tmp_path / "out.nc"), *options]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert says in result.output
    assert "Traceback" not in result.output
    assert [each.name for each in tmp_path.iterdir()] == ["model.nc"]


def test_no_variable_in_common():
    other = Fields(MODEL.values[:, :1], Coords(DAYS, (Variable("psl", "Pa"),), COARSE))
    with pytest.raises(DataError, match="expected a variable in model and reference"):
        correct(MODEL, other)
    with pytest.raises(DataError, match="expected 'tas' in the past"):
        correct(MODEL, MODEL, other)
