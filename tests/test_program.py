"""Reading NumPyro programs: the likelihood is the one that was written, and what cannot be read is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import MCMC, NUTS
from programs import HX, LOG_NORMAL, SHAPE, H, X, Y, normal, scaled, with_factor
from scipy import stats

import bayesdownscale as bd
from bayesdownscale.likelihood.program import Program, ProgramError
from bayesdownscale.prior.distribution import FieldPrior

GAPS = np.where(np.arange(6).reshape(3, 2) % 4 == 1, np.nan, Y).astype(np.float32)


def student(x, y):
    numpyro.sample("coarse", dist.StudentT(4.0, H(x), 0.5).to_event(2), obs=y)


def masked(x, y):
    numpyro.sample("coarse", dist.Normal(H(x), 0.5).mask(jnp.isfinite(y)).to_event(2), obs=y)


def in_plates(x, y):
    with numpyro.plate("variable", 2, dim=-1), numpyro.plate("time", 3, dim=-2):
        numpyro.sample("coarse", dist.Normal(H(x), 0.5), obs=y)


def two_sites(x, y):
    normal(x, y)
    numpyro.sample("station", dist.Laplace(x[0, 0, 1, 1], 2.0), obs=jnp.asarray(0.3))


def with_deterministic(x, y):
    mean = numpyro.deterministic("mean", H(x))
    numpyro.sample("coarse", dist.Normal(mean, 0.5).to_event(2), obs=y)


def with_theta(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, 3.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    mean = numpyro.deterministic("mean", H(x) + b)
    numpyro.sample("coarse", dist.Normal(mean, sigma).to_event(2), obs=y)


LIKELIHOODS = {
    "normal": (normal, Y, LOG_NORMAL.sum()),
    "student": (student, Y, stats.t.logpdf(Y, 4, HX, 0.5).sum()),
    "masked": (masked, GAPS, LOG_NORMAL[np.isfinite(GAPS)].sum()),
    "in_plates": (in_plates, Y, LOG_NORMAL.sum()),
    "scaled": (scaled, Y, 0.25 * LOG_NORMAL.sum()),
    "with_factor": (with_factor, Y, LOG_NORMAL.sum() - np.sum(np.asarray(X, np.float64) ** 2)),
    "two_sites": (two_sites, Y, LOG_NORMAL.sum() + stats.laplace.logpdf(0.3, float(X[0, 0, 1, 1]), 2)),
    "with_deterministic": (with_deterministic, Y, LOG_NORMAL.sum()),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
class TestLikelihood:
    def test_value(self, name, read):
        likelihood, y, want = LIKELIHOODS[name]
        program = read(likelihood, y)
        assert (program.field, program.latents) == ("weather", [])
        np.testing.assert_allclose(program.log_likelihood(X), want, rtol=1e-5)
        np.testing.assert_allclose(jax.jit(program.log_likelihood)(X), want, rtol=1e-5)

    def test_gradient(self, name, read):
        """Along a random direction, against central differences."""
        likelihood, y, _ = LIKELIHOODS[name]
        log_likelihood = read(likelihood, y).log_likelihood
        v = jax.random.normal(jax.random.key(0), SHAPE)
        v = v / jnp.linalg.norm(v)
        slope = jnp.vdot(jax.grad(log_likelihood)(X), v)
        difference = (log_likelihood(X + 0.03 * v) - log_likelihood(X - 0.03 * v)) / 0.06
        np.testing.assert_allclose(slope, difference, rtol=0.02, atol=2e-3)
        assert jnp.linalg.norm(jax.grad(log_likelihood)(X)) > 0.1


class TestTheta:
    @pytest.fixture
    def theta(self):
        return {"b": jnp.asarray(0.7), "sigma": jnp.asarray(0.4)}

    def test_given(self, theta, read):
        program = read(with_theta)
        assert program.latents == ["b", "sigma"]
        assert program.observed == ["coarse"]
        want = stats.norm.logpdf(Y, HX + 0.7, 0.4).sum()
        np.testing.assert_allclose(program.log_likelihood(X, theta), want, rtol=1e-5)

    def test_samples_with_deterministic_sites_keep_the_gradient(self, theta, read):
        program = read(with_theta)
        samples = {**theta, "mean": jnp.zeros((3, 2))}
        np.testing.assert_array_equal(
            jax.grad(program.log_likelihood)(X, samples), jax.grad(program.log_likelihood)(X, theta)
        )

    @pytest.mark.parametrize("theta", [None, {"b": 0.5}])
    def test_none_is_made_up(self, theta, read):
        with pytest.raises(ProgramError, match=r"expected a value for each of \['b', 'sigma'\] in theta"):
            read(with_theta).log_likelihood(X, theta)

    def test_drawn_from_its_prior(self, read):
        """Kolmogorov-Smirnov on 1000 draws (failure rate 1e-3 each, fixed keys)."""
        program = read(with_theta)
        draws = jax.vmap(program.draw_theta)(jax.random.split(jax.random.key(0), 1000))
        assert set(draws) == {"b", "sigma"}
        assert stats.kstest(np.asarray(draws["b"]) / 3, "norm").pvalue > 1e-3
        assert stats.kstest(np.asarray(draws["sigma"]) / 0.5, "halfnorm").pvalue > 1e-3

    def test_given_the_field_it_is_an_ordinary_program(self, read):
        """NUTS on b with sigma known: a conjugate posterior. 200 draws; the mean of a chain with half as many
        effective draws is within five standard errors (failure rate 6e-7)."""

        def offset(x, y):
            b = numpyro.sample("b", dist.Normal(0.0, 3.0))
            numpyro.sample("coarse", dist.Normal(H(x) + b, 0.5).to_event(2), obs=y)

        program = read(offset)
        mcmc = MCMC(NUTS(program.given_field(X)), num_warmup=50, num_samples=200, progress_bar=False)
        mcmc.run(jax.random.key(0), Y)
        variance = 1 / (1 / 9 + 6 / 0.25)
        mean = variance * np.sum(Y - HX) / 0.25
        b = mcmc.get_samples()["b"]
        assert abs(b.mean() - mean) < 5 * np.sqrt(variance / 100)
        assert 0.6 < b.std() / np.sqrt(variance) < 1.6


class TestGaussianTerms:
    @pytest.mark.parametrize("likelihood", [normal, in_plates, with_deterministic])
    def test_residual_and_variance(self, likelihood, read):
        (term,) = read(likelihood).gaussian_terms(X)
        np.testing.assert_allclose(term.residual, Y - HX, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(term.variance, np.full((3, 2), 0.25))

    def test_missing_data_have_no_weight(self, read):
        program = read(masked, GAPS)
        (term,) = program.gaussian_terms(X)
        missing = np.isnan(GAPS)
        np.testing.assert_array_equal(term.residual[missing], 0)
        np.testing.assert_array_equal(term.variance[missing], np.inf)
        np.testing.assert_allclose(term.residual[~missing], (Y - HX)[~missing], rtol=1e-4, atol=1e-5)

        def loss(x):
            (t,) = program.gaussian_terms(x)
            return jnp.sum(t.residual**2 / (t.variance + 0.1))

        assert jnp.all(jnp.isfinite(jax.grad(loss)(X)))

    def test_other_noise_is_refused(self, read):
        with pytest.raises(ProgramError, match=r"site 'coarse'.*needs Normal noise, got StudentT; use moment"):
            read(student).gaussian_terms(X)


class TestPointwise:
    @pytest.mark.parametrize("likelihood", [normal, student, in_plates, scaled, with_deterministic])
    def test_sums_to_the_log_likelihood(self, likelihood, read):
        program = read(likelihood)
        (density,) = program.pointwise(X).values()
        assert density.shape == (3, 2)
        np.testing.assert_allclose(density.sum(), program.log_likelihood(X), rtol=1e-5)

    def test_missing_data_have_none(self, read):
        (density,) = read(masked, GAPS).pointwise(X).values()
        expected = stats.norm.logpdf(GAPS, HX, 0.5)
        np.testing.assert_allclose(density, expected, rtol=1e-4, atol=1e-5)
        assert np.isnan(density).sum() == np.isnan(GAPS).sum()

    def test_joint_data_have_one(self, read):
        def together(x, y):
            numpyro.sample("coarse", dist.MultivariateNormal(H(x), 0.25 * jnp.eye(2)).to_event(1), obs=y)

        (density,) = read(together).pointwise(X).values()
        np.testing.assert_allclose(density, stats.norm.logpdf(Y, HX, 0.5).sum(1), rtol=1e-4)


class TestAnotherBinding:
    def test_on_other_data(self, read):
        program = read(normal)
        other = program.bind(((Y + 1,), {}))
        np.testing.assert_allclose(other.log_likelihood(X), stats.norm.logpdf(Y + 1, HX, 0.5).sum(), rtol=1e-5)
        np.testing.assert_allclose(program.log_likelihood(X), LOG_NORMAL.sum(), rtol=1e-5)
        np.testing.assert_array_equal(program.observed_values()["coarse"], Y)

    def test_without_data_it_is_equal_to_another_reading(self, gaussian_prior):
        def model(y):
            normal(numpyro.sample("weather", gaussian_prior), y)

        a, b = (Program(model, (y,), {}, FieldPrior.__instancecheck__) for y in (Y, Y + 1))
        assert a.abstract() == b.abstract()
        assert hash(a.abstract()) == hash(b.abstract())
        bound = a.abstract().bind(((Y,), {}))
        np.testing.assert_allclose(bound.log_likelihood(X), LOG_NORMAL.sum(), rtol=1e-5)


def observe_nothing(x, y):
    numpyro.factor("only", -jnp.sum(x**2))


def broadcast(x, y):
    numpyro.sample("coarse", dist.Normal(H(x), 0.5), obs=y[0])


def obs_mask(x, y):
    numpyro.sample("coarse", dist.Normal(H(x), 0.5), obs=y, obs_mask=jnp.isfinite(y))


def subsampled(x, y):
    with numpyro.plate("time", 3, subsample_size=2, dim=-2) as index:
        numpyro.sample("coarse", dist.Normal(H(x)[index], 0.5), obs=y[index])


def latent_child(x, y):
    rain = numpyro.sample("rain", dist.Normal(H(x), 1.0).to_event(2))
    numpyro.sample("coarse", dist.Normal(rain, 0.5).to_event(2), obs=y)


def latent_child_of_a_difference(x, y):
    """Depends on the field, yet not on its mean."""
    b = numpyro.sample("b", dist.Normal(x[0, 0, 0, 0] - x[1, 0, 0, 0], 1.0))
    numpyro.sample("coarse", dist.Normal(H(x) + b, 0.5).to_event(2), obs=y)


def improper(x, y):
    b = numpyro.sample("b", dist.ImproperUniform(dist.constraints.real, (), ()))
    numpyro.sample("coarse", dist.Normal(H(x) + b, 0.5).to_event(2), obs=y)


def unmasked(x, y):
    normal(x, jnp.where(jnp.isfinite(y), y, jnp.nan))


@pytest.mark.parametrize(
    ("likelihood", "y", "sentence"),
    [
        (observe_nothing, Y, "at least one observed site in the program, got none"),
        (normal, None, "at least one observed site in the program, got none"),
        (broadcast, Y, r"site 'coarse': expected data of shape \(3, 2\).* got \(2,\); they would broadcast"),
        (obs_mask, Y, r"site 'coarse' uses obs_mask.*use distribution\.mask"),
        (subsampled, Y, "plate 'time' subsamples the data; pass all of them"),
        (latent_child, Y, "latent site 'rain' depends on the field"),
        (latent_child_of_a_difference, Y, "latent site 'b' depends on the field"),
        (improper, Y, "site 'b' has an improper prior, from which nothing can be drawn"),
        (unmasked, GAPS, r"site 'coarse': the data have missing values.*distribution\.mask"),
    ],
)
def test_what_cannot_be_read_is_refused(likelihood, y, sentence, read):
    with pytest.raises(ProgramError, match=sentence) as error:
        read(likelihood, y)
    assert "\n" not in str(error.value)


class TestFieldSites:
    @staticmethod
    def refuse(model, sentence):
        with pytest.raises(ProgramError, match=sentence):
            Program(model, (Y,), {}, lambda fn: isinstance(fn, FieldPrior))

    def test_none(self):
        self.refuse(lambda y: normal(jnp.zeros(SHAPE), y), "exactly one site with a field prior.*got none")

    def test_two(self, gaussian_prior):
        def model(y):
            a, b = numpyro.sample("a", gaussian_prior), numpyro.sample("b", gaussian_prior)
            normal(a + b, y)

        self.refuse(model, "exactly one site with a field prior.*got 'a', 'b'")

    def test_a_prior_that_depends_on_a_parameter(self, gaussian_prior):
        def model(y):
            a = numpyro.sample("a", dist.LogNormal(0.0, 1.0))
            field = gaussian_prior.denoiser.field
            field = eqx.tree_at(lambda f: f.variances, field, a * field.variances)
            coords = gaussian_prior.coords
            wider = bd.GaussianPrior(field, gaussian_prior.standardisation, gaussian_prior.levels, coords)
            normal(numpyro.sample("weather", wider), y)

        self.refuse(model, "site 'weather': the field's prior depends on an unknown parameter")

    def test_in_a_plate(self, gaussian_prior):
        def model(y):
            with numpyro.plate("two", 2):
                normal(numpyro.sample("weather", gaussian_prior)[0], y)

        self.refuse(model, "site 'weather': expected one field, got it in plate 'two'")

    @pytest.mark.parametrize("handler", [handlers.scale(scale=0.5), handlers.mask(mask=jnp.asarray(True))])
    def test_masked_or_scaled(self, gaussian_prior, handler):
        def model(y):
            with handler:
                x = numpyro.sample("weather", gaussian_prior)
            normal(x, y)

        self.refuse(model, "site 'weather': expected the field's prior as it is, got it masked or scaled")

    def test_observed(self, gaussian_prior):
        def model(y):
            normal(numpyro.sample("weather", gaussian_prior, obs=X), y)

        self.refuse(model, "site 'weather': expected the field to be unknown, got it observed")
