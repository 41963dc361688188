"""Generalised Pareto, GEV and hurdle distributions against scipy, quadrature, samples and finite differences."""

import warnings
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from bayesdownscale.likelihood.extremes import GEV, GeneralizedPareto
from bayesdownscale.likelihood.hurdle import Hurdle

XI = (-0.4, -1e-3, 0.0, 1e-6, 0.05, 0.15, 0.4)
FAMILIES = {  # ours and scipy's, of (loc, scale, xi); a Pareto distribution has no loc
    "pareto": (lambda _, scale, xi: GeneralizedPareto(scale, xi), lambda _, scale, xi: stats.genpareto(xi, 0, scale)),
    "gev": (GEV, lambda loc, scale, xi: stats.genextreme(-xi, loc, scale)),
}
LOC, SCALE = 1.0, 2.0
Q = np.linspace(0.01, 0.99, 25)


def gamma(p=0.3, k=0.7, rate=0.5):
    return Hurdle(dist.Gamma(k, rate), p)


HURDLES = {
    "gamma": (lambda: gamma(), stats.gamma(0.7, scale=2.0)),
    "pareto": (lambda: Hurdle(GeneralizedPareto(2.0, 0.2), logits=jnp.log(0.3 / 0.7)), stats.genpareto(0.2, 0, 2.0)),
    "log-normal": (lambda: Hurdle(dist.LogNormal(0.5, 0.6), 0.3), stats.lognorm(0.6, scale=np.exp(0.5))),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@cache
def derivatives(make):
    """Gradient in the value, loc, scale and xi, and curvature in the value and xi, of one member of a family."""
    log_prob = lambda v, *theta: make(*theta).log_prob(v)
    return jax.jit(jax.grad(log_prob, argnums=(0, 1, 2, 3))), jax.jit(jax.hessian(log_prob, argnums=(0, 3)))


class TestExtremes:
    @pytest.mark.parametrize("xi", XI)
    def test_density_and_quantiles(self, family, xi):
        """Against scipy in double precision, which has another formula at xi = 0."""
        ours, scipys = (make(LOC, SCALE, xi) for make in family)
        v = scipys.ppf(Q)
        np.testing.assert_allclose(ours.log_prob(v), scipys.logpdf(v), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(ours.cdf(v), Q, rtol=1e-4)
        np.testing.assert_allclose(ours.icdf(jnp.asarray(Q)), v, rtol=1e-4)
        np.testing.assert_allclose(ours.icdf(ours.cdf(v)), v, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("xi", [*XI, 0.5, 0.7, 1.0, 1.3])
    def test_moments(self, family, xi):
        """inf and nan where scipy has them. Near xi = 0 scipy's variance loses digits: the looser tolerance."""
        ours, scipys = (make(LOC, SCALE, xi) for make in family)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mean, variance = scipys.stats("mv")
        np.testing.assert_allclose(ours.mean, mean, rtol=1e-5)
        np.testing.assert_allclose(ours.variance, variance, rtol=1e-3)

    @pytest.mark.parametrize("xi", XI)
    def test_gradient(self, family, xi):
        """In the value and every parameter, against central differences of scipy's density in double precision."""
        make, reference = family
        at = np.asarray([reference(LOC, SCALE, xi).ppf(0.8), LOC, SCALE, xi])
        logpdf = lambda at: reference(*at[1:]).logpdf(at[0])
        difference = [(logpdf(at + d) - logpdf(at - d)) / 2e-4 for d in 1e-4 * np.eye(4)]
        gradient, curvature = derivatives(make)
        np.testing.assert_allclose(gradient(*at), difference, rtol=2e-4, atol=2e-5)
        assert np.isfinite(curvature(*at)).all()

    @pytest.mark.parametrize("xi", [-0.3, 0.0, 0.3])
    def test_samples(self, family, xi):
        """Kolmogorov-Smirnov on 4000 draws (failure rate 1e-3 each, fixed key)."""
        make, reference = family
        draws = make(LOC, SCALE, xi).sample(jax.random.key(0), (4000,))
        assert stats.kstest(np.asarray(draws, np.float64), reference(LOC, SCALE, xi).cdf).pvalue > 1e-3

    @pytest.mark.filterwarnings("ignore:Out-of-support")
    @pytest.mark.parametrize("xi", [-0.5, 0.0, 0.5])
    def test_outside_the_support(self, family, xi):
        """Density 0 and cdf 0 or 1, arguments validated or not; finite gradients."""
        make, reference = family
        v = np.asarray([-5.0, 7.0])
        ours, scipys = make(LOC, SCALE, xi), reference(LOC, SCALE, xi)
        unchecked = type(ours)(**ours.get_args(), validate_args=False)
        for distribution in (ours, unchecked):
            np.testing.assert_allclose(distribution.log_prob(v), scipys.logpdf(v), rtol=1e-4)
        np.testing.assert_allclose(ours.cdf(v), scipys.cdf(v), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(ours.support(v), scipys.pdf(v) > 0)
        slope = jax.grad(lambda xi: jnp.sum(jnp.exp(make(LOC, SCALE, xi).log_prob(v))))(xi)
        assert np.isfinite(slope)

    def test_bad_parameters_are_refused(self):
        with pytest.raises(ValueError, match="GeneralizedPareto distribution got invalid scale parameter"):
            GeneralizedPareto(-1.0, 0.1, validate_args=True)
        with pytest.raises(ValueError, match="GEV distribution got invalid concentration parameter"):
            GEV(0.0, 1.0, jnp.nan, validate_args=True)


@pytest.mark.parametrize("name", HURDLES)
class TestHurdles:
    def test_density(self, name):
        make, positive = HURDLES[name]
        hurdle, v = make(), positive.ppf(Q)
        np.testing.assert_allclose(hurdle.log_prob(v), np.log(0.3) + positive.logpdf(v), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(hurdle.log_prob(0.0), np.log(0.7), rtol=1e-6)
        np.testing.assert_allclose([hurdle.probs, hurdle.logits], [0.3, np.log(0.3 / 0.7)], rtol=1e-5)

    def test_integrates_to_one(self, name):
        """The atom and a trapezoidal rule of the amounts."""
        make, positive = HURDLES[name]
        v = np.geomspace(positive.ppf(1e-5), positive.ppf(1 - 1e-5), 4001)
        density = np.exp(np.asarray(make().log_prob(v), np.float64))
        total = np.exp(make().log_prob(0.0)) + np.trapezoid(density, v)
        np.testing.assert_allclose(total, 1, atol=1e-3)

    def test_cdf_and_moments(self, name):
        make, positive = HURDLES[name]
        v = np.asarray([-1.0, 0.0, 0.4, 3.0])
        np.testing.assert_allclose(make().cdf(v), np.where(v < 0, 0, 0.7 + 0.3 * positive.cdf(v)), rtol=1e-5)
        mean, second = 0.3 * positive.mean(), 0.3 * (positive.var() + positive.mean() ** 2)
        np.testing.assert_allclose(make().mean, mean, rtol=1e-5)
        np.testing.assert_allclose(make().variance, second - mean**2, rtol=1e-5)

    def test_samples(self, name):
        """The share of zeros within four standard errors (failure rate 6e-5), the amounts by Kolmogorov-Smirnov
        (failure rate 1e-3), fixed key."""
        make, positive = HURDLES[name]
        draws = np.asarray(make().sample(jax.random.key(0), (4000,)), np.float64)
        assert abs(np.mean(draws == 0) - 0.7) < 4 * np.sqrt(0.21 / 4000)
        assert stats.kstest(draws[draws > 0], positive.cdf).pvalue > 1e-3

    def test_gradient_is_finite_at_zero(self, name):
        """Where the density of an amount is infinite or has no logarithm."""
        hurdle = HURDLES[name][0]()
        v = jnp.asarray([0.0, 1.3])
        slope = jax.grad(lambda v: jnp.sum(hurdle.log_prob(v)))(v)
        assert slope[0] == 0
        np.testing.assert_allclose(slope[1], jax.grad(hurdle.positive.log_prob)(1.3), rtol=1e-5)


class TestHurdle:
    def test_gradient_in_the_parameters(self):
        """Against central differences, zeros and amounts together; finite at p = 0 and p = 1 too."""
        v = jnp.asarray([0.0, 1.3])
        log_prob = lambda p, k: jnp.sum(gamma(p, k).log_prob(v))

        def reference(p, k):
            return np.log1p(-p) + np.log(p) + stats.gamma(k, scale=2.0).logpdf(1.3)

        h = 1e-5
        difference = [
            (reference(0.3 + h, 0.7) - reference(0.3 - h, 0.7)) / (2 * h),
            (reference(0.3, 0.7 + h) - reference(0.3, 0.7 - h)) / (2 * h),
        ]
        np.testing.assert_allclose(jax.grad(log_prob, argnums=(0, 1))(0.3, 0.7), difference, rtol=1e-4)
        for p, value in ((0.0, 0.0), (1.0, 1.3)):
            assert np.isfinite(jax.grad(lambda p, value=value: gamma(p).log_prob(value))(p))

    def test_logits_keep_rare_events(self):
        """log p and log(1 - p) where p would round to 0 or 1."""
        rare, sure = (Hurdle(dist.Gamma(1.0, 1.0), logits=a) for a in (-100.0, 100.0))
        np.testing.assert_allclose(rare.log_prob(1.0), -101, rtol=1e-6)
        np.testing.assert_allclose(sure.log_prob(0.0), -100, rtol=1e-6)

    def test_negative_values_have_no_density(self):
        unchecked = Hurdle(dist.Gamma(2.0, 1.0), 0.3, validate_args=False)
        np.testing.assert_array_equal(unchecked.log_prob(jnp.asarray([-1.0, -0.1])), -np.inf)
        np.testing.assert_array_equal(gamma().support(jnp.asarray([-1.0, 0.0, 1.0])), [False, True, True])
        with pytest.warns(UserWarning, match="Out-of-support"):
            gamma().log_prob(-1.0)

    def test_missing_values_are_masked(self):
        v = jnp.asarray([0.0, jnp.nan, 1.3])
        log_prob = lambda p: jnp.sum(gamma(p).expand([3]).mask(jnp.isfinite(v)).log_prob(v))
        np.testing.assert_allclose(log_prob(0.3), gamma().log_prob(0.0) + gamma().log_prob(1.3), rtol=1e-5)
        assert np.isfinite(jax.grad(log_prob)(0.3))

    def test_shapes_broadcast(self):
        hurdle = Hurdle(dist.Gamma(jnp.ones((1, 2)), 1.0), jnp.full((3, 1), 0.5))
        assert hurdle.batch_shape == hurdle.mean.shape == hurdle.variance.shape == (3, 2)
        with jax.numpy_rank_promotion("allow"):  # NumPyro's own samplers need it
            draws = np.asarray(hurdle.sample(jax.random.key(0), (50,)))
        assert draws.shape == (50, 3, 2)
        assert np.unique(draws[draws > 0]).size == np.sum(draws > 0)  # every amount a draw of its own
        assert hurdle.log_prob(draws[0]).shape == hurdle.cdf(draws[0]).shape == (3, 2)
        assert hurdle.to_event(1).log_prob(draws[0]).shape == (3,)

    @pytest.mark.parametrize(("settings", "got"), [({}, "neither"), ({"probs": 0.1, "logits": 0.0}, "both")])
    def test_one_probability_is_given(self, settings, got):
        with pytest.raises(ValueError, match=f"expected one of probs and logits, got {got}"):
            Hurdle(dist.Gamma(1.0, 1.0), **settings)

    def test_bad_parameters_are_refused(self):
        with pytest.raises(ValueError, match="Hurdle distribution got invalid probs parameter"):
            Hurdle(dist.Gamma(1.0, 1.0), 1.2, validate_args=True)
        with pytest.raises(ValueError, match="Hurdle distribution got invalid logits parameter"):
            Hurdle(dist.Gamma(1.0, 1.0), logits=jnp.nan, validate_args=True)
        with pytest.raises(ValueError, match=r"expected a univariate distribution.*got events of shape \(2,\)"):
            Hurdle(dist.Gamma(jnp.ones(2), 1.0).to_event(1), 0.5)


BATCHED = {
    "pareto": lambda a: GeneralizedPareto(a, 0.1 * a),
    "gev": lambda a: GEV(a, a, 0.1 * a),
    "hurdle, probs": lambda a: Hurdle(dist.Gamma(a, a), 0.1 * a),
    "hurdle, logits": lambda a: Hurdle(GeneralizedPareto(a, 0.1 * a), logits=a),
}


@pytest.mark.parametrize("name", BATCHED)
def test_through_jit_and_vmap(name):
    """As an argument, as a result, and batched, the same numbers."""
    a, v = jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([1.2, 1.9, 3.3])
    distribution = BATCHED[name](a)
    want = distribution.log_prob(v)
    np.testing.assert_allclose(jax.jit(lambda d, v: d.log_prob(v))(distribution, v), want, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(BATCHED[name])(a).log_prob(v), want, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(lambda a, v: BATCHED[name](a).log_prob(v))(a, v), want, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(lambda d, v: d.log_prob(v))(distribution, v), want, rtol=1e-5)
    draw = jax.jit(lambda d, key: d.sample(key))(distribution, jax.random.key(0))
    np.testing.assert_allclose(draw, distribution.sample(jax.random.key(0)), rtol=1e-5)
