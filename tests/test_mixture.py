"""The exact mixture against dense algebra, quadrature and finite differences in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from scipy.stats import multivariate_normal

from bayesdownscale.prior.mixture import GaussianMixture, MixtureDenoiser, MixturePosterior

SHAPE = (2, 1, 2, 3)
SIGMA = 0.7
WEIGHTS = np.asarray([0.5, 0.2, 0.3])
VARIANCES = np.asarray([0.4, 1.0, 0.15])
MEANS = 1.5 * np.random.default_rng(0).normal(size=(3, 12))
A = np.random.default_rng(1).normal(size=(3, 12)) / 3
Y = np.asarray([0.5, -0.3, 0.8])
NOISE = np.asarray([0.1, 0.3, 0.2])
X = np.random.default_rng(2).normal(size=12)
V = np.random.default_rng(3).normal(size=12)


def as_float(a):
    return jnp.asarray(a, jnp.float32)


def as_field(a):
    return as_float(np.reshape(a, SHAPE))


def close(got, want, tol=2e-5):
    np.testing.assert_allclose(np.ravel(got), np.ravel(want), rtol=tol, atol=tol * np.abs(want).max())


def log_density(x, sigma=0.0):
    """log p(x_sigma) of x (..., 12), float64."""
    squares = np.sum((x[..., None, :] - MEANS) ** 2, -1)
    variances = VARIANCES + sigma**2
    return logsumexp(np.log(WEIGHTS) - squares / variances / 2 - 6 * np.log(2 * np.pi * variances), axis=-1)


def total_covariance(weights, means, covs):
    deviations = means - weights @ means
    return np.einsum("k,kij->ij", weights, covs) + (weights * deviations.T) @ deviations


def z_scores_and_error(draws, mean, cov):
    """Of means, and of the covariance in Frobenius norm, relative to the root mean square error of Gaussian draws."""
    draws = np.asarray(draws, np.float64).reshape(len(draws), -1)
    z = (draws.mean(0) - mean) / np.sqrt(np.diag(cov) / len(draws))
    scale = np.sqrt((np.sum(cov**2) + np.trace(cov) ** 2) / len(draws))
    return np.abs(z).max(), np.linalg.norm(np.cov(draws.T) - cov) / scale


@pytest.fixture(scope="module")
def mixture():
    means = as_float(MEANS.reshape(3, *SHAPE))
    return GaussianMixture(as_float(2 * WEIGHTS), means, as_float(VARIANCES))  # weights are divided by their sum


class TestPrior:
    def test_log_prob(self, mixture):
        each = [multivariate_normal(m, v * np.eye(12)).logpdf(X) for m, v in zip(MEANS, VARIANCES, strict=True)]
        close(mixture.log_prob(as_field(X)), logsumexp(each, b=WEIGHTS))
        close(mixture.log_prob(as_field(X), SIGMA), log_density(X, SIGMA))

    def test_draws(self, mixture):
        """Mean and covariance of 4000 draws: 12 z-scores under 5 (failure rate 1e-5), the covariance within twice
        its sampling error; and the share of each component within 5 standard errors."""
        assert mixture.shape == SHAPE
        draws = jax.jit(jax.vmap(mixture.draw))(jax.random.split(jax.random.key(0), 4000))
        cov = total_covariance(WEIGHTS, MEANS, VARIANCES[:, None, None] * np.eye(12))
        z, error = z_scores_and_error(draws, WEIGHTS @ MEANS, cov)
        assert z < 5
        assert error < 2
        distances = np.sum((np.asarray(draws).reshape(-1, 1, 12) - MEANS) ** 2, -1)
        nearest = np.argmin(distances / VARIANCES + 12 * np.log(VARIANCES) - 2 * np.log(WEIGHTS), 1)
        shares = np.bincount(nearest, minlength=3) / 4000
        assert np.all(np.abs(shares - WEIGHTS) < 5 * np.sqrt(WEIGHTS * (1 - WEIGHTS) / 4000) + 0.005)

    @pytest.mark.parametrize("sigma", [0.05, 0.7, 20.0])
    def test_the_denoiser_is_tweedies_formula(self, mixture, sigma, context):
        """x_sigma + sigma^2 grad log p, by central differences."""
        h = 1e-4 * max(sigma, 0.1)
        steps = h * np.eye(12)
        gradient = (log_density(X + steps, sigma) - log_density(X - steps, sigma)) / (2 * h)
        got, cost = MixtureDenoiser(mixture).evaluate(as_field(X), as_float(sigma), context(2))
        np.testing.assert_allclose(np.ravel(got), X + sigma**2 * gradient, rtol=1e-4, atol=1e-4)
        assert (cost.evaluations, cost.products, cost.iterations) == (1, 0, 0)

    def test_the_denoiser_and_the_covariance_by_quadrature(self):
        """One cell: E[x | x_sigma] and Var[x | x_sigma] on a fine grid."""
        means, variances, weights = np.asarray([-1.0, 0.5, 2.0]), np.asarray([0.1, 0.5, 0.02]), WEIGHTS
        mixture = GaussianMixture(as_float(weights), as_float(means.reshape(3, 1, 1, 1, 1)), as_float(variances))
        grid = np.linspace(-8, 8, 40001)[:, None]
        prior = np.sum(weights / np.sqrt(variances) * np.exp(-((grid - means) ** 2) / variances / 2), 1)
        for x_sigma in (-2.0, 0.1, 1.4):
            posterior = prior * np.exp(-((x_sigma - grid[:, 0]) ** 2) / SIGMA**2 / 2)
            posterior /= posterior.sum()
            mean = posterior @ grid[:, 0]
            x, one = jnp.full((1, 1, 1, 1), x_sigma), jnp.ones((1, 1, 1, 1))
            close(mixture.denoise(x, as_float(SIGMA)), mean)
            close(mixture.covariance(x, as_float(SIGMA), one), posterior @ (grid[:, 0] - mean) ** 2, 1e-4)

    def test_the_covariance_is_the_jacobian_of_the_denoiser(self, mixture):
        sigma = as_float(SIGMA)
        tangent = jax.jvp(lambda x: mixture.denoise(x, sigma), (as_field(X),), (as_field(V),))[1]
        close(mixture.covariance(as_field(X), sigma, as_field(V)), SIGMA**2 * tangent, 1e-4)

    def test_many_cells_and_modes_far_apart(self):
        """800 cells and 25 modes, 8 apart: nothing underflows, and a draw is denoised to its own mode."""
        steps = 8.0 * (np.arange(25)[:, None] // np.asarray([1, 5]) % 5 - 2)
        means = as_float(np.tile(steps, 400).reshape(25, 1, 1, 1, 800))
        mixture = GaussianMixture(jnp.ones(25), means, jnp.ones(25))
        sigma = as_float(0.3)
        x = means[7] + jnp.sqrt(1.0 + sigma**2) * jax.random.normal(jax.random.key(0), mixture.shape)
        close(mixture.denoise(x, sigma), means[7] + (x - means[7]) / (1 + sigma**2), 1e-5)
        assert jnp.isfinite(mixture.log_prob(x, 100.0))


class TestPosterior:
    """y = A x + noise, with the d_x by d_x formulas."""

    @pytest.fixture(scope="class", params=["matrix", "map"])
    def exact(self, request, mixture):
        matrix = as_float(A)
        observe = matrix if request.param == "matrix" else lambda x: matrix @ x.ravel()
        return MixturePosterior(mixture, observe, as_float(Y), as_float(NOISE))

    @pytest.fixture(scope="class")
    def moments(self):
        """Weights (3,), means (3, 12) and covariances (3, 12, 12) of the components, and log p(y)."""
        covs = [np.linalg.inv(np.eye(12) / v + A.T @ np.diag(1 / NOISE) @ A) for v in VARIANCES]
        means = [c @ (m / v + A.T @ (Y / NOISE)) for m, v, c in zip(MEANS, VARIANCES, covs, strict=True)]
        law = lambda m, v: multivariate_normal(A @ m, v * A @ A.T + np.diag(NOISE))
        log_joint = np.log(WEIGHTS) + [law(m, v).logpdf(Y) for m, v in zip(MEANS, VARIANCES, strict=True)]
        return softmax(log_joint), np.asarray(means), np.asarray(covs), logsumexp(log_joint)

    def test_components(self, exact, moments):
        weights, means, covs, _ = moments
        close(exact.weights, weights, 1e-4)
        close(exact.means, means)
        close(exact.covariances(as_field(V)), covs @ V)

    def test_moments(self, exact, moments):
        weights, means, covs, _ = moments
        close(exact.mean(), weights @ means)
        close(exact.covariance(as_field(V)), total_covariance(weights, means, covs) @ V, 1e-4)

    def test_log_evidence(self, exact, moments):
        close(exact.log_evidence(), moments[3])

    def test_draws(self, exact, moments):
        """As for the prior; the failure rates are the same."""
        weights, means, covs, _ = moments
        draws = jax.jit(jax.vmap(exact.draw))(jax.random.split(jax.random.key(1), 4000))
        z, error = z_scores_and_error(draws, weights @ means, total_covariance(weights, means, covs))
        assert z < 5
        assert error < 2

    def test_draws_within_a_component(self, mixture, moments):
        """All the weight on one component: a Gaussian posterior."""
        one = GaussianMixture(jnp.asarray([0.0, 1.0, 0.0]), mixture.means, mixture.variances)
        exact = MixturePosterior(one, as_float(A), as_float(Y), as_float(NOISE))
        draws = jax.jit(jax.vmap(exact.draw))(jax.random.split(jax.random.key(2), 4000))
        z, error = z_scores_and_error(draws, moments[1][1], moments[2][1])
        assert z < 5
        assert error < 2

    def test_one_noise_variance_for_all_data(self, mixture):
        scalar, each = (MixturePosterior(mixture, as_float(A), as_float(Y), v) for v in (0.2, jnp.full(3, 0.2)))
        close(scalar.mean(), each.mean())
        close(scalar.log_evidence(), each.log_evidence())
