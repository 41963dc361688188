"""Area means of a coarse model whose errors are correlated from cell to cell and from time to time.

    x ~ prior                                          fine field (time, variable, lat, lon) [units of each variable]
    sigma ~ HalfNormal(0.5), or fixed                  noise standard deviation of a coarse value [same units]
    length_km ~ LogNormal(log 300, 0.7), or fixed      decorrelation length of the noise [km]
    tau_h ~ LogNormal(log 12, 0.7), or fixed           decorrelation time of the noise [h]
    y | x ~ Normal(H x, sigma^2 T (x) S)               coarse values (time, variable, lat, lon) [same units]
    T = exp(-|t - t'| / tau_h),  S = exp(-d / length_km) within a variable, 0 between variables

d: great-circle distance of cell centres [km]. `coords`, the labels of y (`coarse.coords`), is required. A fixed sigma
may be one number or one a variable. The covariance is separable, so the density needs the Cholesky factors of T and S
only, never of their Kronecker product (x): a matrix normal of times and cells. A joint density cannot mask single
values: y must be complete, and NaN in it is refused. H: means over coarse cells at the observed times. Reference:
Gneiting 2002, doi:10.1198/016214502760047113 (separable and other space-time covariances).
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions.transforms import ReshapeTransform


def model(prior, H, y=None, *, coords, sigma=None, length_km=None, tau_h=None):
    x = numpyro.sample("weather", prior)
    if sigma is None:
        sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    if length_km is None:
        length_km = numpyro.sample("length_km", dist.LogNormal(jnp.log(300.0), 0.7))
    if tau_h is None:
        tau_h = numpyro.sample("tau_h", dist.LogNormal(jnp.log(12.0), 0.7))
    hours = (coords.times - coords.times[0]) / np.timedelta64(1, "h")
    T = jnp.exp(-jnp.abs(hours[:, None] - hours[None, :]) / tau_h)
    S = jnp.exp(-jnp.asarray(coords.grid.distances_km()) / length_km)
    of_variables = jnp.diag(jnp.broadcast_to(sigma, coords.shape[1:2]))
    columns = jnp.kron(of_variables, jnp.linalg.cholesky(S))
    mean = H(x)
    flat = (mean.shape[0], mean[0].size)
    noise = dist.MatrixNormal(mean.reshape(flat), jnp.linalg.cholesky(T), columns)
    unflatten = ReshapeTransform(mean.shape, flat)
    numpyro.sample("coarse", dist.TransformedDistribution(noise, unflatten), obs=y)
