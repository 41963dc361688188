"""The command `ensemble`: the shipped prior on two days, again after a stop, and bad input as one sentence."""

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import bayesdownscale as bd
from bayesdownscale.cli import main, parse_span


def run(*words) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["ensemble", *map(str, words)])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def coarse(tmp_path_factory):
    prior = bd.load_prior()
    grid = prior.grid.coarsen(8)
    times = np.datetime64("2019-03-26", "ns") + np.timedelta64(6, "h") * np.arange(9)
    values = np.float32(281 + np.random.default_rng(0).normal(size=(9, 1, *grid.shape)))
    path = tmp_path_factory.mktemp("command") / "coarse.nc"
    bd.write_atomic(bd.Fields(values, bd.Coords(times, prior.variables, grid), "a test").to_dataset(), path)
    return path


@pytest.mark.slow
def test_two_shares_and_a_check(coarse, tmp_path):
    words = [coarse, "--out", tmp_path / "ens.zarr", "--set", "sigma=0.1", "--members", 2, "--steps", 2]
    words += ["--span", "36h"]
    for index in (1, 0):
        code, output = run(*words, "--job-index", index, "--num-jobs", 2)
        assert code == 0, output
        assert "2 members x 2 spans of 36 time steps: 2 jobs" in output
    chunk = tmp_path / "ens.zarr" / "t2m" / "c" / "1" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    code, output = run(*words, "--verify")
    assert code == 0, output
    assert "member 1, span 0 was damaged and is drawn again" in output
    with xr.open_dataset(tmp_path / "ens.zarr", engine="zarr", consolidated=False) as ds:
        assert ds["t2m"].shape == (2, 49, 32, 48)
        assert np.isfinite(ds["t2m"].values).all()
        assert "ensemble" in ds.attrs["command"]
    code, output = run(*words, "--seed", 1)
    assert code == 1
    assert "holds an ensemble with another seed" in output


@pytest.mark.slow
def test_forward_only_in_half_precision(coarse, tmp_path):
    """The network of the shipped prior in bfloat16, with the covariance that is stored with it."""
    words = [coarse, "--out", tmp_path / "ens.zarr", "--set", "sigma=0.1", "--members", 1, "--steps", 8]
    words += ["--precision", "bf16", "--span", "54h", "--batch", 2]
    code, output = run(*words, "--guidance", "fixed_covariance")
    assert code == 0, output
    with xr.open_dataset(tmp_path / "ens.zarr", engine="zarr", consolidated=False) as ds:
        assert ds.attrs["method"] == "guided reverse SDE, fixed covariance"
        drawn, data = ds["t2m"].values[0, ::6], xr.open_dataset(coarse)["t2m"].values
    blocks = drawn.reshape(9, 4, 8, 6, 8).mean((2, 4))
    assert np.abs(blocks - data).std() < 0.15  # noise of 0.1 K, and cells of one block that differ in area
    code, output = run(*words)
    assert code == 1
    assert 'another guidance ("fixed_covariance", now "moment_matching")' in output


def test_free_parameters_and_no_file(coarse, tmp_path):
    code, output = run(coarse, "--out", tmp_path / "ens.zarr", "--steps", 2)
    assert code == 1
    assert "['sigma'] free; draw them first" in output
    assert not (tmp_path / "ens.zarr").exists()
    code, output = run(tmp_path / "none.nc", "--out", tmp_path / "ens.zarr")
    assert code == 1
    assert "no file at" in output


def test_spans():
    assert parse_span("36h") == np.timedelta64(36, "h")
    assert parse_span("2W") == np.timedelta64(14, "D")
    for text in ("", "D", "-3D", "0h", "5m", "1.5D"):
        with pytest.raises(ValueError, match="expected a span of hours, days or weeks"):
            parse_span(text)
