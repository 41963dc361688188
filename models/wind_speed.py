"""Area means of wind speed from a prior of the wind's two components: data that are not linear in the field.

    u, v ~ prior                               first two variables of the fine field (time, variable, lat, lon) [m/s]
    s = sqrt(u^2 + v^2 + calm^2)               fine wind speed (time, 1, lat, lon) [m/s]
    sigma ~ HalfNormal(0.5), or fixed          noise standard deviation of a coarse speed [m/s]
    y | u, v ~ Normal(H s, sigma)              coarse wind speed (time, 1, lat, lon) [m/s]

calm: a small speed [m/s] that gives s a derivative where there is no wind. H: means over coarse cells at the observed
times, of the speed and not of the components: winds from opposite sides cancel in the mean wind, not in the mean
speed. Speeds leave the direction open: the posterior may have several modes. Missing coarse values are NaN in y.
Reference: Mahrt and Sun 1995, doi:10.1175/1520-0493(1995)123<3032:TSVSIT>2.0.CO;2 (mean speed and speed of the mean
wind over an area).
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def model(prior, H, y=None, sigma=None, calm=0.1):
    if len(prior.variables) < 2:
        raise ValueError("expected a prior of both wind components, got one variable; train one with both")
    x = jnp.asarray(numpyro.sample("weather", prior))
    u, v = x[:, 0:1], x[:, 1:2]
    if sigma is None:
        sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    s = jnp.sqrt(u**2 + v**2 + calm**2)
    observed = True if y is None else jnp.isfinite(y)
    numpyro.sample("coarse", dist.Normal(H(s), sigma).mask(observed).to_event(4), obs=y)
