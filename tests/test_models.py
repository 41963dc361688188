"""The contract of every program in models/."""

import ast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from problems import ROOT, load_program, names, small_data, small_prior

import bayesdownscale as bd

SETTINGS = {"area_mean": {"sigma": 0.3}}


@pytest.mark.parametrize("name", names("models"))
def test_contract(name):
    """Prior predictive shapes, y=None, a finite likelihood gradient, equations and units in the docstring."""
    module = load_program("models", name)
    prior = small_prior()
    H, coarse, _ = small_data(prior)
    for settings in ({}, SETTINGS[name]):
        trace = handlers.trace(handlers.seed(module.model, 0)).get_trace(prior, H, **settings)
        assert trace["weather"]["value"].shape == prior.event_shape
        assert trace["coarse"]["value"].shape == coarse.values.shape
        assert not trace["coarse"]["is_observed"]
        args, kwargs = (prior, H), {"y": jnp.asarray(coarse.values), **settings}
        program = bd.Program(module.model, args, kwargs, lambda fn: isinstance(fn, bd.FieldPrior))
        theta = program.draw_theta(jax.random.key(0))
        gradient = jax.grad(program.log_likelihood)(jnp.full(prior.event_shape, 280.0), theta)
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0
    doc = ast.get_docstring(ast.parse((ROOT / "models" / f"{name}.py").read_text()))
    assert doc is not None
    assert "~" in doc
    assert "[" in doc
    assert "arXiv" in doc or "doi" in doc


def test_area_mean_matches_its_equation():
    """log p(y | x) of the program against the sum of Normal densities written out."""
    prior = small_prior()
    H, coarse, truth = small_data(prior)
    kwargs = {"y": jnp.asarray(coarse.values), "sigma": 0.3}
    model = load_program("models", "area_mean").model
    program = bd.Program(model, (prior, H), kwargs, lambda fn: isinstance(fn, bd.FieldPrior))
    got = program.log_likelihood(jnp.asarray(truth.values), {})
    residual = (coarse.values - np.asarray(H(jnp.asarray(truth.values)))).astype(np.float64)
    expected = np.sum(-0.5 * (residual / 0.3) ** 2 - np.log(0.3 * np.sqrt(2 * np.pi)))
    np.testing.assert_allclose(got, expected, rtol=1e-4)
