"""An exact case that is not Gaussian: a mixture of isotropic Gaussians, its denoiser, its draws and its posterior
under linear data. What several modes do to a method is tested against this file."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesdownscale._precision import full_precision
from bayesdownscale._types import Field, Key, Scalar
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context, Cost

Weights = Float[Array, " component"]
Fields = Float[Array, "component time variable lat lon"]


class GaussianMixture(eqx.Module):
    """p(x) = sum_k w_k N(x; m_k, v_k I).

    `weights` w_k (component,), which need not sum to one; `means` m_k (component, time, variable, lat, lon);
    `variances` v_k (component,).
    """

    weights: Weights
    means: Fields
    variances: Weights

    @property
    def shape(self) -> tuple[int, int, int, int]:
        _, n_time, n_var, n_lat, n_lon = self.means.shape
        return n_time, n_var, n_lat, n_lon

    def draw(self, key: Key) -> Field:
        """One draw from p(x)."""
        k_component, k_field = jax.random.split(key)
        k = jax.random.categorical(k_component, jnp.log(self.weights))
        return self.means[k] + jnp.sqrt(self.variances[k]) * jax.random.normal(k_field, self.shape)

    def log_prob(self, x: Field, sigma: Scalar | float = 0.0) -> Scalar:
        """log p(x), or that of x_sigma = x + sigma eps; needs v_k + sigma^2 to be positive."""
        return jax.nn.logsumexp(self._log_joint(x, sigma))

    def _log_joint(self, x_sigma: Field, sigma: Scalar | float) -> Weights:
        """log w_k + log N(x_sigma; m_k, (v_k + sigma^2) I)"""
        variances = self.variances + sigma**2
        squares = jnp.sum((x_sigma[None] - self.means) ** 2, axis=(1, 2, 3, 4))
        log_densities = -0.5 * (squares / variances + x_sigma.size * jnp.log(2 * math.pi * variances))
        return jax.nn.log_softmax(jnp.log(self.weights)) + log_densities

    def conditional(self, x_sigma: Field, sigma: Scalar) -> "GaussianMixture":
        """p(x | x_sigma), a mixture too, with weights w_k N(x_sigma; m_k, (v_k + sigma^2) I) / p(x_sigma), means
        m_k + v_k / (v_k + sigma^2) (x_sigma - m_k) and variances v_k sigma^2 / (v_k + sigma^2)."""
        gain = self.variances / (self.variances + sigma**2)
        weights = jax.nn.softmax(self._log_joint(x_sigma, sigma))
        return GaussianMixture(weights, self.means + _times(gain, x_sigma[None] - self.means), gain * sigma**2)

    def denoise(self, x_sigma: Field, sigma: Scalar) -> Field:
        """E[x | x_sigma]."""
        given = self.conditional(x_sigma, sigma)
        return _total(given.weights, given.means)

    def covariance(self, x_sigma: Field, sigma: Scalar, v: Field) -> Field:
        """Cov[x | x_sigma] v, which is sigma^2 dD/dx_sigma v (Tweedie's covariance formula)."""
        given = self.conditional(x_sigma, sigma)
        return _covariance(given.weights, given.means, _times(given.variances, v[None]), v)


class MixtureDenoiser(AbstractDenoiser):
    """The exact denoiser of a mixture, in standardised units."""

    mixture: GaussianMixture

    def evaluate(self, x_sigma: Field, sigma: Scalar, context: Context) -> tuple[Field, Cost]:
        return self.mixture.denoise(x_sigma, sigma), Cost.of(evaluations=1)


class MixturePosterior(eqx.Module):
    """p(x | y) for a mixture x and y = A x + noise, noise ~ N(0, R), R = diag(noise_variance): exact, a mixture of

        N(m_k + v_k A^T S_k^-1 (y - A m_k), v_k I - v_k^2 A^T S_k^-1 A),   S_k = v_k A A^T + R,

    with `weights` proportional to w_k N(y; A m_k, S_k). `observe` is A, a matrix (n_obs, size of a field) or a
    linear map from a field to a vector (n_obs,); `y` (n_obs,). For few data: A and a factor of S_k for each
    component are stored.
    """

    prior: GaussianMixture
    matrix: Float[Array, "obs size"]
    y: Float[Array, " obs"]
    noise_variance: Float[Array, " obs"]
    log_joint: Weights  # log w_k + log N(y; A m_k, S_k)
    means: Fields
    factors: Float[Array, "component obs obs"]

    @full_precision
    def __init__(self, prior: GaussianMixture, observe: Array | Callable[[Field], Array], y: Array, noise_variance):
        self.prior, self.y = prior, y
        self.noise_variance = jnp.broadcast_to(jnp.asarray(noise_variance, y.dtype), y.shape)
        matrix = jax.jacobian(observe)(jnp.zeros(prior.shape)) if callable(observe) else observe
        self.matrix = matrix.reshape(y.size, -1)
        gram = self.matrix @ self.matrix.T

        def given(mean: Field, variance: Scalar) -> tuple[Array, Scalar, Field]:
            factor = jnp.linalg.cholesky(variance * gram + jnp.diag(self.noise_variance))
            innovation = y - self._observe(mean)
            half = jax.scipy.linalg.solve_triangular(factor, innovation, lower=True)
            log_det = 2 * jnp.sum(jnp.log(jnp.diag(factor)))
            log_density = -0.5 * (jnp.sum(half**2) + log_det + y.size * math.log(2 * math.pi))
            return factor, log_density, mean + self._gain(variance, factor, innovation)

        self.factors, log_densities, self.means = jax.vmap(given)(prior.means, prior.variances)
        self.log_joint = jax.nn.log_softmax(jnp.log(prior.weights)) + log_densities

    @full_precision
    def _observe(self, x: Field) -> Float[Array, " obs"]:
        return self.matrix @ x.ravel()

    @full_precision
    def _gain(self, variance: Scalar, factor: Float[Array, "obs obs"], innovation: Float[Array, " obs"]) -> Field:
        """v_k A^T S_k^-1 innovation"""
        weights = jax.scipy.linalg.cho_solve((factor, True), innovation)
        return variance * (self.matrix.T @ weights).reshape(self.prior.shape)

    @property
    def weights(self) -> Weights:
        return jax.nn.softmax(self.log_joint)

    def log_evidence(self) -> Scalar:
        """log p(y)."""
        return jax.nn.logsumexp(self.log_joint)

    def mean(self) -> Field:
        """E[x | y]."""
        return _total(self.weights, self.means)

    def covariances(self, v: Field) -> Fields:
        """Cov[x | y, k] v of each component k."""
        one = lambda variance, factor: variance * (v - self._gain(variance, factor, self._observe(v)))
        return jax.vmap(one)(self.prior.variances, self.factors)

    def covariance(self, v: Field) -> Field:
        """Cov[x | y] v."""
        return _covariance(self.weights, self.means, self.covariances(v), v)

    def draw(self, key: Key) -> Field:
        """One exact draw from p(x | y): a component, then Matheron's rule (see `GaussianPosterior`) within it."""
        k_component, k_field, k_noise = jax.random.split(key, 3)
        k = jax.random.categorical(k_component, self.log_joint)
        variance, factor = self.prior.variances[k], self.factors[k]
        centred = jnp.sqrt(variance) * jax.random.normal(k_field, self.prior.shape)
        noise = jnp.sqrt(self.noise_variance) * jax.random.normal(k_noise, self.y.shape)
        return self.means[k] + centred - self._gain(variance, factor, self._observe(centred) + noise)


def _times(factors: Weights, fields: Float[Array, "#component time variable lat lon"]) -> Fields:
    return factors[:, None, None, None, None] * fields


@full_precision
def _total(weights: Weights, fields: Fields) -> Field:
    """sum_k w_k fields_k"""
    return jnp.tensordot(weights, fields, axes=1)


def _covariance(weights: Weights, means: Fields, within: Fields, v: Field) -> Field:
    """sum_k w_k (C_k v + (m_k - m) (m_k - m)^T v), m = sum_k w_k m_k, with C_k v given as `within`."""
    deviations = means - _total(weights, means)[None]
    along = jnp.sum(deviations * v[None], axis=(1, 2, 3, 4))
    return _total(weights, within + _times(along, deviations))
