"""A Gaussian field estimated from training data: shrunk spatial covariance, shrunk time covariance per mode."""

import jax.numpy as jnp
import numpy as np
from scipy.linalg import eigh

from bayesdownscale.data.grid import Grid
from bayesdownscale.prior.gaussian import GaussianField, matern

DENSE_CELLS = 6000  # above this a cells x cells matrix is neither stored nor decomposed


def fit_matern_length(correlation: np.ndarray, distance: np.ndarray) -> float:
    """The Matern-3/2 length [km] closest to an empirical correlation matrix, in least squares over pairs of
    cells nearer than half the domain."""
    near = distance < distance.max() / 2
    lengths = np.geomspace(max(distance[distance > 0].min(), 1.0), 2 * distance.max(), 40)
    errors = [np.mean((matern(distance[near], length, 1.5) - correlation[near]) ** 2) for length in lengths]
    return float(lengths[int(np.argmin(errors))])


def autocovariance(series: np.ndarray, spans: list[slice], lags: int) -> np.ndarray:
    """Autocovariance (mode, lags) of `series` (time, mode), with products inside the contiguous `spans` only
    and one divisor for all lags, so that the Toeplitz matrices it fills are positive semi-definite."""
    total = np.zeros((series.shape[1], lags))
    for span in spans:
        part = series[span]
        for lag in range(min(lags, part.shape[0])):
            total[:, lag] += np.sum(part[lag:] * part[: part.shape[0] - lag], axis=0)
    return total / series.shape[0]


def fit_gaussian(
    anomalies: np.ndarray,
    grid: Grid,
    window: int,
    spans: list[slice],
    *,
    n_modes: int = 200,
    shrink_space: float = 0.4,
    shrink_time: float = 0.9,
) -> GaussianField:
    """A Gaussian field of `window` time steps from anomalies (time, variable, lat, lon), standardised.

    A few weeks hold few independent weathers, so both covariances are shrunk towards a smooth target (Ledoit
    and Wolf 2004, doi:10.1016/S0047-259X(03)00096-4): in space by `shrink_space` towards a Matern-3/2
    correlation of fitted length with the cells' own variances and the variables' mean cross-correlation; in
    time by `shrink_time` towards the autocorrelation pooled over modes. `n_modes` leading modes are kept, the
    rest of the variance becomes white. Grids of more than 6000 cells x variables are not shrunk in space.
    """
    n_time, n_var, n_lat, n_lon = anomalies.shape
    flat = anomalies.reshape(n_time, -1).astype(np.float64)
    cells = flat.shape[1]
    n_modes = min(n_modes, cells)
    if cells <= DENSE_CELLS:
        sample = flat.T @ flat / n_time
        sd = np.sqrt(np.diag(sample))
        correlation = sample / sd[:, None] / sd
        distance = grid.distances_km()
        blocks = correlation.reshape(n_var, n_lat * n_lon, n_var, n_lat * n_lon)
        within = np.mean([blocks[v, :, v] for v in range(n_var)], axis=0)
        cross = np.einsum("asbs->ab", blocks) / (n_lat * n_lon)
        target = np.kron(cross, matern(distance, fit_matern_length(within, distance), 1.5))
        mixed = (1 - shrink_space) * sample + shrink_space * target * sd[:, None] * sd
        total = np.trace(mixed)
        variances, modes = eigh(mixed, subset_by_index=[cells - n_modes, cells - 1])
        variances, modes = variances[::-1], modes[:, ::-1].T
    else:
        n_modes = min(n_modes, n_time)
        _, singular, modes = np.linalg.svd(flat, full_matrices=False)
        total = np.sum(singular**2) / n_time
        variances, modes = singular[:n_modes] ** 2 / n_time, modes[:n_modes]
    pooled = autocovariance(flat, spans, window).sum(0)
    own = autocovariance(flat @ modes.T, spans, window)
    mixture = (1 - shrink_time) * own / own[:, :1] + shrink_time * pooled / pooled[0]
    lag = np.abs(np.arange(window)[:, None] - np.arange(window))
    in_time, bases = np.linalg.eigh(mixture[:, lag])
    floor = 1e-6 * variances[0]
    left = max(total - variances.sum(), 0.0) / max(cells - n_modes, 1)
    return GaussianField(
        jnp.asarray(modes.reshape(-1, n_var, n_lat, n_lon), jnp.float32),
        jnp.asarray(bases, jnp.float32),
        jnp.asarray(np.maximum(variances[:, None] * in_time, floor), jnp.float32),
        jnp.asarray(max(left, floor), jnp.float32),
    )
