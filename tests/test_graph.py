"""The graph of a program: every site once, with its kind and its parents."""

import inspect

import jax.numpy as jnp
import pytest
from problems import load_program, small_data, small_prior

from bayesdownscale.likelihood.graph import model_graph
from bayesdownscale.posterior.collect import read_model


@pytest.fixture(scope="module")
def setting():
    prior = small_prior()
    H, coarse, _ = small_data(prior)
    return prior, H, coarse


def graph_of(name, setting, theta=None):
    prior, H, coarse = setting
    model = load_program("models", name).model
    extra = {"coords": coarse.coords} if "coords" in inspect.signature(model).parameters else {}
    program, _ = read_model(model, (prior, H), {"y": coarse, **extra})
    return model_graph(program.fix(theta or {}))


def test_area_mean(setting):
    assert graph_of("area_mean", setting) == {
        "weather": {"kind": "field", "distribution": "GaussianPrior", "parents": []},
        "sigma": {"kind": "parameter", "distribution": "HalfNormal", "parents": []},
        "coarse": {"kind": "data", "distribution": "Normal", "parents": ["weather", "sigma"]},
    }


def test_what_is_given_and_what_follows(setting):
    graph = graph_of("additive_bias", setting, {"length_km": jnp.asarray(500.0)})
    assert graph["length_km"]["kind"] == "given"
    assert graph["bias"]["kind"] == "deterministic"
    assert {"offset", "whitened"} <= set(graph["bias"]["parents"])
    assert "bias" in graph["coarse"]["parents"]
    names = list(graph)
    assert all(names.index(parent) < names.index(name) for name in names for parent in graph[name]["parents"])
