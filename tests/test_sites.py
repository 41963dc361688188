"""What handlers and plates make of the sites of a program: scales, factors, masks; sites nothing can be drawn of."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from programs import HX, LOG_NORMAL, H, X, Y, scaled, with_factor
from scipy import stats

from bayesdownscale.likelihood.program import ProgramError


def scaled_theta(x, y):
    with handlers.scale(scale=0.25):
        b = numpyro.sample("b", dist.Normal(0.0, 3.0))
        numpyro.sample("coarse", dist.Normal(H(x) + b, 0.5).to_event(2), obs=y)


class TestScalesAndFactors:
    """A scale of a site multiplies its log-density, wherever that is read."""

    def test_the_variance_of_a_normal_site_is_divided(self, read):
        (term,) = read(scaled, Y).gaussian_terms(X)
        np.testing.assert_allclose(term.variance, 0.25 / 0.25)
        np.testing.assert_allclose(jnp.sum(-0.5 * term.residual**2 / term.variance),
                                   0.25 * np.sum(-0.5 * (Y - HX) ** 2 / 0.25), rtol=1e-5)  # fmt: skip

    def test_factors_are_refused_where_only_noise_is_read(self, read):
        with pytest.raises(ProgramError, match="site 'budget' is a factor"):
            read(with_factor, Y).gaussian_terms(X)

    def test_of_a_parameter(self, read):
        theta = {"b": jnp.asarray(1.5)}
        expected = 0.25 * stats.norm.logpdf(1.5, 0, 3)
        np.testing.assert_allclose(read(scaled_theta, Y).log_prior(theta, ["b"]), expected, rtol=1e-5)

    def test_simulated_scores_have_the_fisher_information_of_the_scaled_density(self, read):
        """Of the mean of the field under Normal noise of 0.5, six data, scale 1/4: 6 / 4 / 0.25 = 6. The variance of
        4000 scores has a standard error of 2.2 %: a probability of failure below 1e-4."""
        program = read(scaled, Y)

        def score(key):
            data = program.simulate(key, X)
            return jax.grad(lambda b: program.log_simulated(X + b, {}, data))(0.0)

        scores = jax.vmap(score)(jax.random.split(jax.random.key(0), 4000))
        assert abs(scores.var() / 6 - 1) < 0.09
        assert abs(scores.mean()) < 4 * np.sqrt(6 / 4000)

    def test_factors_have_no_simulated_data(self, read):
        program = read(with_factor, Y)
        np.testing.assert_allclose(
            program.log_simulated(X, {}, {"coarse": jnp.asarray(Y)}), LOG_NORMAL.sum(), rtol=1e-5
        )


def columns_masked_in_plates(x, y):
    """A mask of the inner plate, repeated by the outer one."""
    with numpyro.plate("time", 3, dim=-2), numpyro.plate("place", 2, dim=-1):
        base = dist.Normal(H(x)[0], 0.5).mask(jnp.asarray([True, False]))
        numpyro.sample("coarse", base, obs=y)


@jax.numpy_rank_promotion("allow")  # as users have it, and NumPyro's plates need
def test_a_mask_inside_plates_stays_on_its_axis(read):
    program = read(columns_masked_in_plates, Y)
    density = stats.norm.logpdf(Y[:, 0], HX[0, 0], 0.5)
    np.testing.assert_allclose(program.log_likelihood(X), density.sum(), rtol=1e-5)
    single = program.pointwise(X)["coarse"]
    np.testing.assert_allclose(single[:, 0], density, rtol=1e-5)
    assert np.isnan(single[:, 1]).all()
    (term,) = program.gaussian_terms(X)
    assert np.isinf(term.variance[:, 1]).all()
    assert np.isfinite(term.variance[:, 0]).all()


def discrete(x, y):
    k = numpyro.sample("k", dist.Bernoulli(0.5))
    numpyro.sample("coarse", dist.Normal(H(x) + k, 0.5).to_event(2), obs=y)


def test_discrete_parameters_are_not_drawn_but_can_be_fixed(read):
    program = read(discrete, Y)
    with pytest.raises(ProgramError, match=r"site 'k' is discrete.*sum it out"):
        program.draw_theta(jax.random.key(0))
    assert program.fix({"k": 1}).draw_theta(jax.random.key(0)) == {}


def test_data_that_cannot_be_simulated(read):
    class NoSample(dist.Normal):
        def sample(self, key, sample_shape=()):
            raise NotImplementedError

    program = read(lambda x, y: numpyro.sample("coarse", NoSample(H(x), 0.5).to_event(2), obs=y), Y)
    with pytest.raises(ProgramError, match=r"expected distributions of the data that can be sampled.*write their"):
        program.simulate(jax.random.key(0), X)
