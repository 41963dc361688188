"""Area means of precipitation: dry or wet, and how much, from a field of transformed precipitation.

    z ~ prior                                 transformed precipitation (time, variable, lat, lon) [(mm/h)^(1/power)]
    r = ((z + sqrt(z^2 + soft^2)) / 2)^power  fine intensity [mm/h]: nearly max(z, 0)^power, never zero, so that the
                                              gradient does not vanish where it is dry
    m = H r                                   coarse intensity [mm/h]
    m0 ~ LogNormal(log 0.1, 1), or fixed      intensity below which the coarse model is mostly dry [mm/h]
    p = 1 - exp(-m / m0)                      probability that a coarse value is not zero [1]
    k ~ LogNormal(log 2, 0.5), or fixed       shape of the amounts [1]: sd / mean = 1 / sqrt(k)
    y | z = 0 with probability 1 - p,  else Gamma(k, mean m / p)       coarse values like H r [mm/h]

The mean of y is m, its zeros are data like any other, and negative values have no density. With `xi` in [0, 1) given,
amounts are generalised Pareto with that tail and the same mean, and k is not used. H: means over coarse cells of the
intensity, not of z. Missing coarse values are NaN in y. Reference: Sigrist et al. 2012, arXiv 1102.4210 (rain as a
power of a Gaussian field where that is positive).
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import bayesdownscale as bd


def model(prior, H, y=None, m0=None, k=None, xi=None, power=2.0, soft=0.1):
    z = numpyro.sample("weather", prior)
    if m0 is None:
        m0 = numpyro.sample("m0", dist.LogNormal(jnp.log(0.1), 1.0))
    m = H(positive_part(z, soft) ** power)
    u = m / m0
    p = -jnp.expm1(-u)
    if xi is not None:
        amount = bd.GeneralizedPareto((1 - xi) * m / p, xi)
    else:
        k = numpyro.sample("k", dist.LogNormal(jnp.log(2.0), 0.5)) if k is None else k
        amount = dist.Gamma(k, k * p / m)
    rain = bd.Hurdle(amount, logits=u + jnp.log(p))
    observed = True if y is None else jnp.isfinite(y)
    numpyro.sample("coarse", rain.mask(observed).to_event(4), obs=y)


def positive_part(z, soft):
    """(z + sqrt(z^2 + soft^2)) / 2, without the difference of near numbers that it is where z < 0."""
    w = (jnp.where(z > 0, z, -z) + jnp.sqrt(z**2 + soft**2)) / 2
    return jnp.where(z > 0, w, soft**2 / (4 * w))
