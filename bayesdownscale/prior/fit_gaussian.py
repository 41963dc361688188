"""A Gaussian field estimated from training data: directions from shrunk covariances, variances from unseen weather."""

import jax.numpy as jnp
import numpy as np
from scipy.linalg import eigh
from scipy.optimize import isotonic_regression

from bayesdownscale.data.grid import Grid
from bayesdownscale.prior.gaussian import GaussianField, matern

DENSE_CELLS = 6000  # above this a cells x cells matrix is neither stored nor decomposed
WINDOWS = 8192  # overlapping windows that are used, about


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


def smooth_modes(sample: np.ndarray, shape: tuple, grid: Grid, n_modes: int, shrink: float) -> np.ndarray:
    """The leading eigenvectors (mode, cells) of the spatial covariance `sample` (cells, cells), shrunk."""
    n_var, n_lat, n_lon = shape
    sd = np.sqrt(np.diag(sample))
    correlation = sample / sd[:, None] / sd
    distance = grid.distances_km()
    blocks = correlation.reshape(n_var, n_lat * n_lon, n_var, n_lat * n_lon)
    within = np.mean([blocks[v, :, v] for v in range(n_var)], axis=0)
    cross = np.einsum("asbs->ab", blocks) / (n_lat * n_lon)
    target = np.kron(cross, matern(distance, fit_matern_length(within, distance), 1.5))
    mixed = (1 - shrink) * sample + shrink * target * sd[:, None] * sd
    return eigh(mixed, subset_by_index=[len(sample) - n_modes, len(sample) - 1])[1][:, ::-1].T


def window_starts_in(spans: list[slice], window: int) -> np.ndarray:
    """First steps of the windows inside the contiguous `spans`, thinned evenly to about 8192."""
    starts = np.concatenate([np.arange(span.start, span.stop - window + 1) for span in spans])
    if starts.size == 0:
        longest = max(span.stop - span.start for span in spans)
        raise ValueError(
            f"expected at least {window} consecutive time steps, the window, got {longest}; shorten it or fill gaps"
        )
    return starts[:: max(starts.size // WINDOWS, 1)]


def time_bases(
    series: np.ndarray, starts: np.ndarray, window: int, block: int, correlation: np.ndarray, shrink: float
) -> np.ndarray:
    """Eigenvectors (block, row, row), the leading first, of the covariances of windows (from `starts`) of each `block`
    of modes of `series` (time, mode), shrunk towards modes that are independent and have the autocorrelation matrix
    `correlation`. The rows: modes of a block, time within each mode."""
    vectors = []
    for windows in blocks_of_windows(series, starts, window, [block] * (series.shape[1] // block)):
        sample = windows.T @ windows / starts.size
        in_modes = np.diag(sample).reshape(block, window).mean(1)
        mixed = (1 - shrink) * sample + shrink * np.kron(np.diag(in_modes), correlation)
        vectors.append(np.linalg.eigh(mixed)[1][:, ::-1])
    return np.stack(vectors)


def common_basis(series: np.ndarray, starts: np.ndarray, window: int) -> np.ndarray:
    """Eigenvectors (time, time), the leading first, of the covariance in time pooled over the modes of `series` (time,
    mode), in windows from `starts`."""
    windows = blocks_of_windows(series, starts, window, [1] * series.shape[1])
    return np.linalg.eigh(sum((part.T @ part for part in windows), np.zeros((window, window))))[1][:, ::-1]


def blocks_of_windows(series: np.ndarray, starts: np.ndarray, window: int, sizes: list[int]):
    """For each block, of `sizes`, of modes of `series` (time, mode): the windows from `starts`, (start, mode of block x
    time)."""
    index = starts[:, None] + np.arange(window)
    for size, last in zip(sizes, np.cumsum(sizes), strict=True):
        part = series[:, last - size : last][index]
        yield np.moveaxis(part, 1, 2).reshape(starts.size, -1)


def fit_gaussian(
    anomalies: np.ndarray,
    grid: Grid,
    window: int,
    spans: list[slice],
    *,
    n_modes: int = 200,
    block: int = 1,
    n_tail: int = 0,
    shrink_space: float = 0.4,
    shrink_time: float = 0.6,
    folds: int = 4,
    floor: float = 1e-6,
) -> GaussianField:
    """A Gaussian field of `window` time steps from anomalies (time, variable, lat, lon), standardised.

    A few weeks hold few independent weathers, so both covariances are shrunk towards a smooth target (Ledoit
    and Wolf 2004, doi:10.1016/S0047-259X(03)00096-4): in space by `shrink_space` towards a Matern-3/2
    correlation of fitted length with the cells' own variances and the variables' mean cross-correlation; in
    time by `shrink_time` towards independent modes with the autocorrelation pooled over cells. In time each `block` of
    consecutive modes has one covariance, over modes and time steps: with more than one mode it holds what travels. The
    next `n_tail` modes stand alone, each with variances of its own in one basis in time, that of their mean covariance.

    From these come the directions and their order only. The variance along each is cross-validated: directions are
    computed without each of `folds` contiguous parts of the record and their variance is measured on it, then made to
    decrease with rank (Bartz 2016, arXiv 1611.00798). So neither in-sample eigenvalues, which are too small where it
    matters, for weather that was not seen, nor the shrinkage, which would lend slow weather the fast changes of the
    rest, set a variance. What is left becomes white, the same in all cells and variables: where weather is smoother
    than its cells that is far too much at the smallest scales, unless a tail leaves next to nothing. No variance is
    below `floor` times that of the leading mode. Grids of more than 6000 cells x variables are not shrunk in space, the
    tail not in time, and there are no more modes than the grid, or the record without a fold, has directions.
    Raises `ValueError` where no span holds a window.
    """
    n_time, *shape = anomalies.shape
    flat = anomalies.reshape(n_time, -1).astype(np.float64)
    cells = flat.shape[1]
    most = cells if cells <= DENSE_CELLS else n_time * (folds - 1) // folds
    n_modes = min(n_modes, most)
    block = min(block, n_modes)
    n_modes -= n_modes % block
    n_tail = min(n_tail, most - n_modes)
    sizes = [block] * (n_modes // block) + [1] * n_tail
    starts, fold = window_starts_in(spans, window), np.arange(n_time) * folds // n_time
    lag = np.abs(np.arange(window)[:, None] - np.arange(window))

    def directions(rows: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Modes, the series of their coefficients, bases and that of the tail, from the parts `rows` and windows."""
        if cells <= DENSE_CELLS:
            sample = np.sum([products[f] for f in rows], axis=0) / np.isin(fold, rows).sum()
            modes = smooth_modes(sample, tuple(shape), grid, sum(sizes), shrink_space)
        else:
            modes = np.linalg.svd(flat[np.isin(fold, rows)], full_matrices=False)[2][: sum(sizes)]
        series = flat @ modes.T
        bases = time_bases(series[:, :n_modes], starts, window, block, pooled[lag] / pooled[0], shrink_time)
        return modes, series, bases, common_basis(series[:, n_modes:], starts, window)

    parts = np.arange(folds)
    products = [flat[fold == f].T @ flat[fold == f] for f in parts] if cells <= DENSE_CELLS else []
    pooled = autocovariance(flat, spans, window).sum(0)
    unseen, total = [np.zeros(size * window) for size in sizes], 0.0
    for f in parts:
        first, last = fold[starts], fold[starts + window - 1]
        held_out = _some((first == f) & (last == f), fold[starts + window // 2] == f)
        kept = _some((last < f) | (first > f), fold[starts + window // 2] != f)
        _, series, bases, tail = directions(parts[parts != f], starts[kept])
        blocks = blocks_of_windows(series, starts[held_out], window, sizes)
        for squares, part, basis in zip(unseen, blocks, [*bases, *[tail] * n_tail], strict=True):
            squares += np.sum((part @ basis) ** 2, axis=0)
        total += sum(np.sum(flat[s : s + window] ** 2) for s in starts[held_out])
    # In the units of the whole record, of which the windows hold a part.
    unit = window * np.sum(flat**2) / n_time / total
    of_mode = unit * np.asarray([along.sum() / size for along, size in zip(unseen, sizes, strict=True)])
    left = (window * np.sum(flat**2) / n_time - of_mode @ sizes) / (window * max(cells - sum(sizes), 1))
    modes, _, bases, tail = directions(parts, starts)
    scale = unit * isotonic_regression(of_mode, weights=sizes, increasing=False).x / of_mode
    each = [s * isotonic_regression(along, increasing=False).x for s, along in zip(scale, unseen, strict=True)]
    variances = np.concatenate(each).reshape(-1, window)
    floor *= variances[:block].mean()
    return GaussianField(
        jnp.asarray(modes.reshape(-1, *shape), jnp.float32),
        jnp.asarray(bases, jnp.float32),
        jnp.asarray(np.maximum(variances, floor), jnp.float32),
        jnp.asarray(max(left, floor), jnp.float32),
        jnp.asarray(tail, jnp.float32) if n_tail else None,
    )


def _some(wanted: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """`wanted` where any is, else `otherwise`, else all: of a short record few windows lie apart."""
    return next(mask for mask in (wanted, otherwise, np.ones_like(wanted)) if mask.any())
