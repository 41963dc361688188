"""Strict numerics for all tests (shapes and types checked, no rank promotion), and the exact small problem."""

import jax
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)  # tests compile much and compute little
typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as in PEP 484
install_import_hook("bayesdownscale", f"{__name__}.typechecked")

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

LONGEST = ("test_readme", "test_tutorials", "test_inference", "test_cli")  # first, so that no process is left alone


def pytest_collection_modifyitems(items):
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
    """What takes long to compile is kept for the other tests of the session."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("xla")))


@pytest.fixture
def optimised():
    """Compile as users do, for tests of what the compiler makes."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="session")
def field():
    """A Gaussian field (3 times, 2 variables, 2 x 3 cells) with 5 of its 12 modes, a time basis for each mode
    and a residual: every term of the covariance is there."""
    from bayesdownscale.prior.gaussian import GaussianField

    rng = np.random.default_rng(0)
    modes = np.linalg.qr(rng.normal(size=(12, 12)))[0].T[:5]
    bases = np.stack([np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(5)])
    variances = rng.uniform(0.5, 3.0, (5, 3))
    as_float = lambda a: jnp.asarray(a, jnp.float32)
    return GaussianField(as_float(modes.reshape(5, 2, 2, 3)), as_float(bases), as_float(variances), as_float(0.3))


@pytest.fixture(scope="session")
def dense():
    """The covariance of a GaussianField as a matrix, float64, written out from its definition."""

    def build(field) -> np.ndarray:
        n_time, *cells = field.shape
        modes = np.asarray(field.modes, np.float64).reshape(field.modes.shape[0], -1)
        bases = np.broadcast_to(np.asarray(field.bases, np.float64), (len(modes), n_time, n_time))
        in_time = np.einsum("kti,ki,ksi->kts", bases, np.asarray(field.variances, np.float64), bases)
        total = float(field.residual) * np.kron(np.eye(n_time), np.eye(np.prod(cells)) - modes.T @ modes)
        return total + sum(np.kron(q, np.outer(u, u)) for q, u in zip(in_time, modes, strict=True))

    return build


@pytest.fixture(scope="session")
def cov(field, dense):
    return dense(field)


@pytest.fixture(scope="session")
def context():
    """A context of n hours from midnight of 1 January."""
    from bayesdownscale.prior.denoiser import Context

    return lambda n: Context(jnp.arange(float(n)), jnp.zeros(n))


@pytest.fixture(scope="session")
def gaussian_prior(field):
    """The exact prior of `field` in physical units: a climatology with a daily cycle, scales 2 K and 5 m/s."""
    from bayesdownscale.data.grid import Coords, Grid, Variable
    from bayesdownscale.prior.distribution import GaussianPrior
    from bayesdownscale.prior.noise import NoiseLevels
    from bayesdownscale.prior.standardise import Standardisation

    times = np.datetime64("2020-06-01T06", "ns") + np.arange(3) * np.timedelta64(1, "h")
    variables = (Variable("t2m", "K"), Variable("u10", "m s-1"))
    coords = Coords(times, variables, Grid(50.0 + np.arange(2), 3.0 + np.arange(3)))
    coefficients = jax.random.normal(jax.random.key(1), (5, 2, 2, 3))
    standardisation = Standardisation(coefficients, jnp.asarray([2.0, 5.0]))
    return GaussianPrior(field, standardisation, NoiseLevels(0.02, 10.0), coords)


@pytest.fixture(scope="session")
def toy_fields():
    """A signal no Gaussian has: a front that stands in one of two places, on 6 x 7 cells, 120 hours."""
    from bayesdownscale.data.fields import Fields
    from bayesdownscale.data.grid import Coords, Grid, Variable

    rng = np.random.default_rng(0)
    grid = Grid(50.0 + np.arange(6), 3.0 + np.arange(7))
    times = np.datetime64("2020-06-01", "ns") + np.arange(120) * np.timedelta64(1, "h")
    sign = np.repeat(rng.choice([-1.0, 1.0], 30), 4)
    front = np.sin(np.linspace(0, 3, 42)).reshape(6, 7)
    values = 280 + 3 * sign[:, None, None] * front + 0.3 * rng.normal(size=(120, 6, 7))
    coords = Coords(times, (Variable("t2m", "K", "air_temperature"),), grid)
    return Fields(values[:, None].astype(np.float32), coords, "toy")


@pytest.fixture(scope="session")
def tiny():
    """Settings of the smallest training: 8 steps, validated every 4."""
    from bayesdownscale.prior.network import UNetConfig
    from bayesdownscale.prior.training import TrainingConfig

    network = UNetConfig(widths=(4,), blocks=1, embedding=8, heads=2, dropout=0.1)
    training = TrainingConfig(steps=8, batch=4, warmup=2, validate_every=4)
    return {"window": 3, "n_modes": 5, "n_tail": 0, "network": network, "training": training}


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory, toy_fields, tiny):
    """A prior trained without interruption. Tests that change files work on a copy."""
    from bayesdownscale.prior.trained import train_prior

    folder = tmp_path_factory.mktemp("prior")
    train_prior(toy_fields, folder, **tiny)
    return folder


@pytest.fixture
def read(gaussian_prior):
    """The program of `likelihood(x, y)`, with the field drawn before."""
    import numpyro
    from programs import Y

    from bayesdownscale.likelihood.program import Program
    from bayesdownscale.prior.distribution import FieldPrior

    def reader(likelihood, y=Y):
        def model(y):
            likelihood(numpyro.sample("weather", gaussian_prior), y)

        return Program(model, (y,), {}, lambda fn: isinstance(fn, FieldPrior))

    return reader
