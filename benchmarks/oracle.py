"""Guided draws against the exact posterior of a Gaussian field: `python -m benchmarks.oracle [--quick] [--json]`.

A field of 9 times x 32 points with covariance exp(-|dt| / 5) x Matern-3/2 of length 6 is observed as means of 8
points at times 0, 4 and 8. Reported: the Gaussian 2-Wasserstein distance of 4096 guided draws to the exact
posterior, divided by the distance of as many exact draws (1 is perfect).
"""

import json
from functools import partial

import click
import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import sqrtm

from bayesdownscale.posterior.guidance import SDA, MomentMatching, SeedRule
from bayesdownscale.posterior.likelihood import LinearGaussianLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context
from bayesdownscale.prior.gaussian import GaussianDenoiser, GaussianField, GaussianPosterior, matern
from bayesdownscale.prior.noise import NoiseLevels
from bayesdownscale.prior.reverse_sde import Integrator, reverse_sample

TIMES, POINTS, BLOCK, EVERY = 9, 32, 8, 4
SHAPE = (TIMES, 1, 1, POINTS)
METHODS = {"moment_matching": partial(MomentMatching, iterations=12), "sda": SDA, "seed_rule": SeedRule}


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


@partial(jax.jit, static_argnames=("method", "steps", "n", "stochasticity", "levels"))
def guided_draws(key, field, y, variance, method, steps, n, stochasticity, levels):
    """`n` guided draws (n, 288), and their cost."""
    likelihood = LinearGaussianLikelihood(observe, y, variance)
    denoiser: AbstractDenoiser = METHODS[method](GaussianDenoiser(field), likelihood)
    context = Context(jnp.zeros(TIMES), jnp.zeros(TIMES))
    solve = Integrator(stochasticity=stochasticity)
    draw = lambda key: reverse_sample(key, denoiser, context, levels.levels(steps), SHAPE, solve)
    return jax.lax.map(draw, jax.random.split(key, n), batch_size=512)


def run(sd: float, settings: list[tuple[str, int, float]], seeds: int, n: int = 4096) -> list[dict]:
    """Every (method, steps, stochasticity) at one noise level: means over `seeds` keys."""
    field = problem()
    levels = NoiseLevels(0.02, 4 * float(jnp.sqrt(field.variances.max())))
    rows = []
    for method, steps, stochasticity in settings:
        ratios = []
        for seed in range(seeds):
            k_truth, k_noise, k_exact, k_guided = jax.random.split(jax.random.key(seed), 4)
            truth = field.draw(k_truth)
            y = observe(truth)
            y = y + sd * jax.random.normal(k_noise, y.shape)
            variance = jnp.full(y.shape, sd**2)
            exact = GaussianPosterior(field, observe, y, variance)
            mean = np.asarray(exact.mean(), np.float64).ravel()
            identity = jnp.eye(mean.size).reshape(-1, *SHAPE)
            cov = np.asarray(jax.vmap(exact.covariance)(identity), np.float64).reshape(mean.size, -1)
            cov = (cov + cov.T) / 2
            root = np.real(sqrtm(cov + 1e-12 * np.eye(mean.size)))
            floor = jax.vmap(exact.draw)(jax.random.split(k_exact, n)).reshape(n, -1)
            draws, cost = guided_draws(k_guided, field, y, variance, method, steps, n, stochasticity, levels)
            distance = wasserstein(np.asarray(draws).reshape(n, -1), mean, cov, root)
            ratios.append(distance / wasserstein(np.asarray(floor), mean, cov, root))
        rows.append(
            {
                "method": method,
                "noise_sd": sd,
                "stochasticity": stochasticity,
                "evaluations": steps,
                "products": float(np.mean(cost.products)),
                "ratio": float(np.mean(ratios)),
                "ratio_sd": float(np.std(ratios)),
            }
        )
    return rows


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--quick", is_flag=True, help="One key, moment matching only; under a minute.")
def main(as_json: bool, quick: bool) -> None:
    """Guided draws against the exact posterior of a Gaussian field."""
    settings = [("moment_matching", 16, 1.0), ("moment_matching", 32, 1.0)]
    if not quick:
        settings += [("moment_matching", 64, 1.0), ("sda", 128, 1.0), ("seed_rule", 256, 0.0)]
    rows = []
    print("method            lambda  noise sd  evaluations  products  W2 / floor")
    for sd in (0.5, 0.1, 0.02):
        for row in run(sd, settings, seeds=1 if quick else 3):
            rows.append(row)
            print(
                f"{row['method']:<17} {row['stochasticity']:6.1f} {row['noise_sd']:9.2f} "
                f"{row['evaluations']:12d} {row['products']:9.1f} {row['ratio']:8.3f} (sd {row['ratio_sd']:.3f})",
                flush=True,
            )
    if as_json:
        finite = [{k: None if v == float("inf") else v for k, v in row.items()} for row in rows]
        print(json.dumps({"benchmark": "oracle", "draws": 4096, "rows": finite}))


if __name__ == "__main__":
    main()
