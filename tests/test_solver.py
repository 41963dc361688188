"""The reverse SDE and its own solver against closed forms: its formula, the law of its draws, derivatives."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesdownscale.prior.denoiser import AbstractDenoiser
from bayesdownscale.prior.gaussian import GaussianDenoiser, GaussianField
from bayesdownscale.prior.reverse_sde import DEFAULT, Integrator, reverse_sample, reverse_terms
from bayesdownscale.prior.solver import ExponentialMultistep

LOW, HIGH = 0.02, 50.0
KEY = jax.random.key(0)
ODE = Integrator(stochasticity=0.0)


def start_of(key, shape, sigma):
    """Where `reverse_sample` starts."""
    return sigma * jax.random.normal(jax.random.split(key)[0], shape)


def flow(field, x, sigma_0, sigma_1):
    """The probability-flow ODE of a Gaussian field, solved: each eigen-direction scales with the marginal sd."""
    return field.spectral(lambda v: jnp.sqrt((v + sigma_1**2) / (v + sigma_0**2)), x)


def recursion(sigmas, variance, lam, x, xi):
    """One cell of variance `variance` through the docstring of ExponentialMultistep, in float64, with noise
    `xi` at every step."""
    taus, h_old, d_old = -np.log(sigmas), None, 0.0
    for k, h in enumerate(np.diff(taus)):
        d = variance / (variance + sigmas[k] ** 2) * x
        d_bar = d if h_old is None else d + h / (2 * h_old) * (d - d_old)
        decay = np.exp(-(1 + lam) * h)
        x = decay * x + (1 - decay) * d_bar + sigmas[k + 1] * np.sqrt(-np.expm1(-2 * lam * h)) * xi[k]
        h_old, d_old = h, d
    return x


def variance_at_the_end(sigmas, variance, lam, start):
    """Variance of x at the last level: `recursion` is linear, so it is the sum over unit inputs squared."""
    n = len(sigmas) - 1
    gain = recursion(sigmas, variance, lam, 1.0, np.zeros(n))
    noise = sum(recursion(sigmas, variance, lam, 0.0, xi) ** 2 for xi in np.eye(n))
    return start * gain**2 + noise


def white(n: int, variance: float) -> GaussianField:
    """n independent cells."""
    mode = jnp.zeros((1, 1, 1, n)).at[0, 0, 0, 0].set(1.0)
    return GaussianField(mode, jnp.ones((1, 1, 1)), jnp.full((1, 1), variance), jnp.asarray(variance))


class UnitNoise(diffrax.AbstractPath):
    """A path whose increments are sqrt(h), so that xi = 1 at every step."""

    shape: tuple[int, ...] = eqx.field(static=True)
    t0 = None
    t1 = None

    def evaluate(self, t0, t1=None, left=True, use_levy=False):
        return jnp.full(self.shape, jnp.sqrt(t1 - t0))


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_a_step_is_the_formula(lam, context):
    """Uneven levels, four cells of different variance, compared with the recursion."""
    sigmas = np.asarray([10.0, 6.0, 2.5, 1.0, 0.3, 0.05])
    variances = np.asarray([0.1, 1.0, 3.0, 9.0])
    modes, bases = jnp.eye(4).reshape(4, 1, 1, 4), jnp.ones((4, 1, 1))
    cells = GaussianField(modes, bases, jnp.asarray(variances[:, None], jnp.float32), jnp.zeros(()))
    x0 = jnp.asarray([[[[12.0, -3.0, 1.0, 7.0]]]])
    taus = -np.log(sigmas)
    terms = reverse_terms(GaussianDenoiser(cells), context(1), lam, UnitNoise(x0.shape))
    solution = diffrax.diffeqsolve(
        terms,
        ExponentialMultistep(),
        t0=taus[0],
        t1=taus[-1],
        dt0=None,
        y0=x0,
        stepsize_controller=diffrax.StepTo(ts=jnp.asarray(taus, jnp.float32)),
    )
    want = [recursion(sigmas, v, lam, x, np.ones(5)) for v, x in zip(variances, np.ravel(x0), strict=True)]
    np.testing.assert_allclose(np.ravel(solution.ys[0]), want, rtol=1e-4)


def test_order_two_for_the_ode(field, context):
    """Errors against the flow fall fourfold when the steps double."""
    start = start_of(KEY, field.shape, HIGH)
    want = field.denoise(flow(field, start, HIGH, LOW), jnp.asarray(LOW))
    errors = []
    for steps in (32, 64, 128):
        sigmas = np.geomspace(HIGH, LOW, steps + 1)
        got, _ = reverse_sample(KEY, GaussianDenoiser(field), context(3), sigmas, field.shape, ODE)
        errors.append(float(jnp.linalg.norm(got - want) / jnp.linalg.norm(want)))
    ratios = np.asarray(errors[:-1]) / errors[1:]
    assert np.all((ratios > 3.3) & (ratios < 5)), errors
    assert errors[-1] < 1e-3


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_the_law_converges_with_order_two(lam):
    """Exactly, by the recursion: the variance starts right, and should be v + sigma^2 at the end."""
    errors = []
    for steps in (16, 32, 64, 128):
        sigmas = np.geomspace(HIGH, LOW, steps)
        errors.append(variance_at_the_end(sigmas, 1.0, lam, 1 + HIGH**2) / (1 + LOW**2) - 1)
    ratios = np.asarray(errors[:-1]) / errors[1:]
    assert np.all(ratios[1:] > 3.9), errors
    assert abs(errors[1]) < 0.025
    assert abs(errors[-1]) < 0.002


@pytest.mark.parametrize("lam", [0.5, 1.0])
def test_draws_have_the_law_of_the_recursion(lam, context):
    """40000 independent cells in one draw: the variance is known to a relative sqrt(2 / 40000) = 0.7 %; five
    of these allowed (failure rate 6e-7)."""
    n, sigmas = 40000, np.geomspace(HIGH, LOW, 12)
    cells = GaussianDenoiser(white(n, 1.0))
    draw, _ = reverse_sample(KEY, cells, context(1), sigmas, (1, 1, 1, n), Integrator(stochasticity=lam))
    want = variance_at_the_end(sigmas, 1.0, lam, HIGH**2) / (1 + LOW**2) ** 2
    assert abs(jnp.var(draw) / want - 1) < 5 * np.sqrt(2 / n)
    assert abs(jnp.mean(draw)) < 5 * np.sqrt(want / n)


@pytest.mark.parametrize("ratio", [2.0, 4.0])
def test_what_a_white_start_costs(ratio):
    """Starting from N(0, sigma_0^2) and not N(0, v + sigma_0^2) leaves (v / (v + sigma_0^2))^2 of the variance
    out: 4 % for sigma_0 twice the largest standard deviation, 0.3 % for four times."""
    sigmas = np.geomspace(ratio, LOW, 300)
    got, right = (variance_at_the_end(sigmas, 1.0, 1.0, v + ratio**2) for v in (0, 1))
    np.testing.assert_allclose(1 - got / right, (1 / (1 + ratio**2)) ** 2, rtol=0.01)


@pytest.mark.parametrize("lam", [0.3, 1.0])
def test_diffrax_euler_runs_on_the_same_sde(lam, context):
    """20000 independent cells; a bias of the order of the step, 2 %, beside a sampling error of 1 % (three
    standard deviations together: failure rate 3e-3 at most, fixed key)."""
    n, steps, sigma_0, sigma_1 = 20000, 500, 20.0, 0.1
    tau_0, tau_1 = -np.log(sigma_0), -np.log(sigma_1)
    shape = (1, 1, 1, n)
    path = diffrax.UnsafeBrownianPath(jax.ShapeDtypeStruct(shape, jnp.float32), jax.random.key(1))
    solution = diffrax.diffeqsolve(
        reverse_terms(GaussianDenoiser(white(n, 1.0)), context(1), lam, path),
        diffrax.Euler(),
        t0=tau_0,
        t1=tau_1,
        dt0=(tau_1 - tau_0) / steps,
        y0=np.sqrt(1 + sigma_0**2) * jax.random.normal(KEY, shape),
        adjoint=diffrax.ForwardMode(),
    )
    assert abs(jnp.var(solution.ys[0]) / (1 + sigma_1**2) - 1) < 0.05


class Counting(AbstractDenoiser):
    """Counts its evaluations on the host."""

    inner: AbstractDenoiser
    seen: list = eqx.field(static=True)

    def evaluate(self, x_sigma, sigma, context):
        jax.debug.callback(lambda s: self.seen.append(float(s)), sigma)
        return self.inner.evaluate(x_sigma, sigma, context)


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_one_evaluation_a_level(lam, field, context):
    sigmas, seen = np.geomspace(HIGH, LOW, 9), []
    denoiser = Counting(GaussianDenoiser(field), seen)
    _, cost = reverse_sample(KEY, denoiser, context(3), sigmas, field.shape, Integrator(stochasticity=lam))
    jax.effects_barrier()
    assert cost.evaluations == 9
    np.testing.assert_allclose(sorted(seen, reverse=True), sigmas, rtol=1e-5)


def test_derivatives_pass_through(field, context):
    """Backwards through the ODE and forwards through the SDE, against central differences."""

    def draw(residual, integrator=DEFAULT):
        changed = GaussianField(field.modes, field.bases, field.variances, residual)
        sigmas = np.geomspace(HIGH, LOW, 9)
        x, _ = reverse_sample(KEY, GaussianDenoiser(changed), context(3), sigmas, field.shape, integrator)
        return jnp.sum(x**2)

    backwards = jax.jit(jax.value_and_grad(lambda r: draw(r, ODE)))
    forwards = jax.jit(lambda r: jax.jvp(draw, (r,), (jnp.ones(()),)))
    for run in (backwards, forwards):
        (below, _), (_, slope), (above, _) = (run(jnp.asarray(r)) for r in (0.28, 0.3, 0.32))
        np.testing.assert_allclose(slope, (above - below) / 0.04, rtol=0.02)
