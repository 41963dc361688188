"""Likelihoods of a field (3 times, 2 variables, 2 x 3 cells) and their data, shared by the tests of programs."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from scipy import stats

SHAPE = (3, 2, 2, 3)
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=SHAPE), jnp.float32)
Y = RNG.normal(size=(3, 2)).astype(np.float32)


def H(x):
    """Means over the cells: (3, 2)."""
    return x.mean((2, 3))


def normal(x, y):
    numpyro.sample("coarse", dist.Normal(H(x), 0.5).to_event(2), obs=y)


def scaled(x, y):
    with handlers.scale(scale=0.25):
        numpyro.sample("coarse", dist.Normal(H(x), 0.5), obs=y)


def with_factor(x, y):
    normal(x, y)
    numpyro.factor("budget", -jnp.sum(x**2))


HX = np.asarray(X, np.float64).mean((2, 3))
LOG_NORMAL = stats.norm.logpdf(Y, HX, 0.5)
