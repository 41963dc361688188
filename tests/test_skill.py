"""Skill and its interval against direct resampling, exact identities, and the coverage of AR(1) scores.

Random tests use fixed seeds; "fails once in n" is the rate at which another seed would fail a correct program.
"""

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import lfilter

from bayesdownscale.diagnostics.scores import domain_mean
from bayesdownscale.diagnostics.skill import block_bootstrap, block_length, skill_score

N = 60
PLACE = {
    "time": np.datetime64("2019-03-25T00", "ns") + np.arange(N) * np.timedelta64(1, "h"),
    "lat": [10.0, 50.0, 70.0],
    "lon": [0.0, 2.0, 4.0, 6.0],
}


def scores(seed=0):
    """Two positive scores (time, lat, lon) that share most of their variation."""
    rng = np.random.default_rng(seed)
    common = rng.gamma(2.0, size=(N, 3, 4))
    own = 0.3 * rng.gamma(2.0, size=(2, N, 3, 4)) + np.array([0.0, 1.0])[:, None, None, None]
    first, second = (xr.DataArray(common + each, PLACE, ("time", "lat", "lon")) for each in own)
    return first.assign_attrs(units="K"), second


def ar1(rng, r, shape):
    """Stationary AR(1) series (time, ...) of unit variance with lag-one correlation `r`."""
    noise = rng.normal(size=shape)
    noise[1:] *= np.sqrt(1 - r**2)
    return np.asarray(lfilter([1.0], [1.0, -r], noise, axis=0))


def test_skill_is_one_minus_the_ratio_of_area_means():
    score, reference = scores()
    found = skill_score(score, reference, block=5)
    assert_allclose(found["skill"], 1 - domain_mean(score) / domain_mean(reference), rtol=1e-12)
    assert float(found["low"]) < float(found["skill"]) < float(found["high"])
    assert {found[name].attrs["units"] for name in found} == {"1"}
    assert found.attrs["block"] == 5
    for over, left in ((["time"], ("lat", "lon")), (["lon", "time"], ("lat",))):
        got = skill_score(score, reference, over, block=5)
        want = 1 - domain_mean(score, over) / domain_mean(reference, over)
        xr.testing.assert_allclose(got["skill"], want, rtol=1e-12)
        assert got["low"].dims == got["high"].dims == left


def test_no_difference_has_no_interval():
    """The same blocks for both: a score in proportion to the reference has the same skill in each resample."""
    _, reference = scores()
    for factor, skill in ((1.0, 0.0), (0.25, 0.75), (0.0, 1.0), (2.0, -1.0)):
        found = skill_score(factor * reference, reference)
        for name in ("skill", "low", "high"):
            assert_allclose(found[name], skill, rtol=0, atol=1e-12)


def test_skill_has_no_units_and_pairing_narrows_it():
    score, reference = scores()
    found, other = skill_score(score, reference), skill_score(score * 1000, reference * 1000)
    for name in ("skill", "low", "high"):
        assert_allclose(other[name], found[name], rtol=1e-9)
    apart = skill_score(score, reference.roll(time=20), block=3)
    paired = skill_score(score, reference, block=3)
    assert float(paired["high"] - paired["low"]) < 0.5 * float(apart["high"] - apart["low"])


def test_unknown_values_are_left_out_of_both():
    score, reference = scores()
    score[7], reference[20:25, 1], score[:, 2, 3] = np.nan, np.nan, np.nan
    known = score.notnull() & reference.notnull()
    found = skill_score(score, reference, block=4)
    want = 1 - domain_mean(score.where(known)) / domain_mean(reference.where(known))
    assert_allclose(found["skill"], want, rtol=1e-12)
    maps = skill_score(score, reference, ["time"], block=4)
    assert_array_equal(maps.isel(lat=2, lon=3).to_array(), np.nan)
    for name in maps:
        assert int(maps[name].isnull().sum()) == 1


def test_a_rare_event_has_a_skill_but_no_interval():
    """The reference of a cell is 0 but for one time, that many resamples do not hold."""
    score, reference = scores()
    reference[:, 0, 0] = 0.0
    reference[9, 0, 0] = 5.0
    found = skill_score(score, reference, ["time"], block=5).isel(lat=0, lon=0)
    assert np.isfinite(found["skill"])
    assert np.isnan([found["low"], found["high"]]).all()


@pytest.mark.parametrize("block", [1, 7, 12, 30])
def test_bootstrap_resamples_circular_blocks(block):
    series = np.random.default_rng(1).normal(size=(N, 3))
    got = block_bootstrap(xr.DataArray(series, dims=("time", "cell")), block, 50, seed=2)
    start = np.random.default_rng(2).integers(N, size=(50, N // block + 1))
    for means, s in zip(got, start, strict=True):
        index = np.concatenate([np.arange(each, each + block) for each in s])[:N] % N
        assert_allclose(means, series[index].mean(axis=0), rtol=0, atol=1e-12)
    assert got.dims == ("resample", "cell")


def test_bootstrap_of_single_times_has_the_variance_of_the_mean():
    """Of 4000 resamples: the standard error of their variance is 2.2 %, so that it fails once in a million."""
    series = xr.DataArray(np.random.default_rng(3).normal(size=N), dims="time", attrs={"units": "K"})
    means = block_bootstrap(series, 1, 4000)
    assert_allclose(means.var(), series.var() / N, rtol=0.11)
    assert_allclose(means.mean(), series.mean(), atol=5 * float(series.std()) / np.sqrt(N * 4000))
    assert means.attrs["units"] == "K"
    assert_array_equal(means, block_bootstrap(series, 1, 4000))
    assert (means != block_bootstrap(series, 1, 4000, seed=1)).any()


def test_block_length_follows_the_correlation():
    """The closed form for the true correlation, within the error of its estimate from 4000 series together."""
    rng = np.random.default_rng(4)
    for r in (0.0, 0.6, 0.9):
        series = xr.DataArray(ar1(rng, r, (400, 4000)), dims=("time", "cell"))
        want = max(1.0, 1.5 ** (1 / 3) * (2 * r / (1 - r**2)) ** (2 / 3)) * 400 ** (1 / 3)
        assert_allclose(block_length(series), want, rtol=0.15)
    assert block_length(xr.DataArray(np.zeros(1000), dims="time")) == 10


@pytest.mark.parametrize(("r", "n", "rate"), [(0.0, 400, 0.9), (0.6, 400, 0.87), (0.9, 400, 0.84), (0.9, 100, 0.78)])
def test_interval_of_correlated_scores_covers_as_documented(r, n, rate):
    """The interval of each of 2000 pairs of AR(1) scores that share half of their weather. The rate is that of
    many series; 4.5 standard errors and 0.01 for its own error: fails once in 100 000."""
    rng = np.random.default_rng(5)
    common, *own = (ar1(rng, r, (n, 2000)) for _ in range(3))
    series = lambda mean, each: xr.DataArray(mean + 0.2 * mean * common + 0.3 * each, dims=("time", "cell"))
    score, reference = series(2.0, own[0]), series(2.5, own[1])
    found = skill_score(score, reference, ["time"])
    covered = int(((found["low"] < 0.2) & (found["high"] > 0.2)).sum())
    assert abs(covered / 2000 - rate) < 0.01 + 4.5 * np.sqrt(rate * (1 - rate) / 2000)


def test_few_blocks_widen_the_interval():
    score, reference = scores()
    width = lambda **options: float(np.diff(skill_score(score, reference, **options).to_array()[1:], axis=0)[0])
    means = block_bootstrap(xr.concat([domain_mean(each, ["lat", "lon"]) for each in (score, reference)], "of"), 15)
    plain = (1 - means[:, 0] / means[:, 1]).quantile([0.05, 0.95])
    assert width(block=15) > 1.2 * float(plain[1] - plain[0])
    assert width(block=15, level=0.5) < width(block=15)


def test_memory_layout_and_laziness_change_nothing(tmp_path):
    score, reference = scores()
    whole = skill_score(score, reference)
    other = skill_score(score.transpose("lon", "time", "lat"), reference)
    xr.testing.assert_allclose(other, whole, rtol=1e-12)
    xr.Dataset({"score": score, "reference": reference}).to_netcdf(tmp_path / "scores.nc")
    with xr.open_dataset(tmp_path / "scores.nc") as lazy:
        xr.testing.assert_allclose(skill_score(lazy["score"], lazy["reference"]), whole, rtol=1e-12)


def test_skill_refuses_what_it_cannot_compare():
    score, reference = scores()
    with pytest.raises(ValueError, match="two blocks of times, got 1000 resamples of 60 times in blocks of 31"):
        skill_score(score, reference, block=31)
    with pytest.raises(ValueError, match="shorter block"):
        skill_score(score, reference, block=0)
    with pytest.raises(ValueError, match="level between 0 and 1, got 90"):
        skill_score(score, reference, level=90)
    with pytest.raises(ValueError, match="averaged over time at least"):
        skill_score(score, reference, ["lat", "lon"])
    with pytest.raises(ValueError, match="same dimensions"):
        skill_score(score, reference.isel(lon=0))
    with pytest.raises(ValueError, match="cannot align"):
        skill_score(score, reference.isel(time=slice(30)))
    with pytest.raises(ValueError, match="mean score above 0"):
        skill_score(score, 0 * reference)
    with pytest.raises(ValueError, match="without missing values"):
        block_bootstrap(score.where(score > 1), 5)
