"""Area means of a coarse model with a smooth additive bias, constant in time.

    x ~ prior                                     fine field (time, variable, lat, lon) [units of each variable]
    bias = offset + amplitude L w                 bias field (variable, lat, lon) on the coarse grid [same units]
    offset_v ~ Normal(0, 1), or fixed             its mean for each variable [same units]
    amplitude ~ HalfNormal(0.5), or fixed         standard deviation of what varies in space [same units]
    length_km ~ LogNormal(log 500, 0.7), or fixed its length [km]
    w ~ Normal(0, 1)                              whitened bias, site "whitened" [1]
    L L^T = (1 + r) exp(-r),  r = sqrt(3) d / length_km             Matern correlation of order 3/2
    sigma ~ HalfNormal(0.5), or fixed             noise standard deviation of a coarse value [same units]
    y | x ~ Normal(H x + bias, sigma)             coarse values (time, variable, lat, lon) [same units]

d: great-circle distance of cell centres [km]. `coords`, the labels of y (`coarse.coords`), is required. `bias` may be
given instead, a number or an array (variable, lat, lon). Only the prior of x tells a bias from the weather: give many
times, or a tight prior of the bias. H: means over coarse cells at the observed times. Missing coarse values are NaN in
y. Reference: Kennedy and O'Hagan 2001, doi:10.1111/1467-9868.00294 (their discrepancy function).
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

NUGGET = 1e-4  # share of the variance that keeps the Cholesky factor finite in single precision


def model(prior, H, y=None, *, coords, sigma=None, bias=None, offset=None, amplitude=None, length_km=None):
    x = numpyro.sample("weather", prior)
    if sigma is None:
        sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    if bias is None:
        bias = numpyro.deterministic("bias", smooth_bias(coords, offset, amplitude, length_km))
    mean = H(x) + jnp.broadcast_to(bias, coords.shape[1:])[None]
    observed = True if y is None else jnp.isfinite(y)
    numpyro.sample("coarse", dist.Normal(mean, sigma).mask(observed).to_event(4), obs=y)


def smooth_bias(coords, offset, amplitude, length_km):
    _, n_variables, *cells = coords.shape
    if offset is None:
        offset = numpyro.sample("offset", dist.Normal(0.0, 1.0).expand([n_variables]).to_event(1))
    if amplitude is None:
        amplitude = numpyro.sample("amplitude", dist.HalfNormal(0.5))
    if length_km is None:
        length_km = numpyro.sample("length_km", dist.LogNormal(jnp.log(500.0), 0.7))
    r = jnp.sqrt(3.0) * jnp.asarray(coords.grid.distances_km()) / length_km
    L = jnp.linalg.cholesky((1 + r) * jnp.exp(-r) + NUGGET * jnp.eye(len(r)))
    w = numpyro.sample("whitened", dist.Normal(0.0, 1.0).expand([n_variables, len(r)]).to_event(2))
    offset = jnp.broadcast_to(offset, (n_variables,))[:, None]
    return (offset + amplitude * w @ L.T).reshape(n_variables, *cells)
