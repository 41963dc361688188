"""Area means of a coarse model together with point measurements at stations.

    x ~ prior                                   fine field (time, variable, lat, lon) [units of each variable]
    sigma ~ HalfNormal(0.5), or fixed           noise standard deviation of a coarse value [same units]
    y | x ~ Normal(H x, sigma)                  coarse values (time, variable, lat, lon) [same units]
    sigma_rep ~ HalfNormal(0.5), or fixed       representativeness error of a fine cell for a point in it [same units]
    z | x ~ Normal(S x, sqrt(sigma_station^2 + sigma_rep^2))      station values (time, variable, station) [same]

sigma_station: error of the instrument [same units], fixed: only the sum of the variances can be learned. H: means over
coarse cells at the observed times. S: bilinear values at the stations, `bd.stations(prior.grid, lat, lon) @
bd.snapshots(prior.times, station_times)`. Heights are not corrected for. Without S there is no site "stations", and
sigma_rep is not needed. Missing values are NaN in y and z. Reference: Janjic et al. 2018, doi:10.1002/qj.3130
(representation error).
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def model(prior, H, y=None, S=None, z=None, sigma=None, sigma_rep=None, sigma_station=0.2):
    x = numpyro.sample("weather", prior)
    if sigma is None:
        sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    observed = True if y is None else jnp.isfinite(y)
    numpyro.sample("coarse", dist.Normal(H(x), sigma).mask(observed).to_event(4), obs=y)
    if S is None:
        return
    if sigma_rep is None:
        sigma_rep = numpyro.sample("sigma_rep", dist.HalfNormal(0.5))
    total = jnp.sqrt(sigma_station**2 + sigma_rep**2)
    observed = True if z is None else jnp.isfinite(z)
    numpyro.sample("stations", dist.Normal(S(x), total).mask(observed).to_event(3), obs=z)
