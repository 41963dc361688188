"""A Gaussian field estimated from training data: shrunk spatial covariance, shrunk time covariance per mode."""

import jax.numpy as jnp
import numpy as np
from scipy.linalg import eigh
from scipy.optimize import isotonic_regression

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


def leading_modes(flat: np.ndarray, shape: tuple, grid: Grid, n_modes: int, shrink: float) -> np.ndarray:
    """The leading eigenvectors (mode, cells) of the shrunk spatial covariance of `flat` (time, cells)."""
    n_time, cells = flat.shape
    n_var, n_lat, n_lon = shape
    if cells > DENSE_CELLS:
        return np.linalg.svd(flat, full_matrices=False)[2][:n_modes]
    sample = flat.T @ flat / n_time
    sd = np.sqrt(np.diag(sample))
    correlation = sample / sd[:, None] / sd
    distance = grid.distances_km()
    blocks = correlation.reshape(n_var, n_lat * n_lon, n_var, n_lat * n_lon)
    within = np.mean([blocks[v, :, v] for v in range(n_var)], axis=0)
    cross = np.einsum("asbs->ab", blocks) / (n_lat * n_lon)
    target = np.kron(cross, matern(distance, fit_matern_length(within, distance), 1.5))
    mixed = (1 - shrink) * sample + shrink * target * sd[:, None] * sd
    return eigh(mixed, subset_by_index=[cells - n_modes, cells - 1])[1][:, ::-1].T


def fit_gaussian(
    anomalies: np.ndarray,
    grid: Grid,
    window: int,
    spans: list[slice],
    *,
    n_modes: int = 200,
    shrink_space: float = 0.4,
    shrink_time: float = 0.6,
    folds: int = 4,
    floor: float = 1e-6,
) -> GaussianField:
    """A Gaussian field of `window` time steps from anomalies (time, variable, lat, lon), standardised.

    A few weeks hold few independent weathers, so both covariances are shrunk towards a smooth target (Ledoit
    and Wolf 2004, doi:10.1016/S0047-259X(03)00096-4): in space by `shrink_space` towards a Matern-3/2
    correlation of fitted length with the cells' own variances and the variables' mean cross-correlation; in
    time by `shrink_time` towards the autocorrelation pooled over modes. The variance of each of the `n_modes`
    leading modes is cross-validated: modes are computed without each of `folds` contiguous spans and their
    variance is measured on it, then made to decrease with rank (Bartz 2016, arXiv 1611.00798). In-sample
    eigenvalues are too small where it matters, for weather that was not seen. The rest of the variance becomes
    white. No variance is below `floor` times that of the leading mode. Grids of more than 6000 cells x variables are
    not shrunk in space.
    """
    n_time, *shape = anomalies.shape
    flat = anomalies.reshape(n_time, -1).astype(np.float64)
    cells = flat.shape[1]
    n_modes = min(n_modes, cells if cells <= DENSE_CELLS else n_time * (folds - 1) // folds)
    find = lambda rows: leading_modes(flat[rows], tuple(shape), grid, n_modes, shrink_space)
    modes = find(slice(None))
    fold = np.arange(n_time) * folds // n_time
    unseen = np.zeros(n_modes)
    for f in range(folds):
        unseen += np.sum((flat[fold == f] @ find(fold != f).T) ** 2, axis=0) / n_time
    variances = isotonic_regression(unseen, increasing=False).x
    left = (np.sum(flat**2) / n_time - unseen.sum()) / max(cells - n_modes, 1)
    pooled = autocovariance(flat, spans, window).sum(0)
    own = autocovariance(flat @ modes.T, spans, window)
    mixture = (1 - shrink_time) * own / own[:, :1] + shrink_time * pooled / pooled[0]
    lag = np.abs(np.arange(window)[:, None] - np.arange(window))
    in_time, bases = np.linalg.eigh(mixture[:, lag])
    floor *= variances[0]
    return GaussianField(
        jnp.asarray(modes.reshape(-1, *shape), jnp.float32),
        jnp.asarray(bases, jnp.float32),
        jnp.asarray(np.maximum(variances[:, None] * in_time, floor), jnp.float32),
        jnp.asarray(max(left, floor), jnp.float32),
    )
