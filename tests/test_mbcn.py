"""MBCn: what it promises of marginals exactly, and of correlations within their sampling error."""

import sys
import types

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import spearmanr
from test_correct import written

from bayesdownscale.cli import main
from bayesdownscale.data import mbcn
from bayesdownscale.data.correct import correct
from bayesdownscale.data.errors import DataError
from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords, Grid, Variable
from bayesdownscale.data.read import open_fields
from bayesdownscale.data.seasons import season_of

GRID = Grid(41.0 + np.arange(2), -5.0 + np.arange(3))
PAST = np.arange("1990-01-01", "2000-01-01", dtype="datetime64[D]").astype("datetime64[ns]")
FUTURE = np.arange("2050-01-01", "2055-01-01", dtype="datetime64[D]").astype("datetime64[ns]")


def weather(r, seed, times=PAST, warmer=0.0, units="mm day-1"):
    """Temperature and rain, wet on six days of ten, whose normal scores have the correlation `r`; the same marginals
    whatever that is."""
    rng = np.random.default_rng(seed)
    z = rng.multivariate_normal([0, 0], [[1, r], [r, 1]], (times.size, *GRID.shape))
    tas, pr = 285 + warmer + 3 * z[..., 0], np.maximum(4 * (z[..., 1] + 0.25), 0.0) ** 1.5
    pr = pr / 86400 if units == "kg m-2 s-1" else pr
    labels = Variable("tas", "K", "air_temperature"), Variable("pr", units)
    return Fields(np.stack([tas, pr], 1).astype(np.float32), Coords(times, labels, GRID), "made")


def together(fields, months=(1, 7)):
    """Mean rank correlation of temperature and rain, over cells and `months`."""
    mine = [fields.values[season_of(fields.times, None) == m].reshape(-1, 2, 6) for m in months]
    return np.mean([spearmanr(x[:, 0, c], x[:, 1, c])[0] for x in mine for c in range(6)])


def same_values(a, b):
    for month in range(1, 13):
        own, other = (np.sort(f.values[season_of(f.times, None) == month], axis=0) for f in (a, b))
        assert_array_equal(own, other)


@pytest.mark.slow  # numba compiles for a minute
@pytest.mark.parametrize("window", [None, 31])
def test_correlations_become_those_of_the_reference_and_marginals_stay(window):
    """The model has the right marginals and +0.5 where the reference has -0.6. Standard error of a correlation of 150
    days, the mean of 12: 0.025. Its future is 2 K warmer, in other units, and stays so."""
    pytest.importorskip("xsdba")
    model, reference = weather(0.5, 0, units="kg m-2 s-1"), weather(-0.6, 1)
    later = weather(0.5, 2, FUTURE, 2.0, units="kg m-2 s-1")
    qdm, _ = correct(later, reference, model, "qdm", ["pr"], window=window)
    both, _ = correct(later, reference, model, "mbcn", ["pr"], window=window)
    again, _ = correct(later, reference, model, "mbcn", ["pr"], window=window)
    assert together(qdm) > 0.3
    assert_allclose(together(both), together(reference), atol=0.1)
    if window is None:
        same_values(both, qdm)
    order = np.sort(both.values, axis=0), np.sort(qdm.values, axis=0)
    assert np.abs(order[0] - order[1]).mean() < 0.1
    assert_allclose(both.values[:, 0].mean() - reference.values[:, 0].mean(), 2.0, atol=0.1)
    assert_allclose((both.values[:, 1] == 0).mean(), (reference.values[:, 1] == 0).mean(), atol=0.03)
    assert_array_equal(both.values, again.values)


@pytest.mark.slow
def test_on_the_command_line(tmp_path):
    pytest.importorskip("xsdba")
    paths = [written(weather(r, seed), tmp_path / f"{seed}.nc") for seed, r in enumerate((0.5, -0.6))]
    out = tmp_path / "better.nc"
    words = ["correct", paths[0], "--reference", paths[1], "--method", "mbcn", "--ratio", "pr", "--out", str(out)]
    made = CliRunner().invoke(main, words)
    assert made.exit_code == 0, made.output
    assert together(open_fields(out, ["tas", "pr"])) < -0.4
    with xr.open_dataset(out) as ds:
        assert ds.attrs["bias_correction"] == "mbcn"


def stand_in(monkeypatch, order):
    """An xsdba whose MBCn gives each variable and cell the `order` of days it is told."""

    class MBCn:
        @staticmethod
        def train(ref, hist, **kwargs):
            assert ref.sizes == hist.sizes
            assert kwargs["rot_matrices"].sizes == {"iterations": 20, "variable": 2, "turned": 2}
            return MBCn()

        def adjust(self, sim, ref, hist):
            return sim.copy(data=order(sim.values))

    monkeypatch.setitem(sys.modules, "xsdba", types.SimpleNamespace(MBCn=MBCn))


def test_only_the_order_of_days_changes(monkeypatch):
    """Told to turn the order of rain around, it does; values, units, seasons and missing cells stay."""
    model, reference = weather(0.5, 0), weather(-0.6, 1)
    model.values[..., 0, 0] = np.nan
    stand_in(monkeypatch, lambda x: np.stack([x[0], -x[1]]))
    shorter = reference.isel_times(slice(0, 9 * 365))
    qdm, _ = correct(model, shorter, None, "qdm", ["pr"])
    both, _ = correct(model, shorter, None, "mbcn", ["pr"])
    same_values(both, qdm)
    assert_array_equal(both.values[:, 0], qdm.values[:, 0])
    assert np.isnan(both.values[..., 0, 0]).all()
    january = season_of(model.times, None) == 1
    first, second = (f.values[january, 1, 1, 1] for f in (qdm, both))
    wet = first > 0.5
    assert spearmanr(first[wet], second[wet])[0] < -0.3  # dry days come among the others
    assert spearmanr(qdm.values[january, 0, 1, 1], second)[0] < -0.3
    assert both.variables == qdm.variables


def test_what_it_needs(monkeypatch, tmp_path):
    model, reference = weather(0.5, 0), weather(-0.6, 1)
    monkeypatch.setitem(sys.modules, "xsdba", None)
    with pytest.raises(DataError, match=r"the package xsdba for the method mbcn, found none; run: pip install 'baye"):
        correct(model, reference, method="mbcn")
    path = written(model, tmp_path / "model.nc")
    words = ["correct", path, "--reference", path, "--method", "mbcn", "--out", str(tmp_path / "out.nc")]
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 1
    assert "run: pip install 'bayesdownscale[mbcn]'" in refused.output
    refused = CliRunner().invoke(main, [*words, "--save", str(tmp_path)])
    assert "expected eqm, dqm or qdm to --save, got mbcn" in refused.output
    assert not (tmp_path / "out.nc").exists()
    monkeypatch.setitem(sys.modules, "xsdba", types.SimpleNamespace(__version__="0.0"))
    with pytest.raises(DataError, match=r"a working package xsdba, .* got ImportError: no MBCn in version 0.0; run"):
        mbcn.load_xsdba()
    stand_in(monkeypatch, lambda x: x)
    with pytest.raises(DataError, match="two variables or more to correct together by mbcn, got 'tas'"):
        correct(model.only(["tas"]), reference, method="mbcn")
    gap = Fields(model.values.copy(), model.coords)
    gap.values[5, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="values at all times for mbcn, got 1 with some missing"):
        correct(gap, reference, method="mbcn")


def test_a_dependency_that_does_not_import(monkeypatch, tmp_path):
    """As numba of another NumPy: the sentence says which."""
    (tmp_path / "xsdba.py").write_text("raise ImportError('Numba needs NumPy 2.3 or less. Got NumPy 2.5.')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "xsdba", raising=False)
    with pytest.raises(DataError, match=r"got ImportError: Numba needs NumPy 2.3 or less. Got NumPy 2.5.; run: pip"):
        mbcn.load_xsdba()
