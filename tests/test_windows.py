"""Windows: each step is denoised once, and what a margin costs on a process whose denoiser is known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesdownscale.prior.denoiser import AbstractSpreadDenoiser, Cost
from bayesdownscale.prior.gaussian import GaussianDenoiser, GaussianField
from bayesdownscale.prior.windows import WindowedDenoiser, window_layout


@pytest.mark.parametrize("window", [1, 2, 5, 6])
def test_layout(window):
    """Every length and stride: windows lie inside, overlap or touch, and each step comes from the window whose
    middle is nearest."""
    for length in range(window, 3 * window + 3):
        for stride in range(1, window + 1):
            starts, chosen, place = window_layout(length, window, stride)
            assert starts[0] == 0
            assert starts[-1] == length - window
            assert np.all(np.diff(starts) > 0)
            assert np.all(np.diff(starts) <= stride)
            np.testing.assert_array_equal(starts[chosen] + place, np.arange(length))
            assert place.min() >= 0
            assert place.max() < window
            distance = np.abs(np.arange(length)[:, None] - (starts + (window - 1) / 2))
            np.testing.assert_allclose(distance[np.arange(length), chosen], distance.min(1))


def test_windows_side_by_side():
    starts, chosen, place = window_layout(6, 3, 3)
    np.testing.assert_array_equal(starts, [0, 3])
    np.testing.assert_array_equal(chosen, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(place, [0, 1, 2, 0, 1, 2])


def test_the_last_window_is_moved_back():
    starts, chosen, _ = window_layout(8, 4, 3)
    np.testing.assert_array_equal(starts, [0, 3, 4])
    np.testing.assert_array_equal(chosen, [0, 0, 0, 0, 1, 1, 2, 2])


def test_a_trajectory_shorter_than_the_window_is_refused():
    with pytest.raises(ValueError, match=r"at least 5 time steps.*got 4; ask for a longer span"):
        window_layout(4, 5, 2)


@pytest.mark.parametrize("stride", [0, 6])
def test_a_stride_that_leaves_gaps_is_refused(stride):
    with pytest.raises(ValueError, match="stride between 1 and the window of 5"):
        window_layout(9, 5, stride)


class Clock(AbstractSpreadDenoiser):
    """Answers with the hour and the day of each step."""

    def covariance(self, v, sigma):
        raise NotImplementedError

    def draw_error(self, key, sigma, shape):
        raise NotImplementedError

    def evaluate(self, x_sigma, sigma, context):
        return jnp.broadcast_to((context.hour + 100 * context.day)[:, None, None, None], x_sigma.shape), Cost.of(1)


@pytest.mark.parametrize("length", [3, 8])
def test_each_step_keeps_its_context(length, context):
    denoised, cost = WindowedDenoiser(Clock(), 3, 2).evaluate(
        jnp.zeros((length, 1, 2, 2)), jnp.asarray(1.0), context(length)
    )
    np.testing.assert_array_equal(denoised[:, 0, 0, 0], np.arange(length))
    assert cost.evaluations == 1


class TestMarkovProcess:
    """exp(-|dt| / 4) at one point, 24 steps: windows against the exact denoiser of the whole trajectory."""

    length, window = 24, 8

    @staticmethod
    def denoiser(length: int) -> GaussianDenoiser:
        dt = np.abs(np.arange(length)[:, None] - np.arange(length))
        return GaussianDenoiser(GaussianField.separable(np.exp(-dt / 4), np.eye(1), (1, 1, 1)))

    def error(self, sigma: float, stride: int, context) -> float:
        """Root mean square error of the windowed denoiser, relative to that of E[x | x_sigma] itself."""
        exact, windowed = self.denoiser(self.length), WindowedDenoiser(self.denoiser(self.window), 8, stride)

        @jax.jit
        def gap(key):
            k_field, k_noise = jax.random.split(key)
            x = exact.field.draw(k_field)
            x_sigma = x + sigma * jax.random.normal(k_noise, x.shape)
            when = jnp.asarray(sigma), context(self.length)
            best = exact(x_sigma, *when)
            return jnp.mean((windowed(x_sigma, *when) - best) ** 2), jnp.mean((best - x) ** 2)

        lost, own = jax.vmap(gap)(jax.random.split(jax.random.key(0), 200))
        return float(jnp.sqrt(lost.mean() / own.mean()))

    def test_errors_vanish_with_the_noise(self, context):
        errors = [self.error(sigma, 4, context) for sigma in (0.02, 0.2, 1.0)]
        assert errors[0] < 1e-3
        assert errors[0] < errors[1] < errors[2]

    def test_a_margin_pays(self, context):
        """Margins of 0, 2 and 3.5 steps."""
        errors = [self.error(0.5, stride, context) for stride in (8, 4, 1)]
        assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2]

    def test_one_window_is_exact(self, context):
        inner = self.denoiser(self.window)
        x = jax.random.normal(jax.random.key(0), (8, 1, 1, 1))
        got = eqx.filter_jit(WindowedDenoiser(inner, 8, 4))(x, jnp.asarray(0.5), context(8))
        np.testing.assert_allclose(got, inner(x, jnp.asarray(0.5), context(8)), atol=1e-6)
