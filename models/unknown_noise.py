"""Area means of a coarse model whose noise is unknown, with a scale of its own for each variable.

    x ~ prior                              fine field (time, variable, lat, lon) [units of each variable]
    sigma_v ~ HalfNormal(scale_v)          noise standard deviation of variable v [its units], or fixed
    y | x ~ Normal(H x, sigma_v)           coarse values (time, variable, lat, lon) [same units]

scale: what is thought of as large noise, one number or one a variable [units of each variable]; sigma likewise when
it is fixed. H: means over coarse cells at the observed times. Missing coarse values are NaN in y. Few data leave
sigma near its prior: choose scale with care. Reference: Gelman 2006, doi:10.1214/06-BA117A (half-normal and half-t
priors of standard deviations).
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def model(prior, H, y=None, sigma=None, scale=0.5):
    x = numpyro.sample("weather", prior)
    each = (len(prior.variables),)
    if sigma is None:
        sigma = numpyro.sample("sigma", dist.HalfNormal(jnp.broadcast_to(scale, each)).to_event(1))
    noise = jnp.broadcast_to(sigma, each)[None, :, None, None]
    observed = True if y is None else jnp.isfinite(y)
    numpyro.sample("coarse", dist.Normal(H(x), noise).mask(observed).to_event(4), obs=y)
