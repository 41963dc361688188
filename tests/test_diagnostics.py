"""Scores against closed forms, calibration against exchangeability, and a report that holds what it says.

Random tests use fixed seeds; "fails once in n" is the rate at which another seed would fail a correct program.
"""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest, norm

from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords, Grid, Variable
from bayesdownscale.diagnostics.baselines import bilinear
from bayesdownscale.diagnostics.calibration import LEVELS, central_coverage, chance_range, histogram, pit_curves
from bayesdownscale.diagnostics.coastlines import coastlines_in
from bayesdownscale.diagnostics.figures import hours_since_observed, time_series, widest_point
from bayesdownscale.diagnostics.layout import add_truth, read_fields
from bayesdownscale.diagnostics.maps import is_signed, maps, unobserved_time
from bayesdownscale.diagnostics.report import number, report
from bayesdownscale.diagnostics.scores import coverage, crps, mae, pit, rmse, spread, spread_skill
from bayesdownscale.diagnostics.style import degrees, period, units_of
from bayesdownscale.diagnostics.summary import summarise
from bayesdownscale.diagnostics.verdict import judge

N_TIME, N_LAT, N_LON, DRAWS = 13, 12, 16, 20
FIVE_SIGMA = 5.0  # two-sided: fails once in 1.7 million
TIME = np.datetime64("2019-03-25T00", "ns") + np.arange(N_TIME) * np.timedelta64(1, "h")
LAT, LON = 56.0 - 0.25 * np.arange(N_LAT), -6.0 + 0.25 * np.arange(N_LON)
ATTRS = {"units": "K", "long_name": "2 metre temperature", "standard_name": "air_temperature"}


def calibrated_tree(draws=DRAWS, seed=0, chains=1, error=1.0, truth=True, stats=True):
    """Draws and truth N(centre, 1) independent in every cell: an exactly calibrated Gaussian posterior; `error`
    scales the distance of the truth. The input: 3 x 4 block means every 6 h with noise 0.1."""
    rng = np.random.default_rng(seed)
    shape = (N_TIME, N_LAT, N_LON)
    centre = 280 + 5 * np.sin(LAT)[:, None] + LON + np.arange(N_TIME)[:, None, None] / 3 + 3 * rng.normal(size=shape)
    fields = centre + rng.normal(size=(chains, draws, *shape))
    real = centre + error * rng.normal(size=shape)
    blocks = real[::6].reshape(3, 4, 3, 4, 4).mean(axis=(2, 4))[:, None]
    place = {"time": TIME, "lat": LAT, "lon": LON}
    dims = ("chain", "draw", "time", "lat", "lon")
    posterior = xr.Dataset({"t2m": (dims, fields.astype(np.float32), ATTRS)}, place)
    posterior["sigma"] = (("chain", "draw"), rng.uniform(0.05, 0.15, (chains, draws)))
    centres = {"lat_coarse": LAT.reshape(4, 3).mean(axis=1), "lon_coarse": LON.reshape(4, 4).mean(axis=1)}
    axes = ("time_coarse", "variable", "lat_coarse", "lon_coarse")
    observed = xr.Dataset({"coarse": (axes, blocks + 0.1 * rng.normal(size=blocks.shape))}, centres)
    observed = observed.assign_coords(time_coarse=TIME[::6], variable=["t2m"])
    by_draw = {"n_evaluations": np.full((chains, draws), 32), "diverging": np.zeros((chains, draws), bool)}
    by_draw["coarse_residual"] = rng.normal(1.0, 0.02, (chains, draws))
    attrs = {"method": "Test", "approximate": 1, "steps": 32, "model_source": "def model():\n    assert 1 < 2 & 3"}
    groups = {"/": xr.Dataset(attrs=attrs), "/posterior": posterior, "/observed_data": observed}
    if stats:
        groups["/sample_stats"] = xr.Dataset({name: (("chain", "draw"), value) for name, value in by_draw.items()})
    if truth:
        groups["/truth"] = xr.Dataset({"t2m": (("time", "lat", "lon"), real, ATTRS)}, place)
    return xr.DataTree.from_dict(groups)


@pytest.fixture(scope="module")
def tree():
    return calibrated_tree()


@pytest.fixture(scope="module")
def field(tree):
    (field,), total, bad = read_fields(tree)
    assert (total, bad) == (DRAWS, 0)
    return field


def replaced(tree, path, dataset):
    groups = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    return xr.DataTree.from_dict({**groups, path: dataset})


def cells(values, draws=False):
    dims = ("draw", "cell") if draws else ("cell",)
    return xr.DataArray(np.asarray(values, dtype=np.float64), dims=dims)


@pytest.mark.parametrize("offset", [0.0, 280.0])
def test_crps_is_the_fair_formula(offset):
    rng = np.random.default_rng(1)
    x, y = offset + rng.normal(size=(7, 50)), offset + rng.normal(size=50)
    pairs = np.abs(x[:, None] - x[None]).sum(axis=(0, 1)) / (7 * 6)
    assert_allclose(crps(cells(x, True), cells(y)), np.abs(x - y).mean(axis=0) - pairs / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("draws", [2, 40])
def test_crps_has_the_mean_of_the_gaussian_closed_form(draws):
    rng = np.random.default_rng(2)
    y, x = rng.normal(size=20_000), rng.normal(size=(draws, 20_000))
    closed = y * (2 * norm.cdf(y) - 1) + 2 * norm.pdf(y) - 1 / np.sqrt(np.pi)
    difference = crps(cells(x, True), cells(y)).values - closed
    assert abs(difference.mean()) < FIVE_SIGMA * difference.std() / np.sqrt(y.size)


@pytest.mark.parametrize("draws", [1, 2, 5, 19, 20])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.99])
def test_coverage_is_nominal_for_every_size(draws, level):
    """Each of the M + 1 ranks once: the definition of calibration."""
    truth = cells(np.arange(draws + 1) - 0.5)
    ensemble = cells(np.repeat(np.arange(draws)[:, None], draws + 1, axis=1), True)
    assert_allclose(coverage(ensemble, truth, level), level, atol=1e-12)


def test_coverage_of_ties_is_nominal():
    rng = np.random.default_rng(3)
    rain = np.maximum(rng.normal(size=(10, 20_000)), 0)
    assert_allclose(coverage(cells(rain[1:], True), cells(rain[0]), 0.9), 0.9, atol=FIVE_SIGMA * 0.3 / np.sqrt(20_000))


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_of_a_calibrated_ensemble(field, level):
    tolerance = FIVE_SIGMA * np.sqrt(level * (1 - level) / field.truth.size)
    assert_allclose(coverage(field.ensemble, field.truth, level), level, atol=tolerance)


def test_spread_equals_error_when_calibrated(field):
    assert_allclose(spread_skill(field.ensemble, field.truth), 1.0, atol=FIVE_SIGMA * np.sqrt(0.55 / field.truth.size))
    assert spread_skill(field.ensemble, field.truth, ["lat", "lon"]).dims == ("time",)
    assert spread(field.ensemble).attrs["units"] == "K"


def test_spread_skill_of_two_members_needs_the_factor():
    rng = np.random.default_rng(4)
    sample = rng.normal(size=(3, 40_000))
    assert_allclose(spread_skill(cells(sample[1:], True), cells(sample[0])), 1.0, atol=0.03)  # 5 standard errors


@pytest.mark.parametrize("ties", [False, True])
def test_pit_is_uniform(ties):
    sample = np.random.default_rng(5).normal(size=(10, 5_000))
    sample = np.maximum(sample, 0) if ties else sample
    values = pit(cells(sample[1:], True), cells(sample[0]), key=0)
    assert values.min() >= 0
    assert values.max() <= 1
    assert kstest(values.values, "uniform").pvalue > 1e-5  # fails once in 100 000
    assert_array_equal(values, pit(cells(sample[1:], True), cells(sample[0]), key=0))


def test_errors_weight_cells_by_area():
    lat = xr.DataArray([0.0, 60.0], {"lat": [0.0, 60.0]}, ("lat",))
    zero = xr.zeros_like(lat)
    assert_allclose(mae(zero, lat), 60 * 0.5 / 1.5)
    assert_allclose(rmse(zero, lat), np.sqrt(3600 * 0.5 / 1.5))


def test_missing_truth_is_left_out(field):
    truth = field.truth.where(field.truth["lat"] > 55)
    north = {"lat": field.truth["lat"].values > 55}
    for score in (coverage, spread_skill):
        want = score(field.ensemble.isel(north), field.truth.isel(north))
        assert_allclose(score(field.ensemble, truth), want, rtol=1e-6)
    assert int(crps(field.ensemble, truth).notnull().sum()) == int(truth.notnull().sum())


def test_scores_refuse_what_they_cannot_score(field):
    with pytest.raises(ValueError, match="at least two draws"):
        crps(field.ensemble.isel(draw=[0]), field.truth)
    with pytest.raises(ValueError, match="level between 0 and 1"):
        coverage(field.ensemble, field.truth, 90)
    with pytest.raises(ValueError, match="dimension draw"):
        pit(field.ensemble.rename(draw="member"), field.truth, key=0)


def test_pit_curves_agree_with_coverage_and_are_uniform_over_the_pool(field):
    curves = pit_curves(field.ensemble, field.truth)
    assert_allclose(central_coverage(curves, 0.9)[0], coverage(field.ensemble, field.truth, 0.9), atol=1e-9)
    assert_allclose(curves.mean("item"), LEVELS, atol=1e-9)  # each cell gives every rank once
    assert_allclose(histogram(curves, 20).mean("bin"), 1.0)
    assert_allclose(pit_curves(field.ensemble, field.truth, 0)[0], curves[0])


def test_chance_range_holds_a_calibrated_truth_and_no_other(field):
    for scale, inside in ((1.0, True), (0.6, False)):
        ensemble = field.ensemble.mean("draw") + scale * (field.ensemble - field.ensemble.mean("draw"))
        covered = central_coverage(pit_curves(ensemble, field.truth), 0.9)
        low, high = chance_range(covered, 0.99)
        assert bool(low <= covered[0] <= high) is inside


def test_bilinear_is_exact_on_linear_functions(field):
    linear = lambda time, lat, lon: 280 + (time - TIME[0]) / np.timedelta64(1, "h") + 2 * lat - 3 * lon
    coarse = linear(field.coarse["time_coarse"], field.coarse["lat_coarse"], field.coarse["lon_coarse"])
    for shift in (0.0, 360.0):
        got = bilinear(coarse.assign_coords(lon_coarse=coarse["lon_coarse"] + shift), field.ensemble)
        inner = got.isel(lat=slice(1, -1), lon=slice(2, -2))  # the outer cells lie beyond the coarse centres
        want = linear(inner["time"], inner["lat"], inner["lon"])
        assert_allclose(inner, want.transpose(*inner.dims), rtol=0, atol=1e-9)
    assert_allclose(got[0, 0, 0], coarse[0, 0, 0])


def test_bilinear_fills_missing_cells_from_the_nearest(field):
    constant = xr.full_like(field.coarse, 5.0)
    constant[0, 0, 0] = np.nan
    constant[1] = np.nan
    assert_allclose(bilinear(constant, field.ensemble), 5.0)
    with pytest.raises(ValueError, match="at least one coarse value"):
        bilinear(xr.full_like(field.coarse, np.nan), field.ensemble)


def test_coastlines_are_found_in_every_convention():
    here, turned = coastlines_in(-10, 2, 50, 58), coastlines_in(350, 362, 50, 58)
    assert len(here) == len(turned) > 5
    for line, other in zip(here, turned, strict=True):
        assert np.isfinite(line).all()
        assert_allclose(line + np.array([360.0, 0.0]), other)
    dover = np.array([1.35, 51.15])
    assert min(np.hypot(*(line - dover).T).min() for line in here) < 0.15
    assert coastlines_in(170, 190, -20, -15)  # Fiji, across the antimeridian
    assert not coastlines_in(-35, -33, 40, 42)  # open sea
    with pytest.raises(ValueError, match="lon_min < lon_max"):
        coastlines_in(2, -10, 50, 58)


def test_words(field):
    said = [degrees(-5.0, "EW"), degrees(355.0, "EW"), degrees(52.5, "NS"), degrees(0.0, "EW"), period(TIME)]
    assert said == ["5°W", "5°W", "52.5°N", "0°", "25 March 2019"]
    assert units_of(xr.DataArray(0, attrs={"units": "kg m-2 s-1"})) == "kg m⁻² s⁻¹"
    assert [number(v) for v in (None, 0.0, 32.0, 0.90217, -1.234, 1e-7)] == ["–", "0", "32", "0.902", "−1.23", "1e-07"]
    assert is_signed(xr.DataArray(0, attrs={"standard_name": "eastward_wind"}))
    assert not is_signed(field.ensemble)


def test_observed_hours(field):
    assert_array_equal(np.flatnonzero(field.observed), [0, 6, 12])
    assert unobserved_time(field.ensemble["time"], field.observed) in (TIME[3], TIME[9])
    assert_array_equal(hours_since_observed(field.observed), [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0])


def test_truth_is_brought_to_the_posterior(tree, field):
    bare = calibrated_tree(truth=False)
    fine = tree["truth"]["t2m"]
    other = fine.isel(lat=slice(None, None, -1)).assign_coords(lon=fine["lon"] + 360) - 273.15
    other = other.rename(lat="latitude", lon="longitude").assign_attrs(units="degC").isel(time=slice(2, None))
    truth = read_fields(add_truth(bare, other))[0][0].truth
    assert_allclose(truth[2:], field.truth[2:], atol=1e-3)
    assert bool(truth[:2].isnull().all())
    coords = Coords(TIME, (Variable("t2m", "K"),), Grid(LAT, LON))
    given = Fields(fine.values[:, None].astype(np.float32), coords)
    assert_allclose(read_fields(add_truth(bare, given))[0][0].truth, field.truth, rtol=1e-6)
    with pytest.raises(ValueError, match="regrid it"):
        add_truth(bare, fine.assign_coords(lat=fine["lat"] + 0.1))
    with pytest.raises(ValueError, match="rename its variables"):
        add_truth(bare, fine.rename("tas").to_dataset())
    with pytest.raises(ValueError, match="convertible"):
        add_truth(bare, fine.assign_attrs(units="m s-1"))


def test_draws_that_are_not_finite_are_left_out_and_reported(tree):
    posterior = tree["posterior"].to_dataset().copy(deep=True)
    posterior["t2m"][0, 3, 0, 0, 0] = np.nan
    summary = summarise(replaced(tree, "/posterior", posterior))
    assert summary["draws"] == {"total": DRAWS, "non_finite": 1, "used": DRAWS - 1}
    assert summary["verdict"] == "fail"
    posterior["t2m"][:] = np.nan
    with pytest.raises(ValueError, match="got none among"):
        summarise(replaced(tree, "/posterior", posterior))


def test_summary_of_a_calibrated_posterior(tree):
    summary = summarise(tree)
    scores = summary["variables"]["t2m"]["scores"]
    status = {c["name"]: c["status"] for c in summary["criteria"]}
    assert status.pop("crps_ratio") == "ok"
    assert set(status.values()) == {"ok"}
    assert {part: scores[part]["hours"] for part in scores} == {"all": 13, "observed": 3, "between": 10}
    assert scores["all"]["crps_ratio"] == scores["all"]["crps"] / scores["all"]["interpolation_mae"]
    assert any("approximate" in sentence for sentence in summary["limitations"])
    assert summary["provenance"]["steps"] == 32


def test_an_overconfident_posterior_fails():
    summary = summarise(calibrated_tree(error=3.0))
    failed = {c["name"] for c in summary["criteria"] if c["status"] == "fail"}
    assert {"coverage_90", "coverage_90_between", "spread_skill"} <= failed
    assert summary["verdict"] == summary["criteria"][0]["status"] == "fail"


def test_chance_softens_a_failure():
    assert judge("coverage_90", 0.7, "").status == "fail"
    assert judge("coverage_90", 0.7, "", chance=[0.6, 0.95]).status == "warn"
    assert judge("coverage_90", np.nan, "").status == "fail"


def test_parameters_of_several_chains():
    numbers = summarise(calibrated_tree(chains=2))["parameters"]["sigma"]
    assert 0.9 < numbers["rhat"] < 1.2
    assert numbers["ess"] > 5
    assert numbers["omitted"] == ""


class Page(HTMLParser):
    """The images, links and scripts of a page, and its text."""

    def __init__(self, text):
        super().__init__()
        self.images, self.links, self.tags, self.text = [], [], set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        self.images += [attrs] if tag == "img" else []
        self.links += [value for key, value in attrs.items() if key in ("href", "src", "srcset", "action")]

    def handle_data(self, data):
        self.text += data


def written(path):
    assert not list(path.parent.glob(".*")), "a draft is left"
    refuse = lambda constant: pytest.fail(f"{constant} in JSON")
    return Page(path.read_text()), json.loads(path.with_suffix(".json").read_text(), parse_constant=refuse)


def test_report_holds_everything_and_needs_no_network(tree, tmp_path):
    path = report(tree, tmp_path / "new" / "report.html")
    page, numbers = written(path)
    assert len(page.images) == 6
    assert all(image["alt"].strip() and image["src"].startswith("data:image/png;base64,") for image in page.images)
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert "http" not in page.text
    assert "assert 1 < 2 & 3" in page.text
    for words in ("Verdict", "Sampling cost", "Provenance", "What this posterior does not know", "too narrow"):
        assert words in page.text
    assert numbers["schema"] == "bayesdownscale.report/1"
    assert numbers["variables"]["t2m"]["scores"]["all"]["coverage_90"] is not None


def test_report_refuses_to_overwrite(tree, tmp_path):
    tree = replaced(tree, "/posterior", tree["posterior"].to_dataset().isel(time=slice(7), draw=slice(3)))
    path = report(tree, tmp_path / "report.html")
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="exists; choose another path or allow to overwrite it"):
        report(tree, path)
    path.unlink()
    with pytest.raises(FileExistsError, match="json"):
        report(tree, path)
    assert report(tree, path, overwrite=True).read_bytes() == before
    with pytest.raises(ValueError, match="end it in"):
        report(tree, tmp_path / "report.json")


def anonymous(tree):
    site = tree["observed_data"]["coarse"]
    return replaced(tree, "/observed_data", xr.Dataset({"coarse": (("a", "b", "c", "d"), site.values)}))


def with_missing_coarse(tree):
    coarse = tree["observed_data"].to_dataset().copy(deep=True)
    coarse["coarse"][1] = np.nan
    coarse["coarse"][0, 0, 1, 1] = np.nan
    return replaced(tree, "/observed_data", coarse)


@pytest.mark.parametrize(
    ("make", "images", "says"),
    [
        (lambda: calibrated_tree(truth=False), 4, "Calibration was not assessed: no truth was given."),
        (lambda: calibrated_tree(stats=False), 6, "the sampler stored no coarse_residual"),
        (lambda: calibrated_tree(draws=1), 2, "need at least two draws, and there is one"),
        (lambda: anonymous(calibrated_tree()), 5, "no labelled coarse input"),
        (lambda: with_missing_coarse(calibrated_tree()), 6, "hours without"),
    ],
    ids=["no truth", "no sample_stats", "one draw", "anonymous input", "missing input"],
)
def test_report_says_what_it_cannot_say(make, images, says, tmp_path):
    page, _ = written(report(make(), tmp_path / "report.html"))
    assert len(page.images) == images
    assert says in page.text


def test_figures_of_a_chosen_point_and_time(field):
    lat, lon = widest_point(field.ensemble)
    assert lat in LAT[4:-4]
    assert lon in LON[4:-4]
    title = time_series(field.ensemble, (55.01, -4.0), field.truth, field.coarse).get_suptitle()
    assert title == "2 metre temperature at 55°N 4°W"
    assert "25 March 2019 05:00 UTC" in maps(field.ensemble, TIME[5], field.truth).get_suptitle()
