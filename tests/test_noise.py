"""Noise levels: their range, their spacing and the draws used in training."""

import jax
import numpy as np
import pytest
from scipy.stats import kstest

from bayesdownscale.prior.noise import NoiseLevels


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (2.0, 1.0)])
def test_a_range_that_is_none_is_refused(bounds):
    with pytest.raises(ValueError, match="expected 0 < sigma_min < sigma_max"):
        NoiseLevels(*bounds)


@pytest.mark.parametrize(("steps", "ratio"), [(64, 3.0), (14, None), (9, 1.0)])
def test_steps_in_log_sigma_shrink_by_three_unless_the_first_grows_too_long(steps, ratio):
    sigmas = NoiseLevels(0.02, 50.0).levels(steps)
    assert sigmas.dtype == np.float64
    assert sigmas.shape == (steps,)
    np.testing.assert_allclose(sigmas[[0, -1]], [50.0, 0.02])
    lengths = -np.diff(np.log(sigmas))
    np.testing.assert_allclose(lengths[1:] / lengths[:-1], lengths[1] / lengths[0])
    if ratio is None:
        assert lengths[0] == pytest.approx(0.85)
        assert 1 < lengths[0] / lengths[-1] < 3
    else:
        assert lengths[0] / lengths[-1] == pytest.approx(ratio)


def test_fewer_than_two_levels_are_refused():
    with pytest.raises(ValueError, match="at least 2 noise levels"):
        NoiseLevels(0.02, 50.0).levels(1)


def test_each_stratum_of_log_sigma_gets_one_draw():
    levels, n = NoiseLevels(0.1, 10.0), 16
    u = np.log(levels.sample(jax.random.key(0), n) / 0.1) / np.log(100)
    assert sorted(np.floor(u * n).astype(int)) == list(range(n))


def test_a_single_draw_has_log_sigma_uniform():
    """Fixed keys; with others the test would fail for one in a thousand."""
    levels = NoiseLevels(0.1, 10.0)
    first = jax.vmap(lambda key: levels.sample(key, 8)[0])(jax.random.split(jax.random.key(1), 2000))
    assert kstest(np.log(first / 0.1) / np.log(100), "uniform").pvalue > 1e-3
