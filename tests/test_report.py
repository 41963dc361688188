"""The report holds what it says, needs no network, and says what it cannot say."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from trees import DRAWS, TIME, calibrated_tree, replaced

from bayesdownscale.diagnostics.report import report
from bayesdownscale.diagnostics.summary import summarise
from bayesdownscale.diagnostics.verdict import judge


@pytest.fixture(scope="module")
def tree():
    return calibrated_tree()


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


def past_weather(tree, days=3):
    """Weather like the truth at every hour of the days before, 3 K apart from it."""
    field = tree["truth"]["t2m"].isel(time=np.arange(24 * days) % 12)
    field = field + 3 * np.random.default_rng(0).normal(size=field.shape)
    return field.assign_coords(time=TIME[0] + np.arange(-24 * days, 0) * np.timedelta64(1, "h"))


def test_skill_over_baselines(tree):
    numbers = summarise(tree, past_weather(tree))["variables"]["t2m"]
    rows, scores = numbers["baselines"], numbers["scores"]
    assert list(rows) == ["interpolation", "kriging", "climatology", "disaggregation"]
    for period in ("all", "observed", "between"):
        assert rows["interpolation"]["crps"][period] == pytest.approx(scores[period]["interpolation_mae"])
    for row in rows.values():
        assert row["skill"] == pytest.approx(1 - scores["all"]["crps"] / row["crps"]["all"])
    for name in ("interpolation", "kriging"):  # whose differences are not correlated for half of the 13 hours
        assert rows[name]["low"] < rows[name]["skill"] < rows[name]["high"]
    assert rows["kriging"]["crps"]["all"] < rows["interpolation"]["crps"]["all"]
    with pytest.raises(ValueError, match="without the hours of the posterior"):
        summarise(tree, tree["truth"]["t2m"])


def test_the_tail_of_the_input(tree):
    numbers, truth = summarise(tree)["variables"]["t2m"], tree["truth"]["t2m"]
    tail = numbers["tail"]
    assert tail["threshold"] == pytest.approx(float(tree["observed_data"]["coarse"].quantile(0.95)))
    weights = np.cos(np.deg2rad(truth["lat"]))
    assert tail["frequency"] == pytest.approx(float((truth > tail["threshold"]).weighted(weights).mean()))
    parts = tail["reliability"] - tail["resolution"] + tail["uncertainty"]
    assert tail["brier"] == pytest.approx(parts, abs=0.02)  # fair, not plain
    assert tail["brier"] < tail["interpolation_brier"]
    assert tail["tw_crps"] < numbers["scores"]["all"]["crps"]


def test_an_overconfident_posterior_fails():
    summary = summarise(calibrated_tree(error=3.0))
    failed = {c["name"] for c in summary["criteria"] if c["status"] == "fail"}
    assert {"coverage_90", "coverage_90_between", "spread_skill"} <= failed
    assert summary["verdict"] == summary["criteria"][0]["status"] == "fail"


def test_chance_softens_a_failure():
    assert judge("coverage_90", 0.7, "").status == "fail"
    assert judge("coverage_90", 0.7, "", chance=[0.6, 0.95]).status == "warn"
    assert judge("coverage_90", np.nan, "").status == "fail"


def test_jerk_at_hours_with_input_and_lost_scales_fail(tree):
    """Draws moved together at observed hours, and draws smoothed in space."""
    posterior = tree["posterior"].to_dataset()
    kick = xr.zeros_like(posterior["t2m"].isel(chain=0, draw=0, lat=0, lon=0, drop=True))
    kick[::6] = 4.0
    jerked = summarise(replaced(tree, "/posterior", posterior.assign(t2m=posterior["t2m"] + kick)))
    failed = {c["name"]: c for c in jerked["criteria"] if c["status"] == "fail"}
    assert failed["temporal_jerk"]["value"] > 1.67
    assert "draws jump at the input" in failed["temporal_jerk"]["sentence"]
    smooth = posterior["t2m"].rolling(lon=3, center=True, min_periods=1).mean()
    blurred = summarise(replaced(tree, "/posterior", posterior.assign(t2m=smooth)))
    criterion = next(c for c in blurred["criteria"] if c["name"] == "small_scales")
    assert criterion["status"] != "ok"
    assert "too smooth" in criterion["sentence"]


def test_convergence_of_parameters_functionals_and_cells():
    """R-hat of independent draws: above 1.05 once in thousands of keys for chains of 60."""
    found = summarise(calibrated_tree(chains=2, draws=60))["convergence"]
    assert {numbers["kind"] for numbers in found.values()} == {"parameter", "functional", "cells"}
    for name in ("sigma", "t2m mean", "t2m cells"):
        assert 0.98 < found[name]["rhat"] < 1.1
        assert found[name]["ess"] > 20
        assert found[name]["omitted"] == ""
    assert found["t2m mean"]["interval_90"][0] < found["t2m mean"]["mean"] < found["t2m mean"]["interval_90"][1]
    few = summarise(calibrated_tree(chains=2))["convergence"]["sigma"]
    assert few["rhat"] is None
    assert few["omitted"] == "R-hat needs several chains of 50 draws; ESS needs 100 draws"


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
    assert len(page.images) == 10
    assert all(image["alt"].strip() and image["src"].startswith("data:image/png;base64,") for image in page.images)
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert "http" not in page.text
    assert "assert 1 < 2 & 3" in page.text
    sections = ("Verdict", "Structure", "Is the truth one more draw?", "Parameters and convergence", "Sampling cost")
    for words in (*sections, "Against baselines", "Provenance", "What this posterior does not know", "too narrow"):
        assert words in page.text
    assert numbers["schema"] == "bayesdownscale.report/2"
    assert numbers["variables"]["t2m"]["scores"]["all"]["coverage_90"] is not None


def test_report_beside_others(tree, tmp_path):
    mean = tree["posterior"]["t2m"].mean("draw")
    narrow = tree["posterior"].to_dataset().assign(t2m=mean + 0.5 * (tree["posterior"]["t2m"] - mean))
    others = {"narrow": replaced(tree, "/posterior", narrow.transpose("chain", "draw", ...))}
    page, numbers = written(report(tree, tmp_path / "report.html", compare=others))
    rows = numbers["comparison"]["posteriors"]
    assert rows["narrow"]["verdict"] == "fail"
    skill = rows["narrow"]["skill"]["t2m"]
    mine, its = (rows[name]["scores"]["t2m"]["crps"] for name in ("this posterior", "narrow"))
    assert skill["skill"] == pytest.approx(1 - mine / its)
    assert 0 < skill["low"] < skill["skill"] < skill["high"]
    assert "Beside other posteriors" in page.text
    assert "expected log-likelihoods or a log_evidence" in numbers["comparison"]["no_models"]
    with pytest.raises(ValueError, match="rename it"):
        report(tree, tmp_path / "other.html", compare={"this posterior": tree})


def flat(numbers, path=""):
    """Every number of a summary by its path."""
    if isinstance(numbers, dict | list):
        items = numbers.items() if isinstance(numbers, dict) else enumerate(numbers)
        return {key: value for name, entry in items for key, value in flat(entry, f"{path}/{name}").items()}
    return {path: numbers} if isinstance(numbers, int | float) else {}


def test_a_lazy_posterior_has_the_same_numbers(tree):
    whole, lazy = flat(summarise(tree)), flat(summarise(tree.chunk({"time": 4, "draw": 7})))
    assert len(whole) > 150
    assert lazy == pytest.approx(whole, rel=1e-6, abs=1e-9)


def test_report_refuses_to_overwrite(tree, tmp_path, monkeypatch):
    monkeypatch.setattr("bayesdownscale.diagnostics.report._render", lambda *arguments: "a page")
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
    ("make", "says"),
    [
        (lambda: calibrated_tree(truth=False), "scores, coverage and calibration need a truth"),
        (lambda: calibrated_tree(stats=False), "the sampler stored no coarse_residual"),
        (lambda: anonymous(calibrated_tree()), "no labelled coarse input"),
        (lambda: calibrated_tree(draws=1), "need at least two draws, and there is one"),
    ],
    ids=["no truth", "no sample_stats", "anonymous input", "one draw"],
)
def test_what_cannot_be_said_is_listed(make, says):
    assert any(says in sentence for sentence in summarise(make())["not_assessed"])


@pytest.mark.parametrize(
    ("make", "images", "says"),
    [
        (lambda: calibrated_tree(truth=False), 7, "Calibration was not assessed: no truth was given."),
        (lambda: calibrated_tree(draws=1), 4, "need at least two draws, and there is one"),
        (lambda: with_missing_coarse(calibrated_tree()), 10, "hours without"),
    ],
    ids=["no truth", "one draw", "missing input"],
)
def test_report_without_something(make, images, says, tmp_path):
    page, _ = written(report(make(), tmp_path / "report.html"))
    assert len(page.images) == images
    assert says in page.text
