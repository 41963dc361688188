"""Guided draws against exact posteriors of Gaussian fields: `python -m benchmarks.oracle [--quick] [--json]`.

Small: 9 times x 32 points, covariance exp(-|dt| / 5) x Matern-3/2 of length 6, observed as means of 8 points at times
0, 4 and 8. Reported: the Gaussian 2-Wasserstein distance of 4096 guided draws to the exact posterior over that of as
many exact draws (1 is perfect). Space-time (`--space-time`): 13 hours x 32 x 32 cells, exp(-|dt| / 8) x exponential of
length 8, observed as means of 8 x 8 cells every 6 hours; sliced Wasserstein-1 distance (512 slices) of 512 draws to
as many exact ones, over that between two sets of exact draws. Every guidance method, and the default with other
solvers. `fixed_covariance` does not get the exact covariance: it is measured on 500 draws of the prior, as a trained
prior measures it on held-out weather. Cost: evaluations and vector-Jacobian products a draw.
"""

import json
from functools import partial

import click
import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.linalg import sqrtm

from bayesdownscale._types import Field, Key, Scalar
from bayesdownscale.posterior.guidance import DPS, SDA, TMPD, FixedCovariance, MomentMatching, PiGDM, SeedRule
from bayesdownscale.posterior.likelihood import LinearGaussianLikelihood
from bayesdownscale.prior.denoiser import AbstractSpreadDenoiser, Context, Cost
from bayesdownscale.prior.gaussian import GaussianField, GaussianPosterior, matern, shrunk
from bayesdownscale.prior.integrator import Integrator
from bayesdownscale.prior.noise import NoiseLevels
from bayesdownscale.prior.reverse_sde import reverse_sample

TIMES, POINTS, BLOCK, EVERY = 9, 32, 8, 4
SHAPE = (TIMES, 1, 1, POINTS)
METHODS = {
    "moment_matching": partial(MomentMatching, iterations=12),
    "fixed_covariance": FixedCovariance,
    "tmpd": TMPD,
    "pigdm": PiGDM,
    "sda": SDA,
    "dps": partial(DPS, zeta=0.1),
    "seed_rule": SeedRule,
}
SOLVERS = {
    "default": Integrator(),
    "lambda 0.75": Integrator(stochasticity=0.75),
    "lambda 0": Integrator(stochasticity=0.0),
    "Heun": Integrator(diffrax.Heun(), 0.0),
    "Tsit5 1e-2": Integrator(diffrax.Tsit5(), 0.0, 1e-2),
    "SEA": Integrator(diffrax.SEA(), 1.0),
    "ShARK": Integrator(diffrax.ShARK(), 1.0),
    "ShARK 1e-1": Integrator(diffrax.ShARK(), 1.0, 1e-1),
}
MAIN = [("moment_matching", "default", 16), ("moment_matching", "default", 32), ("fixed_covariance", "default", 32)]
OTHERS = [
    ("moment_matching", "lambda 0.75", 16),
    ("moment_matching", "lambda 0.75", 32),
    ("moment_matching", "default", 64),
    ("fixed_covariance", "default", 16),
    ("moment_matching", "lambda 0", 64),
    ("moment_matching", "Heun", 64),
    ("moment_matching", "Tsit5 1e-2", 32),
    ("moment_matching", "SEA", 64),
    ("moment_matching", "ShARK", 64),
    ("moment_matching", "ShARK 1e-1", 32),
    ("tmpd", "default", 32),
    ("pigdm", "default", 32),
    ("sda", "default", 128),
    ("dps", "default", 128),
    ("seed_rule", "lambda 0", 256),
]


class MeasuredDenoiser(AbstractSpreadDenoiser):
    """The exact denoiser of a Gaussian field that knows its covariance from measurements only: `ratio` to theory of
    each mode at `levels`."""

    field: GaussianField
    log_levels: Float[Array, " level"]
    ratio: Float[Array, "level mode"]

    @staticmethod
    def measure(field: GaussianField, levels: NoiseLevels, draws: int = 500) -> "MeasuredDenoiser":
        sigmas = jnp.geomspace(levels.sigma_min, levels.sigma_max, 12)

        def error(sigma: Scalar, key: Key):
            k_x, k_noise = jax.random.split(key)
            x = field.draw(k_x)
            error = x - field.denoise(x + sigma * jax.random.normal(k_noise, x.shape), sigma)
            theory = shrunk(field.variances, sigma)
            return jnp.mean(field.coefficients(error) ** 2 / jnp.maximum(theory, 1e-9), axis=1)

        keys = jax.random.split(jax.random.key(99), draws)
        at = lambda sigma: jnp.mean(jax.lax.map(lambda key: error(sigma, key), keys, batch_size=50), axis=0)
        return MeasuredDenoiser(field, jnp.log(sigmas), jax.lax.map(at, sigmas))

    def evaluate(self, x_sigma: Field, sigma: Scalar, context: Context) -> tuple[Field, Cost]:
        return self.field.denoise(x_sigma, sigma), Cost.of(evaluations=1)

    def _variances(self, sigma: Scalar) -> Float[Array, "mode time"]:
        place = jnp.interp(jnp.log(sigma), self.log_levels, jnp.arange(self.log_levels.size, dtype=jnp.float32))
        low = jnp.clip(place.astype(int), 0, self.log_levels.size - 2)
        ratio = self.ratio[low] + (place - low) * (self.ratio[low + 1] - self.ratio[low])
        return ratio[:, None] * shrunk(self.field.variances, sigma)

    def covariance(self, v: Field, sigma: Scalar) -> Field:
        return self.field.scale(self._variances(sigma), jnp.zeros(()), v)

    def draw_error(self, key: Key, sigma: Scalar, shape: tuple[int, int, int, int]) -> Field:
        return self.field.scale(jnp.sqrt(self._variances(sigma)), jnp.zeros(()), jax.random.normal(key, shape))


def problem() -> GaussianField:
    dt = np.abs(np.arange(TIMES)[:, None] - np.arange(TIMES))
    dx = np.abs(np.arange(POINTS)[:, None] - np.arange(POINTS))
    return GaussianField.separable(np.exp(-dt / 5), matern(dx, 6.0, 1.5), SHAPE[1:])


def observe(x):
    """Means of blocks at the observed times: (9, 1, 1, 32) to (12,)."""
    return x[::EVERY, 0, 0].reshape(-1, POINTS // BLOCK, BLOCK).mean(-1).ravel()


def wasserstein(draws: np.ndarray, mean: np.ndarray, cov: np.ndarray, root: np.ndarray) -> float:
    """Gaussian 2-Wasserstein distance of draws (n, d) to N(mean, cov), root = cov^(1/2); infinite for draws that
    are not finite."""
    if not np.isfinite(draws).all():
        return float("inf")
    draws = draws.astype(np.float64)
    sample_mean, sample_cov = draws.mean(0), np.cov(draws.T)
    cross = np.linalg.eigvalsh(root @ sample_cov @ root)
    gap = np.trace(cov) + np.trace(sample_cov) - 2 * np.sum(np.sqrt(np.clip(cross, 0, None)))
    return float(np.sqrt(np.sum((sample_mean - mean) ** 2) + max(gap, 0.0)))


@eqx.filter_jit
def guided_draws(key, denoiser, observe, y, variance, method, levels, integrator, steps, n, batch):
    """`n` guided draws (n, cells), and their cost."""
    guided = METHODS[method](denoiser, LinearGaussianLikelihood(observe, y, variance))
    times = denoiser.field.shape[0]
    context = Context(jnp.zeros(times), jnp.zeros(times))
    shape, sigmas = denoiser.field.shape, levels.levels(steps)
    draw = lambda key: reverse_sample(key, guided, context, sigmas, shape, integrator)
    x, cost = jax.lax.map(draw, jax.random.split(key, n), batch_size=batch)
    return x.reshape(n, -1), cost


def row(method: str, solver: str, sd: float, ratios: list[float], cost: Cost) -> dict:
    """One line of the table, printed."""
    evaluations, products = (float(np.mean(c)) for c in (cost.evaluations, cost.products))
    result = {"method": method, "solver": solver, "noise_sd": sd, "evaluations": evaluations, "products": products}
    result |= {"ratio": float(np.mean(ratios)), "ratio_sd": float(np.std(ratios)), "keys": len(ratios)}
    print(
        f"{method:<17} {solver:<12} {sd:6.2f} {evaluations:12.1f} {products:9.1f} {result['ratio']:9.3f} "
        f"(sd {result['ratio_sd']:.3f}, {len(ratios)} keys)",
        flush=True,
    )
    return result


def small(sd: float, settings: list[tuple[str, str, int]], keys: int, n: int = 4096) -> list[dict]:
    """Every (method, solver, steps) at one noise level on the small problem."""
    field = problem()
    levels = NoiseLevels.covering(float(jnp.sqrt(field.variances.max())))
    denoiser = MeasuredDenoiser.measure(field, levels)
    rows = []
    for method, solver, steps in settings:
        ratios, cost = [], Cost.of()
        for seed in range(keys):
            k_truth, k_noise, k_exact, k_guided = jax.random.split(jax.random.key(seed), 4)
            y = observe(field.draw(k_truth))
            y = y + sd * jax.random.normal(k_noise, y.shape)
            variance = jnp.full(y.shape, sd**2)
            exact = GaussianPosterior(field, observe, y, variance)
            mean = np.asarray(exact.mean(), np.float64).ravel()
            identity = jnp.eye(mean.size).reshape(-1, *SHAPE)
            cov = np.asarray(jax.vmap(exact.covariance)(identity), np.float64).reshape(mean.size, -1)
            cov = (cov + cov.T) / 2
            root = np.real(sqrtm(cov + 1e-12 * np.eye(mean.size)))
            floor = jax.vmap(exact.draw)(jax.random.split(k_exact, n)).reshape(n, -1)
            arguments = (observe, y, variance, method, levels, SOLVERS[solver], steps, n, 512)
            draws, cost = guided_draws(k_guided, denoiser, *arguments)
            distance = wasserstein(np.asarray(draws), mean, cov, root)
            ratios.append(distance / wasserstein(np.asarray(floor), mean, cov, root))
        rows.append(row(method, solver, sd, ratios, cost))
    return rows


def blocks(x: Field) -> Float[Array, " obs"]:
    """Means of 8 x 8 cells at hours 0, 6 and 12: (13, 1, 32, 32) to (48,)."""
    return x[::6, 0].reshape(3, 4, 8, 4, 8).mean((2, 4)).ravel()


def sliced(a: np.ndarray, b: np.ndarray, slices: int = 512) -> float:
    """Sliced Wasserstein-1 distance of two sets of as many draws (n, cells)."""
    if not np.isfinite(a).all():
        return float("inf")
    directions = np.random.default_rng(0).normal(size=(a.shape[1], slices))
    directions /= np.linalg.norm(directions, axis=0)
    one, other = (np.sort(x @ directions.astype(np.float32), axis=0) for x in (a, b))
    return float(np.abs(one - other).mean())


def space_time(sd: float, settings: list[tuple[str, str, int]], keys: int, n: int = 512) -> list[dict]:
    """The same on a field of 13 x 32 x 32."""
    dt = np.abs(np.arange(13)[:, None] - np.arange(13))
    place = np.stack(np.meshgrid(np.arange(32), np.arange(32), indexing="ij"), -1).reshape(-1, 2)
    distance = np.linalg.norm(place[:, None] - place[None], axis=-1)
    field = GaussianField.separable(np.exp(-dt / 8), np.exp(-distance / 8), (1, 32, 32))
    levels = NoiseLevels.covering(float(jnp.sqrt(field.variances.max())))
    denoiser = MeasuredDenoiser.measure(field, levels)
    rows = []
    for method, solver, steps in settings:
        ratios, cost = [], Cost.of()
        for seed in range(keys):
            k_truth, k_noise, k_exact, k_guided = jax.random.split(jax.random.key(seed), 4)
            y = blocks(field.draw(k_truth))
            y = y + sd * jax.random.normal(k_noise, y.shape)
            variance = jnp.full(y.shape, sd**2)
            exact = GaussianPosterior(field, blocks, y, variance)
            several = jax.lax.map(exact.draw, jax.random.split(k_exact, 2 * n), batch_size=32)
            one, other = np.split(np.asarray(several).reshape(2 * n, -1), 2)
            arguments = (blocks, y, variance, method, levels, SOLVERS[solver], steps, n, 32)
            draws, cost = guided_draws(k_guided, denoiser, *arguments)
            ratios.append(sliced(np.asarray(draws), other) / sliced(one, other))
        rows.append(row(method, solver, sd, ratios, cost))
    return rows


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--quick", is_flag=True, help="One key, moment matching only; about a minute.")
@click.option("--space-time", "large", is_flag=True, help="The field of 13 x 32 x 32 instead.")
@click.option("--main-only", is_flag=True, help="The default method and the forward-only one, not the others.")
@click.option("--keys", default=5, show_default=True)
def main(as_json: bool, quick: bool, large: bool, main_only: bool, keys: int) -> None:
    """Guided draws against the exact posterior of a Gaussian field."""
    rows = []
    print("method            solver       noise   evaluations  products  distance / floor")
    for sd in (0.1,) if large else (0.5, 0.1, 0.02):
        if large:
            rows += space_time(sd, MAIN, keys)
            continue
        rows += small(sd, MAIN[:2] if quick else MAIN, 1 if quick else keys)
        if not (quick or main_only):
            rows += small(sd, OTHERS, 1)
    if as_json:
        finite = [{k: None if v == float("inf") else v for k, v in row.items()} for row in rows]
        print(json.dumps({"benchmark": "oracle", "rows": finite}))


if __name__ == "__main__":
    main()
