"""The exact case: a Gaussian space-time field, its denoiser, its draws and its posterior under linear data.

Every method of the package is tested against this file.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesdownscale._precision import full_precision
from bayesdownscale._types import Field, Key, Scalar
from bayesdownscale.prior.denoiser import AbstractSpreadDenoiser, Context, Cost


def matern(distance: np.ndarray, length: float, nu: float) -> np.ndarray:
    """Matern correlation for nu = 1/2 (exponential), 3/2 or 5/2; `distance` and `length` in the same unit
    (Rasmussen and Williams 2006, eq. 4.14)."""
    r = np.asarray(distance, dtype=np.float64) * (math.sqrt(2 * nu) / length)
    polynomial = {0.5: lambda r: 1.0, 1.5: lambda r: 1 + r, 2.5: lambda r: 1 + r + r**2 / 3}
    if nu not in polynomial:
        raise ValueError(f"expected nu of 0.5, 1.5 or 2.5, got {nu}; other orders have no closed form here")
    return polynomial[nu](r) * np.exp(-r)


class GaussianField(eqx.Module):
    """A zero-mean Gaussian field whose covariance is block-diagonal over groups of spatial modes:

        Sigma = sum_b (U_b (x) I) Q_b diag(variances_b) Q_b^T (U_b (x) I)^T + residual (I - sum_k u_k u_k^T) (x) I

    `modes` u_k (mode, variable, lat, lon), orthonormal, and U_b a block of consecutive ones; `bases` Q_b (block, row,
    row), orthogonal, the rows running over the modes of a block and over time within each mode. With blocks of one
    mode, each has a covariance in time of its own; with more, what one mode says of another some hours later, as in
    weather that travels, is kept. Modes after those in blocks, where there is a `tail` (time, time), stand alone and
    share that basis; without a tail one basis (1, time, time) may serve all modes (the covariance is then separable).
    `variances` (mode, time), those of block b in the places of its modes; `residual` variance of whatever the modes
    leave out. Every function of Sigma is one spectral function of these numbers.
    """

    modes: Float[Array, "mode variable lat lon"]
    bases: Float[Array, "block row row"]
    variances: Float[Array, "mode time"]
    residual: Scalar
    tail: Float[Array, "time time"] | None = None

    @staticmethod
    def separable(cov_time: np.ndarray, cov_space: np.ndarray, shape: tuple[int, int, int]) -> "GaussianField":
        """Covariance cov_time (time, time) (x) cov_space (cells, cells), with cells = variable x lat x lon
        in row-major order and `shape` = (variable, lat, lon)."""
        var_t, basis = np.linalg.eigh(np.asarray(cov_time, np.float64))
        var_s, modes = np.linalg.eigh(np.asarray(cov_space, np.float64))
        variances = np.clip(var_s, 0, None)[:, None] * np.clip(var_t, 0, None)[None, :]
        return GaussianField(
            jnp.asarray(modes.T.reshape(-1, *shape), jnp.float32),
            jnp.asarray(basis[None], jnp.float32),
            jnp.asarray(variances, jnp.float32),
            jnp.zeros((), jnp.float32),
        )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        _, n_var, n_lat, n_lon = self.modes.shape
        return self.variances.shape[1], n_var, n_lat, n_lon

    def spectral(self, phi: Callable[[Array], Array], x: Field) -> Field:
        """phi(Sigma) x for a function phi of the eigenvalues."""
        return self.scale(phi(self.variances), phi(self.residual), x)

    @full_precision
    def scale(self, inside: Float[Array, "mode time"], outside: Scalar, x: Field) -> Field:
        """M x for the matrix M with the eigenvectors of Sigma and eigenvalues `inside`, and `outside` of the modes."""
        flat = x.reshape(x.shape[0], -1)
        modes = self.modes.reshape(self.modes.shape[0], -1)
        in_space = jnp.einsum("ks,ts->kt", modes, flat)
        scaled = inside * self._analyse(in_space)
        change = self._turn("bij,bj->bi", scaled) - outside * in_space
        return (outside * flat + jnp.einsum("ks,kt->ts", modes, change)).reshape(x.shape)

    @full_precision
    def coefficients(self, x: Field) -> Float[Array, "mode time"]:
        """The coefficients of `x` in the eigenvectors inside the modes, in the places of their `variances`."""
        modes = self.modes.reshape(self.modes.shape[0], -1)
        return self._analyse(jnp.einsum("ks,ts->kt", modes, x.reshape(x.shape[0], -1)))

    def _analyse(self, in_space: Float[Array, "mode time"]) -> Float[Array, "mode time"]:
        return self._turn("bij,bi->bj", in_space)

    @property
    def n_tail(self) -> int:
        """How many modes stand alone after those in blocks."""
        if self.tail is None:
            return 0
        return self.modes.shape[0] - self.bases.shape[0] * self.bases.shape[-1] // self.tail.shape[0]

    def _turn(self, product: str, x: Float[Array, "mode time"]) -> Float[Array, "mode time"]:
        """The `product` of each block's basis with its part of `x`, and of the tail's."""
        n_time, rows = x.shape[1], self.bases.shape[-1]
        n = len(x) - self.n_tail
        bases = jnp.broadcast_to(self.bases, (n * n_time // rows, rows, rows))
        in_blocks = jnp.einsum(product, bases, x[:n].reshape(-1, rows)).reshape(n, n_time)
        if self.tail is None:
            return in_blocks
        return jnp.concatenate([in_blocks, jnp.einsum(product.replace("bij", "ij"), self.tail, x[n:])])

    def covariance(self, x: Field) -> Field:
        """Sigma x."""
        return self.spectral(lambda v: v, x)

    def draw(self, key: Key) -> Field:
        """One draw from N(0, Sigma)."""
        return self.spectral(jnp.sqrt, jax.random.normal(key, self.shape))

    def denoise(self, x_sigma: Field, sigma: Scalar) -> Field:
        """E[x | x_sigma] = Sigma (Sigma + sigma^2)^-1 x_sigma, the Wiener filter."""
        return self.spectral(lambda v: v / (v + sigma**2), x_sigma)

    def spread(self, sigma: Scalar) -> Scalar:
        """Root mean over cells of the variance of x given x_sigma."""
        outside = (math.prod(self.modes.shape[1:]) - self.modes.shape[0]) * self.shape[0]
        inside, each_outside = (shrunk(v, sigma) for v in (self.variances, self.residual))
        return jnp.sqrt((jnp.sum(inside) + outside * each_outside) / math.prod(self.shape))

    def log_prob(self, x: Field) -> Scalar:
        """log N(x; 0, Sigma); needs every variance to be positive."""
        outside = (math.prod(self.modes.shape[1:]) - self.modes.shape[0]) * self.shape[0]
        log_det = jnp.sum(jnp.log(self.variances))
        if outside:
            log_det = log_det + outside * jnp.log(self.residual)
        safe_inverse = lambda v: 1 / jnp.where(v > 0, v, 1.0)
        quadratic = jnp.sum(x * self.spectral(safe_inverse, x))
        return -0.5 * (quadratic + log_det + x.size * math.log(2 * math.pi))


def shrunk(variance: Array, sigma: Scalar) -> Array:
    """The variance of x given x + sigma eps, for x ~ N(0, variance)."""
    return variance * sigma**2 / (variance + sigma**2)


class GaussianDenoiser(AbstractSpreadDenoiser):
    """The exact denoiser of a Gaussian field, in standardised units (zero mean)."""

    field: GaussianField

    def evaluate(self, x_sigma: Field, sigma: Scalar, context: Context) -> tuple[Field, Cost]:
        return self.field.denoise(x_sigma, sigma), Cost.of(evaluations=1)

    def covariance(self, v: Field, sigma: Scalar) -> Field:
        return self.field.spectral(lambda variance: shrunk(variance, sigma), v)

    def draw_error(self, key: Key, sigma: Scalar, shape: tuple[int, int, int, int]) -> Field:
        white = jax.random.normal(key, shape)
        return self.field.spectral(lambda variance: jnp.sqrt(shrunk(variance, sigma)), white)


class GaussianPosterior(eqx.Module):
    """p(x | y) for x ~ N(0, Sigma) and y = A x + noise, noise ~ N(0, diag(noise_variance)): exact.

    `observe` is the linear map A from a field to a vector (n_obs,); `y` (n_obs,). Mean and draws by Matheron's
    rule (Journel and Huijbregts 1978; Wilson et al. 2020, arXiv 2002.09309): x + Sigma A^T S^-1 (y - A x - e),
    S = A Sigma A^T + R, factorised once (n_obs^2 memory). Where `noise_variance` is infinite a datum is missing, and
    counts nowhere.
    """

    prior: GaussianField
    observe: Callable[[Field], Float[Array, " obs"]]
    y: Float[Array, " obs"]
    noise_variance: Float[Array, " obs"]
    factor: Float[Array, "obs obs"]

    @full_precision
    def __init__(self, prior: GaussianField, observe, y: Array, noise_variance: Array):
        self.prior, self.observe = prior, observe
        self.noise_variance = jnp.broadcast_to(noise_variance, y.shape)
        self.y = self._seen(y)
        column = lambda e: self._observe(prior.covariance(self._adjoint(e)))
        gram = jax.lax.map(column, jnp.eye(y.size, dtype=y.dtype), batch_size=32)
        self.factor = jnp.linalg.cholesky((gram + gram.T) / 2 + jnp.diag(self._noise_or_one()))

    def _seen(self, data: Float[Array, " obs"]) -> Float[Array, " obs"]:
        return jnp.where(jnp.isfinite(self.noise_variance), data, 0.0)

    def _noise_or_one(self) -> Float[Array, " obs"]:
        """With their rows of A zero and a variance of one, missing data are a block of S that is the identity."""
        return jnp.where(jnp.isfinite(self.noise_variance), self.noise_variance, 1.0)

    def _observe(self, x: Field) -> Float[Array, " obs"]:
        return self._seen(self.observe(x))

    def _adjoint(self, e: Array) -> Field:
        zero = jax.ShapeDtypeStruct(self.prior.shape, e.dtype)
        return jax.linear_transpose(self.observe, zero)(self._seen(e))[0]

    @full_precision
    def gain(self, innovation: Float[Array, " obs"]) -> Field:
        """Sigma A^T S^-1 innovation."""
        weights = jax.scipy.linalg.cho_solve((self.factor, True), innovation)
        return self.prior.covariance(self._adjoint(weights))

    def mean(self) -> Field:
        return self.gain(self.y)

    @full_precision
    def covariance(self, v: Field) -> Field:
        """Cov[x | y] v."""
        prior_v = self.prior.covariance(v)
        return prior_v - self.gain(self._observe(prior_v))

    @full_precision
    def draw(self, key: Key) -> Field:
        """One exact draw from p(x | y)."""
        k_field, k_noise = jax.random.split(key)
        x = self.prior.draw(k_field)
        noise = jnp.sqrt(self._noise_or_one()) * jax.random.normal(k_noise, self.y.shape)
        return x + self.gain(self.y - self._observe(x) - noise)

    @full_precision
    def log_evidence(self) -> Scalar:
        """log p(y) of the data that are there, a density in the units of `y`."""
        half = jax.scipy.linalg.solve_triangular(self.factor, self.y, lower=True)
        log_det = 2 * jnp.sum(jnp.log(jnp.diag(self.factor)))
        n = jnp.sum(jnp.isfinite(self.noise_variance))
        return -0.5 * (jnp.sum(half**2) + log_det + n * math.log(2 * math.pi))
