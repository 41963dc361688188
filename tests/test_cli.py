"""The command line: the main path on a small prior, and every bad input as one sentence."""

import json

import jax
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from problems import small_data, small_prior

import bayesdownscale as bd
from bayesdownscale.cli import main

NETWORK = ["--widths", "4,8", "--window", "5", "--steps", "4", "--validate-every", "2", "--batch", "2"]


def weather(hours: int = 60) -> bd.Fields:
    prior = small_prior()
    times = prior.times[0] + np.timedelta64(1, "h") * np.arange(hours)
    dt = np.abs(np.arange(hours)[:, None] - np.arange(hours))
    space = bd.matern(prior.grid.distances_km(), 120.0, 1.5)
    field = bd.GaussianField.separable(np.exp(-dt / 4), space, (1, 8, 8))
    values = 280 + 2 * np.asarray(field.draw(jax.random.key(0)))
    return bd.Fields(values, bd.Coords(times, prior.variables, prior.grid), "made by a test")


def run(*words) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a trained prior, coarse data and their truth."""
    folder = tmp_path_factory.mktemp("cli")
    bd.write_atomic(weather().to_dataset(), folder / "fine.nc")
    code, output = run("train", folder / "fine.nc", "--variable", "t2m", "--out", folder / "prior", *NETWORK)
    assert code == 0, output
    _, coarse, truth = small_data(small_prior())
    bd.write_atomic(coarse.to_dataset(), folder / "coarse.nc")
    bd.write_atomic(truth.to_dataset(), folder / "truth.nc")
    return folder


def downscale(place, coarse, out, *words):
    settings = ["--set", "sigma=0.3", "--members", "2", "--steps", "3"]
    return run("downscale", coarse, "--prior", place / "prior", "--out", out, *settings, *words)


def change(place, tmp_path, function):
    """The coarse file after `function` of its Dataset."""
    with xr.open_dataset(place / "coarse.nc", decode_coords="all") as ds:
        function(ds.load()).to_netcdf(tmp_path / "changed.nc")
    return tmp_path / "changed.nc"


def test_main_path(place):
    """train, downscale, report: labelled members, a CF file, a report with its numbers."""
    out, cf = place / "posterior.zarr", place / "members.nc"
    code, output = downscale(place, place / "coarse.nc", out, "--cf", cf)
    assert code == 0, output
    tree = xr.open_datatree(out, engine="zarr", consolidated=False)
    assert tree["posterior"]["t2m"].dims == ("chain", "draw", "time", "lat", "lon")
    assert tree.attrs["command"].startswith("bayesdownscale")
    with xr.open_dataset(cf) as members:
        assert members["t2m"].dims == ("realization", "time", "lat", "lon")
        np.testing.assert_allclose(members["t2m"], tree["posterior"]["t2m"][0], rtol=1e-6)
    code, output = run("report", out, "--truth", place / "truth.nc", "--out", place / "report.html")
    assert code == 0, output
    assert "<img" in (place / "report.html").read_text()
    json.loads((place / "report.json").read_text())
    assert [p.name for p in place.iterdir() if p.name.startswith(".")] == []


def test_recipe_by_name(place, tmp_path):
    code, output = downscale(place, place / "coarse.nc", tmp_path / "p.nc", "--inference", "guided_sde")
    assert code == 0, output


def test_another_orientation_gives_the_same_draws(place, tmp_path):
    """Latitudes reversed, longitudes from 0 to 360."""
    around = lambda ds: ds.assign_coords(lon=(ds.lon % 360).assign_attrs(ds.lon.attrs), lon_bnds=ds.lon_bnds % 360)
    turn = lambda ds: around(ds).isel(lat=slice(None, None, -1))
    assert downscale(place, place / "coarse.nc", tmp_path / "a.nc")[0] == 0
    code, output = downscale(place, change(place, tmp_path, turn), tmp_path / "b.nc")
    assert code == 0, output
    a, b = (xr.open_datatree(tmp_path / f"{n}.nc")["posterior"]["t2m"].values for n in "ab")
    np.testing.assert_allclose(a, b, atol=1e-3)


def test_nan_is_missing(place, tmp_path):
    holes = change(place, tmp_path, lambda ds: ds.where(ds.lat != ds.lat[0]).transpose(*ds.dims))
    code, output = downscale(place, holes, tmp_path / "out.nc")
    assert code == 0, output
    assert np.isfinite(xr.open_datatree(tmp_path / "out.nc")["posterior"]["t2m"].values).all()


def units(ds):
    ds["t2m"].attrs["units"] = "mm/d"
    return ds


def far(ds):
    return ds.assign_coords(lon=(ds.lon + 90).assign_attrs(ds.lon.attrs), lon_bnds=ds.lon_bnds + 90)


BAD_COARSE = {
    "wrong variable": (lambda ds: ds.rename(t2m="pr").drop_attrs(), "t2m"),
    "wrong units": (units, "mm/d"),
    "outside the domain": (far, "domain"),
}


@pytest.mark.parametrize("case", BAD_COARSE)
def test_bad_coarse_files(place, tmp_path, case):
    function, word = BAD_COARSE[case]
    refused(downscale(place, change(place, tmp_path, function), tmp_path / "out.zarr"), word)
    assert not (tmp_path / "out.zarr").exists()


def refused(result: tuple[int, str], *words: str) -> None:
    """A non-zero exit and one sentence that holds `words`."""
    code, output = result
    assert code != 0
    assert "Traceback" not in output
    lines = [line for line in output.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, output
    for word in words:
        assert word in lines[0]


def test_bad_files_and_outputs(place, tmp_path):
    refused(downscale(place, tmp_path / "none.nc", tmp_path / "out.zarr"), "none.nc")
    refused(downscale(place, place / "coarse.nc", tmp_path / "out.txt"), "out.txt")
    (tmp_path / "there.zarr").mkdir()
    refused(downscale(place, place / "coarse.nc", tmp_path / "there.zarr"), "there.zarr", "--overwrite")
    refused(run("report", tmp_path / "none.zarr"), "none.zarr")
    refused(run("train", tmp_path / "none.nc", "--out", tmp_path / "p"), "none.nc")
    refused(run("new", place), str(place))
    unfinished = downscale(place, place / "coarse.nc", tmp_path / "out.zarr", "--set", "sigma")
    refused(unfinished, "NAME=VALUE")
    refused(downscale(place, place / "coarse.nc", tmp_path / "out.zarr", "--model", "nothing"), "nothing")


def test_truth_at_other_times(place, tmp_path):
    out = tmp_path / "posterior.nc"
    assert downscale(place, place / "coarse.nc", out)[0] == 0
    shift = lambda ds: ds.assign_coords(time=ds.time + np.timedelta64(100, "D"))
    with xr.open_dataset(place / "truth.nc", decode_coords="all") as ds:
        shift(ds.load()).to_netcdf(tmp_path / "late.nc")
    refused(run("report", out, "--truth", tmp_path / "late.nc", "--out", tmp_path / "r.html"), "overlap")
    assert not (tmp_path / "r.html").exists()


def test_damaged_checkpoints(place, tmp_path):
    import shutil

    shutil.copytree(place / "prior", tmp_path / "prior")
    weights = next((tmp_path / "prior").glob("prior-*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(downscale(tmp_path, place / "coarse.nc", tmp_path / "out.zarr"), weights.name, "truncated")
    refused(downscale(tmp_path / "nowhere", place / "coarse.nc", tmp_path / "out.zarr"), "prior.json")


def test_program_without_data(place, tmp_path):
    program = tmp_path / "blind.py"
    program.write_text(
        "import numpyro\n\n\ndef model(prior, H, y=None, sigma=None):\n    numpyro.sample('weather', prior)\n"
    )
    refused(downscale(place, place / "coarse.nc", tmp_path / "out.zarr", "--model", program), "observed site")
