"""posterior_check: a sampler that is exact passes, one that is not is found out, by the right amount."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import known_noise, small_data, tiny_prior

import bayesdownscale as bd
from bayesdownscale.posterior import check as check_module
from bayesdownscale.posterior.drift import MOVED, drift, error_of_mean, in_scales
from bayesdownscale.posterior.guidance.base import AbstractGuidance
from bayesdownscale.posterior.likelihood import AbstractLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser

SETTINGS = {"chains": 128, "steps": 60, "batch": 128, "guided_steps": 16}
OFF = 0.763  # root mean square error of the mean of 128 draws by `Shifted`, against the exact posterior


class Shifted(AbstractGuidance):
    """Moment matching that is off by 0.15 everywhere."""

    denoiser: AbstractDenoiser
    likelihood: AbstractLikelihood

    def twist(self, x_sigma, sigma, context):
        twist = bd.MomentMatching(self.denoiser, self.likelihood).twist(x_sigma, sigma, context)
        return twist._replace(mean=twist.mean + 0.15 * jnp.minimum(1.0, sigma))


@pytest.fixture(scope="module")
def setting():
    prior = tiny_prior()
    return prior, *small_data(prior, block=2, every=2)[:2]


def check(setting, **changes):
    prior, H, coarse = setting
    return bd.posterior_check(known_noise, jax.random.key(0), prior, H, y=coarse, **{**SETTINGS, **changes})


def test_draws_that_are_exact_pass(setting):
    """Error of the mean within 4 standard errors of zero, width within 4 of one: fails once in 1e4."""
    result = check(setting)
    assert result.forgotten > MOVED  # of what is slowest, the mean over the domain at the time without data
    assert result.mean_error < 4 * result.mean_error_se + 0.1
    assert abs(result.sd_ratio - 1) < 4 * result.sd_ratio_se + 0.05
    assert result.pareto_k is not None  # of weights of whole paths: heavy-tailed even where the guidance is exact
    assert "Pareto k of the weights of guided paths" in str(result)


def test_draws_that_are_not_are_found_out(setting):
    result = check(setting, guidance=Shifted)
    assert result.mean_error > 3 * result.mean_error_se
    assert abs(result.mean_error - OFF) < 3 * result.mean_error_se


def test_too_few_steps_say_nothing():
    """Chains that did not move: the sentence gives no number."""
    first = np.random.default_rng(0).normal(size=(64, 20))
    forgotten = drift(first[None], first[None])[-1]
    assert forgotten < 0.01
    result = bd.Check(0.0, 0.1, 1.0, 0.1, {}, forgotten, None, chains=64, steps=1)
    assert "is not known; ask for more steps" in str(result)


def test_drift_of_a_known_chain():
    """AR(1) chains that start 0.5 too high and 1.3 times too wide, watched until half is forgotten: both are found
    within 5 standard errors of 1000 chains."""
    rng = np.random.default_rng(0)
    first = 0.5 + 1.3 * rng.normal(size=(1000, 20))
    last = 0.5 * first + np.sqrt(0.75) * rng.normal(size=(1000, 20))
    error, error_se, ratio, ratio_se, forgotten = drift(first[None], last[None])
    assert abs(error - 0.5) < max(5 * error_se, 0.1)
    assert abs(ratio - 1.3) < max(5 * ratio_se, 0.15)
    assert 0.3 < forgotten < 0.6


def test_a_slow_large_scale_counts_in_full():
    """A mode of the whole domain that starts one too high and is forgotten slowly, under noise of cells that is not:
    the error of a cell is 1 / sqrt(2) standard deviations, of the domain's mean nearly one."""
    rng = np.random.default_rng(0)
    shape, normal = (4000, 1, 1, 12, 12), rng.normal
    common = 1 + normal(size=(4000, 1, 1, 1, 1))
    first = common + normal(size=shape)
    last = 0.9 * common + np.sqrt(0.19) * normal(size=common.shape)
    last = last + 0.1 * (first - common) + np.sqrt(0.99) * normal(size=shape)
    every = np.arange(144)
    error, error_se, ratio, ratio_se, forgotten = drift(in_scales(first, every), in_scales(last, every))
    assert error_se < 0.1
    assert abs(error - np.sqrt(0.5)) < 4 * error_se
    assert abs(ratio - 1) < 4 * ratio_se
    assert 0.07 < forgotten < 0.13
    of_mean, se, _ = error_of_mean(*(x.mean((1, 2, 3, 4))[:, None] for x in (first, last)))
    assert abs(of_mean - 1 / np.sqrt(1 + 1 / 144)) < 4 * se < 0.6


def test_scales_add_up():
    """Also where a domain has one row, or a part has nothing to it."""
    for shape in ((5, 3, 2, 4, 6), (5, 1, 1, 1, 3), (5, 1, 1, 1, 1)):
        x = np.random.default_rng(0).normal(size=shape)
        every = np.arange(x[0].size)
        parts = in_scales(x, every)
        np.testing.assert_allclose(parts.sum(0), x.reshape(5, -1), atol=1e-12)
        assert np.isfinite(drift(parts, 0.5 * parts)).all()
    np.testing.assert_allclose(in_scales(x, every)[0], x.reshape(5, 1))  # of one cell


def test_a_few_chains_are_refused(setting):
    with pytest.raises(ValueError, match="at least 4 chains for a standard error, got 3"):
        check(setting, chains=3)


def test_chains_and_weights_of_paths_are_independent(setting, monkeypatch):
    """The keys of the chains are folded from one key, those of the paths split from another: with one key they would
    be the same numbers."""
    keys = []
    fields = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 3, 1, 4, 4)))
    monkeypatch.setattr(check_module, "_chains", lambda *args: ({"field_0": fields[0], "field_n": fields[1]}, None))
    monkeypatch.setattr(check_module, "draw_keys", lambda key, n: keys.append(key) or jax.random.split(key, n))
    monkeypatch.setattr(check_module, "_path_weights", lambda *args: keys.append(args[-1]) or jnp.arange(32.0))
    check(setting, chains=32, batch=32)
    assert len(np.unique([jax.random.key_data(key) for key in keys], axis=0)) == len(keys) == 3
