"""Every solver against exact solutions: orders of convergence, adaptive steps, what they count, what they refuse."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesdownscale.prior.denoiser import AbstractDenoiser, Cost
from bayesdownscale.prior.gaussian import GaussianDenoiser, GaussianField
from bayesdownscale.prior.integrator import Integrator
from bayesdownscale.prior.reverse_sde import reverse_path, reverse_sample, reverse_terms
from bayesdownscale.prior.solver import ExponentialMultistep

LOW, HIGH = 0.02, 50.0
KEY = jax.random.key(0)
VARIANCES = np.asarray([0.1, 1.0, 3.0, 9.0])


@pytest.fixture(scope="module")
def cells():
    """Four cells of different variance."""
    variances = jnp.asarray(VARIANCES[:, None], jnp.float32)
    return GaussianField(jnp.eye(4).reshape(4, 1, 1, 4), jnp.ones((4, 1, 1)), variances, jnp.zeros(()))


@pytest.fixture(scope="module")
def start(cells):
    return HIGH * jax.random.normal(KEY, cells.shape)


def relative_error(x, start):
    """Against the ODE's solution: every cell scales with its standard deviation."""
    want = np.asarray(start, np.float64) * np.sqrt((VARIANCES + LOW**2) / (VARIANCES + HIGH**2))
    return np.linalg.norm(x - want) / np.linalg.norm(want)


@eqx.filter_jit
def end_of(solver, terms, start, t0, t1, steps):
    """The solution at t1 by a number of equal steps, compiled once for all numbers."""
    return diffrax.diffeqsolve(terms, solver, t0, t1, (t1 - t0) / steps, start, max_steps=1024).ys[0]


ODE_SOLVERS = [  # the steps between which the order is read: small enough to see it, large enough for float32
    (ExponentialMultistep(), 2, 32),
    (diffrax.Euler(), 1, 128),
    (diffrax.Heun(), 2, 64),
    (diffrax.Bosh3(), 3, 32),
    (diffrax.Dopri5(), 5, 16),
    (diffrax.Tsit5(), 5, 8),
]
name = lambda value: type(value).__name__ if isinstance(value, diffrax.AbstractSolver) else None


@pytest.mark.parametrize(("solver", "order", "steps"), ODE_SOLVERS, ids=name)
def test_order_of_the_ode(solver, order, steps, cells, start, context):
    """The slope of log error against log steps; methods of order five are seen before they settle, up to one
    above their order."""
    terms = reverse_terms(GaussianDenoiser(cells), context(1), 0.0, None)
    solve = lambda n: end_of(solver, terms, start, -np.log(HIGH), -np.log(LOW), jnp.asarray(n))
    coarse, fine = (relative_error(solve(n), start) for n in (steps, 2 * steps))
    slope = np.log2(coarse / fine)
    assert order - 0.2 < slope < order + (0.3 if order < 5 else 1.3)
    assert solver.order(None) == order


class Table(diffrax.AbstractBrownianPath):
    """One Brownian path for all step sizes: its values and its integrals from the start at 2^k + 1 times."""

    shape: tuple[int, ...] = eqx.field(static=True)
    start: jax.Array
    cell: jax.Array
    values: jax.Array
    integrals: jax.Array
    levy_area = diffrax.SpaceTimeLevyArea
    t0 = t1 = None

    def __init__(self, key, start, end, n, shape):
        self.shape, self.start, self.cell = shape, jnp.asarray(start), jnp.asarray((end - start) / n)
        w, h = jnp.sqrt(self.cell) * jax.random.normal(key, (2, n, *shape))
        ends = jnp.cumsum(w, 0)
        pieces = self.cell * (ends - w / 2 + h / jnp.sqrt(12.0))
        from_zero = lambda a: jnp.concatenate([jnp.zeros((1, *shape)), a])
        self.values, self.integrals = from_zero(ends), from_zero(jnp.cumsum(pieces, 0))

    def evaluate(self, t0, t1=None, left=True, use_levy=False):
        assert t1 is not None
        i, j = (jnp.round((t - self.start) / self.cell).astype(int) for t in (t0, t1))
        w = self.values[j] - self.values[i]
        if not use_levy:
            return w
        area = (self.integrals[j] - self.integrals[i]) / (t1 - t0) - self.values[i] - w / 2
        return diffrax.SpaceTimeLevyArea(dt=t1 - t0, W=w, H=area)


@pytest.fixture(scope="module")
def sde_ends(context):
    """Where 2000 cells come out along one Brownian path, by a solver in 32 and 64 steps, and by ShARK in 1024."""
    start, end, shape = -np.log(10.0), -np.log(0.1), (1, 1, 1, 2000)
    path = Table(jax.random.key(1), start, end, 1024, shape)
    mode = jnp.zeros((1, 1, 1, 2000)).at[0, 0, 0, 0].set(1.0)
    white = GaussianField(mode, jnp.ones((1, 1, 1)), jnp.ones((1, 1)), jnp.ones(()))
    x0 = 10 * jax.random.normal(KEY, shape)

    def ends(solver, lam):
        terms = reverse_terms(GaussianDenoiser(white), context(1), lam, path)
        solve = lambda solver, n: end_of(solver, terms, x0, start, end, jnp.asarray(n))
        return [solve(solver, n) for n in (32, 64)], solve(diffrax.ShARK(), 1024)

    return ends


@pytest.mark.parametrize(
    ("solver", "lam", "lowest", "highest"),
    [
        (ExponentialMultistep(), 1.0, 0.9, 1.1),
        (ExponentialMultistep(), 0.3, 0.9, 1.1),
        (diffrax.Euler(), 1.0, 0.9, 1.1),
        (diffrax.EulerHeun(), 1.0, 0.9, 1.1),
        (diffrax.Heun(), 1.0, 0.9, 1.1),
        (diffrax.SEA(), 1.0, 0.9, 1.1),
        (diffrax.SRA1(), 1.0, 1.5, 2.4),
        (diffrax.ShARK(), 1.0, 1.5, 2.4),
        (diffrax.ShARK(), 0.3, 1.5, 2.4),
    ],
    ids=name,
)
def test_strong_order_of_the_sde(solver, lam, lowest, highest, sde_ends):
    """Root mean square distance to the fine solution on the same path. The noise is additive, so Euler and Heun
    too are of order one; methods of order 3/2 are better than that on a linear drift."""
    (coarse, fine), want = sde_ends(solver, lam)
    slope = np.log2(np.linalg.norm(coarse - want) / np.linalg.norm(fine - want))
    assert lowest < slope < highest


class Counting(AbstractDenoiser):
    """Counts its evaluations on the host."""

    inner: AbstractDenoiser
    seen: list = eqx.field(static=True)

    def evaluate(self, x_sigma, sigma, context):
        jax.debug.callback(lambda: self.seen.append(0))
        return self.inner.evaluate(x_sigma, sigma, context)


@pytest.mark.parametrize("solver", [diffrax.Heun(), diffrax.Tsit5()], ids=name)
def test_adaptive_steps_of_the_ode(solver, cells, start, context):
    """A tolerance a hundredfold smaller costs more and errs at least tenfold less; the errors of few steps add up."""
    solve = lambda tolerance: reverse_path(
        None,
        start,
        GaussianDenoiser(cells),
        context(1),
        np.geomspace(HIGH, LOW, 17),
        Integrator(solver, 0.0, tolerance),
    )
    (loose, cheap), (tight, dear) = (solve(tolerance) for tolerance in (1e-2, 1e-4))
    assert relative_error(tight, start) < min(relative_error(loose, start) / 10, 1e-3)
    assert cheap.evaluations < dear.evaluations < 1000


def test_adaptive_steps_of_the_sde(cells, start, context):
    """Both tolerances meet the same Brownian path (ends of different ones differ by 140 %), and what they cost is
    counted."""
    seen = []
    solve = lambda tolerance: reverse_path(
        jax.random.key(1),
        start,
        Counting(GaussianDenoiser(cells), seen),
        context(1),
        np.geomspace(HIGH, LOW, 17),
        Integrator(diffrax.ShARK(), 1.0, tolerance),
    )
    (rough, cheap), (fine, dear) = (solve(tolerance) for tolerance in (0.1, 0.01))
    jax.effects_barrier()
    assert jnp.linalg.norm(rough - fine) < 0.1 * jnp.linalg.norm(fine)
    assert cheap.evaluations < dear.evaluations < 1000
    assert cheap.evaluations + dear.evaluations == len(seen)


@pytest.mark.parametrize(
    ("integrator", "levels", "evaluations"),
    [
        (Integrator(diffrax.Euler(), 0.0), 9, 9),
        (Integrator(diffrax.Heun(), 0.0), 9, 17),
        (Integrator(diffrax.Tsit5(), 0.0), 9, 50),
        (Integrator(diffrax.Heun(), 1.0), 9, 17),
        (Integrator(diffrax.ShARK()), 9, 17),
        (Integrator(diffrax.Tsit5(), 0.0, 0.01), 2, None),
    ],
    ids=lambda value: name(value.solver) if isinstance(value, Integrator) else None,
)
def test_every_evaluation_is_counted(integrator, levels, evaluations, cells, context):
    """Against a count on the host. Two levels: the first step tried is far too long, and is rejected repeatedly."""
    seen = []
    denoiser, sigmas = Counting(GaussianDenoiser(cells), seen), np.geomspace(HIGH, LOW, levels)
    x, cost = reverse_sample(KEY, denoiser, context(1), sigmas, cells.shape, integrator)
    jax.effects_barrier()
    assert cost.evaluations == len(seen)
    assert evaluations in (None, len(seen))
    assert bool(jnp.all(jnp.isfinite(x)))
    assert cost.products == cost.iterations == -1


def test_costs_not_counted_stay_so():
    total = Cost.of(3, -1, 0) + Cost.of(1, 2, 4)
    assert tuple(map(int, total)) == (4, -1, 4)


def test_traced_levels_and_batches(cells, start, context):
    """Levels may be traced; paths in a batch are what they are alone, and cost as much."""
    integrator, sigmas = Integrator(diffrax.Tsit5(), 0.0, 1e-3), jnp.geomspace(HIGH, LOW, 3)
    solve = lambda x, sigmas: reverse_path(None, x, GaussianDenoiser(cells), context(1), sigmas, integrator)
    starts = jnp.stack([start, 0.01 * start])
    together, cost = jax.jit(jax.vmap(solve, (0, None)))(starts, sigmas)
    alone = [jax.jit(solve)(x, sigmas) for x in starts]
    np.testing.assert_allclose(together, jnp.stack([x for x, _ in alone]), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(cost.evaluations, [cost.evaluations for _, cost in alone])


class Broken(AbstractDenoiser):
    def evaluate(self, x_sigma, sigma, context):
        return jnp.full_like(x_sigma, jnp.nan), Cost.of(evaluations=1)


def test_failures_are_nan_and_soon(cells, start, context):
    integrator = Integrator(diffrax.Tsit5(), 0.0, 0.01)
    x, cost = reverse_path(None, start, Broken(), context(1), np.geomspace(HIGH, LOW, 9), integrator)
    assert bool(jnp.all(jnp.isnan(x)))
    assert cost.evaluations < 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ExponentialMultistep(), 1.5), "expected a stochasticity from 0 .ODE. to 1 .SDE., got 1.5"),
        ((diffrax.Tsit5(), 0.0, 0.0), "expected a positive tolerance, or None for fixed steps, got 0.0"),
        ((diffrax.Kvaerno5(), 0.0), "explicit Runge-Kutta solver of diffrax, got Kvaerno5"),
        ((diffrax.HalfSolver(diffrax.Euler()), 0.0), "got HalfSolver"),
        ((diffrax.ShARK(), 0.0), "expected a solver of ODEs for stochasticity 0, got ShARK; try diffrax.Heun"),
        ((diffrax.Tsit5(), 0.5), "expected a solver of SDEs for stochasticity 0.5, got Tsit5; try diffrax.ShARK"),
        ((ExponentialMultistep(), 1.0, 0.1), "estimates its error .* got ExponentialMultistep; try diffrax.ShARK"),
        ((diffrax.Euler(), 0.0, 0.1), "estimates its error for adaptive steps, got Euler; try diffrax.Tsit5"),
        ((diffrax.SEA(), 1.0, 0.1), "estimates its error for adaptive steps, got SEA"),
    ],
)
def test_what_does_not_fit_is_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        Integrator(*arguments)


def test_paths_refuse_what_they_cannot_do(cells, context):
    path = lambda key, sigmas: reverse_path(
        key, jnp.ones(cells.shape), GaussianDenoiser(cells), context(1), sigmas, Integrator()
    )
    with pytest.raises(ValueError, match="expected a key for stochasticity"):
        path(None, np.geomspace(HIGH, LOW, 3))
    with pytest.raises(ValueError, match="expected decreasing noise levels"):
        path(KEY, np.geomspace(LOW, HIGH, 3))
