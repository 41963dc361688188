"""The guidance of an ensemble: chosen, written down, refused. `test_ensemble.py` draws by fixed covariances, the seams
by both."""

import json
from functools import partial

import numpy as np
import pytest
from click.testing import CliRunner
from ensembles import SPAN, build

import bayesdownscale as bd
from bayesdownscale.cli import main
from bayesdownscale.ensemble.guide import GUIDANCE, name_of
from bayesdownscale.ensemble.run import Ensemble
from bayesdownscale.ensemble.store import RECORD
from bayesdownscale.options import guidance_option


def ensemble(out, guidance=bd.FixedCovariance, **changed):
    return Ensemble(build, out, **{"members": 1, "guidance": guidance, **SPAN, **changed})


def test_a_store_that_does_not_say_has_moment_matching(tmp_path):
    """As stores did before there was a choice."""
    out = tmp_path / "ens.zarr"
    ensemble(out, bd.MomentMatching).store.create({})
    labels = json.loads((out / "zarr.json").read_text())
    record = json.loads(labels["attributes"][RECORD])
    assert record.pop("guidance") == "moment_matching"
    labels["attributes"][RECORD] = json.dumps(record)
    (out / "zarr.json").write_text(json.dumps(labels))
    ensemble(out, bd.MomentMatching).store.create({})
    with pytest.raises(bd.DataError, match=r'another guidance \("moment_matching", now "fixed_covariance"\)'):
        ensemble(out).store.create({})


def test_names_tell_guidances_apart():
    assert {name: name_of(method) for name, method in GUIDANCE.items()} == {name: name for name in GUIDANCE}
    few = partial(partial(bd.MomentMatching, tolerance=0.1, iterations=5), iterations=3)
    assert name_of(few) == "moment_matching(iterations=3, tolerance=0.1)"
    usual = bd.MomentMatching.iterations
    assert name_of(partial(bd.MomentMatching, iterations=usual)) == "moment_matching"
    assert name_of(partial(bd.MomentMatching, tolerance=np.float64(0.5))) == "moment_matching(tolerance=0.5)"
    assert name_of(bd.SDA) == "bayesdownscale.posterior.guidance.sda.SDA"

    class Local(bd.MomentMatching):
        pass

    for unnamed in (lambda *given: bd.MomentMatching(*given), dict, Local):
        with pytest.raises(ValueError, match="expected as guidance a class of"):
            name_of(unnamed)
    with pytest.raises(ValueError, match="expected numbers or words as settings of a guidance"):
        name_of(partial(bd.MomentMatching, tolerance=np.ones(2)))


def test_the_attributes_say_the_guidance_of_any_class(tmp_path):
    run = ensemble(tmp_path / "ens.zarr", bd.SDA)
    assert run._attributes()["method"] == "guided reverse SDE, bayesdownscale.posterior.guidance.sda.SDA"


@pytest.mark.parametrize("word", [None, *GUIDANCE])
def test_the_command_hands_it_on(monkeypatch, word):
    asked = {}

    def stop(build, out, **settings):
        asked.update(settings)
        raise ValueError("far enough")

    monkeypatch.setattr("bayesdownscale.ensemble.run.Ensemble", stop)
    words = [] if word is None else ["--guidance", word]
    result = CliRunner().invoke(main, ["ensemble", "coarse.nc", "--out", "ens.zarr", *words])
    assert (result.exit_code, result.output) == (1, "Error: far enough\n")
    assert asked["guidance"] is GUIDANCE[word or "moment_matching"]


def test_the_command_knows_every_name():
    option = guidance_option(lambda: None).__click_params__[0]
    assert list(option.type.choices) == list(GUIDANCE)
