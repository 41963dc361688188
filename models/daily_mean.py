"""Means over area and over time, such as the daily means that most climate models publish.

    x ~ prior                                       fine field (time, variable, lat, lon) [units of each variable]
    sigma ~ HalfNormal(0.5), or fixed               noise standard deviation of an instantaneous coarse value [same]
    f = 2 (a - 1 + exp(-a)) / a^2,  a = hours / tau_h             variance of its mean over `hours` relative to it
    y | x ~ Normal(H x, sigma sqrt(f))              coarse means (time, variable, lat, lon) [same units]

H = bd.area_mean(...) @ bd.time_mean(prior.times, bounds): files with cell_methods "area: mean time: mean" hold means
over their time bounds (start inclusive, end exclusive), whatever the time stamp (often noon); for "time: point" use
bd.snapshots and area_mean. The prior must span whole windows: a day of hourly fields is 00 to 23 h. `hours` is the
length of a window, one number or one each (months). The noise is red, with autocorrelation exp(-|dt| / tau_h): long
windows average it out, but not as fast as 1 / sqrt(number of hours). tau_h [h] is fixed, since means alone say
nothing about it; 0 < tau_h << hours makes windows independent, as is assumed here. Missing means are NaN in y.
Reference: Madden 1979, doi:10.1175/1520-0450(1979)018<0703:ASAFTV>2.0.CO;2 (variance of means of red noise).
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def model(prior, H, y=None, sigma=None, hours=24.0, tau_h=6.0):
    x = numpyro.sample("weather", prior)
    if sigma is None:
        sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    a = jnp.reshape(jnp.asarray(hours) / tau_h, (-1, 1, 1, 1))
    f = 2 * (a + jnp.expm1(-a)) / a**2
    observed = True if y is None else jnp.isfinite(y)
    numpyro.sample("coarse", dist.Normal(H(x), sigma * jnp.sqrt(f)).mask(observed).to_event(4), obs=y)
