"""Area means of a coarse model that is sometimes far off: Student's t noise, robust to outliers.

    x ~ prior                              fine field (time, variable, lat, lon) [units of each variable]
    sigma ~ HalfNormal(0.5), or fixed      scale of the noise [same units]
    nu ~ Gamma(2, rate 0.1), or fixed      degrees of freedom [1]: 1 is Cauchy's noise, above 30 nearly Gaussian
    y | x ~ StudentT(nu, H x, sigma)       coarse values (time, variable, lat, lon) [same units]

A coarse value r = y - H x away pulls on the field with (nu + 1) r / (nu sigma^2 + r^2): like Gaussian noise when r
is small, ever less when it is large. H: means over coarse cells at the observed times. Missing coarse values are NaN
in y. The prior of nu: Juarez and Steel 2010, doi:10.1198/jbes.2009.07145.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def model(prior, H, y=None, sigma=None, nu=None):
    x = numpyro.sample("weather", prior)
    if sigma is None:
        sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    if nu is None:
        nu = numpyro.sample("nu", dist.Gamma(2.0, 0.1))
    observed = True if y is None else jnp.isfinite(y)
    numpyro.sample("coarse", dist.StudentT(nu, H(x), sigma).mask(observed).to_event(4), obs=y)
