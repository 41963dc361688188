"""The probability-flow ODE as a map and as a density, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from bayesdownscale.prior.distribution import FieldPrior
from bayesdownscale.prior.flow import ODE, log_density, pull, push
from bayesdownscale.prior.gaussian import GaussianDenoiser
from bayesdownscale.prior.mixture import GaussianMixture, MixtureDenoiser
from bayesdownscale.prior.reverse_sde import reverse_path, reverse_sample

LOW, HIGH = 0.05, 50.0
KEY = jax.random.key(0)
levels = lambda n: np.geomspace(HIGH, LOW, n)


@pytest.fixture(scope="module")
def mixture():
    """Two clouds of unequal weight in two dimensions, 4.5 standard deviations apart, centred like an anomaly."""
    means = jnp.asarray([[-1.4, 0.7], [0.6, -0.3]]).reshape(2, 1, 1, 1, 2)
    return GaussianMixture(jnp.asarray([0.3, 0.7]), means, jnp.full(2, 0.25))


class TestDensity:
    def test_of_a_gaussian(self, field, cov, context):
        """36 cells. The start N(0, sigma_0^2 I) for N(0, Sigma + sigma_0^2 I) leaves 0.01 nats, the rest are steps."""
        x = jax.vmap(field.draw)(jax.random.split(KEY, 3))
        want = multivariate_normal(np.zeros(36), cov + LOW**2 * np.eye(36)).logpdf(np.asarray(x).reshape(3, 36))
        density = lambda n: jax.vmap(lambda x: log_density(x, GaussianDenoiser(field), context(3), levels(n)))(x)
        coarse, fine = (np.abs(density(n) - want).max() for n in (5, 10))
        assert fine < 0.03
        assert fine < coarse / 5

    def test_of_a_mixture(self, mixture, context):
        """In both clouds, between them and far out; and its gradient is the score."""
        x = jnp.asarray([[-1.4, 0.7], [0.8, -0.2], [-0.4, 0.2], [-0.3, 0.5], [-3.0, 2.0]]).reshape(5, 1, 1, 1, 2)
        density = lambda x: log_density(x, MixtureDenoiser(mixture), context(1), levels(15))
        got, gradient = jax.vmap(jax.value_and_grad(density))(x)
        want, score = jax.vmap(jax.value_and_grad(lambda x: mixture.log_prob(x, LOW)))(x)
        np.testing.assert_allclose(got, want, atol=0.01)
        np.testing.assert_allclose(gradient, score, rtol=0.01, atol=0.05)

    def test_random_traces(self, field, cov, context):
        """200 estimates: their mean within 5 standard errors (failure rate 6e-7) of the exact divergence, and their
        spread to 25 % (5 standard deviations) that of the docstring, for A = int dD/dx ds in closed form."""
        x, denoiser = field.draw(KEY), GaussianDenoiser(field)
        exact = log_density(x, denoiser, context(3), levels(6))
        estimate = lambda key: log_density(x, denoiser, context(3), levels(6), key, probes=4, exact_up_to=0)
        draws = jax.vmap(estimate)(jax.random.split(jax.random.key(1), 200))
        variances, basis = np.linalg.eigh(cov)
        ratio = (variances / LOW**2 + 1) / (variances / HIGH**2 + 1)
        a = basis @ np.diag(0.5 * np.log(ratio)) @ basis.T
        spread = np.sqrt(2 / 4 * (np.sum(a**2) - np.sum(np.diag(a) ** 2)))
        assert jnp.abs(jnp.mean(draws) - exact) < 5 * spread / np.sqrt(200)
        np.testing.assert_allclose(jnp.std(draws), spread, rtol=0.25)

    def test_large_fields_need_a_key(self, field, context):
        with pytest.raises(ValueError, match="expected a key for the random trace of a field of 36 cells"):
            log_density(jnp.zeros(field.shape), GaussianDenoiser(field), context(3), levels(5), exact_up_to=35)

    def test_of_a_prior_in_physical_units(self, gaussian_prior):
        """The diffusion prior of the same law: its density is that of the field smoothed by sigma_min."""
        p = gaussian_prior
        prior = FieldPrior(p.denoiser, p.standardisation, p.levels, p.coords)
        x = p.sample(KEY, (2, 1))
        got = jax.jit(lambda prior, x: prior.log_prob(x))(prior, x)
        assert got.shape == (2, 1)
        np.testing.assert_allclose(got, p.log_prob(x), atol=0.5)
        assert jax.eval_shape(prior.log_prob, x[0, 0]).shape == ()


class TestMap:
    def test_push_draws_the_law(self, field, cov, context):
        """Push is linear for a Gaussian: M M^T is the covariance of what it draws, to what 64 steps and the start
        leave out (test_solver.py), without sampling."""
        unit = jnp.eye(36).reshape(36, *field.shape)
        columns = jax.vmap(lambda z: push(z, GaussianDenoiser(field), context(3), levels(64)))(unit)
        m = np.asarray(columns, np.float64).reshape(36, 36)
        np.testing.assert_allclose(m.T @ m, cov, atol=0.01 * np.abs(cov).max())

    def test_push_is_a_draw_without_stochasticity(self, mixture, context):
        z = jax.random.normal(jax.random.split(KEY)[0], (1, 1, 1, 2))
        want, _ = reverse_sample(KEY, MixtureDenoiser(mixture), context(1), levels(9), z.shape, ODE)
        np.testing.assert_allclose(push(z, MixtureDenoiser(mixture), context(1), levels(9)), want, rtol=1e-5)

    def test_pull_is_the_way_back(self, mixture, context):
        """The error falls at least fourfold when the steps double."""
        z = jax.random.normal(jax.random.key(1), (1, 1, 1, 2))

        def there_and_back(n):
            arguments = MixtureDenoiser(mixture), context(1), levels(n + 1)
            x, _ = reverse_path(None, HIGH * z, *arguments, ODE)
            return jnp.linalg.norm((pull(x, *arguments) - z).ravel())

        errors = np.asarray([there_and_back(n) for n in (4, 8, 16)])
        assert errors[-1] < 1e-3
        assert np.all(errors[1:] < errors[:-1] / 4), errors

    def test_of_a_prior_in_physical_units(self, gaussian_prior):
        p = gaussian_prior
        z = jax.random.normal(KEY, p.event_shape)
        got, want = p.push(z), push(z, p.denoiser, p.context, p.levels.levels(p.steps))
        np.testing.assert_allclose(p.standardisation.forward(got, p.context), want, rtol=1e-3, atol=1e-4)
        assert jnp.abs(p.push(z, steps=8) - got).max() > 0.01


class TestNetwork:
    """Through a trained network: reverse mode only, and none of it symmetric."""

    @pytest.fixture(scope="class")
    def network(self, trained_folder, context):
        from bayesdownscale.prior.trained import load_prior

        prior = load_prior(trained_folder)
        x = jax.random.normal(KEY, (2, 3, *prior.event_shape[1:]))
        return x, prior.denoiser.inner, context(3), prior.levels.levels(3)

    def test_under_jit_and_vmap(self, network):
        z, *arguments = network

        @jax.jit
        @jax.vmap
        def run(z, key):
            x, back = jax.vjp(lambda z: push(z, *arguments), z)
            return x, back(x)[0], log_density(x, *arguments, key, probes=2, exact_up_to=0)

        x, slope, density = run(z, jax.random.split(KEY))
        for result in (x, slope, density):
            assert bool(jnp.all(jnp.isfinite(result)))
        assert density[0] != density[1]

    @pytest.mark.slow
    def test_gradient_of_the_density(self, network):
        """Against central differences along the gradient."""
        (x, _), *arguments = network
        density = jax.jit(jax.value_and_grad(lambda x: log_density(x, *arguments, KEY, probes=2, exact_up_to=0)))
        _, gradient = density(x)
        along = 0.01 * gradient / jnp.linalg.norm(gradient.ravel())
        want = (density(x + along)[0] - density(x - along)[0]) / 0.02
        np.testing.assert_allclose(jnp.linalg.norm(gradient.ravel()), want, rtol=0.05)
