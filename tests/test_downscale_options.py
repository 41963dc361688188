"""What `downscale` makes of --name, --units, --stamp and cell_methods, up to the sampler: the prior's times and H."""

import jax
import numpy as np
import pytest
from click.testing import CliRunner
from data_files import saved, weather
from numpy.testing import assert_allclose
from problems import small_prior

import bayesdownscale.cli as cli
from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords, Variable

PRIOR = small_prior(18)
SIX = PRIOR.times[0].astype("datetime64[D]").astype("datetime64[ns]") + np.timedelta64(6, "h") * np.arange(3)


@pytest.fixture
def studies(monkeypatch):
    """Studies that are made and not run."""
    made = []

    class Kept(cli.Study):
        def run(self, *args):
            made.append(self)

        def write(self, *args):
            pass

    monkeypatch.setattr(cli, "Study", Kept)
    monkeypatch.setattr("bayesdownscale.prior.trained.load_prior", lambda folder: PRIOR)
    return made


def file(folder, method="", shift=0):
    """Six-hourly coarse fields without a standard name and without units."""
    grid = PRIOR.grid.coarsen(4)
    coords = Coords(SIX + np.timedelta64(shift, "h"), (Variable("T", ""),), grid)
    return saved(Fields(weather((3, 1, *grid.shape)) - 273.15, coords, "", None, (method,)).to_dataset(), folder)


@pytest.mark.parametrize(
    ("method", "shift", "words", "mean"),
    [
        ("", 0, [], False),
        ("point", 0, [], False),
        ("mean", 3, [], True),  # stamped at the middle
        ("mean", 0, ["--stamp", "start"], True),
        ("", 6, ["--stamp", "end"], True),
    ],
)
def test_the_operator_follows_the_file_and_the_user(studies, tmp_path, method, shift, words, mean):
    path = file(tmp_path, method, shift)
    command = ["downscale", str(path), "--out", str(tmp_path / "p.zarr"), "--name", "t2m=T", "--units", "t2m=degC"]
    result = CliRunner().invoke(cli.main, [*command, *words])
    assert result.exit_code == 0, result.output
    (study,) = studies
    assert_allclose(study.coarse.values, weather(study.coarse.values.shape), atol=1e-3)
    x = jax.random.normal(jax.random.key(0), study.prior.event_shape)
    assert study.prior.times[0] == SIX[0]
    areas = np.asarray(x).reshape(len(x), 1, 2, 4, 2, 4).mean((-1, -3))  # cells of one row are nearly equal
    want = areas[:18].reshape(3, 6, 1, 2, 2).mean(1) if mean else areas[[0, 6, 12]]
    assert_allclose(study.operator(x), want, atol=0.02)


def test_means_without_bounds_ask_for_a_stamp(studies, tmp_path):
    path = file(tmp_path, "mean")
    command = ["downscale", str(path), "--out", str(tmp_path / "p.zarr"), "--name", "t2m=T", "--units", "T=degC"]
    result = CliRunner().invoke(cli.main, command)
    assert result.exit_code == 1
    assert "--stamp start" in result.output


def test_names_of_no_variable_of_the_prior(studies, tmp_path):
    command = ["downscale", str(file(tmp_path)), "--out", str(tmp_path / "p.zarr"), "--name", "tas=T"]
    result = CliRunner().invoke(cli.main, command)
    assert result.exit_code == 1
    assert "expected variables among the prior's 't2m'" in result.output
