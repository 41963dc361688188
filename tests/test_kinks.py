"""Densities with a kink, rounded for guidance: the same away from the kink, curved at it."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.integrate import quad

import bayesdownscale as bd
from bayesdownscale.likelihood.kinks import smooth_log_prob

Y = jnp.asarray([-3.0, 0.1, 4.0])
KINKED = [dist.Laplace(0.2, 0.1), dist.AsymmetricLaplace(0.2, 0.1, 1.5)]


@pytest.mark.parametrize("fn", KINKED, ids=lambda fn: type(fn).__name__)
def test_slopes_far_from_the_kink_are_those_of_the_density(fn):
    slopes = jax.vmap(jax.grad(lambda y: smooth_log_prob(fn, y)))(Y)
    exact = jax.vmap(jax.grad(fn.log_prob))(Y)
    np.testing.assert_allclose(slopes[jnp.asarray([0, 2])], exact[jnp.asarray([0, 2])], rtol=1e-3)
    assert jax.grad(jax.grad(lambda y: smooth_log_prob(fn, y)))(0.2) < -1 / 0.1


def test_masks_and_event_dimensions_are_kept():
    fn = dist.Laplace(jnp.zeros(3), 0.1).mask(jnp.asarray([True, False, True])).to_event(1)
    plain = dist.Laplace(jnp.zeros(2), 0.1).to_event(1)
    np.testing.assert_allclose(smooth_log_prob(fn, Y), smooth_log_prob(plain, Y[jnp.asarray([0, 2])]))


def test_other_densities_are_left_alone():
    fn = dist.StudentT(4.0, jnp.zeros(3), 0.5).to_event(1)
    assert smooth_log_prob(fn, Y) == fn.log_prob(Y)


@pytest.mark.parametrize("method", [bd.MomentMatching, bd.FixedCovariance])
def test_guided_mean_under_laplace_noise(method, gaussian_prior):
    """E[x | x_sigma, y] of a Gaussian with one value seen through Laplace noise, by quadrature. Each D_y has the
    error of one antithetic pair, drawn by the bits of x_sigma: the mean over 200 nearly equal x_sigma is compared,
    with standard error 0.03 sd. It must be less than half as far off as the mode."""
    prior, scale, y = gaussian_prior, 0.6, 1.8

    def model(y=None):
        x = numpyro.sample("weather", prior)
        seen = (x - prior.standardisation.backward(jnp.zeros(x.shape), prior.context))[0, 0, 0, 0]
        numpyro.sample("coarse", dist.Laplace(seen, scale), obs=y)

    program, _ = bd.read_model(model, (), {"y": jnp.asarray(y)})
    denoiser, unit = prior.denoiser, 2.0  # K
    guided = method(denoiser, bd.ProgramLikelihood.of(program, prior))
    sigma, near = jnp.asarray(3.0), 1e-3 * jax.random.normal(jax.random.key(0), (200, *prior.event_shape))
    evaluate = lambda x: guided(x, sigma, prior.context)[0, 0, 0, 0]
    values = np.asarray(jax.vmap(evaluate)(near)) * unit

    cell = jnp.zeros(prior.event_shape).at[0, 0, 0, 0].set(1.0)
    variance = unit**2 * float(denoiser.covariance(cell, sigma)[0, 0, 0, 0])
    density = lambda x: np.exp(-0.5 * x**2 / variance - abs(y - x) / scale)
    total, first = (quad(lambda x, k=k: x**k * density(x), -9, 9, points=[y])[0] for k in (0, 1))
    mean, mode = first / total, min(variance / scale, y)
    assert abs(values.mean() - mean) < 0.5 * abs(mode - mean)
