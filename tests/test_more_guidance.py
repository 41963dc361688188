"""DPS, PiGDM and TMPD: each on the exact Gaussian field against its formula in float64, and where each is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from bayesdownscale.likelihood.program import Program, ProgramError
from bayesdownscale.posterior.guidance import DPS, TMPD, PiGDM
from bayesdownscale.posterior.guidance.dps import linear_beta
from bayesdownscale.posterior.likelihood import LinearGaussianLikelihood, ProgramLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser, Cost
from bayesdownscale.prior.distribution import FieldPrior
from bayesdownscale.prior.gaussian import GaussianDenoiser, GaussianField

SHAPE = (3, 2, 2, 3)
SIGMA = 0.8
Y = np.asarray([1.0, -0.5, 2.0])
VARIANCE = np.asarray([0.1, 0.2, 0.05])
X = 1.5 * np.random.default_rng(0).normal(size=36)
METHODS = {"dps": DPS, "pigdm": PiGDM, "tmpd": TMPD}


def observe(x):
    """The first variable's means at the first and the last time, and one cell of the second at the last."""
    return jnp.stack([x[0, 0].mean(), x[2, 0].mean(), 2 * x[2, 1, 0, 1]])


A = np.asarray(jax.jacobian(observe)(jnp.zeros(SHAPE)), np.float64).reshape(3, -1)


def as_float(a):
    return jnp.asarray(a, jnp.float32)


def data(variance=VARIANCE, y=Y, of=observe):
    return LinearGaussianLikelihood(of, as_float(y), as_float(variance))


def guide(method, denoiser, likelihood, context, sigma=SIGMA, x=X):
    return method(denoiser, likelihood).twist(as_float(x.reshape(SHAPE)), as_float(sigma), context(3))


def posterior_mean(cov, a, y, variance, sigma=SIGMA):
    """E[x | x_sigma = X, y]"""
    precision = np.linalg.inv(cov) + np.eye(36) / sigma**2 + a.T @ (a / variance[:, None])
    return np.linalg.solve(precision, X / sigma**2 + a.T @ (y / variance))


def close(got, want, tol=2e-4):
    np.testing.assert_allclose(np.ravel(got), np.ravel(want), atol=tol * np.abs(want).max())


@pytest.fixture(scope="module")
def jacobian(cov):
    return cov @ np.linalg.inv(cov + SIGMA**2 * np.eye(36))


class TestDPS:
    def test_formula(self, field, jacobian, context):
        d = jacobian @ X
        r = Y - A @ d
        beta = np.sqrt(0.01 + 39.8 * np.log(1 + SIGMA**2)) / 1000
        want = d + 2 * 0.01 * SIGMA**2 / beta * jacobian.T @ A.T @ r / np.linalg.norm(r)
        got = guide(lambda *a: DPS(*a, zeta=0.01), GaussianDenoiser(field), data(), context)
        close(got.prior_mean, d)
        close(got.mean, want)
        close(got.log_weight, -2 * 0.01 / beta * np.linalg.norm(r))
        assert [int(n) for n in got.cost] == [1, 1, 0]

    @pytest.mark.parametrize("i", [100, 400, 700, 1000])
    def test_it_is_a_step_of_algorithm_1(self, i, field, cov, context):
        """One ancestral step, i = 1, ..., 1000, literally, against that step with D_y for D and no subtraction."""
        betas = np.linspace(1e-4, 0.02, 1000)
        abars = np.cumprod(1 - betas)
        beta, abar, before = betas[i - 1], abars[i - 1], abars[i - 2]
        sigma = np.sqrt((1 - abar) / abar)
        jacobian = cov @ np.linalg.inv(cov + sigma**2 * np.eye(36))
        x_i = np.sqrt(abar) * X
        r = Y - A @ jacobian @ X
        gradient = -2 * jacobian.T @ A.T @ r / np.sqrt(abar)  # of ||r||^2 along x_i
        step = lambda d: np.sqrt(1 - beta) * (1 - before) / (1 - abar) * x_i + np.sqrt(before) * beta / (1 - abar) * d
        theirs = step(jacobian @ X) - gradient / np.linalg.norm(r)
        got = guide(DPS, GaussianDenoiser(field), data(), context, sigma)
        ours = step(np.asarray(got.mean, np.float64).ravel())
        close(ours - step(jacobian @ X), theirs - step(jacobian @ X), 0.03)

    def test_beta_follows_the_linear_schedule(self):
        """Within a hundredth from step 100, a twentieth from step 11; beyond the last, its value there."""
        betas = np.linspace(1e-4, 0.02, 1000)
        abars = np.cumprod(1 - betas)
        got = jax.vmap(linear_beta)(as_float(np.sqrt((1 - abars) / abars)))
        np.testing.assert_allclose(got[10:], betas[10:], rtol=0.05)
        np.testing.assert_allclose(got[100:], betas[100:], rtol=0.01)
        np.testing.assert_allclose(linear_beta(as_float(1e4)), 0.02, rtol=1e-6)

    def test_noise_does_not_enter(self, field, context):
        few, many = (guide(DPS, GaussianDenoiser(field), data(v), context).mean for v in (VARIANCE, 9 * VARIANCE))
        np.testing.assert_array_equal(few, many)

    def test_data_met_exactly_leave_the_denoiser_as_it_is(self, field, context):
        denoiser = GaussianDenoiser(field)
        nothing = LinearGaussianLikelihood(lambda x: 0 * x[0, 0, 0], jnp.zeros(3), jnp.ones(3))
        got = guide(DPS, denoiser, nothing, context)
        np.testing.assert_array_equal(got.mean, got.prior_mean)


class TestPiGDM:
    @pytest.mark.parametrize("sigma", [0.05, 0.8, 20.0])
    def test_formula(self, sigma, field, cov, context):
        jacobian = cov @ np.linalg.inv(cov + sigma**2 * np.eye(36))
        s = np.diag(VARIANCE) + sigma**2 / (1 + sigma**2) * A @ A.T
        r = Y - A @ jacobian @ X
        want = jacobian @ X + sigma**2 * jacobian.T @ A.T @ np.linalg.solve(s, r)
        got = guide(PiGDM, GaussianDenoiser(field), data(), context, sigma)
        close(got.mean, want, 1e-3)
        close(got.log_weight, -0.5 * r @ np.linalg.solve(s, r), 1e-3)
        assert [int(n) for n in got.cost[:2]] == [1, 1]

    @pytest.mark.parametrize("sigma", [0.05, 0.8, 20.0])
    def test_exact_for_white_noise_of_unit_variance(self, sigma, context):
        white = GaussianDenoiser(GaussianField.separable(np.eye(3), np.eye(12), SHAPE[1:]))
        want = posterior_mean(np.eye(36), A, Y, VARIANCE, sigma)
        close(guide(PiGDM, white, data(), context, sigma).mean, want, 1e-3)

    def test_other_noise_guides_too(self, gaussian_prior):
        """A Student-t program: the step is the gradient of its own potential, taken forwards."""
        denoiser = PiGDM(gaussian_prior.denoiser, student(gaussian_prior), tolerance=1e-5)
        x, v = (as_float(a.reshape(SHAPE)) for a in (X, np.random.default_rng(1).normal(size=36)))
        twist = lambda x: denoiser.twist(x, as_float(SIGMA), gaussian_prior.context)
        slope = jax.jvp(lambda x: twist(x).log_weight, (x,), (v,))[1]
        at_x = twist(x)
        shift = at_x.mean - at_x.prior_mean
        assert jnp.linalg.norm(shift.ravel()) > 0.1
        close(jnp.vdot(shift, v), SIGMA**2 * slope, 0.01)


class TestTMPD:
    def test_formula(self, field, jacobian, context):
        v = SIGMA**2 * jacobian
        s = VARIANCE + np.maximum(A @ v @ A.T @ np.ones(3), 0)
        r = Y - A @ jacobian @ X
        got = guide(TMPD, GaussianDenoiser(field), data(), context)
        close(got.mean, jacobian @ X + v @ A.T @ (r / s))
        close(got.log_weight, -0.5 * np.sum(r**2 / s + np.log(s / VARIANCE)))
        assert [int(n) for n in got.cost] == [1, 2, 0]

    @pytest.mark.parametrize("i", range(3))
    def test_exact_for_one_datum(self, i, field, cov, context):
        one = data(VARIANCE[i : i + 1], Y[i : i + 1], lambda x: observe(x)[i : i + 1])
        want = posterior_mean(cov, A[i : i + 1], Y[i : i + 1], VARIANCE[i : i + 1])
        close(guide(TMPD, GaussianDenoiser(field), one, context).mean, want)

    def test_variances_stay_above_the_noise(self, context):
        """D = -x: every row sum is negative; D_y = D + V A^T R^-1 (y - A D)."""
        r = Y + A @ X
        got = guide(TMPD, Unusable(), data(), context)
        close(got.mean, -X - SIGMA**2 * A.T @ (r / VARIANCE))
        close(got.log_weight, -0.5 * np.sum(r**2 / VARIANCE))

    def test_sites_add_up(self, gaussian_prior):
        """Two sites of a program, with means that are not linear: the same as one site of all their data."""

        def two(a, b):
            x = numpyro.sample("weather", gaussian_prior)
            numpyro.sample("a", dist.Normal(x[:1] ** 2, 0.3).to_event(4), obs=a)
            numpyro.sample("b", dist.Normal(x[2:] ** 2, 0.5).to_event(4), obs=b)

        def one(ab):
            x = numpyro.sample("weather", gaussian_prior)
            scale = jnp.asarray([0.3, 0.5])[:, None, None, None]
            numpyro.sample("ab", dist.Normal(x[::2] ** 2, scale).to_event(4), obs=ab)

        ab = 3 * jax.random.normal(jax.random.key(0), (2, 2, 2, 3))
        likelihoods = (program_likelihood(gaussian_prior, *m) for m in ((two, ab[:1], ab[1:]), (one, ab)))
        a, b = (guide(TMPD, gaussian_prior.denoiser, l, lambda _: gaussian_prior.context) for l in likelihoods)
        close(a.mean, b.mean)
        close(a.log_weight, b.log_weight)


class Unusable(AbstractDenoiser):
    """D = -x: a Jacobian that is no covariance."""

    def evaluate(self, x_sigma, sigma, context):
        return -x_sigma, Cost.of(1)


def program_likelihood(prior, model, *args):
    return ProgramLikelihood.of(Program(model, args, {}, lambda fn: isinstance(fn, FieldPrior)), prior)


def student(prior):
    def model(y):
        x = numpyro.sample("weather", prior)
        numpyro.sample("coarse", dist.StudentT(4.0, observe(x), jnp.ones(3)).to_event(1), obs=y)

    return program_likelihood(prior, model, observe(prior.standardisation.climatology(prior.context)) + 2.0)


@pytest.mark.parametrize("name", METHODS)
class TestEach:
    def test_missing_data_are_ignored(self, name, field, context):
        """An infinite variance, whatever the residual."""
        denoiser = GaussianDenoiser(field)
        gap = guide(METHODS[name], denoiser, data(np.asarray([0.1, np.inf, 0.05])), context)
        kept = data(VARIANCE[::2], Y[::2], lambda x: observe(x)[::2])
        without = guide(METHODS[name], denoiser, kept, context)
        close(gap.mean, without.mean)
        close(gap.log_weight, without.log_weight)

    def test_guidance_is_the_gradient_of_the_log_weight(self, name, field, context):
        denoiser = METHODS[name](GaussianDenoiser(field), data())
        x, v = (as_float(a.reshape(SHAPE)) for a in (X, np.random.default_rng(1).normal(size=36)))
        twist = lambda x: denoiser.twist(x, as_float(SIGMA), context(3))
        slope = jax.jvp(lambda x: twist(x).log_weight, (x,), (v,))[1]
        at_x = twist(x)
        close(jnp.vdot(at_x.mean - at_x.prior_mean, v), SIGMA**2 * slope, 0.01)


@pytest.mark.parametrize("method", [DPS, TMPD])
def test_noise_that_is_not_normal_is_refused(method, gaussian_prior):
    denoiser = method(gaussian_prior.denoiser, student(gaussian_prior))
    with pytest.raises(ProgramError, match="this guidance method needs Normal noise, got StudentT; use moment"):
        denoiser(as_float(X.reshape(SHAPE)), as_float(SIGMA), gaussian_prior.context)
