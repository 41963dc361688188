"""Area means of a coarse model with independent Gaussian noise.

    x ~ prior                              fine field (time, variable, lat, lon) [units of each variable]
    sigma ~ HalfNormal(0.5), or fixed      noise standard deviation of a coarse value [same units]
    y | x ~ Normal(H x, sigma)             coarse values (time, variable, lat, lon) [same units]

H: means over coarse cells at the observed times. Missing coarse values are NaN in y. With sigma fixed the
likelihood is linear and Gaussian. Reference: Schmidt et al. 2025, arXiv 2412.15361, section 3, who set sigma by
hand.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def model(prior, H, y=None, sigma=None):
    x = numpyro.sample("weather", prior)
    if sigma is None:
        sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    observed = True if y is None else jnp.isfinite(y)
    numpyro.sample("coarse", dist.Normal(H(x), sigma).mask(observed).to_event(4), obs=y)
