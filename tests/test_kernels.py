"""Kernels and sequential Monte Carlo on an exact Gaussian prior: what they draw is the posterior."""

import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.diagnostics import effective_sample_size as autocorrelated
from numpyro.infer import MCMC, NUTS, Gibbs, init_to_value

import bayesdownscale as bd
from bayesdownscale.likelihood.program import ProgramError
from bayesdownscale.posterior.guidance import SDA, MomentMatching
from bayesdownscale.posterior.kernels.noise_denoise import metropolised
from bayesdownscale.posterior.kernels.twisted_smc import systematic
from bayesdownscale.posterior.likelihood import AbstractLikelihood, LinearGaussianLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser
from bayesdownscale.prior.gaussian import GaussianDenoiser, GaussianField, GaussianPosterior

SHAPE = (2, 1, 2, 2)
CELLS = 8
LEVELS = bd.NoiseLevels(0.02, 8.0)
Y, VARIANCE = jnp.asarray([1.0, -0.7]), jnp.asarray([0.05, 0.1])
LOG_CONSTANT = -0.5 * float(jnp.sum(jnp.log(2 * jnp.pi * VARIANCE)))  # that LinearGaussianLikelihood leaves out


def observe(x):
    """The mean of the first time and one cell of the second."""
    return jnp.stack([x[0].mean(), x[1, 0, 0, 1]])


LIKELIHOOD = LinearGaussianLikelihood(observe, Y, VARIANCE)


@pytest.fixture(scope="module")
def tiny_field():
    distance = np.abs(np.arange(4)[:, None] - np.arange(4))
    return GaussianField.separable(np.exp(-distance[:2, :2] / 2), np.exp(-distance / 2), SHAPE[1:])


@pytest.fixture(scope="module")
def denoiser(tiny_field):
    return GaussianDenoiser(tiny_field)


def discretised(field, sigmas, stochasticity):
    """The field whose draws are those of the solver, exactly: the multistep chain is linear in each eigenmode, x_n
    a Gaussian with D_{n-1}, and ends with D(x_N)."""
    v, lam = np.asarray(field.variances, np.float64), stochasticity
    gain, noise = np.stack([np.ones_like(v), 0 * v]), np.zeros((2, 2, *v.shape))
    h = -np.diff(np.log(sigmas))
    for n, (sigma, low) in enumerate(zip(sigmas, sigmas[1:])):
        w, decay = v / (v + sigma**2), math.exp(-(1 + lam) * h[n])
        ratio = h[n] / (2 * h[n - 1]) if n else 0.0
        step = np.asarray([[decay + (1 - decay) * (1 + ratio) * w, np.full_like(v, -(1 - decay) * ratio)], [w, 0 * w]])
        gain, noise = np.einsum("ab...,b...->a...", step, gain), np.einsum("ab...,bc...,dc...->ad...", step, noise, step)
        noise[0, 0] += low**2 * -math.expm1(-2 * lam * h[n])
    last = v / (v + sigmas[-1] ** 2)
    variances = last**2 * (gain[0] ** 2 * sigmas[0] ** 2 + noise[0, 0])
    return eqx.tree_at(lambda f: f.variances, field, jnp.asarray(variances, jnp.float32))


def moments(posterior):
    basis = jnp.eye(CELLS).reshape(CELLS, *SHAPE)
    cov = np.asarray(jax.vmap(posterior.covariance)(basis), np.float64).reshape(CELLS, CELLS)
    return np.asarray(posterior.mean(), np.float64).ravel(), cov


def check(paths, posterior, bias=0.0):
    """`paths` (chain, step, ...) of independent chains: 8 means and 8 variances of their averages over steps, within
    5 standard errors, which are missed with probability 1e-5, plus `bias` standard deviations (variances: twice)."""
    x = np.asarray(paths, np.float64).reshape(*paths.shape[:2], CELLS)
    mean, cov = moments(posterior)
    z = (x - mean) / np.sqrt(np.diag(cov))
    for averages, want, allowed in [(z.mean(1), 0.0, bias), ((z**2).mean(1), 1.0, 2 * bias)]:
        error = averages.std(0, ddof=1) / math.sqrt(len(z))
        assert np.all(np.abs(averages.mean(0) - want) < 5 * error + allowed)
        assert np.all(error < 0.12)


@eqx.filter_jit
def chains(kernel, keys, starts, adapted, steps=60, **settings):
    """The fields and infos of `steps` steps of chains from `starts`, the first `adapted` (an array) in warm-up."""

    def chain(key, x):
        k_init, k_steps = jax.random.split(key)
        state = kernel.init(k_init, x)._replace(**settings)

        def step(state, at):
            key, warming_up = at
            state, info = kernel.step(key, state)
            choose = lambda a, b: jnp.where(warming_up, a, b)
            return jax.tree.map(choose, kernel.adapt(state, info), state), (state.x, info)

        warming_up = jnp.arange(steps) < adapted
        return jax.lax.scan(step, state, (jax.random.split(k_steps, steps), warming_up))[1]

    return jax.vmap(chain)(keys, starts)


def keys(seed, n):
    return jax.random.split(jax.random.key(seed), n)


class TestNoiseDenoise:
    @pytest.mark.parametrize("candidates", [1, 3])
    def test_posterior(self, denoiser, context, candidates):
        """Chains that start exactly stay exact, at one level; from zero they get there, adapted. On a Gaussian prior
        the solver is off by at most 2.4 % of a variance at this spacing."""
        kernel = bd.NoiseDenoiseMH(denoiser, LIKELIHOOD, context(2), LEVELS, spacing=0.2, candidates=candidates)
        posterior = GaussianPosterior(denoiser.field, observe, Y, VARIANCE)
        exact = jax.vmap(posterior.draw)(keys(1, 300))
        draw = lambda key, starts, adapted: chains(kernel, key, starts, adapted, log_sigma=jnp.asarray(-0.5))
        stay, info = draw(keys(2, 300), exact, jnp.asarray(0))
        check(stay, posterior, bias=0.012)
        steps = (-0.5 - math.log(LEVELS.sigma_min)) / 0.2
        assert abs(int(info.cost.evaluations[0, 0]) / candidates - 1 - steps) < 1
        come, info = draw(keys(3, 300), 0 * exact, jnp.asarray(40))
        check(come[:, 40:], posterior, bias=0.012)
        assert 0.2 < info.acceptance[:, 40:].mean() < 0.4

    def test_the_choice_is_reversible(self):
        """The transition matrix among four states from 20000 choices each: w_i P_ij = w_j P_ji, within 5 standard
        errors, which are missed with probability 1e-5."""
        weights = np.asarray([0.1, 0.4, 0.2, 0.3])
        orders = np.asarray([[i, *(j for j in range(4) if j != i)] for i in range(4)])  # the current state in front
        choose = jax.vmap(jax.vmap(metropolised, (0, None)), (None, 0))
        j, acceptance, accepted = choose(keys(0, 20000), jnp.log(jnp.asarray(weights[orders], jnp.float32)))
        moved = np.take_along_axis(orders, np.where(accepted, j, 0), axis=1)
        counts = np.stack([np.bincount(row, minlength=4) for row in moved])
        flow, error = weights[:, None] * counts / 20000, weights[:, None] * np.sqrt(counts) / 20000
        assert np.all(np.abs(flow - flow.T) <= 5 * np.sqrt(error**2 + error.T**2))
        assert abs(acceptance.mean() - accepted.mean()) < 0.01

    @pytest.mark.parametrize(("log_weights", "want"), [([-1.0, -jnp.inf, -jnp.inf], 0.0), ([-jnp.inf, -5.0, -900.0], 1.0)])
    def test_weight_zero_is_never_chosen_and_always_left(self, log_weights, want):
        j, acceptance, accepted = jax.vmap(metropolised, (0, None))(keys(0, 50), jnp.asarray(log_weights))
        assert np.all(np.asarray(acceptance) == want)
        assert np.all(np.where(accepted, j, 1) == 1)

    def test_settings_are_checked(self, denoiser, context):
        with pytest.raises(ValueError, match="at least one candidate"):
            bd.NoiseDenoiseMH(denoiser, LIKELIHOOD, context(2), LEVELS, candidates=0)


class OneSided(AbstractLikelihood):
    """Half a Normal datum: no density, and no number, where the cell is negative."""

    def __call__(self, x):
        cell = x[1, 0, 0, 1]
        return jnp.where(cell < 0, jnp.nan, -0.5 * (cell - 0.3) ** 2)

    def simulated_score(self, key, x):
        raise NotImplementedError

    def gaussian_terms(self, x):
        raise NotImplementedError


class TestFlowSlice:
    def test_posterior(self, denoiser, context):
        """Against the exact posterior of the prior that the discretised ODE makes: no bias."""
        kernel = bd.FlowSlice(denoiser, LIKELIHOOD, context(2), LEVELS, steps=10)
        prior = discretised(denoiser.field, LEVELS.levels(10), 0)
        posterior = GaussianPosterior(prior, observe, Y, VARIANCE)
        exact = jax.vmap(posterior.draw)(keys(1, 300))
        stay, info = chains(kernel, keys(2, 300), exact, jnp.asarray(0), steps=40)
        check(stay, posterior)
        assert np.all(info.cost.evaluations == 10 * (1 + info.contractions))
        come, _ = chains(kernel, keys(3, 300), 0 * exact, jnp.asarray(0), steps=40)
        check(come[:, 20:], posterior)

    def test_pushed_noise_starts_near_the_field(self, denoiser, context):
        kernel = bd.FlowSlice(denoiser, LIKELIHOOD, context(2), LEVELS, steps=32)
        x = denoiser.field.draw(jax.random.key(0))
        np.testing.assert_allclose(kernel.init(jax.random.key(0), x).x, x, atol=0.05)

    def test_what_is_no_number_has_no_density(self, denoiser, context):
        """A cell N(0, 1) truncated to be positive with a Normal datum: N(0.15, 1/2) beyond zero, by quadrature."""
        kernel = bd.FlowSlice(denoiser, OneSided(), context(2), LEVELS, steps=10)
        x = jnp.broadcast_to(0.5, (300, *SHAPE))
        cells = np.asarray(chains(kernel, keys(4, 300), x, jnp.asarray(0), steps=40)[0][:, 20:, 1, 0, 0, 1])
        scale = one_cell_scale(discretised(denoiser.field, LEVELS.levels(10), 0))
        grid = np.linspace(0, 6, 6001)
        density = np.exp(-0.5 * (grid / scale) ** 2 - 0.5 * (grid - 0.3) ** 2)
        mean = grid @ density / density.sum()
        assert cells.min() > 0
        averages = cells.mean(1)
        assert abs(averages.mean() - mean) < 5 * averages.std() / math.sqrt(300)

    def test_without_contractions_it_may_stay(self, denoiser, context):
        kernel = bd.FlowSlice(denoiser, LIKELIHOOD, context(2), LEVELS, steps=10, contractions=0)
        state = kernel.init(jax.random.key(0), jnp.zeros(SHAPE))
        moved, info = jax.jit(jax.vmap(kernel.step, (0, None)))(keys(0, 40), state)
        same = np.all(np.asarray(moved.z) == np.asarray(state.z), axis=(1, 2, 3, 4))
        assert 0 < same.sum() < 40
        np.testing.assert_array_equal(same, info.angle == 0)
        np.testing.assert_array_equal(info.contractions, same)


class TestTwistedSMC:
    """Against the exact posterior and evidence of the discretised prior."""

    SIGMAS = np.geomspace(8.0, 0.02, 12)

    @pytest.fixture(scope="class")
    def prior(self, tiny_field):
        return discretised(tiny_field, self.SIGMAS, 1)

    @pytest.fixture(scope="class")
    def posterior(self, prior):
        return GaussianPosterior(prior, observe, Y, VARIANCE)

    def run(self, key, guidance, context, particles, likelihood=LIKELIHOOD, **settings):
        return bd.twisted_smc(key, guidance, likelihood, context(2), self.SIGMAS, SHAPE, particles, **settings)

    def test_moment_matching(self, tiny_field, denoiser, context):
        """The twist is exact, and the proposal up to the discretisation: of 1000 particles that are never resampled
        most still count after 64 levels."""
        sigmas = np.geomspace(8.0, 0.02, 64)
        posterior = GaussianPosterior(discretised(tiny_field, sigmas, 1), observe, Y, VARIANCE)
        guidance = MomentMatching(denoiser, LIKELIHOOD)
        run = lambda key: bd.twisted_smc(key, guidance, LIKELIHOOD, context(2), sigmas, SHAPE, 1000, ess_threshold=0)
        run = jax.jit(run)(jax.random.key(0))
        assert run.ess.shape == (64,)
        assert run.ess.min() > 700
        assert int(run.cost.evaluations) == 64 * 1000
        assert abs(run.log_evidence + LOG_CONSTANT - posterior.log_evidence()) < 5 * math.sqrt(1 / 700)
        mean, cov = moments(posterior)
        fields = np.asarray(bd.equally_weighted(jax.random.key(1), run, 1000)).reshape(1000, CELLS)
        z = (fields - mean) / np.sqrt(np.diag(cov))
        assert np.all(np.abs(z.mean(0)) < 5 / math.sqrt(700))
        assert np.all(np.abs(z.var(0) - 1) < 5 * math.sqrt(2 / 700))

    @pytest.mark.parametrize("threshold", [0.5, 0.0])
    def test_unbiased_whatever_the_guidance(self, denoiser, context, posterior, threshold):
        """The mean of 400 estimates of p(y) from 32 particles, guided by SDA with a gamma far off, with resampling
        and without: within 5 standard errors, and these below 5 %."""
        guidance = SDA(denoiser, LIKELIHOOD, gamma=0.5)
        run = lambda key: self.run(key, guidance, context, 32, ess_threshold=threshold).log_evidence
        log_z = np.asarray(jax.jit(jax.vmap(run))(keys(0, 400)), np.float64) + LOG_CONSTANT
        ratio = np.exp(log_z - float(posterior.log_evidence()))
        error = ratio.std() / math.sqrt(400)
        assert error < 0.05
        assert abs(ratio.mean() - 1) < 5 * error

    def test_islands_tell_their_error(self, denoiser, context, posterior):
        """60 estimates from 8 islands each: their spread is the standard error told (known to 9 % itself)."""
        guidance = SDA(denoiser, LIKELIHOOD, gamma=0.5)
        estimate = lambda key: bd.log_evidence(key, guidance, LIKELIHOOD, context(2), self.SIGMAS, SHAPE, 32)
        many = jax.jit(jax.vmap(estimate))(keys(1, 60))
        assert many.islands.shape == (60, 8)
        assert 0.6 < many.log_evidence.std() / many.standard_error.mean() < 1.5
        bias = many.log_evidence.mean() + LOG_CONSTANT - posterior.log_evidence()
        assert abs(bias) < many.standard_error.mean()
        with pytest.raises(ValueError, match="at least 2 islands"):
            bd.log_evidence(jax.random.key(0), guidance, LIKELIHOOD, context(2), self.SIGMAS, SHAPE, 8, islands=1)

    def test_a_likelihood_that_the_guidance_does_not_know(self, denoiser, context, prior):
        """Some particles have no density: log p(y) by quadrature. If all have none, it is -inf."""
        near = LinearGaussianLikelihood(observe, jnp.asarray([0.3, 0.3]), jnp.asarray([2.0, 1.0]))
        run = lambda key: self.run(key, SDA(denoiser, near, gamma=0.5), context, 2000, OneSided())
        run = jax.jit(run)(jax.random.key(0))
        assert not np.all(np.isfinite(run.log_weights))
        grid, scale = np.linspace(0, 8, 8001), one_cell_scale(prior)
        density = np.exp(-0.5 * (grid / scale) ** 2 - 0.5 * (grid - 0.3) ** 2) / (scale * math.sqrt(2 * math.pi))
        assert abs(run.log_evidence - math.log(density.sum() * 1e-3)) < 0.15
        assert np.all(np.asarray(bd.equally_weighted(jax.random.key(1), run, 500))[:, 1, 0, 0, 1] > 0)

    @pytest.mark.parametrize("threshold", [0.5, 0.0])
    def test_particles_that_overflow_are_dead(self, context, denoiser, threshold):
        run = lambda top: self.run(
            jax.random.key(0), SDA(Overflowing(denoiser, top), LIKELIHOOD), context, 50, ess_threshold=threshold
        )
        some, none = jax.jit(jax.vmap(run))(jnp.asarray([2.0, -1e6])).log_evidence
        assert np.isfinite(some)
        assert none == -np.inf

    def test_systematic_resampling(self):
        """Every particle floor or ceil of its share, and its share on average; none of weight zero."""
        weights = np.asarray([0.0, 0.5, 0.125, 0.375, 0.0])
        draw = jax.vmap(lambda key: systematic(key, jnp.log(jnp.asarray(weights, jnp.float32)), 10))(keys(0, 2000))
        counts = np.stack([np.bincount(row, minlength=5) for row in np.asarray(draw)])
        assert np.all((counts >= np.floor(10 * weights)) & (counts <= np.ceil(10 * weights)))
        np.testing.assert_allclose(counts.mean(0), 10 * weights, atol=0.06)


class Overflowing(AbstractDenoiser):
    """No number where a cell is above `top`."""

    denoiser: AbstractDenoiser
    top: jax.Array

    def evaluate(self, x_sigma, sigma, context):
        denoised, cost = self.denoiser.evaluate(x_sigma, sigma, context)
        return jnp.where(x_sigma[0, 0, 0, 0] > self.top, jnp.nan, denoised), cost


@pytest.fixture(scope="module")
def prior(tiny_field):
    """The tiny field in kelvin, with a mean of 280 and a scale of 2."""
    coords = bd.Coords(
        np.datetime64("2020-03-01T00", "ns") + np.timedelta64(1, "h") * np.arange(2),
        (bd.Variable("t2m", "K"),),
        bd.Grid(np.asarray([50.0, 51.0]), np.asarray([3.0, 4.0])),
    )
    mean = jnp.zeros((5, 1, 2, 2)).at[0].set(280.0)
    return bd.GaussianPrior(tiny_field, bd.Standardisation(mean, jnp.asarray([2.0])), LEVELS, coords)


def observe_all(x):
    return jnp.concatenate([x[0].ravel(), x[1].mean(keepdims=True).ravel()])


def program(prior, y=None, sigma=None):
    """Four cells and a mean [K], with a noise that is known or not."""
    x = numpyro.sample("weather", prior)
    sigma = numpyro.sample("sigma", dist.LogNormal(-0.5, 0.7)) if sigma is None else sigma
    numpyro.deterministic("warmth", x.mean())
    numpyro.sample("data", dist.Normal(observe_all(x), sigma).to_event(1), obs=y)


DATA = 280.0 + np.asarray([1.5, -0.5, 2.0, 0.3, -1.0], np.float32)


def exact_posterior(field, sigma):
    return GaussianPosterior(field, observe_all, jnp.asarray((DATA - 280.0) / 2.0), jnp.asarray(sigma / 2.0) ** 2)


class TestFieldKernel:
    @pytest.mark.parametrize("arguments", [False, True], ids=["closed over", "jit_model_args"])
    def test_one_chain(self, prior, arguments):
        kernel = bd.FieldKernel(program, partial(bd.NoiseDenoiseMH, candidates=2))
        mcmc = MCMC(kernel, num_warmup=10, num_samples=10, progress_bar=False, jit_model_args=arguments)
        start = {"weather": jnp.full(SHAPE, 281.0)}
        mcmc.run(jax.random.key(0), prior, DATA, 0.5, init_params=start, extra_fields=("info.sigma", "field.count"))
        assert mcmc.get_samples()["weather"].shape == (10, *SHAPE)
        extra = mcmc.get_extra_fields()
        assert np.all(extra["field.count"] == 10)
        assert np.ptp(np.asarray(extra["info.sigma"])) == 0

    def test_vectorized_chains(self, prior):
        """200 chains of FlowSlice, from the prior, with legacy keys: the posterior of the prior of the ODE."""
        kernel = bd.FieldKernel(program, partial(bd.FlowSlice, steps=10))
        mcmc = MCMC(
            kernel, num_warmup=20, num_samples=20, num_chains=200, chain_method="vectorized", progress_bar=False
        )
        mcmc.run(jax.random.PRNGKey(0), prior, y=DATA, sigma=0.5)
        fields = np.asarray(mcmc.get_samples(group_by_chain=True)["weather"])
        check((fields - 280.0) / 2.0, exact_posterior(discretised(prior.field, LEVELS.levels(10), 0), 0.5))

    def test_unknown_parameters_need_another_block(self, prior):
        mcmc = MCMC(bd.FieldKernel(program), num_warmup=1, num_samples=1, progress_bar=False)
        with pytest.raises(ProgramError, match="'sigma' unknown"):
            mcmc.run(jax.random.key(0), prior, DATA)

    def test_gibbs_with_unknown_noise(self, prior):
        """The noise and the field together, inside jit as in simulation-based calibration: log sigma against its
        exact marginal posterior on a grid; within 5 standard errors by the effective sample size."""
        field = discretised(prior.field, LEVELS.levels(10), 0)
        grid = np.linspace(-3.5, 2.5, 241)
        evidence = jax.jit(jax.vmap(lambda s: exact_posterior(field, s).log_evidence()))
        log_prior = -0.5 * ((grid + 0.5) / 0.7) ** 2
        log_weights = log_prior + np.asarray(evidence(jnp.exp(jnp.asarray(grid, jnp.float32))))
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
        model = bd.unscored(program)
        gibbs = Gibbs([(bd.FieldKernel(model, partial(bd.FlowSlice, steps=10)), ["weather"]), (NUTS(model), None)])
        mcmc = MCMC(gibbs, num_warmup=300, num_samples=2500, progress_bar=False)

        def run(key, y):
            mcmc.run(key, prior, y)
            return mcmc.get_samples()

        samples = jax.jit(run)(jax.random.key(0), DATA)
        assert samples["weather"].shape == (2500, *SHAPE)
        np.testing.assert_allclose(samples["warmth"], samples["weather"].mean((1, 2, 3, 4)), rtol=1e-4)
        log_sigma = np.log(np.asarray(samples["sigma"], np.float64))
        for f in (lambda a: a, lambda a: (a - weights @ grid) ** 2):
            want, got = weights @ f(grid), f(log_sigma)
            error = got.std() / math.sqrt(autocorrelated(got[None]))
            print(want, got.mean(), error, autocorrelated(got[None]))
            assert abs(got.mean() - want) < 5 * error


class TestFlowReparam:
    def test_nuts(self, prior):
        """A heavy-tailed datum: the mean of its cell in the prior of the ODE, by quadrature."""

        def model(prior, y):
            x = numpyro.sample("weather", prior)
            numpyro.sample("data", dist.StudentT(3.0, x[1, 0, 0, 1], 0.5), obs=y)

        reparam = bd.FlowReparam(steps=8)
        x = jnp.full(SHAPE, 281.0)
        flow = handlers.reparam(model, config={"weather": reparam})
        kernel = NUTS(flow, init_strategy=init_to_value(values={"weather_noise": reparam.noise(prior, x)}))
        mcmc = MCMC(kernel, num_warmup=200, num_samples=1000, progress_bar=False)
        mcmc.run(jax.random.key(0), prior, 283.0)
        cell = np.asarray(mcmc.get_samples()["weather"][:, 1, 0, 0, 1], np.float64) - 280.0
        scale = 2.0 * one_cell_scale(discretised(prior.field, LEVELS.levels(8), 0))
        grid = np.linspace(-12, 12, 4801)
        density = np.exp(-0.5 * (grid / scale) ** 2) * (1 + (3.0 - grid) ** 2 / (3 * 0.25)) ** -2.0
        mean = grid @ density / density.sum()
        error = cell.std() / math.sqrt(autocorrelated(cell[None]))
        print(cell.mean(), mean, error)
        assert abs(cell.mean() - mean) < 5 * error
        assert error < 0.1

    def test_it_refuses_other_sites(self, prior):
        model = handlers.reparam(program, config={"sigma": bd.FlowReparam()})
        with pytest.raises(ProgramError, match="'sigma': expected a field prior"), handlers.seed(rng_seed=0):
            model(prior)


def one_cell_scale(field):
    """The standard deviation of the cell that the one-dimensional problems observe."""
    return math.sqrt(float(field.covariance(jnp.zeros(SHAPE).at[1, 0, 0, 1].set(1.0))[1, 0, 0, 1]))
