"""The exact case against dense linear algebra in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.signal import lfilter
from scipy.special import gamma, kv
from scipy.stats import multivariate_normal

from bayesdownscale.data.grid import Grid
from bayesdownscale.prior.fit_gaussian import autocovariance, fit_gaussian, fit_matern_length
from bayesdownscale.prior.gaussian import GaussianDenoiser, GaussianField, GaussianPosterior, matern

SIGMA = jnp.asarray(0.7)
RAW = {"shrink_space": 0.0, "shrink_time": 0.0}


def close(got, want, tol=2e-5):
    np.testing.assert_allclose(np.ravel(got), np.ravel(want), rtol=tol, atol=tol * np.abs(want).max())


@pytest.fixture(scope="module")
def x(field):
    return jax.random.normal(jax.random.key(2), field.shape)


@pytest.fixture(scope="module")
def separable():
    """Full rank, one time basis, no residual: 3 times, 1 variable, 2 x 2 cells."""
    dt = np.abs(np.arange(3)[:, None] - np.arange(3))
    dx = np.abs(np.arange(4)[:, None] - np.arange(4))
    cov_time, cov_space = np.exp(-dt / 2), matern(dx, 1.0, 1.5)
    return GaussianField.separable(cov_time, cov_space, (1, 2, 2)), np.kron(cov_time, cov_space)


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_matern_is_the_bessel_formula(nu):
    d = np.geomspace(0.01, 10, 50)
    r = np.sqrt(2 * nu) * d / 1.7
    np.testing.assert_allclose(matern(d, 1.7, nu), 2 ** (1 - nu) / gamma(nu) * r**nu * kv(nu, r), rtol=1e-10)
    assert matern(np.zeros(1), 1.7, nu) == 1


def test_matern_of_another_order_is_refused():
    with pytest.raises(ValueError, match=r"expected nu of 0\.5, 1\.5 or 2\.5, got 2"):
        matern(np.ones(3), 1.0, 2)


def test_covariance(field, cov, x):
    assert field.shape == (3, 2, 2, 3)
    close(field.covariance(x), cov @ np.ravel(x))


class TestBlocks:
    """Two blocks of two modes of 3 times, and a residual: what one mode says of the other hours later is there. Then
    without a tail or with one mode in it."""

    @pytest.fixture(scope="class", params=[0, 1])
    def blocked(self, request):
        rng = np.random.default_rng(3)
        modes = np.linalg.qr(rng.normal(size=(6, 6)))[0][: 4 + request.param]
        bases = np.stack([np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(2)])
        tail = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        variances = rng.uniform(0.5, 3.0, (len(modes), 3))
        cov = 0.3 * np.kron(np.eye(6) - modes.T @ modes, np.eye(3))  # cells, then times
        for b, basis in enumerate(bases):
            lift = np.kron(modes[2 * b : 2 * b + 2].T, np.eye(3)) @ basis
            cov += lift * variances[2 * b : 2 * b + 2].ravel() @ lift.T
        for mode, along in zip(modes[4:], variances[4:], strict=True):
            cov += np.kron(np.outer(mode, mode), tail * along @ tail.T)
        cov = cov.reshape(6, 3, 6, 3).transpose(1, 0, 3, 2).reshape(18, 18)
        as_float = lambda a: jnp.asarray(a, jnp.float32)
        modes, tail = as_float(modes.reshape(-1, 1, 2, 3)), as_float(tail) if request.param else None
        return GaussianField(modes, as_float(bases), as_float(variances), as_float(0.3), tail), cov

    def test_against_dense_algebra(self, blocked):
        field, cov = blocked
        assert field.shape == (3, 1, 2, 3)
        x = jax.random.normal(jax.random.key(0), field.shape)
        close(field.covariance(x), cov @ np.ravel(x))
        close(field.denoise(x, SIGMA), cov @ np.linalg.solve(cov + float(SIGMA) ** 2 * np.eye(18), np.ravel(x)))
        close(field.log_prob(x), multivariate_normal(cov=cov).logpdf(np.ravel(x)))

    def test_coefficients_have_the_variances(self, blocked):
        """Of the covariance's own columns: Q^T Sigma Q is diagonal."""
        field, cov = blocked
        rows = jax.vmap(lambda e: field.coefficients(e.reshape(field.shape)).ravel())(jnp.eye(18))
        close(np.asarray(rows).T @ cov @ np.asarray(rows), np.diag(np.ravel(field.variances)))


def test_separable_is_the_kronecker_product(separable, dense):
    field, cov = separable
    close(dense(field), cov)
    x = jax.random.normal(jax.random.key(0), field.shape)
    close(field.covariance(x), cov @ np.ravel(x))
    close(field.log_prob(x), multivariate_normal(cov=cov).logpdf(np.ravel(x)))


def test_denoiser_is_the_wiener_filter(field, cov, x, context):
    wiener = cov @ np.linalg.inv(cov + float(SIGMA) ** 2 * np.eye(36)) @ np.ravel(x)
    close(field.denoise(x, SIGMA), wiener)
    denoised, cost = GaussianDenoiser(field).evaluate(x, SIGMA, context(3))
    close(denoised, wiener)
    assert (cost.evaluations, cost.products, cost.iterations) == (1, 0, 0)


def test_spread_is_the_root_mean_posterior_variance(field, cov):
    posterior = cov - cov @ np.linalg.inv(cov + float(SIGMA) ** 2 * np.eye(36)) @ cov
    close(field.spread(SIGMA), np.sqrt(np.trace(posterior) / 36))


def test_a_draw_is_the_symmetric_root_times_white_noise(field, cov):
    key = jax.random.key(3)
    close(field.draw(key), np.real(sqrtm(cov)) @ np.ravel(jax.random.normal(key, field.shape)))


def test_log_prob(field, cov, x):
    close(field.log_prob(x), multivariate_normal(cov=cov).logpdf(np.ravel(x)))
    close(jax.grad(field.log_prob)(x), -np.linalg.solve(cov, np.ravel(x)))


@pytest.mark.parametrize("sigma", [0.01, 0.7, 30.0])
def test_white_data_give_the_preconditioning_of_karras(sigma):
    """c_skip = s^2 / (s^2 + sigma^2) and c_out = s sigma / sqrt(s^2 + sigma^2), arXiv 2206.00364, table 1."""
    s = 1.3
    field = GaussianField(
        jnp.zeros((1, 1, 2, 3)).at[0, 0, 0, 0].set(1.0),
        jnp.eye(4)[None],
        jnp.full((1, 4), s**2),
        jnp.asarray(s**2),
    )
    x = jax.random.normal(jax.random.key(0), field.shape)
    close(field.denoise(x, jnp.asarray(sigma)), s**2 / (s**2 + sigma**2) * x)
    close(field.spread(jnp.asarray(sigma)), s * sigma / np.sqrt(s**2 + sigma**2))


class TestPosterior:
    """y = A x + noise for the first variable's means at the first and the last time, and one cell."""

    variance = np.asarray([0.1, 0.2, 0.05])

    @staticmethod
    def observe(x):
        return jnp.stack([x[0, 0].mean(), x[2, 0].mean(), 2 * x[1, 1, 0, 1]])

    @pytest.fixture(scope="class")
    def exact(self, field):
        y = jnp.asarray([1.0, -0.5, 2.0])
        return GaussianPosterior(field, self.observe, y, jnp.asarray(self.variance, jnp.float32))

    @pytest.fixture(scope="class")
    def moments(self, field, cov):
        """Mean and covariance of x given y, and the covariance of y, all dense."""
        a = np.asarray(jax.jacobian(self.observe)(jnp.zeros(field.shape)), np.float64).reshape(3, -1)
        s = a @ cov @ a.T + np.diag(self.variance)
        gain = cov @ a.T @ np.linalg.inv(s)
        return gain @ [1.0, -0.5, 2.0], cov - gain @ a @ cov, s

    def test_mean(self, exact, moments):
        close(exact.mean(), moments[0])

    def test_covariance(self, exact, moments, x):
        close(exact.covariance(x), moments[1] @ np.ravel(x))

    def test_log_evidence(self, exact, moments):
        close(exact.log_evidence(), multivariate_normal(cov=moments[2]).logpdf([1.0, -0.5, 2.0]))

    def test_draws(self, exact, moments):
        """The mean of n draws is N(m, C / n): 36 z-scores under 5 (failure rate 2e-5). The sample covariance is
        off by sqrt((|C|^2 + tr(C)^2) / n) in Frobenius norm; twice that allowed (failure rate below 1e-6)."""
        mean, cov, _ = moments
        n = 4000
        draws = jax.jit(jax.vmap(exact.draw))(jax.random.split(jax.random.key(0), n)).reshape(n, -1)
        z = (np.mean(draws, 0) - mean) / np.sqrt(np.diag(cov) / n)
        assert np.abs(z).max() < 5
        error = np.linalg.norm(np.cov(np.asarray(draws, np.float64).T) - cov)
        assert error < 2 * np.sqrt((np.sum(cov**2) + np.trace(cov) ** 2) / n)


class TestFit:
    """Estimation from data whose covariance is known: Matern-3/2 of 150 km in space, exp(-dt / 3) in time."""

    grid = Grid(50.0 + 0.5 * np.arange(4), 3.0 + 0.5 * np.arange(5))

    def data(self, n_time: int) -> tuple[np.ndarray, np.ndarray]:
        """An AR(1) in time (n_time, 1, 4, 5) and the true covariance of windows of 3."""
        rng = np.random.default_rng(1)
        space = matern(self.grid.distances_km(), 150.0, 1.5)
        root = np.linalg.cholesky(space)
        rho = np.exp(-1 / 3)
        series = [root @ rng.normal(size=20)]
        for _ in range(n_time - 1):
            series.append(rho * series[-1] + np.sqrt(1 - rho**2) * root @ rng.normal(size=20))
        dt = np.abs(np.arange(3)[:, None] - np.arange(3))
        return np.stack(series).reshape(-1, 1, 4, 5), np.kron(rho**dt, space)

    @pytest.mark.parametrize("settings", [{}, RAW, {**RAW, "n_modes": 8, "block": 4, "n_tail": 12}])
    def test_many_data_recover_the_covariance(self, settings):
        values, truth = self.data(20000)
        fitted = fit_gaussian(values, self.grid, 3, [slice(0, 20000)], **settings)
        assert np.linalg.norm(self.matrix(fitted) - truth) < 0.1 * np.linalg.norm(truth)

    def test_with_few_data_shrinkage_halves_the_divergence_from_the_truth(self, dense):
        """Kullback-Leibler divergence of N(0, fitted) from N(0, truth)."""

        def divergence(**shrinkage):
            fitted = dense(fit_gaussian(values, self.grid, 3, [slice(0, 60)], **shrinkage))
            ratio = np.linalg.solve(fitted, truth)
            return (np.trace(ratio) - np.linalg.slogdet(ratio)[1] - len(truth)) / 2

        values, truth = self.data(60)
        assert divergence() < 0.5 * divergence(shrink_space=0.0, shrink_time=0.0)

    def test_blocks_of_modes_hold_what_travels(self):
        """A wave cos(x - c t), of random amplitude and phase each 50 hours, and weak white noise. What a block of two
        modes says of the window's end from its beginning leaves only noise, 0.01 in variance in theory; a mode by
        itself does not know which way the wave goes. A second variable that stands still must not move with it."""
        rng = np.random.default_rng(2)
        angle = 2 * np.pi * np.arange(20) / 20
        amplitude = rng.normal(size=(200, 1, 2))
        turn = angle[None, None] - 0.5 * np.arange(50)[None, :, None]
        wave = (amplitude[..., :1] * np.cos(turn) + amplitude[..., 1:] * np.sin(turn)).reshape(-1, 20)
        still = 0.5 * np.repeat(rng.normal(size=200), 50)[:, None] * np.cos(2 * angle)
        values = np.stack([wave, still], 1).reshape(-1, 2, 4, 5) + 0.1 * rng.normal(size=(10000, 2, 4, 5))
        spans = [slice(a, a + 50) for a in range(0, 10000, 50)]

        def unexplained(block):
            settings = {"block": block, "n_modes": 4, "shrink_space": 0.0, "shrink_time": 0.0}
            cov = self.matrix(fit_gaussian(values, self.grid, 3, spans, **settings)).reshape(3, 2, 20, 3, 2, 20)
            first, across, last = (cov[a, :, :, b].reshape(40, 2, 20)[..., :20] for a, b in ((0, 0), (2, 0), (2, 2)))
            first, across, last = (m.reshape(40, 40) for m in (first, across, last))
            left = np.diag(last - across @ np.linalg.solve(first, across.T)).reshape(2, 20).mean(1)
            return left / np.diag(last).reshape(2, 20).mean(1)

        alone, together = unexplained(1), unexplained(2)
        assert together[0] < 0.03 < 0.5 < alone[0]
        np.testing.assert_allclose([alone[1], together[1]], together[1], rtol=0.1)

    @staticmethod
    def matrix(field):
        columns = jax.vmap(lambda e: field.covariance(e.reshape(field.shape)).ravel())
        return np.asarray(columns(jnp.eye(int(np.prod(field.shape)))), np.float64)

    def test_the_fast_lend_no_changes_to_the_slow(self):
        """A pattern with a memory of 30 steps in one variable, white noise in another: shrunk half way to their mean
        autocorrelation the slow one would change 8 times too much; with variances measured on unseen weather, only as
        much more as the estimated pattern, from 20000 / 60 independent samples, holds noise: 10 % are expected."""
        rng = np.random.default_rng(4)
        rho = np.exp(-1 / 30)
        slow = lfilter([np.sqrt(1 - rho**2)], [1, -rho], rng.normal(size=20000))
        pattern = np.repeat([1.0, -1.0], 10)
        values = np.stack([rng.normal(size=(20000, 20)), slow[:, None] * pattern], 1).reshape(-1, 2, 4, 5)
        settings = {"n_modes": 21, "shrink_space": 0.0, "shrink_time": 0.5}  # white noise has 20 modes
        cov = self.matrix(fit_gaussian(values, self.grid, 2, [slice(0, 20000)], **settings)).reshape(2, 2, 20, 2, 2, 20)
        change = np.einsum("vsvs->v", cov[0][:, :, 0] - cov[0][:, :, 1]) / 20
        true = np.mean(np.diff(values, axis=0) ** 2, axis=(0, 2, 3)) / 2
        assert true[1] < 0.04
        np.testing.assert_allclose(change, true, rtol=0.25)

    def test_a_tail_keeps_what_is_left_off_the_smallest_scales(self):
        """Weather smoother than its cells, pattern j of 20 of variance 2^-j. What four modes leave is 2^-3, and white:
        4096 times what the roughest pattern holds. What a tail of 14 more leaves in two patterns is 1.5 times it."""
        rng = np.random.default_rng(5)
        patterns, variance = np.linalg.qr(rng.normal(size=(20, 20)))[0], 2.0 ** -np.arange(20)
        values = (rng.normal(size=(20000, 20)) * np.sqrt(variance) @ patterns.T).reshape(-1, 1, 4, 5)

        def of_roughest(n_tail):
            settings = {**RAW, "n_modes": 4, "n_tail": n_tail, "floor": 1e-9}
            cov = self.matrix(fit_gaussian(values, self.grid, 2, [slice(0, 20000)], **settings)).reshape(2, 20, 2, 20)
            return patterns[:, -1] @ cov[0, :, 0] @ patterns[:, -1] / variance[-1]

        np.testing.assert_allclose(of_roughest(0), 4096, rtol=0.05)
        np.testing.assert_allclose(of_roughest(14), 1.5, rtol=0.3)

    def test_a_record_shorter_than_the_window_is_refused(self):
        with pytest.raises(ValueError, match="at least 5 consecutive time steps, the window, got 4"):
            fit_gaussian(self.data(8)[0], self.grid, 5, [slice(0, 4), slice(4, 8)])

    def test_modes_left_out_keep_their_variance(self, dense):
        values, _ = self.data(500)
        sample_variance = np.sum(np.mean(values**2, 0))
        for n_modes in (4, 20):
            fitted = fit_gaussian(values, self.grid, 3, [slice(0, 500)], n_modes=n_modes)
            np.testing.assert_allclose(np.trace(dense(fitted)) / 3, sample_variance, rtol=1e-4)

    def test_length_is_recovered(self):
        distance = self.grid.distances_km()
        assert abs(fit_matern_length(matern(distance, 100.0, 1.5), distance) / 100 - 1) < 0.1

    def test_autocovariance_never_straddles_a_gap(self):
        series = np.asarray([1.0, 2.0, 3.0, 10.0, 20.0])[:, None]
        got = autocovariance(series, [slice(0, 3), slice(3, 5)], 3)
        np.testing.assert_allclose(got[0], np.asarray([1 + 4 + 9 + 100 + 400, 2 + 6 + 200, 3]) / 5)
