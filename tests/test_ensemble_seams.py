"""The seams between jobs: on the exact process a draw in many jobs is as good there as anywhere else."""

import ensembles
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ensembles import EVERY, SIGMA, field, problem

import bayesdownscale as bd
from bayesdownscale.ensemble.noise import KeyedNoise, KeyedPath
from bayesdownscale.ensemble.plan import Plan
from bayesdownscale.ensemble.solve import Solver
from bayesdownscale.prior.windows import WindowedDenoiser

HOUR = np.timedelta64(1, "h")
LENGTH, SPAN, MEMBERS = 33, 8, 1024


def solver(span: int, halo: int, guidance=bd.MomentMatching, stride: int = 4, steps: int = 12) -> Solver:
    seen = ensembles.hours(LENGTH)[::EVERY]
    plan = Plan.of(seen, HOUR, ensembles.WINDOW, MEMBERS, span * HOUR, halo, stride)
    return Solver(problem(LENGTH), plan, steps=steps, seed=0, guidance=guidance)


def draw(solver: Solver, members: int) -> np.ndarray:
    """Standardised means over the four cells: (member, time)."""
    spans = [np.asarray(solver(np.arange(members), k)) for k in range(solver.plan.spans)]
    return (np.concatenate(spans, axis=1)[:, :LENGTH, 0].mean((2, 3)) - 280) / 2


def exact_posterior() -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the cells' mean at every hour, float64, from dense matrices."""
    dt = np.abs(np.arange(LENGTH)[:, None] - np.arange(LENGTH))
    one = np.asarray(field(1).covariance(jnp.ones((1, 1, 2, 2)) / 4), np.float64).mean()
    K = one * np.exp(-dt / ensembles.MEMORY)  # the coarse datum is the mean of all cells (cell areas differ by 0.1 %)
    y = (ensembles.data(LENGTH)[1].values[:, 0, 0, 0].astype(np.float64) - 280) / 2
    seen = np.arange(0, LENGTH, EVERY)[np.isfinite(y)]
    gain = K[:, seen] @ np.linalg.inv(K[np.ix_(seen, seen)] + (SIGMA / 2) ** 2 * np.eye(seen.size))
    return gain @ y[np.isfinite(y)], K - gain @ K[seen]


@pytest.fixture(scope="module", params=[bd.MomentMatching, pytest.param(bd.FixedCovariance, marks=pytest.mark.slow)])
def guidance(request):
    return request.param


@pytest.fixture(scope="module")
def drawn(guidance):
    jax.config.update("jax_disable_most_optimizations", False)  # it draws more than it compiles
    try:
        return draw(solver(SPAN, 8, guidance), MEMBERS)
    finally:
        jax.config.update("jax_disable_most_optimizations", True)


def test_the_law_of_a_member(drawn):
    """33 means and 33 variances against the exact posterior: 5 standard errors, missed by chance with probability
    4e-5, and 3 % of the variance for windows and steps (measured: 2 % at most)."""
    mean, cov = exact_posterior()
    sd = np.sqrt(np.diag(cov))
    z = (drawn - mean) / sd
    assert np.all(np.abs(z.mean(0)) < 5 / MEMBERS**0.5 + 0.03)
    assert np.all(np.abs((z**2).mean(0) - 1) < 5 * (2 / MEMBERS) ** 0.5 + 0.03)


def ratio_to_exact(values: np.ndarray, D: np.ndarray) -> np.ndarray:
    """Second moments of the rows of D x over their exact ones: (member, row)."""
    mean, cov = exact_posterior()
    return (values @ D.T) ** 2 / (np.diag(D @ cov @ D.T) + (D @ mean) ** 2)


def second_differences() -> np.ndarray:
    return np.diff(np.eye(LENGTH), n=2, axis=0)


def seams() -> np.ndarray:
    """The second differences that reach over a seam, and those of the same hours half a span from one."""
    return np.concatenate([np.arange(s - 2, s) for s in range(SPAN, LENGTH - 4, SPAN)])


def differs_at_seams(values: np.ndarray, D: np.ndarray) -> float:
    """Seams against the middles of spans, in standard errors."""
    ratio = ratio_to_exact(values, D)
    gap = ratio[:, seams()].mean(1) - ratio[:, seams() + SPAN // 2].mean(1)
    return float(abs(gap.mean()) / (gap.std(ddof=1) / MEMBERS**0.5))


@pytest.mark.parametrize("what", ["second differences", "autocorrelation"])
def test_seams_look_like_the_inside(drawn, what):
    """Within 4 standard errors: missed by chance with probability 6e-5 each. Sums of neighbours show their
    correlation, once their variances are right."""
    D = second_differences() if what == "second differences" else np.eye(LENGTH)[:-1] + np.eye(LENGTH)[1:]
    assert differs_at_seams(drawn, D) < 4


def test_without_common_noise_seams_show(drawn):
    """The same test finds seams between spans of different members."""
    broken = drawn.copy()
    for first in range(SPAN, LENGTH, 2 * SPAN):
        broken[:, first : first + SPAN] = np.roll(drawn, 1, axis=0)[:, first : first + SPAN]
    assert differs_at_seams(broken, second_differences()) > 6


@pytest.mark.slow
def test_jobs_agree_with_one_job(guidance, drawn):
    """A halo of 8 hours, four times the memory of the process, leaves a gap of a fiftieth of the posterior's standard
    deviation to the draw in one piece: the same noise drives both."""
    whole = draw(solver(LENGTH, 8, guidance), 8)
    gap = np.abs(drawn[:8] - whole) / np.sqrt(np.diag(exact_posterior()[1]))
    assert gap.max() < 0.02


def test_vector_jacobian_products_in_batches(context):
    inner = problem().prior.denoiser.inner
    x, v = jax.random.normal(jax.random.key(0), (2, 21, 1, 2, 2))
    results = []
    for batch in (None, 2):
        denoiser = WindowedDenoiser(inner, ensembles.WINDOW, 4, batch)

        @jax.jit
        def mean_and_product(x, v, denoiser=denoiser):
            mean, vjp = jax.vjp(lambda x: denoiser(x, jnp.asarray(0.7), context(21)), x)
            return mean, vjp(v)[0]

        results.append(mean_and_product(x, v))
    np.testing.assert_allclose(results[0], results[1], atol=1e-6)


def test_noise_belongs_to_its_time_step():
    make = lambda first: KeyedNoise(jax.random.key(0), jnp.asarray(3), first, (6, 1, 2, 2))
    levels = jax.jit(jax.vmap(lambda first: jax.vmap(make(first))(jnp.arange(8))))
    firsts = [*range(0, 600, 6), 98]  # 98 shares steps with 96
    noise = np.asarray(levels(jnp.asarray(firsts)))
    np.testing.assert_array_equal(noise[16, 5, 2:], noise[-1, 5, :4])
    assert not np.array_equal(noise[16, 5], noise[16, 6])
    draws = noise[:-1].reshape(800, 6, 4)
    assert abs(draws.mean()) < 5 / draws.size**0.5
    assert abs(draws.var() - 1) < 5 * (2 / draws.size) ** 0.5
    assert abs(np.mean(draws[:, 1:] * draws[:, :-1])) < 5 / (draws[:, 1:].size) ** 0.5


def test_a_path_is_the_noise_of_its_steps():
    taus = jnp.asarray([-2.0, -1.0, 0.5])
    noise = KeyedNoise(jax.random.key(0), jnp.asarray(0), jnp.asarray(7), (2, 1, 1, 1))
    path = KeyedPath(noise, taus)
    np.testing.assert_allclose(path.evaluate(taus[1], taus[2]), 1.5**0.5 * noise(2), rtol=1e-6)
    assert (path.t0, path.t1) == (-2.0, 0.5)
