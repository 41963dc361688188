"""What a denoiser knows of its own errors, and guidance that relies on it."""

from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from bayesdownscale.posterior.guidance import FixedCovariance, MomentMatching
from bayesdownscale.posterior.laplace import laplace_step
from bayesdownscale.posterior.likelihood import AbstractLikelihood, LinearGaussianLikelihood
from bayesdownscale.posterior.mode_to_mean import mode_to_mean
from bayesdownscale.prior.calibrate import measure_errors
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context, Cost
from bayesdownscale.prior.diffusion import DiffusionDenoiser
from bayesdownscale.prior.feed import Windows
from bayesdownscale.prior.gaussian import GaussianDenoiser, GaussianField
from bayesdownscale.prior.network import UNet, UNetConfig
from bayesdownscale.prior.windows import WindowedDenoiser

SIGMA = jnp.asarray(0.7)


def as_matrix(operator, shape):
    n = int(np.prod(shape))
    return np.asarray(jax.vmap(lambda e: operator(e).ravel())(jnp.eye(n).reshape(n, *shape)), np.float64).T


@pytest.fixture(scope="module")
def network(field):
    """A denoiser whose network is silent, with error ratios that differ by mode and level."""
    config = UNetConfig(widths=(4,), blocks=1, embedding=8, heads=2, dropout=0.0)
    n_in, n_out = DiffusionDenoiser.n_channels(field, 1)
    levels = jnp.asarray([0.1, 1.0, 10.0])
    ratio = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1.5, (3, 6)), jnp.float32)
    net = UNet(n_in, n_out, config, key=jax.random.key(0))
    return DiffusionDenoiser(field, net, jnp.zeros((2, 3, 1)), levels, jnp.zeros(3), ratio, False)


class TestCovariance:
    def test_of_a_gaussian_is_exact(self, field, cov):
        got = as_matrix(lambda v: GaussianDenoiser(field).covariance(v, SIGMA), field.shape)
        s2 = float(SIGMA) ** 2
        np.testing.assert_allclose(got, s2 * cov @ np.linalg.inv(cov + s2 * np.eye(len(cov))), atol=1e-5)

    def test_of_a_network_scales_that_of_its_gaussian(self, network, field):
        """At a level of the table, mode by mode; between levels in between."""
        mode = jnp.einsum("tj,vyx->jtvyx", field.bases[2], field.modes[2])[1]
        theory = field.variances[2, 1]
        for sigma, ratio in ((1.0, network.error_ratio[1, 2]), (3.1622777, network.error_ratio[1:, 2].mean())):
            got = jnp.vdot(mode, network.covariance(mode, jnp.asarray(sigma)))
            np.testing.assert_allclose(got, ratio * theory * sigma**2 / (theory + sigma**2), rtol=1e-4)

    @pytest.mark.parametrize("which", ["gaussian", "network", "windows"])
    def test_draws_have_it(self, which, network, field):
        """4000 draws: entries within 6 standard errors of those of the covariance (fails once in 1e6)."""
        denoiser = {"gaussian": GaussianDenoiser(field), "network": network}.get(which)
        shape = field.shape
        if denoiser is None:
            denoiser, shape = WindowedDenoiser(GaussianDenoiser(field), 3, 2), (5, *field.shape[1:])
        cov = as_matrix(lambda v: denoiser.covariance(v, SIGMA), shape)
        np.testing.assert_allclose(cov, cov.T, atol=1e-5)
        assert np.linalg.eigvalsh(cov).min() > -1e-6
        keys = jax.random.split(jax.random.key(1), 4000)
        draws = np.asarray(jax.jit(jax.vmap(lambda k: denoiser.draw_error(k, SIGMA, shape).ravel()))(keys))
        error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / 4000)
        assert np.abs((draws.T @ draws / 4000 - cov) / error).max() < 6

    def test_of_one_window_is_its_own(self, field):
        windowed, plain = WindowedDenoiser(GaussianDenoiser(field), 3, 2), GaussianDenoiser(field)
        v = jax.random.normal(jax.random.key(0), field.shape)
        np.testing.assert_allclose(windowed.covariance(v, SIGMA), plain.covariance(v, SIGMA), atol=1e-5)

    @pytest.mark.parametrize("batch", [1, 2])
    def test_of_windows_in_batches_is_the_same(self, field, batch):
        shape = (9, *field.shape[1:])
        v, key = jax.random.normal(jax.random.key(0), shape), jax.random.key(1)
        once, few = (WindowedDenoiser(GaussianDenoiser(field), 3, 2, b) for b in (None, batch))
        np.testing.assert_allclose(few.covariance(v, SIGMA), once.covariance(v, SIGMA), atol=1e-6)
        np.testing.assert_allclose(few.draw_error(key, SIGMA, shape), once.draw_error(key, SIGMA, shape), atol=1e-6)

    def test_variance_of_overlapping_windows_is_that_of_a_window(self):
        """A stationary process: hours keep their variance, and those that share no window are independent."""
        lag = np.abs(np.arange(4)[:, None] - np.arange(4))
        one = GaussianDenoiser(GaussianField.separable(np.exp(-lag / 2), np.eye(1), (1, 1, 1)))
        windowed = WindowedDenoiser(one, 4, 2)
        big = as_matrix(lambda v: windowed.covariance(v, jnp.asarray(1e3)), (8, 1, 1, 1))
        np.testing.assert_allclose(np.diag(big), 1.0, atol=1e-4)
        assert np.abs(big[0, 4:]).max() == 0

    def test_measured_on_data_of_the_gaussian_itself(self, network, field):
        """Where theory is right the ratios are one, up to the noise of 48 windows."""
        values = np.concatenate([np.asarray(field.draw(k)) for k in jax.random.split(jax.random.key(0), 48)])
        context = Context(jnp.zeros(len(values)), jnp.zeros(len(values)))
        measured = measure_errors(network, Windows(values, context, 3 * np.arange(48)))
        np.testing.assert_allclose(measured.error_ratio, 1.0, atol=0.5)
        np.testing.assert_allclose(np.mean(measured.error_ratio), 1.0, atol=0.1)

    def test_what_little_the_modes_leave_is_measured_too(self, network, field):
        """A residual of 1e-7 beside variances of 1; the ratio of 1008 squares is uncertain by 0.045."""
        little = eqx.tree_at(lambda f: f.residual, field, jnp.asarray(1e-7))
        values = np.concatenate([np.asarray(little.draw(k)) for k in jax.random.split(jax.random.key(0), 48)])
        context = Context(jnp.zeros(len(values)), jnp.zeros(len(values)))
        denoiser = eqx.tree_at(lambda d: d.gaussian, network, little)
        measured = measure_errors(denoiser, Windows(values, context, 3 * np.arange(48)))
        np.testing.assert_allclose(measured.error_ratio[:, -1], 1.0, atol=0.25)


def observe(x):
    return x[0, :, 0, :2].ravel()


class TestFixedCovariance:
    def test_is_moment_matching_without_products_on_a_gaussian(self, field, context):
        y = jnp.asarray([1.0, -1.0, 0.5, 2.0])
        likelihood = LinearGaussianLikelihood(observe, y, jnp.full(4, 0.04))
        x = jax.random.normal(jax.random.key(0), field.shape)
        denoiser = GaussianDenoiser(field)
        fixed, cost = FixedCovariance(denoiser, likelihood).evaluate(x, SIGMA, context(3))
        matched = MomentMatching(denoiser, likelihood, iterations=20)(x, SIGMA, context(3))
        np.testing.assert_allclose(fixed, matched, atol=2e-3)
        assert (int(cost.evaluations), int(cost.products)) == (1, 0)

    def test_refuses_a_denoiser_without_one(self):
        class Plain(AbstractDenoiser):
            def evaluate(self, x_sigma, sigma, context):
                return x_sigma, Cost.of(1)

        check = FixedCovariance.__check_init__  # called directly: here, the constructor also checks types
        with pytest.raises(TypeError, match="expected a denoiser that knows its covariance, got Plain"):
            check(SimpleNamespace(denoiser=Plain()))  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError, match=r"Plain.*AbstractSpreadDenoiser"):
            WindowedDenoiser.__check_init__(SimpleNamespace(inner=Plain()))  # pyright: ignore[reportArgumentType]


class Elementwise(AbstractLikelihood):
    """A datum of each cell of a (1, 1, 1, n) field."""

    y: jax.Array
    family: object = eqx.field(static=True)

    def __call__(self, x):
        return jnp.sum(self.family(x.ravel()).log_prob(self.y))

    def simulated_score(self, key, x):
        y = self.family(x.ravel()).sample(key)
        return jax.grad(lambda x: jnp.sum(self.family(x.ravel()).log_prob(y)))(x)

    def gaussian_terms(self, x):
        raise NotImplementedError


FAMILIES = {
    "poisson": (lambda e: dist.Poisson(jnp.exp(e)), 0.0, 0.25),
    "bernoulli": (lambda e: dist.Bernoulli(logits=3 * e), 1.0, 0.25),
    "gamma": (lambda e: dist.Gamma(2.0, 2.0 * jnp.exp(-e)), 0.2, 0.65),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_mode_is_moved_to_the_mean(family):
    """4000 independent cells with the same datum: the average of the corrected modes against quadrature. The mode is
    off by over 0.1 of the standard deviation, the corrected one by less than the given share of that (a gamma datum at
    a tenth of its mean is too skewed for one step); one pair's own error averages to below 0.01."""
    make, y, left = FAMILIES[family]
    n, sigma = 4000, jnp.asarray(1.5)
    denoiser = GaussianDenoiser(GaussianField.separable(np.eye(1), np.eye(1), (1, 1, 1)))
    v = 1.5**2 / (1 + 1.5**2)
    grid = np.linspace(-6, 6, 4001)
    density = np.exp(np.asarray(make(jnp.asarray(grid)).log_prob(y)) - grid**2 / (2 * v))
    density /= density.sum()
    mean = density @ grid
    sd = np.sqrt(density @ (grid - mean) ** 2)

    def one(x_sigma):
        likelihood = Elementwise(jnp.asarray([y]), make)
        zero = jnp.zeros((1, 1, 1, 1))
        step = laplace_step(likelihood, zero, lambda a: v * a, 20, 1e-4)
        x_sigma = x_sigma.reshape(1, 1, 1, 1)  # only its bits matter here: they are the key
        moved = mode_to_mean(likelihood, denoiser, sigma, x_sigma, step.shift, step, 20, 1e-4)
        return step.shift.squeeze(), moved.squeeze()

    mode, moved = jax.jit(jax.vmap(one))(jax.random.normal(jax.random.key(0), (n,)))
    off = abs(float(mode[0]) - mean) / sd
    assert off > 0.1
    assert abs(float(moved.mean()) - mean) / sd < off * left
    assert float(moved.std()) < 0.5 * sd
