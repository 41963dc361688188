"""What windows and halos cost in accuracy, on Gauss-Markov and smoother processes whose exact posterior is known.

    python -m benchmarks.windows --json
    python -m benchmarks.windows --means 24 --json
    python -m benchmarks.windows --guidance fixed_covariance --json

One cell, hourly, 25-hour windows, a datum every six hours or means over 24 side by side (noise 0.3 standard
deviations). The reverse SDE with 32 levels is linear for a Gaussian process, so the law of what it draws is computed,
not sampled: the mean is its answer without noise, the covariance that of its response to each number of the noise. The
loss is the excess of the expected squared error of a draw, over the steps between two data farthest from the ends,
over that of an exact draw (which is twice the posterior variance), and the same of its second differences.
"""

import json
import math
from functools import cache, partial
from itertools import pairwise
from typing import NamedTuple

import click
import jax
import jax.numpy as jnp
import numpy as np

import bayesdownscale as bd
from bayesdownscale.ensemble.guide import GUIDANCE
from bayesdownscale.ensemble.plan import Plan, usual_stride
from bayesdownscale.prior.gaussian import GaussianDenoiser
from bayesdownscale.prior.windows import WindowedDenoiser, window_layout

WINDOW, EVERY, NOISE, LENGTH = 25, 6, 0.3, 289
PROCESSES = {"markov 6 h": (6.0, 0.5), "markov 24 h": (24.0, 0.5), "matern 3/2 12 h": (12.0, 1.5)}


def covariance(length: int, scale: float, nu: float) -> np.ndarray:
    t = np.arange(length)
    return bd.matern(np.abs(t[:, None] - t).astype(float), scale, nu)


def windowed(length: int, stride: int, whole: np.ndarray, sigma: float) -> np.ndarray:
    """The matrix of the windowed denoiser of `length` steps at `sigma`."""
    inner = whole[:WINDOW, :WINDOW]
    matrix = inner @ np.linalg.inv(inner + sigma**2 * np.eye(WINDOW))
    if length == WINDOW:
        return matrix
    starts, chosen, place = window_layout(length, WINDOW, stride)
    full = np.zeros((length, length))
    for t in range(length):
        full[t, starts[chosen[t]] : starts[chosen[t]] + WINDOW] = matrix[place[t]]
    return full


@cache
def covariance_of_windows(length: int, stride: int, process: str):
    """sigma -> V(sigma), the matrix of `WindowedDenoiser.covariance` over `length` steps."""
    field = bd.GaussianField.separable(covariance(WINDOW, *PROCESSES[process]), np.eye(1), (1, 1, 1))
    denoiser = WindowedDenoiser(GaussianDenoiser(field), WINDOW, stride)
    unit = jnp.eye(length)[:, :, None, None, None]
    rows = jax.jit(jax.vmap(lambda v, sigma: denoiser.covariance(v, sigma)[:, 0, 0, 0], (0, None)))
    return lambda sigma: np.asarray(rows(unit, sigma), np.float64)


class Windowed(NamedTuple):
    """D and V of a process (by name, covariance `K`) as matrices at a sigma, for windows with a `stride` or (0) known
    whole; V is that of moment matching, or with `fixed` that of `FixedCovariance`."""

    process: str
    K: np.ndarray
    stride: int
    fixed: bool

    def __call__(self, length: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
        if not self.stride:
            D = self.K @ np.linalg.inv(self.K + sigma**2 * np.eye(length))
            return D, sigma**2 * D
        D = windowed(length, self.stride, self.K, sigma)
        V = covariance_of_windows(length, self.stride, self.process)(sigma) if self.fixed else sigma**2 * D.T
        return D, V  # the symmetric part of a product with the Jacobian is not taken


def guided(prior: tuple[np.ndarray, np.ndarray], H: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """D_y = A x + B y of a Laplace step, from D and V."""
    denoise, V = prior
    gain = V @ H.T @ np.linalg.inv(H @ V @ H.T + NOISE**2 * np.eye(len(H)))
    return denoise - gain @ H @ denoise, gain


def law(length: int, H: np.ndarray, denoiser, sigmas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The draw as x = M y + N z: M (time, datum), and N (time, level, time) for the noise z of each level."""
    eye = np.eye(length)
    M, N = np.zeros((length, len(H))), np.zeros((length, len(sigmas), length))
    N[:, 0] = sigmas[0] * eye
    h, before = -np.diff(np.log(sigmas)), None
    for n, (sigma, low) in enumerate(pairwise(sigmas)):
        A, B = guided(denoiser(length, sigma), H)
        now = (A @ M + B, np.tensordot(A, N, 1))
        decay = np.exp(-2 * h[n])
        ratio = h[n] / (2 * h[n - 1]) if before is not None else 0.0
        last = now if before is None else before
        M = decay * M + (1 - decay) * (now[0] + ratio * (now[0] - last[0]))
        N = decay * N + (1 - decay) * (now[1] + ratio * (now[1] - last[1]))
        N[:, n + 1] += low * np.sqrt(1 - decay) * eye
        before = now
    A, B = guided(denoiser(length, sigmas[-1]), H)
    return A @ M + B, np.tensordot(A, N, 1)


def observe(length: int, first: int = 0, mean: int = 0) -> np.ndarray:
    """Every sixth step of a block that begins at the absolute step `first`, or the means over `mean` steps in it."""
    if not mean:
        return np.eye(length)[-first % EVERY :: EVERY]
    starts = np.arange(-first % mean, length - mean + 1, mean)
    rows = np.zeros((starts.size, length))
    for row, start in zip(rows, starts, strict=True):
        row[start : start + mean] = 1 / mean
    return rows


def expected_error(M, N, K, H, rows, D) -> float:
    """E |D (draw - x)|^2 over `rows` of D, for x from N(0, K), y = H x + noise and the draw M y + N z."""
    S = H @ K @ H.T + NOISE**2 * np.eye(len(H))
    flat = N.reshape(len(N), -1)
    gap = K - M @ H @ K - K @ H.T @ M.T + M @ S @ M.T + flat @ flat.T
    return float(np.mean(np.diag(D @ gap @ D.T)[rows]))


def exact_error(K, H, rows, D) -> float:
    S = H @ K @ H.T + NOISE**2 * np.eye(len(H))
    posterior = K - K @ H.T @ np.linalg.solve(S, H @ K)
    return 2 * float(np.mean(np.diag(D @ posterior @ D.T)[rows]))


def second_differences(length: int) -> np.ndarray:
    D = np.zeros((length, length))
    for t in range(1, length - 1):
        D[t, t - 1 : t + 2] = 1, -2, 1
    return D


def window_losses(denoisers, sigmas: np.ndarray, strides: list[int], mean: int) -> list[dict]:
    """Loss of one long block for each stride, over the loss of the same solver with the exact denoiser."""
    K = denoisers(0).K
    n = K.shape[0]
    H, rows = observe(n, 0, mean), np.arange(n // 3, 2 * n // 3)
    table = []
    for stride in [0, *strides]:
        M, N = law(n, H, denoisers(stride), sigmas)
        row = {"stride": stride, "margin": (WINDOW - stride) / 2 if stride else None}
        row["cost"] = WINDOW / stride if stride else None
        for name, D in (("value", np.eye(n)), ("second_difference", second_differences(n))):
            row[f"loss_{name}"] = expected_error(M, N, K, H, rows, D) / exact_error(K, H, rows, D) - 1
        table.append(row)
    return table


def halo_losses(denoiser: Windowed, sigmas: np.ndarray, stride: int, halos: list[int], mean: int) -> list[dict]:
    """Two spans side by side, each from its own block: how far the two blocks differ at the seam, in posterior
    standard deviations, and the second difference across the seam over that inside one block."""
    K = denoiser.K
    n, span, every = K.shape[0], 144, mean or EVERY
    H = observe(n, 0, mean)
    S = H @ K @ H.T + NOISE**2 * np.eye(len(H))
    sd = np.sqrt(np.diag(K - K @ H.T @ np.linalg.solve(S, H @ K)))[span]
    table = []
    for halo in halos:
        times = np.datetime64(0, "h") + np.timedelta64(every, "h") * np.arange(n // every + 1)
        plan = Plan.of(times, np.timedelta64(1, "h"), WINDOW, 1, np.timedelta64(span, "h"), halo, stride, mean)
        pieces, m = [], plan.block
        extent = np.arange(plan.first(0), plan.first(1) + m)
        for k in (0, 1):
            first = plan.first(k)
            block = law(m, observe(m, first, mean), denoiser, sigmas)
            at = first - extent[0]
            M, N = np.zeros((extent.size, 2 + extent.size // every)), np.zeros((extent.size, len(sigmas), extent.size))
            row = -(-first // every) - -(-extent[0] // every)
            M[at : at + m, row : row + block[0].shape[1]] = block[0]
            N[at : at + m, :, at : at + m] = block[1]
            pieces.append((M, N))
        seam = -extent[0] + plan.span
        big = covariance_of(K, extent.size)
        Hs = np.zeros((pieces[0][0].shape[1], extent.size))
        seen = observe(extent.size, int(extent[0]), mean)
        Hs[: len(seen)] = seen
        S = Hs @ big @ Hs.T + NOISE**2 * np.eye(len(Hs))
        moment = partial(second_moment, S)
        variance = lambda M, N, moment=moment: moment((M, N), (M, N))
        joined = [np.concatenate([pieces[0][i][:seam], pieces[1][i][seam:]]) for i in (0, 1)]
        gap = [(pieces[1][i] - pieces[0][i])[seam] for i in (0, 1)]
        second = lambda a, t: a[t - 1] - 2 * a[t] + a[t + 1]
        at_seam = np.mean([variance(*(second(a, t) for a in joined)) for t in (seam - 1, seam)])
        middle = seam + plan.span // 2  # the same hour of the data and of the windows
        inside = np.mean([variance(*(second(a, t) for a in pieces[1])) for t in (middle - 1, middle)])
        correlation = partial(lag_one, moment)
        table.append({
            "halo": halo,
            "cost_of_halo": m / plan.span,
            "gap_in_posterior_sd": variance(*gap) ** 0.5 / sd,
            "second_difference_ratio": at_seam / inside,
            "autocorrelation_seam": correlation(joined, seam),
            "autocorrelation_inside": correlation(pieces[1], middle),
        })  # fmt: skip
    return table


def second_moment(S: np.ndarray, a: tuple, b: tuple) -> float:
    """E[a b] of two numbers M y + N z, for y from N(0, S) and z white."""
    return float(a[0] @ S @ b[0] + np.sum(a[1] * b[1]))


def lag_one(moment, pieces, t: int) -> float:
    """The correlation of the steps t - 1 and t."""
    before, now = (tuple(a[s] for a in pieces) for s in (t - 1, t))
    return moment(before, now) / (moment(before, before) * moment(now, now)) ** 0.5


def covariance_of(K: np.ndarray, n: int) -> np.ndarray:
    """The stationary covariance of n steps; K holds at least as many lags as matter."""
    lags = np.zeros(n)
    lags[: min(n, len(K))] = K[0, : min(n, len(K))]
    t = np.arange(n)
    return lags[np.abs(t[:, None] - t)]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--levels", default=32, show_default=True)
@click.option("--means", "mean", default=0, show_default=True, help="Hours of a mean that is a datum; 0: snapshots.")
@click.option("--guidance", type=click.Choice(list(GUIDANCE)), default="moment_matching", show_default=True)
def main(as_json: bool, levels: int, mean: int, guidance: str) -> None:
    """Loss against stride, and seams against halo."""
    jax.config.update("jax_platforms", "cpu")
    result: dict = {"benchmark": "windows", "window": WINDOW, "every": mean or EVERY, "mean": mean, "levels": levels,
                    "guidance": guidance, "processes": {}}  # fmt: skip
    for name, (scale, nu) in PROCESSES.items():
        K = covariance(LENGTH, scale, nu)
        largest = float(jnp.sqrt(jnp.linalg.eigvalsh(jnp.asarray(K[:WINDOW, :WINDOW])).max()))
        sigmas = bd.NoiseLevels.covering(largest).levels(levels)
        denoisers = partial(Windowed, name, K, fixed=guidance == "fixed_covariance")
        strides = window_losses(denoisers, sigmas, [1, 3, 6, 12, 18, 24], mean)
        print(f"{name}: loss of value and of second difference, over exact draws")
        for row in strides:
            label = "exact denoiser" if not row["stride"] else f"stride {row['stride']:2d}, cost {row['cost']:5.2f}"
            print(f"  {label:<24} {100 * row['loss_value']:8.2f} % {100 * row['loss_second_difference']:8.2f} %")
        stride = usual_stride(WINDOW, mean or EVERY)
        unit = math.lcm(stride, mean or EVERY)
        halos = halo_losses(denoisers(stride), sigmas, stride, [0, unit, 2 * unit, 3 * unit], mean)
        for row in halos:
            print(
                f"  halo {row['halo']:2d}: gap {row['gap_in_posterior_sd']:.2e} sd, second difference "
                f"{row['second_difference_ratio']:.4f}, autocorrelation {row['autocorrelation_seam']:.4f} at the seam, "
                f"{row['autocorrelation_inside']:.4f} inside",
                flush=True,
            )
        result["processes"][name] = {"strides": strides, "halos": halos}
    if as_json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
