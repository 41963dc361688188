"""Every recipe in inference/ on the exact Gaussian problem."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from problems import known_noise, load_program, names, small_data, tiny_prior

import bayesdownscale as bd

SETTINGS = {  # of runs small enough for a test and long enough for 256 draws to be nearly independent
    "exact_gaussian": {},
    "flow_nuts": {"chains": 4, "warmup": 60, "steps": 16},
    "guided_sde": {"steps": 16},
    "joint_gibbs": {"chains": 64, "warmup": 30, "thin": 5, "steps": 16, "batch": 64},
    "noise_denoise_mh": {"chains": 256, "warmup": 60, "thin": 10, "batch": 256},
    "twisted_smc": {"chains": 32, "particles": 64, "batch": 32},
}
FIELD_ONLY = {"exact_gaussian", "guided_sde", "noise_denoise_mh", "twisted_smc"}
APPROXIMATE = {"guided_sde", "joint_gibbs"}


def unknown_noise(prior, H, y=None):
    x = numpyro.sample("weather", prior)
    sigma = numpyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
    numpyro.sample("coarse", dist.Normal(H(x), sigma).to_event(4), obs=y)


@pytest.fixture(scope="module")
def setting():
    prior = tiny_prior()
    return prior, *small_data(prior, block=2, every=2)[:2]


@pytest.fixture(scope="module")
def moments(setting):
    """Mean and standard deviation of each cell given the data, the noise known."""
    prior, H, coarse = setting
    exact = bd.ExactGaussian(known_noise).condition(prior, H, y=coarse)
    identity = np.eye(48, dtype=np.float32).reshape(48, *prior.event_shape)
    variance = np.diagonal(jax.vmap(exact.covariance)(identity).reshape(48, 48))
    return 280 + 2 * np.asarray(exact.mean()).ravel(), 2 * np.sqrt(variance)


def run(name, model, setting, draws=256):
    prior, H, coarse = setting
    return load_program("inference", name).run(
        jax.random.key(3), model, prior, H, y=coarse, draws=draws, **SETTINGS[name]
    )


def test_every_recipe_is_here():
    assert sorted(SETTINGS) == names("inference")


SLOW = pytest.param("flow_nuts", marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [*sorted(set(SETTINGS) - {"joint_gibbs", "flow_nuts"}), SLOW])
def test_recipe_draws_from_the_exact_posterior(name, setting, moments):
    """Means of 256 draws within 5 standard errors in every cell, spread within 6 % on average: a probability of
    failure below 1e-3 for independent exact draws (48 strongly correlated cells)."""
    tree = run(name, known_noise, setting)
    mean, sd = moments
    draws = tree["posterior"]["t2m"].values.reshape(256, -1)
    assert np.abs((draws.mean(0) - mean) / (sd / 16)).max() < 5
    assert abs(np.mean(draws.std(0) / sd) - 1) < 0.06
    assert not tree["sample_stats"]["diverging"].any()
    assert tree.attrs["approximate"] == (name in APPROXIMATE)
    assert tree["posterior"].sizes["chain"] == SETTINGS[name].get("chains", 1)


@pytest.mark.parametrize("name", sorted(FIELD_ONLY))
def test_unknown_parameters_are_refused(name, setting):
    with pytest.raises(ValueError, match="fixed"):
        run(name, unknown_noise, setting, draws=2)


def test_gibbs_needs_unknown_parameters(setting):
    with pytest.raises(ValueError, match="expected unknown parameters"):
        run("joint_gibbs", known_noise, setting, draws=2)


def test_gibbs_starts_at_its_start(setting, monkeypatch):
    """Given a noise scale of 0.01 K the first field fits the data, given 100 K it does not know them (sd of the prior's
    means about 2 K)."""
    prior, H, coarse = setting
    program, _ = bd.read_model(unknown_noise, (prior, H), {"y": coarse})
    recipe = load_program("inference", "joint_gibbs")

    def first_field(sigma):
        monkeypatch.setattr(bd, "start_theta", lambda *args, **kwargs: {"sigma": sigma})
        return recipe.sampler(program, prior, draws=1, warmup=0, thin=1, steps=16)(jax.random.key(0))["field"][0]

    near, far = jax.jit(jax.vmap(first_field))(jnp.asarray([0.01, 100.0]))
    misfit = lambda x: float(jnp.sqrt(jnp.mean((H(x) - coarse.values) ** 2)))
    assert misfit(near) < 0.1
    assert misfit(far) > 0.5


@pytest.fixture(scope="module")
def sigma_moments(setting):
    """Mean and standard deviation of log sigma given the data, from the closed-form evidence on a grid."""
    prior, H, coarse = setting
    logs = np.linspace(-4, 1.5, 200)

    def log_joint(log_sigma):
        program, _ = bd.read_model(unknown_noise, (prior, H), {"y": coarse})
        posterior = bd.condition_gaussian(program.fix({"sigma": jnp.exp(log_sigma)}), prior)
        return posterior.log_evidence() + dist.Normal(-1.0, 0.5).log_prob(log_sigma)

    weights = np.asarray(jax.jit(jax.vmap(log_joint))(jnp.asarray(logs, jnp.float32)), np.float64)
    weights = np.exp(weights - weights.max())
    weights /= weights.sum()
    mean = weights @ logs
    return mean, np.sqrt(weights @ (logs - mean) ** 2)


@pytest.mark.parametrize("name", ["joint_gibbs", SLOW])
def test_recipe_draws_parameters(name, setting, sigma_moments):
    """Mean of log sigma within a quarter of its standard deviation and spread within 20 %: for 256 independent draws
    four standard errors each; failure below 2e-4."""
    tree = run(name, unknown_noise, setting)
    draws = np.log(tree["posterior"]["sigma"].values.ravel())
    mean, sd = sigma_moments
    assert abs(draws.mean() - mean) < 0.25 * sd
    assert abs(draws.std() / sd - 1) < 0.2


@pytest.fixture(scope="module")
def two_modes():
    """A prior of two modes, and two data of the mean over all cells that leave both possible."""
    small = tiny_prior()
    coords = bd.Coords(small.times[:2], small.variables, bd.Grid(small.grid.lat[:2], small.grid.lon[:2]))
    means = jnp.stack([jnp.full(coords.shape, -1.5), jnp.full(coords.shape, 1.5)])
    mixture = bd.GaussianMixture(jnp.asarray([0.5, 0.5]), means, jnp.asarray([0.09, 0.09]))
    unit = bd.Standardisation(jnp.zeros((5, *coords.shape[1:])), jnp.ones(1))
    return mixture, bd.FieldPrior(bd.MixtureDenoiser(mixture), unit, bd.NoiseLevels.covering(4.4), coords)


def mean_of_all(prior, y, noise=0.5):
    x = numpyro.sample("weather", prior)
    numpyro.sample("mean", dist.Normal(x.mean()[None], noise).to_event(1), obs=y)


def test_islands_count_by_their_evidence(two_modes):
    """4000 islands of 4 particles: the mean of their draws within 4 standard errors of the exact one (failure 6e-5),
    that of islands with equal weights is nine of them off."""
    mixture, prior = two_modes
    y = jnp.asarray([0.3])
    tree = load_program("inference", "twisted_smc").run(
        jax.random.key(0), mean_of_all, prior, y, draws=4000, chains=4000, particles=4, steps=32, batch=1000
    )
    exact = bd.MixturePosterior(mixture, lambda x: x.mean()[None], y, jnp.asarray([0.25])).mean().mean()
    x = tree["posterior"]["t2m"].values.mean((2, 3, 4)).ravel()
    relative = np.exp(tree["sample_stats"]["log_evidence"].values.ravel())
    relative /= relative.mean()
    error = np.sqrt((relative**2).mean() / 4000) * x.std()
    assert abs(x.mean() - exact) < 4 * error < 0.1
    np.testing.assert_allclose(
        tree["log_likelihood"]["mean"].values.ravel(), dist.Normal(x, 0.5).log_prob(0.3), atol=1e-5
    )


def test_a_dead_swarm_is_marked(two_modes):
    """No particle has a density."""
    program, _ = bd.read_model(mean_of_all, (two_modes[1], jnp.asarray([0.3])), {"noise": jnp.asarray(jnp.inf)})
    island = load_program("inference", "twisted_smc").sampler(program, two_modes[1], draws=2, particles=4, steps=4)
    found = jax.jit(island)(jax.random.key(0))
    assert jnp.isneginf(found["stats/log_evidence"]).all()
    assert found["stats/diverging"].all()
