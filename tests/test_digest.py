"""Functionals and digests of posteriors, and their comparison: against NumPy, ArviZ and closed forms."""

import arviz as az
import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm

from bayesdownscale.diagnostics import blocks
from bayesdownscale.diagnostics.comparison import compare
from bayesdownscale.diagnostics.digest import digest
from bayesdownscale.diagnostics.functionals import FUNCTIONALS, of_array, of_ensemble

RNG = np.random.default_rng(0)
CHAINS, DRAWS, TIMES, LAT, LON = 2, 30, 7, 5, 4
FIELD = RNG.normal(280, 2, (CHAINS, DRAWS, TIMES, LAT, LON)).astype(np.float32)


@pytest.fixture
def tree():
    place = {
        "time": np.datetime64("2020-01-01T00", "ns") + np.timedelta64(1, "h") * np.arange(TIMES),
        "lat": 55 - 0.25 * np.arange(LAT),
        "lon": -3 + 0.25 * np.arange(LON),
    }
    posterior = xr.Dataset({"t2m": (("chain", "draw", "time", "lat", "lon"), FIELD, {"units": "K"})}, place)
    posterior["sigma"] = ("chain", "draw"), RNG.uniform(size=(CHAINS, DRAWS))
    posterior["bias"] = ("chain", "draw", "bias_dim_0"), RNG.uniform(size=(CHAINS, DRAWS, 3))
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs={"method": "Test"}), "/posterior": posterior})


def test_functionals_are_what_they_say():
    found = of_array(FIELD.astype(np.float64))
    assert found.keys() == FUNCTIONALS.keys()
    x = FIELD.astype(np.float64)
    expected = {
        "mean": x.mean((2, 3, 4)),
        "maximum": x.max((2, 3, 4)),
        "minimum": x.min((2, 3, 4)),
        "gradient": np.abs(np.diff(x, axis=4)).mean((2, 3, 4)),
        "change": np.abs(np.diff(x.mean((3, 4)), axis=2)).mean(2),
        "middle_hour": x[:, :, 3].mean((2, 3)),
        "middle_cell": x[:, :, 3, 2, 2],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=name)


def test_functionals_of_one_time_and_one_column():
    found = of_array(FIELD[:, :, :1, :, :1])
    np.testing.assert_array_equal(found["change"], 0)
    np.testing.assert_array_equal(found["gradient"], 0)


def test_digest_holds_parameters_functionals_and_cells(tree):
    small, places = (digest(tree, cells=20)[group] for group in ("posterior", "constant_data"))
    np.testing.assert_array_equal(small["sigma"], tree["posterior"]["sigma"])
    np.testing.assert_array_equal(small["bias"], tree["posterior"]["bias"])
    np.testing.assert_allclose(small["t2m mean"], FIELD.astype(np.float64).mean((2, 3, 4)), rtol=1e-12)
    cells = small["t2m cells"]
    assert cells.sizes == {"chain": CHAINS, "draw": DRAWS, "cell": 20}
    for i in range(0, 20, 5):
        place = {dim: places[dim].values[i] for dim in ("time", "lat", "lon")}
        np.testing.assert_array_equal(cells[..., i], tree["posterior"]["t2m"].sel(place))
    summary = az.summary(digest(tree, cells=3))
    assert {"sigma", "bias[0]", "t2m mean", "t2m cells[2]"} <= set(summary.index)
    assert digest(tree, cells=10**6)["posterior"].sizes["cell"] == TIMES * LAT * LON


def test_digest_of_a_lazy_posterior_is_the_same(tree, monkeypatch):
    whole = digest(tree, cells=20)["posterior"].to_dataset()
    monkeypatch.setattr(blocks, "BLOCK", 2 * CHAINS * DRAWS * LAT * LON)  # blocks of two times
    lazy = digest(tree.chunk({"time": 3, "draw": 7}), cells=20)["posterior"].to_dataset()
    xr.testing.assert_identical(lazy.load(), whole)
    parts = of_ensemble(tree["posterior"]["t2m"].isel(chain=0, drop=True))
    np.testing.assert_array_equal(parts["mean"], whole["t2m mean"][0])


def test_digest_needs_a_field(tree):
    with pytest.raises(ValueError, match="expected fields"):
        digest(xr.DataTree.from_dict({"/posterior": tree["posterior"].to_dataset()[["sigma"]]}))


def with_densities(scale, evidence=None, seed=0, shift=0.0):
    """A posterior of the mean of 60 Normal data of sd 1 under a Normal of sd `scale` and a flat prior."""
    rng = np.random.default_rng(5)
    y = rng.normal(size=60) + shift
    mu = y.mean() + scale / np.sqrt(60) * np.random.default_rng(seed).normal(size=(4, 500))
    density = norm.logpdf(y, mu[..., None], scale)
    density[..., 7] = np.nan  # as if it were missing
    groups = {
        "/posterior": xr.Dataset({"mu": (("chain", "draw"), mu)}),
        "/observed_data": xr.Dataset({"y": ("datum", y)}),
        "/log_likelihood": xr.Dataset({"y": (("chain", "draw", "datum"), density)}),
    }
    if evidence is not None:
        values = np.broadcast_to(np.asarray(evidence)[:, None], (4, 500))
        groups["/sample_stats"] = xr.Dataset({"log_evidence": (("chain", "draw"), values)})
    return xr.DataTree.from_dict(groups)


def test_comparison_prefers_the_right_noise_and_agrees_with_the_closed_form():
    table = compare({"wide": with_densities(3.0), "right": with_densities(1.0)})
    assert list(table.index) == ["right", "wide"]
    # Leave-one-out of a Normal mean, flat prior: y_i given the others is N(their mean, s^2 (1 + 1 / (n - 1))); the
    # posterior here used all 60 data, the one left out of the densities too. Monte-Carlo error below 0.05 nats.
    y = np.random.default_rng(5).normal(size=60)
    for name, scale in (("right", 1.0), ("wide", 3.0)):
        others = (y.sum() - y) / 59
        exact = np.delete(norm.logpdf(y, others, scale * np.sqrt(1 + 1 / 59)), 7).sum()
        assert abs(table.loc[name, "elpd"] - exact) < 0.1
    assert table.loc["wide", "elpd_diff"] < -10
    assert (table["bad_k"] == 0).all()
    assert table["log_evidence"].isna().all()


def test_evidence_is_that_of_the_islands():
    islands = np.log([1.0, 2.0, 3.0, 2.0])
    table = compare({"a": with_densities(1.0, islands), "b": with_densities(1.0, islands - 4.0)})
    np.testing.assert_allclose(table.loc["a", "log_evidence"], np.log(2.0))
    np.testing.assert_allclose(table.loc["b", "log_evidence"], np.log(2.0) - 4)
    error = np.std([1, 2, 3, 2], ddof=1) / 2 / 2
    np.testing.assert_allclose(table["log_evidence_se"], error)


def test_what_cannot_be_compared_is_refused():
    tree = with_densities(1.0)
    with pytest.raises(ValueError, match="at least two posteriors"):
        compare({"one": tree})
    with pytest.raises(ValueError, match="same data, got others in 'b'"):
        compare({"a": tree, "b": with_densities(1.0, shift=1.0)})
    bare = xr.DataTree.from_dict({"/posterior": tree["posterior"].to_dataset()})
    with pytest.raises(ValueError, match="got neither in 'bare'"):
        compare({"a": tree, "bare": bare})
