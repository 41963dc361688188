"""Every method against an exact posterior with many modes: `python -m benchmarks.mixture [--quick] [--json]`.

The Gaussian mixture of Cardoso et al. 2023 (MCGDiff, arXiv 2308.07983): 25 components with means (-8i, -8j) repeated
d / 2 times, i, j in -2 .. 2, unit covariances and squared normals as weights; y = A x + sigma_y eps, A (d_y, d) with
random orthonormal singular vectors and uniform singular values, sigma_y uniform times the largest. The denoiser is
exact (levels from 10 times the standard deviation along the leading direction down to 0.03), so that a method's own
error is all there is: the sliced Wasserstein-1 distance (10 000 slices) of 1000 draws to 1000 exact draws, beside the
mean distance of 4 further sets of exact draws to the same (`floor`). Means are centred, as standardised fields are.

The kernels of `benchmarks/mixture_methods.py` start at moment matching's draws. R-hat (the largest of
the first two cells and the log-likelihood, of ranks and of values: distant modes of small weight count in the
distance, and hide in ranks) tells where they converged; for SMC the standard error of log p(y) does.
"""

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import click
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from bayesdownscale.prior.mixture import GaussianMixture, MixturePosterior
from benchmarks.mixture_methods import DRAWS, GUIDED, GUIDED_SEEDS, KERNELS, Problem, Run, guided_draws

SLICES, CHUNK, FLOORS = 10_000, 1000, 4
CONVERGED = {"rhat": 1.05, "standard_error": 0.25}
COLUMNS = {
    "method": "<17",
    "seeds": "6d",
    "w_mean": "9.4g",
    "w_median": "9.4g",
    "floor": "7.3f",
    "ratio": "9.4g",
    "ratio_median": "13.4g",
    "converged": "10d",
    "ratio_converged": "16.2f",
    "rhat": "7.2f",
    "ess": "8.0f",
    "evaluations": "12.0f",
    "products": "9.0f",
    "seconds": "8.1f",
}
WIDTHS = {name: int(re.findall(r"\d+", spec)[0]) for name, spec in COLUMNS.items()}


class Case(NamedTuple):
    """A problem with its exact log p(y), and exact draws: those compared with, and more for the floor."""

    problem: Problem
    log_evidence: float
    reference: np.ndarray
    exact: list[np.ndarray]


@partial(jax.jit, static_argnames="n")
def exact_draws(key: Array, problem: Problem, n: int) -> tuple[Array, Array]:
    posterior = MixturePosterior(problem.mixture, problem.matrix, problem.y, problem.variance)
    return jax.vmap(posterior.draw)(jax.random.split(key, n)).reshape(n, -1), posterior.log_evidence()


def make_case(d: int, d_y: int, seed: int) -> Case:
    """The mixture, A, sigma_y and y of one seed."""
    rng = np.random.default_rng([d, d_y, seed])
    weights = rng.normal(size=25) ** 2
    weights /= weights.sum()
    i, j = np.meshgrid(np.arange(-2, 3), np.arange(-2, 3), indexing="ij")
    means = np.tile(-8.0 * np.stack([i, j], -1).reshape(25, 2), (1, d // 2))
    means -= weights @ means
    left, right = np.linalg.qr(rng.normal(size=(d_y, d_y)))[0], np.linalg.qr(rng.normal(size=(d, d_y)))[0]
    singular = np.sort(rng.uniform(size=d_y))[::-1]
    matrix = left @ (singular[:, None] * right.T)
    sd = rng.uniform() * singular[0]
    truth = means[rng.choice(25, p=weights)] + rng.normal(size=d)
    y = matrix @ truth + sd * rng.normal(size=d_y)
    as_float = lambda a: jnp.asarray(a, jnp.float32)
    mixture = GaussianMixture(as_float(weights), as_float(means.reshape(25, 1, 1, 1, d)), jnp.ones(25))
    problem = Problem(mixture, as_float(matrix), as_float(y), jnp.full(d_y, sd**2, jnp.float32))
    draws, log_evidence = exact_draws(jax.random.key(seed), problem, DRAWS * (1 + FLOORS))
    reference, *exact = np.split(np.asarray(draws), 1 + FLOORS)
    return Case(problem, float(log_evidence), reference, exact)


def directions(d: int) -> Iterator[np.ndarray]:
    """Random directions (CHUNK, d), SLICES of them, the same each time."""
    rng = np.random.default_rng(0)
    for _ in range(SLICES // CHUNK):
        chunk = rng.standard_normal((CHUNK, d), dtype=np.float32)
        yield chunk / np.linalg.norm(chunk, axis=1, keepdims=True)


def sliced_wasserstein(reference: np.ndarray, sets: list[np.ndarray]) -> np.ndarray:
    """Wasserstein-1 distance of each of `sets` (n, d) to `reference` (n, d), the mean over random directions;
    infinite for draws that are not finite."""
    total = np.zeros(len(sets))
    for along in directions(reference.shape[1]):
        with np.errstate(invalid="ignore", over="ignore"):
            at, *others = (np.sort(along @ draws.T, axis=1) for draws in (reference, *sets))
        total += [np.abs(other - at).mean() for other in others]
    return np.where([np.isfinite(draws).all() for draws in sets], total / (SLICES // CHUNK), np.inf)


def compare(method: str, cases: list[Case], floors: list[float]) -> dict:
    """One method on all `cases`, at once."""
    keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(1000 + seed)))(jnp.arange(len(cases)))
    k_start, k_run = keys[:, 0], keys[:, 1]
    problems = jax.tree.map(lambda *parts: jnp.stack(parts), *(case.problem for case in cases))
    guide = lambda keys, method: jax.vmap(partial(guided_draws, method=method))(keys, problems)
    if method in GUIDED:
        runs, seconds = timed(lambda: guide(k_run, method))
    else:
        start = guide(k_start, "moment_matching").draws
        runs, seconds = timed(lambda: jax.vmap(KERNELS[method][0])(k_run, problems, start))
    results = []
    for k, case in enumerate(cases):
        run = jax.tree.map(lambda a, k=k: np.asarray(a[k]), runs)
        (distance,) = sliced_wasserstein(case.reference, [run.draws.reshape(DRAWS, -1)])
        result = {"w": float(distance), "seconds": seconds / len(cases)}
        result |= {"evaluations": float(run.evaluations), "products": float(run.products)} | diagnose(run, case)
        limits = [(result[name], limit) for name, limit in CONVERGED.items() if name in result]
        results.append(result | ({"converged": float(all(value < limit for value, limit in limits))} if limits else {}))
    return summarise(method, results, floors)


def timed(function: Callable[[], Run]) -> tuple[Run, float]:
    began = time.monotonic()
    run = jax.block_until_ready(function())
    return run, time.monotonic() - began


def diagnose(run: Run, case: Case) -> dict[str, float]:
    """R-hat and effective sample size of chains; those of particles, and the error of their log p(y)."""
    import arviz as az

    found = {}
    if run.trace.size:
        each = [np.asarray(trace, np.float64) for trace in np.moveaxis(np.asarray(run.trace), -1, 0)]
        found["rhat"] = max(float(az.rhat(trace, method=method)) for trace in each for method in ("rank", "split"))
        found["ess"] = min(float(az.ess(trace, method=method)) for trace in each for method in ("bulk", "mean"))
    if run.evidence.size:
        constant = -0.5 * float(np.sum(np.log(2 * math.pi * np.asarray(case.problem.variance))))
        log_evidence, error, ess = (float(a) for a in run.evidence)
        found |= {"standard_error": error, "ess": ess, "evidence_error": log_evidence + constant - case.log_evidence}
    return found


def summarise(method: str, results: list[dict[str, float]], floors: list[float]) -> dict:
    """Means and medians over seeds; `ratio` is of means, `ratio_converged` that of the seeds that converged."""
    w, floor = np.asarray([r["w"] for r in results], float), np.asarray(floors)
    row = {"method": method, "seeds": len(w), "w_mean": w.mean(), "w_median": np.median(w), "floor": floor.mean()}
    row |= {"ratio": w.mean() / floor.mean(), "ratio_median": np.median(w / floor)}
    if "converged" in results[0]:
        good = np.flatnonzero([r["converged"] for r in results])
        row["converged"] = good.size
        row["ratio_converged"] = w[good].mean() / floor[good].mean() if good.size else None
    for name in ("rhat", "ess", "standard_error", "evidence_error", "evaluations", "products", "seconds"):
        if name in results[0]:
            worst = {"rhat": np.max, "ess": np.min}.get(name, np.median)
            row[name] = float(worst([r[name] for r in results]))
    return row | {"each": [r | {"floor": f} for r, f in zip(results, floor, strict=True)]}


def line(cells: dict) -> str:
    """A row of the table; blank where there is nothing to tell."""
    return " ".join(
        format(cells[name], spec) if cells.get(name) is not None else " " * WIDTHS[name]
        for name, spec in COLUMNS.items()
    )


def finite(value):
    """The same without infinities and NaN, which JSON has not."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [finite(v) for v in value]
    if isinstance(value, str | int | bool) or value is None:
        return value
    return float(value) if np.isfinite(value) else None


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--quick", is_flag=True, help="One seed of d = 8, d_y = 1: moment matching and the slice sampler.")
@click.option("--dims", multiple=True, type=int, default=(8, 80), show_default=True, help="d; 800 is in the paper.")
@click.option("--data", multiple=True, type=int, default=(1, 2, 4), show_default=True, help="d_y.")
@click.option("--only", multiple=True, type=click.Choice([*GUIDED, *KERNELS]), help="Methods to run (default: all).")
@click.option("--seeds", default=GUIDED_SEEDS, show_default=True, help="At most; chains have fewer.")
def main(
    as_json: bool, quick: bool, dims: tuple[int, ...], data: tuple[int, ...], only: tuple[str, ...], seeds: int
) -> None:
    """Guidance and exact kernels on a Gaussian mixture with 25 modes."""
    methods = only or (*GUIDED, *KERNELS)
    if quick:
        methods, dims, data, seeds = only or ("moment_matching", "flow_slice"), (8,), (1,), 1
    numbers = {m: min(seeds, GUIDED_SEEDS if m in GUIDED else KERNELS[m][1]) for m in methods}
    rows = []
    for d, d_y in [(d, d_y) for d in dims for d_y in data]:
        cases = [make_case(d, d_y, seed) for seed in range(max(numbers.values()))]
        floors = [float(sliced_wasserstein(case.reference, case.exact).mean()) for case in cases]
        print(f"d = {d}, d_y = {d_y}")
        print(" ".join(f"{name:{'<' if name == 'method' else '>'}{width}}" for name, width in WIDTHS.items()))
        for method, n in numbers.items():
            rows.append({"d": d, "d_y": d_y, **compare(method, cases[:n], floors[:n])})
            print(line(rows[-1]), flush=True)
    if as_json:
        print(json.dumps(finite({"benchmark": "mixture", "draws": DRAWS, "slices": SLICES, "rows": rows})))


if __name__ == "__main__":
    main()
